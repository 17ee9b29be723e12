"""Write what `opcod predict` samples as it comes: one JSON object a response."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from opcod.callbacks.checkpoints import append_rows, run_folder
from opcod.ranks import Ranks

NAME = "predictions.jsonl"


class PredictionWriter(BasePredictionWriter):
    """Writes the rows of every batch to `predictions.jsonl` as soon as they are there; an older file is replaced.

    Args:
        folder: Where to; by default the run's log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__("batch")
        self.folder = folder

    def _path(self, trainer: L.Trainer) -> Path:
        return Path(self.folder or run_folder(trainer)) / NAME

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin an empty file."""
        if trainer.is_global_zero:
            self._path(trainer).parent.mkdir(parents=True, exist_ok=True)
            self._path(trainer).write_text("", "utf-8")

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Sequence[dict[str, Any]],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Add a batch's rows, those of all processes."""
        rows = Ranks.of(trainer).gather(prediction)
        if trainer.is_global_zero:
            append_rows(self._path(trainer), chain.from_iterable(rows))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say where they are."""
        trainer.print(f"The responses are in {self._path(trainer)}.")
