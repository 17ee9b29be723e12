import csv
import json
import math
import os
import signal

import pytest
from rich.console import Console
from toy import SCORES, ToyData, ToyRounds, run, table_of

from opcod.callbacks import CleanStop, OutcomeTable, RoundCheckpoint
from opcod.callbacks.outcome import RunOutcome, outcome_json, outcome_lines, outcome_table

START = {"physicist": {"physics": 0.6, "chemistry": 0.3}, "chemist": {"physics": 0.5, "chemistry": 0.6}}
BETTER = "a Pareto improvement; no domain is below its initial score, and at least one is above."


def outcome(physicist, chemist, stderr=0.03):
    final = {s: dict(zip(START[s], of, strict=True)) for s, of in (("physicist", physicist), ("chemist", chemist))}
    return RunOutcome("test", table_of(START, stderr), table_of(final, stderr))


def test_a_mutual_improvement_is_said():
    lines = outcome_lines(outcome((0.6, 0.5), (0.7, 0.6)))
    assert lines[:3] == [
        f"physicist: {BETTER}",
        f"chemist: {BETTER}",
        "The improvement is mutual: both students have it.",
    ]
    # Two standard errors of a difference are 2 * sqrt(0.03 ** 2 + 0.03 ** 2) = 0.085.
    assert lines[3].startswith("2 of 4 differences are larger than two standard errors")


def test_a_one_sided_improvement_is_said():
    assert outcome_lines(outcome((0.6, 0.5), (0.9, 0.55)))[:3] == [
        f"physicist: {BETTER}",
        "chemist: no Pareto improvement; chemistry fell below the initial score.",
        "Not mutual: only physicist improved.",
    ]


def test_no_improvement_is_said():
    lines = outcome_lines(outcome((0.6, 0.3), (0.4, 0.5)))
    assert lines == [
        "physicist: no Pareto improvement; no domain rose above its initial score.",
        "chemist: no Pareto improvement; physics, chemistry fell below the initial score.",
        "Not mutual: no student improved.",
        "2 of 4 differences are larger than two standard errors; what is within about two may well be noise.",
    ]


def test_what_is_rounded_otherwise_has_not_fallen():
    lines = outcome_lines(outcome((0.6 - 1e-16, 0.3), (0.4, 0.6)))
    assert lines[0] == "physicist: no Pareto improvement; no domain rose above its initial score."
    assert lines[1] == "chemist: no Pareto improvement; physics fell below the initial score."


@pytest.mark.parametrize(
    ("physics", "chemistry", "why"),
    [
        # The standard error of a difference is sqrt(0.03 ** 2 + 0.03 ** 2) = 0.042.
        (0.6, 0.56, "chemistry fell below the initial score, by less than the standard error"),
        (0.6, 0.55, "chemistry fell below the initial score"),
        (0.47, 0.56, "physics, chemistry fell below the initial score, by less than the standard error"),
        (0.45, 0.56, "physics, chemistry fell below the initial score"),
    ],
)
def test_a_fall_that_may_be_noise_is_told_from_one_that_is_not(physics, chemistry, why):
    lines = outcome_lines(outcome((0.6, 0.5), (physics, chemistry)))
    assert lines[1] == f"chemist: no Pareto improvement; {why}."


def test_of_a_student_alone_nothing_mutual_is_said():
    one = RunOutcome("test", table_of({"alone": {"physics": 0.5}}), table_of({"alone": {"physics": 0.6}}))
    assert one.mutual is None
    assert outcome_lines(one) == [
        f"alone: {BETTER}",
        "1 of 1 differences are larger than two standard errors; what is within about two may well be noise.",
    ]


def test_the_table_shows_both_ends_with_standard_errors():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(outcome_table(outcome((0.65, 0.3), (0.5, 0.6))))
    text = console.export_text()
    assert "avg@k on the test questions" in text
    row = next(line for line in text.splitlines() if "physicist" in line)
    # sqrt(3.0 ** 2 + 3.0 ** 2) = 4.2
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        "physicist",
        "physics",
        "60.0 ± 3.0",
        "65.0 ± 3.0",
        "+5.0 ± 4.2",
    ]


def test_an_unknown_standard_error_is_null_in_the_file_and_absent_in_the_table():
    unknown = outcome((0.6, 0.5), (0.5, 0.6), stderr=math.nan)
    written = json.loads(outcome_json(unknown))
    assert written["initial"]["physicist"]["physics"] == {"avg": 0.6, "stderr": None}
    assert (written["questions"], written["pareto"], written["mutual"]) == (
        "test",
        {"physicist": True, "chemist": False},
        False,
    )
    assert "0 of 4" in outcome_lines(unknown)[-1]


def test_a_run_scores_the_test_questions_at_both_ends(tmp_path, capsys):
    module = run(tmp_path, OutcomeTable())
    assert module.tested == 2
    written = json.loads((tmp_path / "outcome.json").read_text())
    assert (written["initial"], written["final"]) == (table_of(SCORES[0]), table_of(SCORES[3]))
    printed = capsys.readouterr().out
    assert "The improvement is mutual" in printed
    assert f"The run is in {tmp_path}: opcod report {tmp_path} makes a page of it." in printed


@pytest.mark.parametrize("stopped", [False, True])
def test_every_test_questions_share_is_written_for_both_ends(stopped, tmp_path):
    if stopped:
        run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1)
    last = tmp_path / "checkpoints/last.ckpt"
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), ckpt_path=last if stopped else None)
    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        (end, student, domain, "q0", str(share))
        for end, scores in (("initial", SCORES[0]), ("final", SCORES[3]))
        for student, of in scores.items()
        for domain, share in of.items()
    ]


def test_a_resumed_run_remembers_the_initial_scores(tmp_path):
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1)
    resumed = run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert resumed.tested == 1
    written = json.loads((tmp_path / "outcome.json").read_text())
    assert (written["initial"], written["final"]) == (table_of(SCORES[0]), table_of(SCORES[3]))


def test_a_fast_run_from_a_checkpoint_scores_nobody_and_leaves_the_outcome_that_was_there(tmp_path):
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1)
    before = (tmp_path / "outcome.json").read_bytes()
    last = tmp_path / "checkpoints/last.ckpt"
    resumed = run(tmp_path, OutcomeTable(), rounds=2, ckpt_path=last, fast_dev_run=1)
    assert resumed.tested == 0
    assert (tmp_path / "outcome.json").read_bytes() == before


def test_a_run_resumed_after_its_last_round_still_tells_its_outcome(tmp_path, capsys):
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1)
    (tmp_path / "outcome.json").unlink()  # it died while the final scores were taken
    capsys.readouterr()
    resumed = run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert (resumed.steps, resumed.tested) == ([], 1)
    assert "improvement is mutual" in capsys.readouterr().out
    written = json.loads((tmp_path / "outcome.json").read_text())
    assert (written["initial"], written["final"]) == (table_of(SCORES[0]), table_of(SCORES[3]))


class Followed(ToyRounds):
    """Tells when it is scored, and where it is sent to."""

    def __init__(self):
        super().__init__()
        self.told = []

    def score_test(self, batches):
        self.told.append("scored")
        return super().score_test(batches)

    def to(self, device):
        self.told.append(f"to {device}")
        return super().to(device)

    def cpu(self):
        self.told.append("torn down")
        return super().cpu()


def test_the_students_are_scored_before_they_leave_the_device_they_were_trained_on(tmp_path):
    module = run(tmp_path, OutcomeTable(), RoundCheckpoint(), module=Followed(), rounds=1)
    assert module.told == ["to cpu", "scored", "scored", "torn down"]


def test_they_are_carried_back_to_be_scored_where_no_training_ended(tmp_path):
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=2)
    last = tmp_path / "checkpoints/last.ckpt"
    module = run(tmp_path, OutcomeTable(), RoundCheckpoint(), module=Followed(), rounds=1, ckpt_path=last)
    assert module.told == ["to cpu", "torn down", "to cpu", "scored", "torn down"]


@pytest.mark.parametrize("first", [CleanStop, OutcomeTable])
def test_a_run_that_is_stopped_in_its_last_validation_is_not_scored(first, tmp_path):
    class Stopped(ToyRounds):
        def validation_step(self, batch, batch_idx):
            os.kill(os.getpid(), signal.SIGINT)

    module, callbacks = Stopped(), sorted([CleanStop(), OutcomeTable()], key=lambda c: not isinstance(c, first))
    with pytest.raises(SystemExit):
        run(tmp_path, *callbacks, RoundCheckpoint(), module=module, rounds=1)
    assert module.tested == 1
    assert not (tmp_path / "outcome.json").exists()


def test_a_checkpoint_without_initial_scores_gets_no_outcome(tmp_path, capsys):
    run(tmp_path, RoundCheckpoint(), rounds=1)
    resumed = run(tmp_path, OutcomeTable(), rounds=2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert resumed.tested == 0
    assert "holds no initial scores" in capsys.readouterr().out
    assert not (tmp_path / "outcome.json").exists()


def test_initial_scores_of_other_questions_are_not_compared_with(tmp_path, capsys):
    run(tmp_path, OutcomeTable(), RoundCheckpoint(), rounds=1)
    (tmp_path / "outcome.json").unlink()
    run(tmp_path, OutcomeTable(test=False), rounds=2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert "holds no initial scores" in capsys.readouterr().out
    assert not (tmp_path / "outcome.json").exists()


def test_without_test_questions_the_first_and_last_validation_count(tmp_path):
    module = run(tmp_path, OutcomeTable(test=False), rounds=2)
    assert module.tested == 0
    written = json.loads((tmp_path / "outcome.json").read_text())
    assert written["questions"] == "validation"
    assert (written["initial"], written["final"]) == (table_of(SCORES[0]), table_of(SCORES[2]))


def test_a_run_that_dies_reports_no_success(tmp_path, capsys):
    with pytest.raises(KeyError):
        run(tmp_path, OutcomeTable(), module=ToyRounds(die_after=(1, 0, 0)))
    assert "improvement" not in capsys.readouterr().out
    assert not (tmp_path / "outcome.json").exists()


def test_a_run_on_development_questions_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ToyData, "scored", "development", raising=False)
    run(tmp_path, OutcomeTable())
    assert json.loads((tmp_path / "outcome.json").read_text())["questions"] == "development"
    assert "scoring the development questions before the first round" in capsys.readouterr().out
