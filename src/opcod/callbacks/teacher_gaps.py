"""The teacher gap beside the scores of `opcod validate`: what there is to learn, before anything is trained."""

from __future__ import annotations

import json
from dataclasses import asdict

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table

from opcod.callbacks.checkpoints import run_folder, write_whole
from opcod.callbacks.progress import tell
from opcod.checkpoint import freeze_tutors
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.diagnosis import TeacherGap, teacher_gaps
from opcod.ranks import Ranks

NAME = "teacher_gaps.json"
Gaps = dict[str, dict[str, dict[str, TeacherGap]]]
"""Student -> domain -> what is shown -> the gap."""


class TeacherGapTable(Callback):
    """After `opcod validate` measures and prints how much better each student answers as its own self-teacher.

    Its peer as it is gives the feedback, whatever the gate says. Where a gap is not positive, training on that context
    cannot help (arXiv 2605.30070). Writes `teacher_gaps.json` in the run's log folder as well.

    Args:
        samples: Responses a validation question; at least 2, for there to be a solution of the student's own.
    """

    def __init__(self, samples: int = 4) -> None:
        if samples < 2:
            raise ValueError(f"samples is {samples}, expected at least 2")
        self.samples = samples

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse several processes, and a method without self-teachers.

        Raises:
            ValueError: If nobody could be measured.
        """
        Ranks.refuse(trainer, "measuring teacher gaps")
        if stage == "validate" and not isinstance(pl_module, CoDistillation):
            raise ValueError(f"{type(pl_module).__name__} has no self-teachers: take TeacherGapTable out")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure, print and write the gaps."""
        if trainer.state.fn != "validate":
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, CoDistillation)
        assert isinstance(data, QuestionData)
        assert data.splits is not None
        freeze_tutors(pl_module.peers, None)
        tell(trainer, "measuring the teacher gaps")
        gaps = teacher_gaps(pl_module, data.splits.validation, samples=self.samples)
        write_whole(run_folder(trainer) / NAME, gaps_json(gaps))
        Console().print(gap_table(gaps))


def gap_table(gaps: Gaps) -> Table:
    """Accuracies in per cent and their difference in points."""
    table = Table(
        "student",
        "domain",
        "shown",
        title="the self-teacher against the student",
        title_style="bold",
        title_justify="left",
    )
    for column in ("responses", "student", "self-teacher", "gap"):
        table.add_column(column, justify="right")
    for student, domains in gaps.items():
        for domain, by_shown in domains.items():
            for i, (shown, gap) in enumerate(by_shown.items()):
                figures = [f"{100 * gap.student:.1f}", f"{100 * gap.teacher:.1f}", f"{100 * gap.gap:+.1f}"]
                names = (student, domain) if i == 0 else ("", "")
                last = i == len(by_shown) - 1
                table.add_row(*names, shown, str(gap.count), *(figures if gap.count else ["-"] * 3), end_section=last)
    return table


def gaps_json(gaps: Gaps) -> str:
    """The gaps; accuracies without any response are null."""
    rows = {
        student: {
            domain: {
                shown: asdict(gap) if gap.count else {"student": None, "teacher": None, "count": 0}
                for shown, gap in by_shown.items()
            }
            for domain, by_shown in domains.items()
        }
        for student, domains in gaps.items()
    }
    return json.dumps(rows, indent=2, allow_nan=False) + "\n"
