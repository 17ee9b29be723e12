import errno
import os
import resource
import signal
import subprocess
import tempfile
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from toy import SCORES, ToyData, ToyRounds, run, trainer_of

from opcod.callbacks import CheckpointError, CleanStop, OutcomeTable, RoundCheckpoint, RoundProgress, SampleTable
from opcod.stopping import GivenUp

ALL_STEPS = [(r, phase, step) for r in range(3) for phase in range(2) for step in range(2)]
# By hand: phase 0 adds 0 + 1 + 100 + 101 + 200 + 201, phase 1 adds 10 + 11 + 110 + 111 + 210 + 211.
FINAL_NUMBERS = [603.0, 663.0]


def numbers(module):
    return [float(number) for number in module.numbers]


def names(folder):
    return sorted(os.listdir(folder / "checkpoints"))


def test_one_checkpoint_a_round_holds_the_scores_of_its_validation(tmp_path):
    assert numbers(run(tmp_path, RoundCheckpoint(keep=9))) == FINAL_NUMBERS
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt", "round=2.ckpt", "round=3.ckpt"]
    for rounds in (1, 2, 3):
        kept = torch.load(tmp_path / f"checkpoints/round={rounds}.ckpt", weights_only=True)["toy"]
        assert kept == {"scores": SCORES[rounds], "scored_rounds": rounds}


@pytest.mark.parametrize("rounds", [1, 2])
def test_resuming_after_a_validation_runs_just_the_remaining_rounds(tmp_path, rounds):
    run(tmp_path, RoundCheckpoint(keep=9))
    resumed = run(tmp_path, RoundCheckpoint(keep=9), ckpt_path=tmp_path / f"checkpoints/round={rounds}.ckpt")
    assert resumed.steps == ALL_STEPS[4 * rounds :]
    assert resumed.validated == list(range(rounds + 1, 4))  # no validation is repeated
    assert numbers(resumed) == FINAL_NUMBERS


def test_resuming_within_a_round_goes_on_at_its_next_step(tmp_path):
    run(tmp_path, RoundCheckpoint(every_n_steps=1, keep=99))
    inner = [f"round={r}-step={s}.ckpt" for r in range(3) for s in (1, 2, 3)]  # none after a round's last step
    assert names(tmp_path) == sorted([*inner, "last.ckpt", "round=1.ckpt", "round=2.ckpt", "round=3.ckpt"])
    for rounds, steps in [(0, 1), (1, 2), (2, 3)]:
        checkpoint = tmp_path / f"checkpoints/round={rounds}-step={steps}.ckpt"
        resumed = run(tmp_path / "resumed", RoundCheckpoint(), ckpt_path=checkpoint)
        assert resumed.steps == ALL_STEPS[4 * rounds + steps :]
        assert resumed.validated == list(range(rounds + 1, 4))
        assert numbers(resumed) == FINAL_NUMBERS


def test_a_finished_run_goes_on_with_more_rounds(tmp_path):
    run(tmp_path, RoundCheckpoint(), rounds=2)
    resumed = run(tmp_path, RoundCheckpoint(), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert resumed.steps == ALL_STEPS[8:]
    assert numbers(resumed) == FINAL_NUMBERS


class StopAfter(L.Callback):
    """Tells the run to stop after so many steps, as `max_time` does."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = len(pl_module.steps) == self.steps


@pytest.mark.parametrize("told", [{"max_steps": 7}, {"callback": StopAfter(7)}], ids=["max_steps", "max_time"])
def test_a_run_that_is_told_to_stop_within_a_round_leaves_its_last_step(told, tmp_path):
    settings = dict(told)
    callbacks = [settings.pop("callback")] if "callback" in told else []
    assert run(tmp_path, RoundCheckpoint(), *callbacks, **settings).steps == ALL_STEPS[:7]
    assert names(tmp_path) == ["last.ckpt", "round=1-step=3.ckpt", "round=1.ckpt"]
    resumed = run(tmp_path / "resumed", RoundCheckpoint(), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert resumed.steps == ALL_STEPS[7:]
    assert resumed.validated == [2, 3]
    assert numbers(resumed) == FINAL_NUMBERS


def test_only_the_newest_are_kept_and_nothing_of_others_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/round=0.ckpt").write_text("another run's")
    run(tmp_path, RoundCheckpoint(every_n_steps=2, keep=2), rounds=2)
    assert names(tmp_path) == ["last.ckpt", "round=0.ckpt", "round=1-step=2.ckpt", "round=2.ckpt"]
    run(
        tmp_path,
        RoundCheckpoint(every_n_steps=2, keep=2),
        rounds=3,
        ckpt_path=tmp_path / "checkpoints/round=1-step=2.ckpt",
    )
    assert names(tmp_path) == ["last.ckpt", "round=0.ckpt", "round=2-step=2.ckpt", "round=3.ckpt"]


def test_last_is_the_newest_checkpoint(tmp_path):
    run(tmp_path, RoundCheckpoint(every_n_steps=2))
    last, newest = (tmp_path / "checkpoints" / name for name in ("last.ckpt", "round=3.ckpt"))
    assert last.read_bytes() == newest.read_bytes()


def test_last_is_a_copy_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    run(tmp_path, RoundCheckpoint(), rounds=1)
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt"]
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 0


def test_a_sanity_check_or_a_validation_by_itself_saves_nothing(tmp_path):
    trainer = trainer_of(tmp_path, RoundCheckpoint(), num_sanity_val_steps=2, rounds=1)
    trainer.validate(ToyRounds(), ToyData(), verbose=False)
    assert not (tmp_path / "checkpoints").exists()
    trainer.fit(ToyRounds(), ToyData())
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt"]


def test_a_full_disk_leaves_no_half_file_and_the_previous_checkpoint_whole(tmp_path, request):
    class Full(L.Callback):
        """Lets files be no longer than a checkpoint's half from the second round on."""

        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                limit = (tmp_path / "checkpoints/round=1.ckpt").stat().st_size // 2
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    callback, before = RoundCheckpoint(), resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, callback, Full())
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    folder = tmp_path / "checkpoints"
    assert str(caught.value) == (
        f"the checkpoint {folder}/round=2.ckpt could not be written: File too large. Make room, or give "
        f"RoundCheckpoint another `folder`, then resume with `--ckpt_path {folder}/last.ckpt`, which is whole"
    )
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt"]
    assert callback.saved == ["round=1.ckpt"]
    assert numbers(run(tmp_path, RoundCheckpoint(), ckpt_path=folder / "last.ckpt")) == FINAL_NUMBERS


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(CheckpointError, match=r"taken/round=1.ckpt could not be written: .*then start again"):
        run(tmp_path, RoundCheckpoint(folder=str(tmp_path / "taken")), rounds=1)


def test_a_checkpoint_with_all_callbacks_loads_without_unpickling(tmp_path):
    run(tmp_path, RoundCheckpoint(), SampleTable(), OutcomeTable(), RoundProgress(plain=True), rounds=1)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["callbacks"]["RoundCheckpoint"] == {"saved": ["round=1.ckpt"], "unsaved_round": False}
    assert checkpoint["callbacks"]["SampleTable"] == {"positions": [(0, 1, 1)]}
    assert checkpoint["callbacks"]["OutcomeTable"]["initial"]["chemist"]["chemistry"]["avg"] == 0.6


class Plain(L.LightningModule):
    """As a Specialist: one optimizer, one epoch after another, here without validation."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.number = torch.nn.Parameter(torch.zeros(()))

    def configure_optimizers(self):
        return torch.optim.SGD([self.number], lr=1.0)

    def train_dataloader(self):
        return DataLoader([1.0, 2.0, 3.0])

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(-self.number * batch.sum())
        optimizer.step()
        optimizer.zero_grad()


def test_epochs_without_validation_are_saved_and_resumed_too(tmp_path):
    trainer_of(tmp_path, RoundCheckpoint(), rounds=2).fit(Plain())
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt", "round=2.ckpt"]
    resumed = Plain()
    trainer_of(tmp_path, RoundCheckpoint(), rounds=3).fit(
        resumed, ckpt_path=tmp_path / "checkpoints/last.ckpt", weights_only=True
    )
    assert float(resumed.number) == 18.0  # three epochs of 1 + 2 + 3


@pytest.mark.parametrize("name", ["keep", "every_n_steps"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name} is 0, expected at least 1$"):
        RoundCheckpoint(**{name: 0})


def test_what_a_killed_process_left_half_written_is_removed_and_a_living_ones_stays(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    (folder / f".round=1.ckpt.{dead}.part").write_text("half")
    (folder / f".round=2.ckpt.{os.getppid()}.part").write_text("half")
    run(tmp_path, RoundCheckpoint(), rounds=1)
    hidden = [name for name in names(tmp_path) if name.startswith(".")]
    assert hidden == [f".round=2.ckpt.{os.getppid()}.part"]


def test_nothing_goes_by_way_of_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    run(tmp_path, RoundCheckpoint(), rounds=1)
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt"]


def test_a_step_that_is_given_up_leaves_the_state_before_it(tmp_path):
    class GiveUp(ToyRounds):
        def training_step(self, batch, batch_idx):
            if (batch.round, batch.phase, batch.step) == (1, 1, 0):
                raise GivenUp(signal.SIGTERM)
            super().training_step(batch, batch_idx)

    with pytest.raises(GivenUp):
        run(tmp_path, RoundCheckpoint(), CleanStop(), module=GiveUp())
    assert names(tmp_path) == ["last.ckpt", "round=1-step=2.ckpt", "round=1.ckpt"]
    resumed = run(tmp_path, RoundCheckpoint(), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert resumed.steps == ALL_STEPS[6:]
    assert numbers(resumed) == FINAL_NUMBERS


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_validation_that_is_given_up_is_done_over_by_the_run_that_goes_on(tmp_path, rounds):
    class GiveUp(ToyRounds):
        def validation_step(self, batch, batch_idx):
            if self.current_epoch == rounds - 1 and batch_idx == 1:
                raise GivenUp(signal.SIGTERM)
            super().validation_step(batch, batch_idx)

    with pytest.raises(GivenUp):
        run(tmp_path, RoundCheckpoint(), CleanStop(), module=GiveUp())
    assert f"round={rounds - 1}-step=4.ckpt" in names(tmp_path)
    left, last = names(tmp_path), tmp_path / "checkpoints/last.ckpt"
    validating = trainer_of(tmp_path, RoundCheckpoint())
    validating.validate(ToyRounds(), ToyData(), ckpt_path=last, weights_only=True, verbose=False)
    assert names(tmp_path) == left, "a validation by itself saves nothing, though the round waits for its own"

    class Counting(ToyRounds):
        batches = ()

        def validation_step(self, batch, batch_idx):
            self.batches += ((self.current_epoch, batch_idx),)

    resumed = run(tmp_path, RoundCheckpoint(), module=Counting(), ckpt_path=last)
    assert resumed.steps == ALL_STEPS[4 * rounds :]
    assert resumed.validated == list(range(rounds, 4))
    assert resumed.batches == tuple((r, batch) for r in range(rounds - 1, 3) for batch in (0, 1))
    assert numbers(resumed) == FINAL_NUMBERS
    assert "round=3.ckpt" in names(tmp_path)


def test_an_update_that_fails_halfway_saves_nothing(tmp_path):
    class Fails(ToyRounds):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            if (batch.round, batch.phase, batch.step) == (1, 1, 0):
                raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path, RoundCheckpoint(), CleanStop(), module=Fails())
    assert names(tmp_path) == ["last.ckpt", "round=1.ckpt"]


def test_memory_that_runs_out_within_a_step_leaves_the_state_before_it(tmp_path):
    class Fails(ToyRounds):
        def training_step(self, batch, batch_idx):
            if (batch.round, batch.phase, batch.step) == (1, 1, 0):
                raise MemoryError
            super().training_step(batch, batch_idx)

    with pytest.raises(MemoryError):
        run(tmp_path, RoundCheckpoint(), CleanStop(), module=Fails())
    assert names(tmp_path) == ["last.ckpt", "round=1-step=2.ckpt", "round=1.ckpt"]
