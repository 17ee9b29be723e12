"""A grid of runs: what it would do, and that one killed in its middle comes to the same figures as one that was not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from opcod import cli
from opcod.collection import _break_rates, _logged, _metrics, _teacher_gaps
from opcod.grid import Grid, cost, run
from opcod.metrics import DIFFICULTIES
from tiny import run_config

METHODS = {"opcod": [], "grpo": ["--model=Grpo"]}


def small(**changes):
    settings = {"common": ["a.yaml"], "pairs": {"p": ["b.yaml"]}, "methods": METHODS, "seeds": [0, 1]}
    return Grid(**(settings | changes))


def test_cells_are_seed_by_seed_and_their_commands_compose(tmp_path):
    cells = small().cells(tmp_path)
    assert [(c.method, c.seed) for c in cells] == [("opcod", 0), ("grpo", 0), ("opcod", 1), ("grpo", 1)]
    folder = tmp_path / "p" / "grpo" / "seed-1"
    assert cells[3].command == [
        *["fit", "-c", "a.yaml", "-c", "b.yaml", "--model=Grpo", "--seed_everything", "1"],
        f"--trainer.logger.init_args.save_dir={folder}",
    ]


def test_a_cell_goes_on_from_its_newest_checkpoint_and_is_finished_with_its_outcome(tmp_path):
    cell = small().cells(tmp_path)[0]
    for version in (0, 2, 10):
        (cell.folder / f"version_{version}" / "checkpoints").mkdir(parents=True)
    for version in (0, 2):
        (cell.folder / f"version_{version}" / "checkpoints" / "last.ckpt").touch()
    assert cell.checkpoint == cell.folder / "version_2" / "checkpoints" / "last.ckpt"
    assert cell.command[-1] == f"--ckpt_path={cell.checkpoint}"
    assert cell.finished is None
    (cell.folder / "version_10" / "outcome.json").touch()
    assert cell.finished == cell.folder / "version_10"
    assert cell.done


def test_a_version_that_was_set_aside_is_none_of_the_cells(tmp_path):
    cell = small().cells(tmp_path)[0]
    for name in ("version_0", "version_old", "version_1_old"):
        (cell.folder / name).mkdir(parents=True)
    assert cell.versions == [cell.folder / "version_0"]


def test_steps_that_were_repeated_stand_once_in_the_tables_and_half_rows_do_not(tmp_path):
    cell = small().cells(tmp_path)[0]
    logged = [["0,,0.5", "1,,0.25", "2,,0.125", "3,"], ["2,,0.125", "3,,0.75"]]
    for version, rows in enumerate(logged):
        folder = cell.folder / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("\n".join(["step,rounds,train/ann/loss", *rows]))
    rows = list(_metrics(cell, _logged(cell, folder), "step"))
    assert [(row["step"], row["value"]) for row in rows] == [(0, 0.5), (1, 0.25), (2, 0.125), (3, 0.75)]


def test_a_cell_is_done_once_both_of_its_ends_are_measured(tmp_path):
    cell = small(measured={"opcod": ["--data.validation=7"]}).cells(tmp_path)[0]
    (cell.folder / "version_0" / "checkpoints").mkdir(parents=True)
    (cell.folder / "version_0" / "checkpoints" / "last.ckpt").touch()
    (cell.folder / "version_0" / "outcome.json").touch()
    assert cell.unmeasured == ["initial", "final"]
    assert f"--ckpt_path={cell.checkpoint}" in cell.measuring("final")
    assert not any("ckpt_path" in argument for argument in cell.measuring("initial"))
    assert "--data.validation=7" in cell.measuring("initial")
    for end in ("initial", "final"):
        assert not cell.done
        (cell.folder / end / "version_0").mkdir(parents=True)
        (cell.folder / end / "version_0" / "diagnosis.json").touch()
    assert cell.done


def test_what_was_measured_is_told_of_both_ends(tmp_path):
    cell = small(measured={"opcod": []}).cells(tmp_path)[0]
    for place, end in enumerate(("initial", "final")):
        folder = cell.folder / end / "version_0"
        folder.mkdir(parents=True)
        gap = {"student": 0.125, "teacher": 0.5 + 0.25 * place, "count": 8}
        (folder / "teacher_gaps.json").write_text(json.dumps({"ann": {"x": {"s": gap}}}))
        rates = {"right": 7, "break": 0.1, "wrong": 9, "rescue": 0.2 + place}
        of_all = {f"{name}/{d}": value for d in DIFFICULTIES for name, value in rates.items()}
        found = {"tutor": "ben", "tutee": "ann", "gap": 0.3, "cognizant": False, "rates": {"all": of_all}}
        (folder / "diagnosis.json").write_text(json.dumps([found]))
    of_cell = {"pair": "p", "method": "opcod", "seed": 0}
    assert list(_teacher_gaps(cell)) == [
        of_cell
        | {"end": end, "student": "ann", "domain": "x", "shown": "s", "alone": 0.125, "as_teacher": g, "count": 8}
        for end, g in (("initial", 0.5), ("final", 0.75))
    ]
    who = {"tutor": "ben", "tutee": "ann", "gap": 0.3, "cognizant": False, "domain": "all"}
    assert list(_break_rates(cell)) == [
        of_cell | {"end": end} | who | {"difficulty": d, "right": 7, "break": 0.1, "wrong": 9, "rescue": rescue}
        for end, rescue in (("initial", 0.2), ("final", 1.2))
        for d in DIFFICULTIES
    ]


def test_the_final_end_is_measured_first(tmp_path, monkeypatch):
    """It is refused where it would be measured on what the run was trained on, and then neither end is."""
    asked = []
    monkeypatch.setattr("opcod.grid._opcod", lambda cell, command: asked.append(command))
    monkeypatch.setattr("opcod.grid.collect", lambda cells, output: None)
    grid = small(methods={"opcod": []}, seeds=[0], measured={"opcod": []})
    (cell,) = grid.cells(tmp_path)
    (cell.folder / "version_0" / "checkpoints").mkdir(parents=True)
    (cell.folder / "version_0" / "checkpoints" / "last.ckpt").touch()
    (cell.folder / "version_0" / "outcome.json").touch()
    run(grid, tmp_path)
    assert asked == [cell.measuring("final"), cell.measuring("initial")]


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        ({}, "How long they take is not known."),
        ({"opcod": 30}, "about 1.0 hours on two cores, and 2 of unknown length."),
        ({"opcod": 30, "grpo": 15}, "about 1.5 hours on two cores."),
    ],
)
def test_the_cost_is_said_beforehand(minutes, said, tmp_path):
    grid = small(minutes=minutes, machine="two cores")
    assert said in cost(grid, grid.cells(tmp_path))


@pytest.mark.parametrize(
    "changes", [{"seeds": []}, {"pairs": {}}, {"methods": {}}, {"minutes": {"sdpo": 3}}, {"measured": {"sdpo": []}}]
)
def test_an_empty_or_inconsistent_grid_is_refused(changes):
    with pytest.raises(ValueError, match="grid"):
        small(**changes)


# ---- the tiny model


@pytest.fixture
def grid_file(tiny_folder, tmp_path):
    """A grid of two runs of the tiny model."""
    (tmp_path / "run.yaml").write_text(json.dumps(run_config(tiny_folder)))
    grid = {"common": [str(tmp_path / "run.yaml")], "pairs": {"p": []}, "methods": METHODS, "seeds": [3]}
    grid["measured"] = {"opcod": ["--data.validation=2"]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    return tmp_path / "grid.yaml"


def arguments(grid_file, output):
    return ["reproduce", "-c", str(grid_file), "--output", str(output)]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_grid_that_was_stopped_comes_to_the_same_figures(number, status, grid_file, tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "opcod.cli", *arguments(grid_file, killed)]
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    first = killed / "p" / "opcod" / "seed-3" / "version_0" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    assert process.wait() == status
    assert first.exists(), "nothing was saved before the kill"
    assert not (killed / "scores.csv").exists()
    cli.main(arguments(grid_file, killed))
    assert "1/2 p opcod seed 3 goes on" in capsys.readouterr().out
    cli.main(arguments(grid_file, whole))
    for name in ("scores", "answers", "rounds", "teacher_gaps", "break_rates"):
        assert (killed / f"{name}.csv").read_text() == (whole / f"{name}.csv").read_text(), name
    timed = ("seconds", "tokens_per_second")
    one, other = ([r for r in table(f / "steps.csv") if not r["name"].startswith(timed)] for f in (killed, whole))
    assert one == other
    assert len(table(whole / "answers.csv")) == 2 * 2 * 2 * 2 * 3  # methods, ends, students, domains, questions
    assert {r["round"] for r in table(whole / "rounds.csv")} == {"0", "1", "2"}
    assert {r["step"] for r in one} == {str(step) for step in range(8)}
    gaps, rates = table(whole / "teacher_gaps.csv"), table(whole / "break_rates.csv")
    assert len(gaps) == 2 * 2 * 2 * 4  # ends, students, domains, what is shown
    assert {int(r["count"]) for r in gaps if r["shown"] == "nothing"} == {2 * 4}
    assert len(rates) == 2 * 2 * 3 * 5  # ends, directions, domains and all, difficulties

    before = (whole / "p" / "grpo" / "seed-3" / "version_0" / "outcome.json").stat().st_mtime_ns
    capsys.readouterr()
    cli.main(arguments(grid_file, whole))
    assert "2 runs, 2 of them finished. Nothing is left to run." in capsys.readouterr().out
    assert (whole / "p" / "grpo" / "seed-3" / "version_0" / "outcome.json").stat().st_mtime_ns == before


def test_a_run_that_fails_is_named_with_its_log(grid_file, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main([*arguments(grid_file, tmp_path / "runs"), "--methods={opcod: [--model.samples=0]}"])
    error = capsys.readouterr().err
    assert "p opcod seed 3 failed with status 1: see " in error
    log = tmp_path / "runs" / "p" / "opcod" / "seed-3" / "log.txt"
    assert "samples is 0, expected at least 1" in log.read_text()
