"""Write what `opcod predict` sampled: one JSON object a response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from opcod.callbacks.checkpoints import run_folder, whole

NAME = "predictions.jsonl"


class PredictionWriter(BasePredictionWriter):
    """Writes `predictions.jsonl` when a prediction has ended; the file appears whole or not at all.

    Args:
        folder: Where to; by default the run's log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        super().__init__("epoch")
        self.folder = folder

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write the rows of all batches."""
        path = Path(self.folder or run_folder(trainer)) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
            for rows in predictions:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        print(f"The responses are in {path}.")
