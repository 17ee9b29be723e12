"""A tutor that leaks, gives orders or repeats itself is named while the run goes on."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from opcod.records import StepRecord
from opcod.trust import doubts


class TutorWatch(Callback):
    """Warns, once for each cause and tutor, when much of a tutor's feedback is what no honest tutor writes.

    What is looked at is the feedback as it was written, before anything was taken out of it. Nothing is stopped: what
    is found is taken out anyway, unless `anchored` is false.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[list[str]]] = {}
        self._told: dict[str, list[str]] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step's feedback; methods without tutors have none."""
        record = getattr(pl_module, "record", None)
        if isinstance(record, StepRecord) and record.tutor:
            for doubt in self.observe(record):
                warnings.warn(doubt, stacklevel=1)

    def observe(self, record: StepRecord) -> list[str]:
        """Take a step's feedback, and say which doubts about its tutor are new."""
        found = self._found.setdefault(record.tutor, [])
        told = self._told.setdefault(record.tutor, [])
        found += [sorted(feedback.found) for feedback in record.asked_feedbacks()]
        new = {kind: doubt for kind, doubt in doubts(record.tutor, found).items() if kind not in told}
        told += new
        return list(new.values())

    def state_dict(self) -> dict[str, Any]:
        """What was found, and what was said."""
        return {"found": self._found, "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._found, self._told = state_dict["found"], state_dict["told"]
