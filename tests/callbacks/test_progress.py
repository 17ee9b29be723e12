import io
from itertools import count

import torch
from rich.console import Console
from test_checkpoints import Plain, StopAfter
from torch.utils.data import DataLoader
from toy import QUESTIONS, SCORES, ToyData, ToyRounds, record_of, run, trainer_of

from opcod.callbacks import RoundProgress
from opcod.callbacks.progress import duration, gate_lines, step_line
from opcod.data.loaders import StepBatch
from opcod.gate import Gate


def test_a_step_in_a_line():
    record = record_of(StepBatch(1, 0, 2, QUESTIONS))
    assert step_line(record, rounds=3, phases=2, steps=5) == (
        "round 2/3 phase 1/2 step 3/5 · physicist learns · chemist tutors physics · right 25 % · feedback kept 100 % "
        "· 2.0 s"
    )


def test_a_steps_line_ends_in_its_throughput():
    record = record_of(StepBatch(1, 0, 2, QUESTIONS))
    record.figures |= {"seconds/rollout": 3.0, "seconds/match": 1.0}
    record.figures |= {"tokens_per_second/rollout": 100.0, "tokens_per_second/match": 500.0}
    spent = sum(value for name, value in record.figures.items() if name.startswith("seconds/"))
    assert step_line(record, rounds=3, phases=2, steps=5).endswith(f"· {spent:.1f} s · {800 / spent:.0f} tokens/s")


def test_a_duration_in_words():
    assert [duration(s) for s in (0, 29, 31, 3540, 3600, 9000)] == [
        "",
        "",
        "1 min",
        "59 min",
        "1 h 0 min",
        "2 h 30 min",
    ]


def test_what_is_left_goes_by_the_pace_so_far(tmp_path, capsys, monkeypatch):
    """A clock on which every look costs 40 s: a step takes that long, and so does a validation."""
    looks = count(0, 40)
    monkeypatch.setattr("opcod.callbacks.progress.time.perf_counter", lambda: next(looks))
    run(tmp_path, RoundProgress(), rounds=2)
    steps = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round ")]
    # After the first of 8 steps 7 are to come, and 2 validations: 9 times 40 s. Before the last validation it is one.
    assert steps[0].endswith("· 6 min left")
    assert steps[3].endswith("· 4 min left")
    assert steps[7].endswith("· 1 min left")


def test_the_gate_in_lines():
    # The physicist's gap is (0.6 - 0.3) / 0.6, the chemist's (0.6 - 0.5) / 0.6.
    assert gate_lines(Gate(), SCORES[0]) == [
        "physicist is silent (gap 0.50)",
        "chemist tutors chemistry, physics (gap 0.17)",
    ]


def test_without_a_terminal_every_step_and_validation_is_one_plain_line(tmp_path, capsys):
    run(tmp_path, RoundProgress(), rounds=2)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("round ") for line in lines) == 8
    assert lines[:4] == [
        "scoring the validation questions before the first round",
        "validation after 0 of 2 rounds · physicist: physics 60.0 %, chemistry 30.0 % · "
        "chemist: physics 50.0 %, chemistry 60.0 %",
        "gate · physicist is silent (gap 0.50); chemist tutors chemistry, physics (gap 0.17)",
        "round 1/2 phase 1/2 step 1/2 · physicist learns · chemist tutors physics · right 25 % · feedback kept 100 % "
        "· 2.0 s",
    ]
    assert sum(line.startswith("validation after") for line in lines) == 3
    assert not any("\x1b" in line for line in lines)


def test_scores_of_a_round_that_is_stopped_within_are_not_called_those_after_it(tmp_path, capsys):
    run(tmp_path, RoundProgress(), StopAfter(7))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("validation ", "gate "))]
    assert [line.partition(" · ")[0] for line in lines if "batch" not in line] == [
        "validation after 0 of 3 rounds",
        "gate",
        "validation after 1 of 3 rounds",
        "gate",
        "validation within round 2/3",
    ]


def test_a_step_that_is_tried_alone_is_the_first_of_one(tmp_path, capsys):
    run(tmp_path, RoundProgress(), rounds=1, fast_dev_run=1)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round ")]
    assert line.startswith("round 1/1 phase 1/2 step 1/1 · ")


def test_a_module_without_tutors_shows_what_it_logs_for_the_bar(tmp_path, capsys):
    class Logging(Plain):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            self.log("loss", float(batch.sum()) / 4, prog_bar=True, batch_size=1)

        def val_dataloader(self):
            return DataLoader(torch.arange(2))

        def validation_step(self, batch, batch_idx):
            self.log("validation/specialist/physics/avg", 0.4, batch_size=1)

    trainer_of(tmp_path, RoundProgress(), rounds=1).fit(Logging())
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/1 step 1/3 · loss 0.25",
        "epoch 1/1 step 2/3 · loss 0.5",
        "epoch 1/1 step 3/3 · loss 0.75",
        "validation batch 1/2",
        "validation batch 2/2",
        "validation epoch 1/1 · specialist: physics 40.0 %",
    ]


def test_a_test_by_itself_tells_its_batches(tmp_path, capsys):
    trainer_of(tmp_path, RoundProgress()).test(ToyRounds(), ToyData(), verbose=False)
    assert capsys.readouterr().out.splitlines() == ["test batch 1/2", "test batch 2/2"]


def test_a_terminal_gets_a_live_display_of_gate_scores_and_step(tmp_path, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("opcod.callbacks.progress.Console", lambda: Console(file=out, force_terminal=True, width=120))
    run(tmp_path, RoundProgress(), rounds=1)
    shown = out.getvalue()
    assert "\x1b[" in shown
    for part in ("physicist tutors", "gap 0.17", "after 1 of 1 rounds", "round 1/1 phase 2/2 step 2/2", "finishing"):
        assert part in shown


def test_it_can_be_switched_off(tmp_path, capsys):
    progress = RoundProgress()
    progress.disable()
    run(tmp_path, progress, rounds=1)
    assert not progress.is_enabled
    assert capsys.readouterr().out == ""
