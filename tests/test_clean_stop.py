"""Ctrl-C: what is finished first, what is saved, what is said, and that the run goes on as if nothing had been."""

import os
import re
import shlex
import signal
import subprocess
import sys

import lightning as L
import pytest

from commands_shown import ROOT
from opcod.callbacks import CleanStop, RoundCheckpoint
from opcod.models import ModelError
from test_codistillation import ANN, assert_same, final_state, fit, module_of


@pytest.fixture(autouse=True)
def handlers():
    """Those of a program in a terminal, whatever runs the tests; put back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Press(L.Callback):
    """Sends the process a signal while the given step is computed, or within a validation of the run."""

    def __init__(self, step=None, *, times=1, number=signal.SIGINT):
        self.step, self.times, self.number = step, times, number
        self.begun, self.ended = [], []

    def send(self):
        for _ in range(self.times):
            os.kill(os.getpid(), self.number)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.begun.append(batch_idx)
        if batch_idx == self.step:
            self.send()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.ended.append(batch_idx)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.step is None:
            self.send()


def stopped(module, folder, press, **settings):
    """Run until it is stopped; returns the status."""
    with pytest.raises(SystemExit) as stop:
        fit(module, folder, CleanStop(), RoundCheckpoint(), press, **settings)
    return stop.value.code


def test_a_step_ends_and_is_saved_and_the_run_goes_on_as_if_nothing_had_been(tiny_folder, tmp_path, capsys):
    press = Press(1)
    assert stopped(module_of(tiny_folder), tmp_path, press, rounds=2) == 130
    assert press.ended == [0, 1]
    said = capsys.readouterr()
    assert "Stopping after this step" in said.out
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"The last checkpoint is {last}." in said.err
    assert sorted(p.name for p in last.parent.iterdir()) == ["last.ckpt", "round=0-step=2.ckpt"]
    resumed = fit(module_of(tiny_folder), tmp_path, RoundCheckpoint(), rounds=2, ckpt_path=last)
    whole = fit(module_of(tiny_folder), tmp_path / "whole", rounds=2)
    assert_same(final_state(resumed), final_state(whole))


def test_between_two_steps_the_next_one_is_made_and_saved(tiny_folder, tmp_path):
    press, module = Press(-1), module_of(tiny_folder)
    end = module.on_train_batch_end  # called after those of all callbacks

    def ended(outputs, batch, batch_idx):
        end(outputs, batch, batch_idx)
        if batch_idx == 0:
            press.send()

    module.on_train_batch_end = ended
    assert stopped(module, tmp_path, press) == 130
    assert press.ended == [0, 1]
    assert (tmp_path / "checkpoints" / "round=0-step=2.ckpt").is_file()


def test_a_second_time_stops_at_once(tiny_folder, tmp_path):
    press = Press(1, times=2)
    assert stopped(module_of(tiny_folder), tmp_path, press) == 130
    assert press.ended == [0]
    assert not (tmp_path / "checkpoints").exists()


def test_a_rounds_last_step_is_validated_first(tiny_folder, tmp_path):
    press = Press(3)
    assert stopped(module_of(tiny_folder), tmp_path, press, rounds=2) == 130
    assert press.ended == [0, 1, 2, 3]
    assert (tmp_path / "checkpoints" / "round=1.ckpt").is_file()


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_validation_is_finished(rounds, tiny_folder, tmp_path, capsys):
    assert stopped(module_of(tiny_folder), tmp_path, Press(), rounds=rounds) == 130
    assert "Stopping after this validation" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "round=1.ckpt").is_file()


def test_where_nothing_is_learned_it_stops_at_once(tiny_folder, tmp_path):
    class Early(Press):
        def on_train_start(self, trainer, pl_module):
            self.send()

    early = Early(0)
    assert stopped(module_of(tiny_folder), tmp_path, early) == 130
    assert early.begun == []
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("times", [1, 3])
def test_at_sigterm_a_step_is_given_up_and_the_run_goes_on_as_if_nothing_had_been(times, tiny_folder, tmp_path, capsys):
    press = Press(1, number=signal.SIGTERM, times=times)
    assert stopped(module_of(tiny_folder), tmp_path, press, rounds=2) == 143
    assert press.ended == [0]
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"The last checkpoint is {last}." in capsys.readouterr().err
    assert sorted(p.name for p in last.parent.iterdir()) == ["last.ckpt", "round=0-step=1.ckpt"]
    resumed = fit(module_of(tiny_folder), tmp_path, RoundCheckpoint(), rounds=2, ckpt_path=last)
    whole = fit(module_of(tiny_folder), tmp_path / "whole", rounds=2)
    assert_same(final_state(resumed), final_state(whole))


def test_at_sigterm_a_validation_is_given_up_and_done_over(tiny_folder, tmp_path):
    assert stopped(module_of(tiny_folder), tmp_path, Press(number=signal.SIGTERM), rounds=2) == 143
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert sorted(p.name for p in last.parent.iterdir()) == ["last.ckpt", "round=0-step=4.ckpt"]
    resumed = fit(module_of(tiny_folder), tmp_path, RoundCheckpoint(), rounds=2, ckpt_path=last)
    whole = fit(module_of(tiny_folder), tmp_path / "whole", rounds=2)
    assert_same(final_state(resumed), final_state(whole))


def test_the_first_step_of_a_run_is_given_up_with_nothing_to_save(tiny_folder, tmp_path):
    press = Press(0, number=signal.SIGTERM)
    assert stopped(module_of(tiny_folder), tmp_path, press) == 143
    assert press.ended == []
    assert not (tmp_path / "checkpoints").exists()


def test_ctrl_c_lets_a_step_end_and_sigterm_after_it_does_not(tiny_folder, tmp_path):
    class Both(Press):
        def send(self):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

    press = Both(1)
    assert stopped(module_of(tiny_folder), tmp_path, press) == 143
    assert press.ended == [0]
    assert (tmp_path / "checkpoints" / "round=0-step=1.ckpt").is_file()


def test_afterwards_ctrl_c_is_what_it_was(tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path / "whole", CleanStop())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    stopped(module_of(tiny_folder), tmp_path, Press(0))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_no_command_goes_on_from_a_checkpoint_that_is_refused(tiny_folder, tmp_path, capsys):
    fit(module_of(tiny_folder), tmp_path, RoundCheckpoint())
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ModelError, match="holds the students"):
        fit(module_of(tiny_folder, [ANN]), tmp_path, CleanStop(), RoundCheckpoint(), rounds=2, ckpt_path=last)
    assert str(last) not in capsys.readouterr().err


def test_the_command_that_is_printed_goes_on(tiny_folder, tmp_path):
    options = [
        *("-c", "configs/base.yaml", "-c", "configs/pair-physics-chemistry.yaml", "-c", "configs/size-tiny.yaml"),
        f"--model.base.model={tiny_folder}",
        "--model.base.quantization=none",
        "--model.lora={rank: 4, alpha: 8}",
        "--model.students=[{name: ann, domain: physics, adapter: null}, {name: ben, domain: chemistry, adapter: null}]",
        "--data.steps=3",
        "--data.validation=2",
        "--data.test=2",
        "--model.evaluation_samples=1",
        *(f"--model.{part}.max_new_tokens=8" for part in ("rollout", "feedback", "evaluation")),
        "--trainer.accelerator=cpu",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}",
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    program = [sys.executable, "-m", "opcod.cli"]
    process = subprocess.Popen([*program, "fit", *options], cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1)
    for line in process.stdout:
        if "step 1/3" in line:
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Stopping after this step" in out
    assert "Traceback" not in err
    assert "graceful shutdown" not in out + err
    command = shlex.split(re.search(r"To go on:\n(.*)", err)[1])
    assert command[:3] == ["opcod", "fit", "-c"]
    done = subprocess.run([*program, *command[1:]], cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "round 1/2 phase 1/2 step 1/3" not in done.stdout
    assert "round 1/2 phase 1/2 step 3/3" in done.stdout
