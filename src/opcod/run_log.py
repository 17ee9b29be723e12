"""The file of what a run logs, which a run that is resumed in the same folder goes on with."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from opcod.callbacks.checkpoints import write_whole
from opcod.data.questions import is_number

Row = dict[str, str]
_OF_A_RUN = {"round", "rounds", "loss"}
"""Of these, what is logged while students or a specialist learn has one."""


class RunLog(CSVLogger):
    """Lightning's CSVLogger, which leaves what an earlier run logged in the same folder before this one goes on.

    Lightning's own deletes it. Rows of steps that are made again are dropped, all of them where a run begins anew; the
    rows before those stand before them in the file as well, whichever phases are gone through at the same time. What is
    logged by a command that trains nobody, such as `opcod test`, stands behind the run's own rows.
    """

    _earlier: list[Row] | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes `metrics.csv`, where the rows that are there already stay until something is logged."""
        if self._experiment is None:
            path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            self._earlier = _rows_of(path)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"Experiment logs directory .* exists and is not empty")
                writer: ExperimentWriter = super().experiment
            self._write(writer, self._earlier)
        return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:  # type: ignore[override]
        """Log figures, the first time in place of all that was logged from there on before."""
        if self.experiment is not None and self._earlier and step is not None and not _OF_A_RUN.isdisjoint(metrics):
            self._write(self.experiment, _made_before(self._earlier, step, metrics))
        self._earlier = None
        super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Leave no empty folder behind where a run failed before anything was written."""
        super().finalize(status)
        if status == "failed" and self._experiment is not None:
            with suppress(OSError):  # it holds something
                Path(self.log_dir).rmdir()

    def _write(self, writer: ExperimentWriter, rows: list[Row]) -> None:
        path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        writer.metrics_keys = sorted({name for row in rows for name in row})
        if rows:
            write_whole(path, _csv(writer.metrics_keys, rows))
        else:
            path.unlink(missing_ok=True)


def _rows_of(path: Path) -> list[Row]:
    """The whole rows of an earlier run; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    return [row for row in rows if is_number(row.get("step", ""))]


def _made_before(rows: list[Row], step: float, metrics: Mapping[str, float]) -> list[Row]:
    """Those of the rows of a file that stay where a run goes on with these figures."""
    here = _place(step, metrics, metrics.get("rounds"))
    at_or_after = (i for i, row in enumerate(rows) if _place_of(row) >= here and not _beside(row, metrics))
    made = next(at_or_after, len(rows))
    told = (row for row in rows[made:] if not any(row.get(name) for name in _OF_A_RUN) and _place_of(row) < here)
    return [*rows[:made], *told]


def _beside(row: Row, metrics: Mapping[str, float]) -> bool:
    """Whether a row is of another phase of the same round, which may be gone through at the same time."""
    if not (row.get("phase") and "phase" in metrics):
        return False
    return float(row["round"]) == metrics["round"] and float(row["phase"]) != metrics["phase"]


def _place_of(row: Row) -> tuple[float, bool]:
    logged = {name: value for name, value in row.items() if value}
    return _place(float(row["step"]), logged, logged.get("rounds"))


def _place(step: float, names: Collection[str], rounds: Any) -> tuple[float, bool]:
    """Where figures stand in a run: a step's before the scores after it, and first of all the first scores."""
    scores = any(name.startswith("validation/") for name in names)
    return (-1, True) if rounds is not None and float(rounds) == 0 else (step, scores)


def _csv(names: list[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
