"""Break and rescue rates, in all directions between students: what `opcod diagnose` measures, prints and writes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from opcod.callbacks.checkpoints import jsonl, run_folder, write_whole
from opcod.callbacks.progress import tell
from opcod.callbacks.samples import CHARACTERS, told
from opcod.checkpoint import freeze_tutors
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.diagnosis import Diagnosis, Turn, diagnose, refuse_alone
from opcod.metrics import DIFFICULTIES
from opcod.ranks import Ranks

NAME = "diagnosis.json"
EXCHANGES = "diagnosis.jsonl"


class BreakRateTable(Callback):
    """After a validation measures how often feedback turns right responses wrong and wrong ones right.

    Writes `diagnosis.json` in the run's log folder as well, and to `diagnosis.jsonl` every response that was answered
    again, with the feedback and the new response.

    Args:
        tutors: Checkpoint whose students give the feedback; by default the students that are validated do.
    """

    def __init__(self, tutors: str | None = None) -> None:
        self.tutors = tutors

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse several processes, and a method whose students say nothing to one another.

        Raises:
            ValueError: If nobody could be measured.
        """
        Ranks.refuse(trainer, "a diagnosis")
        if stage != "validate":
            return
        if not isinstance(pl_module, CoDistillation):
            raise ValueError(f"a diagnosis is of co-distillation: {type(pl_module).__name__} has no tutors")
        refuse_alone(pl_module.students)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, print and write."""
        if trainer.state.fn != "validate":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, CoDistillation)
        assert isinstance(data, QuestionData)
        assert data.splits is not None
        freeze_tutors(pl_module.peers, self.tutors)
        tell(trainer, "measuring break and rescue rates")
        found = diagnose(pl_module, data.splits.validation)
        folder = run_folder(trainer)
        write_whole(folder / NAME, diagnosis_json(found))
        write_whole(folder / EXCHANGES, exchanges_jsonl(found))
        console = Console()
        for diagnosis in found:
            console.print(rate_table(diagnosis))
        trainer.print(f"The rates are in {folder / NAME}, the exchanges beside them.")


def rate_table(diagnosis: Diagnosis) -> Table:
    """One direction: rates in per cent with their 95 % intervals, and of how many responses."""
    state = "cognizant" if diagnosis.cognizant else "incognizant"
    kept = diagnosis.outcomes["share/match"]
    table = Table(
        "domain",
        "difficulty",
        title=f"{diagnosis.tutor} to {diagnosis.tutee}: {state}, gap {diagnosis.gap:.2f}, "
        f"{100 * kept:.0f} % of its feedback kept",
        title_style="bold",
        title_justify="left",
    )
    for column in ("break rate", "of right", "rescue rate", "of wrong"):
        table.add_column(column, justify="right")
    for domain, rates in diagnosis.rates.items():
        for i, difficulty in enumerate(DIFFICULTIES):
            last = i == len(DIFFICULTIES) - 1
            table.add_row(
                domain if i == 0 else "",
                difficulty,
                _interval(rates, f"break/{difficulty}"),
                f"{rates[f'right/{difficulty}']:.0f}",
                _interval(rates, f"rescue/{difficulty}"),
                f"{rates[f'wrong/{difficulty}']:.0f}",
                end_section=last,
            )
    return table


def _interval(rates: dict[str, float], name: str) -> str:
    if math.isnan(rates[name]):
        return "-"
    low, high = (f"{100 * rates[f'{name}/{end}']:.0f}" for end in ("low", "high"))
    return f"{100 * rates[name]:.1f} ({low} to {high})"


def diagnosis_json(found: Sequence[Diagnosis]) -> str:
    """All figures; what is not known is null."""
    names = [f.name for f in fields(Diagnosis) if f.name != "turns"]
    listed = [_plain({name: getattr(diagnosis, name) for name in names}) for diagnosis in found]
    return json.dumps(listed, indent=2, allow_nan=False) + "\n"


def exchanges_jsonl(found: Sequence[Diagnosis]) -> str:
    """A row a response that was answered again, as `SampleTable` writes them, and whether it was broken or rescued."""
    return jsonl(
        {
            "tutee": diagnosis.tutee,
            "tutor": diagnosis.tutor,
            **told(turn.case.attempt, turn.case.given, _shown(turn), CHARACTERS),
            "flip": turn.flip,
        }
        for diagnosis in found
        for turn in diagnosis.turns
    )


def _shown(turn: Turn) -> dict[str, str | None]:
    return {"solution_shown": turn.case.solution, "feedback_shown": turn.case.feedback, "again": turn.again}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
