"""Keep what `opcod solve` finds: one file of solved questions, whole after every batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from opcod.data.jsonl import read_questions, write_questions
from opcod.data.questions import Question
from opcod.ranks import Ranks
from opcod.solving import Solved


class SolutionWriter(BasePredictionWriter):
    """Adds the questions that were solved to a file of questions, and says how many.

    Args:
        path: The file; what it holds stays.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("batch")
        self.path = path
        self.solved: list[Question] = []
        self.asked: Counter[str] = Counter()
        self.found: Counter[tuple[str, bool]] = Counter()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse several processes."""
        Ranks.refuse(trainer, "solving")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read what is there already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.solved = read_questions(self.path) if self.path.exists() else []

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Sequence[Solved],
        batch_indices: Sequence[int] | None,
        batch: Sequence[Question],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Add a batch's."""
        self.asked.update(q.domain for q in batch)
        self.found.update((s.question.domain, s.keyed) for s in prediction)
        self.solved += [s.question for s in prediction]
        if self.solved:
            write_questions(self.path, self.solved)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was found."""
        for domain, asked in self.asked.items():
            alone, keyed = (self.found[domain, shown] for shown in (False, True))
            print(f"{domain}: of {asked} questions {alone} were solved, and {keyed} more when the key was shown.")
        where = f"in {self.path}" if self.solved else "no file was written"
        print(f"{len(self.solved)} worked solutions: {where}.")
