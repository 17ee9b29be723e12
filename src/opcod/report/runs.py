"""What a run left in its folder, read again: for `opcod report`, and for notebooks.

Nothing here needs the run to have ended. What is missing or cannot be read is said in `notes`, and the rest is shown.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from opcod.callbacks import break_rates, outcome, samples
from opcod.callbacks.tutor_watch import Tally, doubt_of_breaks, doubts
from opcod.collection import rate_rows
from opcod.comparison import Interval, Shares, paired_difference, read_answers
from opcod.records import deaths_of
from opcod.sanitizing import sanitized

METRICS, CONFIG = "metrics.csv", "config.yaml"
_NEEDED = ("tutee", "text", "response")  # of a row, whatever version wrote it
_PLACE = ("round", "phase", "step")  # and of one of training
_UNENDED = f"There is no {outcome.NAME}: the run has not ended, or it was stopped."

Place = tuple[str, str]
"""Student and domain."""


class ReportError(ValueError):
    """A folder that no report can be made of."""


@dataclass
class Run:
    """A run's folder as it was read.

    Args:
        folder: Where it is.
        name: As it is called beside others.
        config: As it was parsed; empty where it is missing.
        metrics: All that was logged, name -> value of each step or validation.
        outcome: Scores at both ends and the verdict; None where it has not ended.
        answers: `initial` or `final` -> (student, domain) -> shares of right responses to the test questions.
        exchanges: The rows of samples, and of a diagnosis, which have no round but a `flip`.
        diagnosis: Break and rescue rates, one a direction, where they were measured.
        notes: What is missing, in sentences.
    """

    folder: Path
    name: str
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    outcome: outcome.RunOutcome | None = None
    answers: dict[str, dict[Place, Shares]] = field(default_factory=dict)
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    diagnosis: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def only_diagnosed(self) -> bool:
        """Whether nobody was trained here, and only a diagnosis was made."""
        return bool(self.diagnosis) and not self.steps and self.outcome is None

    @property
    def tau(self) -> float | None:
        """The gate's threshold."""
        gate = self.setting("gate")
        return float(gate["tau"]) if isinstance(gate, dict) and "tau" in gate else None

    def setting(self, name: str) -> Any:
        """A setting of the model; None where it has none of that name."""
        model = self.config.get("model", {})
        return model.get("init_args", model).get(name) if isinstance(model, dict) else None

    def gain(self, place: Place) -> Interval | None:
        """What a student gained on a domain, question by question; None where that is not known."""
        return _difference(self.answers.get("final", {}), self.answers.get("initial", {}), place)

    def ahead(self, other: Run, place: Place) -> Interval | None:
        """What it is ahead of another run by at the end, on the questions that both answered."""
        return _difference(self.answers.get("final", {}), other.answers.get("final", {}), place)

    @property
    def validations(self) -> list[dict[str, float]]:
        """What was logged before the first round, and after each."""
        return [row for row in self.metrics if "rounds" in row]

    @property
    def steps(self) -> list[dict[str, float]]:
        """What was logged of training steps, in order."""
        return [row for row in self.metrics if "phase_step" in row]

    @property
    def warnings(self) -> list[str]:
        """What was wrong with single steps, as the run said it when they were done."""
        return [
            death
            for row in self.steps
            for tutee in sorted({name.split("/")[1] for name in row if name.startswith("train/")})
            for death in deaths_of(row, tutee)
        ]

    @property
    def doubts(self) -> list[str]:
        """Why a tutor is not to be trusted, by the feedback that was written down and by break rates."""
        found: defaultdict[str, Tally] = defaultdict(Tally)
        for row in self.exchanges:
            raw, options = row.get("feedback_raw"), row.get("options") or ()
            if isinstance(raw, str) and row.get("tutor"):
                found[str(row["tutor"])].add(sanitized(raw, [str(option) for option in options]).found)
        told = [doubt for tutor, tally in found.items() for doubt in doubts(tutor, tally).values()]
        broken = [doubt_of_breaks(one["tutor"], one["tutee"], one["rates"].get("all", {})) for one in self.diagnosis]
        return told + [doubt for doubt in broken if doubt]


def _difference(one: Mapping[Place, Shares], other: Mapping[Place, Shares], place: Place) -> Interval | None:
    try:
        return paired_difference(one.get(place, {}), other.get(place, {}))
    except ValueError:  # nothing to pair
        return None


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        ReportError: If it is none, or empty.
    """
    if not folder.is_dir():
        raise ReportError(f"there is no folder {folder}: give a run's, such as runs/version_0")
    known = (METRICS, samples.NAME, outcome.NAME, break_rates.NAME)
    if not any((folder / name).is_file() for name in known):
        inner = sorted({str(path.parent) for name in known for path in folder.glob(f"**/{name}")})
        hint = f"; there are runs in {', '.join(inner[:4])}" if inner else f": a run leaves {', '.join(known)} there"
        raise ReportError(f"{folder} holds no run{hint}")
    run = Run(folder, f"{folder.parent.name}/{folder.name}" if folder.parent.name else folder.name)
    run.config = _config(run)
    run.metrics = list(_metrics(run))
    run.outcome = _outcome(run)
    run.answers = _answers(run)
    run.exchanges = list(_exchanges(run))
    run.diagnosis = _diagnosis(run)
    if run.only_diagnosed:
        run.notes.remove(_UNENDED)
    return run


def _config(run: Run) -> dict[str, Any]:
    path = run.folder / CONFIG
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        run.notes.append(f"{CONFIG} is missing or cannot be read: settings are not shown.")
        return {}
    return read if isinstance(read, dict) else {}


def _metrics(run: Run) -> Iterator[dict[str, float]]:
    path = run.folder / METRICS
    if not path.is_file():
        run.notes.append(f"There is no {METRICS}: there are no curves.")
        return
    lost = 0
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                if None in row or None in row.values():  # more fields than names, or fewer
                    raise ValueError
                yield {name: float(value) for name, value in row.items() if name and value}
            except (TypeError, ValueError):  # or it was being written
                lost += 1
    if lost:
        run.notes.append(f"{lost} lines of {METRICS} are cut off or of another version, and are left out.")


def _outcome(run: Run) -> outcome.RunOutcome | None:
    read = _json(run, outcome.NAME)
    try:
        if read is not None:
            return outcome.RunOutcome(read["questions"], _table(read["initial"]), _table(read["final"]))
        run.notes.append(_UNENDED)
    except (KeyError, TypeError, AttributeError):
        run.notes.append(f"{outcome.NAME} is of another version: there is no verdict.")
    return None


def _answers(run: Run) -> dict[str, dict[Place, Shares]]:
    path = run.folder / outcome.ANSWERS
    if not path.is_file():
        return {}
    try:
        read = read_answers(path, pair="", method="", seed="0")
    except (KeyError, TypeError, ValueError):  # UnicodeDecodeError is one as well
        run.notes.append(f"{outcome.ANSWERS} is of another version: there are no paired intervals.")
        return {}
    return {end: {(cell.student, cell.domain): shares for cell, shares in cells.items()} for end, cells in read.items()}


def _diagnosis(run: Run) -> list[dict[str, Any]]:
    read = _json(run, break_rates.NAME) or []
    try:
        list(rate_rows(read))
    except (KeyError, TypeError, AttributeError):
        run.notes.append(f"{break_rates.NAME} is of another version: break and rescue rates are not shown.")
        return []
    return list(read)


def _table(read: dict[str, Any]) -> Any:
    """Scores as they were, of which those that are not known are nan."""
    return {
        student: {
            domain: {name: math.nan if value is None else float(value) for name, value in figures.items()}
            for domain, figures in domains.items()
        }
        for student, domains in read.items()
    }


def _json(run: Run, name: str) -> Any:
    path = run.folder / name
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        run.notes.append(f"{name} cannot be read.")
        return None


def _exchanges(run: Run) -> Iterator[dict[str, Any]]:
    found = [name for name in (samples.NAME, break_rates.EXCHANGES) if (run.folder / name).is_file()]
    if not found:
        run.notes.append(f"There is no {samples.NAME}: what was said is not shown.")
    for name in found:
        yield from _rows(run, name, (*_NEEDED, *_PLACE) if name == samples.NAME else (*_NEEDED, "flip"))


def _rows(run: Run, name: str, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    lost = 0
    with (run.folder / name).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the run died while it wrote
                lost += 1
                continue
            if isinstance(row, dict) and all(field in row for field in needed):
                yield row
            else:
                lost += 1
    if lost:
        run.notes.append(f"{lost} lines of {name} are cut off or of another version, and are left out.")
