"""A tutor that is not to be trusted is named: by what is found in its feedback, and by what its feedback did.

The limits stand between what honest tutors were measured at and what tutors that leak, lie or give orders were
(docs/trust.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from opcod.ranks import Ranks
from opcod.records import StepRecord

LIMITS = {"reveal": 0.25, "order": 0.1, "repetition": 0.25}
"""What is found in feedback -> the largest share of it in which that is nothing to say."""
FEWEST = 8
"""Feedbacks that have to be seen before anything is said."""
BREAKS = 0.1
"""Largest break rate, at the lower end of its interval."""
_FOUND = {
    "reveal": "gives the answer away in",
    "order": "gives orders to the reader, or poses as another turn of the chat, in",
    "repetition": "repeats itself in",
}
_REMEDY = "read the exchanges, and train without this tutor (`gate.strategy` never) unless that is harmless"


@dataclass
class Tally:
    """What was found in a tutor's feedbacks.

    Args:
        feedbacks: How many there were.
        kinds: In how many of them each kind was found, see `opcod.sanitizing.Sanitized`.
    """

    feedbacks: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, kinds: Collection[str]) -> None:
        """Count one more feedback."""
        self.feedbacks += 1
        for kind in kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1


def doubts(tutor: str, found: Tally) -> dict[str, str]:
    """Why a tutor is not to be trusted, by what was found in its feedback: kind -> sentence.

    Args:
        tutor: Its name.
        found: In all its feedbacks.
    """
    if found.feedbacks < FEWEST:
        return {}
    shares = {kind: found.kinds.get(kind, 0) / found.feedbacks for kind in LIMITS}
    return {
        kind: f"{tutor} {_FOUND[kind]} {100 * share:.0f} % of {found.feedbacks} feedbacks; {_REMEDY}"
        for kind, share in shares.items()
        if share > LIMITS[kind]
    }


def doubt_of_breaks(tutor: str, tutee: str, rates: Mapping[str, float]) -> str | None:
    """The same by how many right responses turned wrong; None where that is within what honest tutors do.

    Args:
        tutor: Its name.
        tutee: Its peer's.
        rates: As `BreakRate` computes them.
    """
    low = rates.get("break/all/low")
    if low is None or not low > BREAKS:
        return None
    return (
        f"{tutor}'s feedback turned {100 * rates['break/all']:.0f} % of {rates['right/all']:.0f} right responses of "
        f"{tutee} wrong; {_REMEDY}"
    )


class TutorWatch(Callback):
    """Warns, once for each cause and tutor, when much of a tutor's feedback is what no honest tutor writes.

    What is looked at is the feedback as it was written, before anything was taken out of it. Nothing is stopped: what
    is found is taken out anyway, unless `anchored` is false.
    """

    def __init__(self) -> None:
        self._found: dict[str, Tally] = {}
        self._told: dict[str, list[str]] = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step's feedback; methods without tutors have none."""
        record = getattr(pl_module, "record", None)
        if not isinstance(record, StepRecord) or not record.tutor:
            return
        mine = record.tutor, [sorted(feedback.found) for feedback in record.asked_feedbacks()]
        for tutor, found in Ranks.of(trainer).gather(mine):
            for doubt in self.observe(tutor, found):
                if trainer.is_global_zero:
                    warnings.warn(doubt, stacklevel=1)

    def observe(self, tutor: str, found: list[list[str]]) -> list[str]:
        """Take what was found in each of a tutor's feedbacks, and say which doubts about it are new."""
        seen, told = self._found.setdefault(tutor, Tally()), self._told.setdefault(tutor, [])
        for kinds in found:
            seen.add(kinds)
        new = {kind: doubt for kind, doubt in doubts(tutor, seen).items() if kind not in told}
        told += new
        return list(new.values())

    def state_dict(self) -> dict[str, Any]:
        """What was found, and what was said."""
        return {"found": {tutor: asdict(tally) for tutor, tally in self._found.items()}, "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._found = {tutor: Tally(**tally) for tutor, tally in state_dict["found"].items()}
        self._told = state_dict["told"]
