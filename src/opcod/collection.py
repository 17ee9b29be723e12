"""What a grid's runs came to, as tidy CSV files: one row an observation, from which all tables and figures are made."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opcod import comparison
from opcod.callbacks import break_rates, outcome, teacher_gaps
from opcod.callbacks.checkpoints import whole
from opcod.metrics import DIFFICULTIES

if TYPE_CHECKING:
    from opcod.grid import Cell

Row = dict[str, Any]
ENDS = ("initial", "final")
SCORES = ("avg", "stderr", "format", "count")


def collect(cells: Sequence[Cell], output: Path) -> None:
    """Write what there is of all finished cells.

    `scores.csv`, `answers.csv`, `rounds.csv`, `steps.csv` and `tables.md`; and of what was measured at both ends
    `teacher_gaps.csv` and `break_rates.csv`.
    """
    finished = [(cell, version) for cell in cells if (version := cell.finished)]
    metrics = [(cell, _logged(cell, version)) for cell, version in finished]
    tables: Mapping[str, Iterable[Row]] = {
        "scores": (row for cell, version in finished for row in _scores(cell, version)),
        "answers": (row for cell, version in finished for row in _answers(cell, version)),
        "rounds": (row for cell, logged in metrics for row in _metrics(cell, logged, "round")),
        "steps": (row for cell, logged in metrics for row in _metrics(cell, logged, "step")),
        "teacher_gaps": (row for cell, _ in finished for row in _teacher_gaps(cell)),
        "break_rates": (row for cell, _ in finished for row in _break_rates(cell)),
    }
    for name, rows in tables.items():
        _write(output / f"{name}.csv", list(rows))
    if finished:
        comparison.write_tables(output, output)


def _of(cell: Cell) -> Row:
    return {"pair": cell.pair, "method": cell.method, "seed": cell.seed}


def _scores(cell: Cell, version: Path) -> Iterator[Row]:
    """Initial and final figures of every student and domain."""
    kept = json.loads((version / outcome.NAME).read_text(encoding="utf-8"))
    for end in ENDS:
        for student, domains in kept[end].items():
            for domain, figures in domains.items():
                row = {"end": end, "student": student, "domain": domain}
                yield _of(cell) | row | {name: figures[name] for name in SCORES}


def _answers(cell: Cell, version: Path) -> Iterator[Row]:
    """Of every test question the share of right responses."""
    with (version / outcome.ANSWERS).open(encoding="utf-8", newline="") as file:
        yield from (_of(cell) | row for row in csv.DictReader(file))


def _measured(cell: Cell, name: str) -> Iterator[tuple[Row, Any]]:
    """What was measured at an end, and what is common to its rows."""
    for end in ENDS:
        if folder := cell.measurement(end):
            yield _of(cell) | {"end": end}, json.loads((folder / name).read_text(encoding="utf-8"))


def _teacher_gaps(cell: Cell) -> Iterator[Row]:
    """Accuracies of each student alone and as its self-teacher, by what that is shown, and of how many responses."""
    for row, students in _measured(cell, teacher_gaps.NAME):
        for student, domains in students.items():
            for domain, by_shown in domains.items():
                for shown, gap in by_shown.items():
                    figures = {"alone": gap["student"], "as_teacher": gap["teacher"], "count": gap["count"]}
                    yield row | {"student": student, "domain": domain, "shown": shown} | figures


def _break_rates(cell: Cell) -> Iterator[Row]:
    for row, found in _measured(cell, break_rates.NAME):
        yield from (row | rates for rates in rate_rows(found))


def rate_rows(found: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """What feedback broke and rescued, by direction, domain and difficulty, of a diagnosis."""
    for one in found:
        row = {name: one[name] for name in ("tutor", "tutee", "gap", "cognizant")}
        for domain, rates in one["rates"].items():
            for difficulty in DIFFICULTIES:
                figures = {name: rates[f"{name}/{difficulty}"] for name in ("right", "break", "wrong", "rescue")}
                yield row | {"domain": domain, "difficulty": difficulty} | figures


def _logged(cell: Cell, last: Path) -> list[dict[str, str]]:
    """The whole rows of `metrics.csv`, of all versions in turn over which a run that was stopped is spread."""
    rows: list[dict[str, str]] = []
    for version in reversed(cell.versions):
        if (path := version / "metrics.csv").is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows += [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        if version == last:
            break
    return rows


def _metrics(cell: Cell, logged: Iterable[Mapping[str, str]], per: str) -> Iterator[Row]:
    """What was logged, one row a figure: after so many rounds (`validation`, `gate`, `feedback`), or at a step.

    What a later version logged again counts.
    """
    found: dict[tuple[int, str], float] = {}
    for row in logged:
        found |= {(place, name): value for name, place, value in logged_figures(row, per)}
    for (place, name), value in sorted(found.items()):
        yield _of(cell) | {per: place, "name": name, "value": value}


def logged_figures(row: Mapping[str, str | float], per: str) -> Iterator[tuple[str, int, float]]:
    """Name, place and value of what a row of `metrics.csv` tells per `round`, or per `step`."""
    for name, value in row.items():
        kind = name.split("/")[0]
        if value == "" or name in ("epoch", "step", "round", "rounds", "phase", "phase_step"):
            continue
        if kind in ("validation", "gate", "feedback"):
            if per == "round":
                yield name, int(float(row["rounds"])), float(value)
        elif per == "step":
            yield name, int(row["step"]), float(value)


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
