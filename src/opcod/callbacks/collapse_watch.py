"""Collapse shows before the scores fall: a student's writing is compared with how it wrote when the run began."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from opcod.counts import check_counts
from opcod.records import StepRecord

WATCHED = ("entropy", "response_tokens", "truncated", "repetition", "format", "divergence", "overlap")
"""Figures of a step that tell of a collapse, as they are logged behind `train/<student>/`."""
_REMEDY = "lower the learning rate, and go on from an earlier checkpoint"


class CollapseError(RuntimeError):
    """A student collapses, and the run was to stop then."""


@dataclass(frozen=True)
class Limits:
    """How far a student may go from how it began, as a mean over a few steps.

    Args:
        entropy_fall: Smallest entropy a token, as a share of that at the beginning.
        entropy_rise: Largest, as a multiple of it.
        lengthening: Largest rise of the share of responses that are cut off.
        shortening: Smallest length of a response, as a share of that at the beginning.
        repetition: Largest rise of the share of repeated 4-grams.
        format: Largest fall of the share of responses in the format.
        divergence: Largest divergence from the self-teacher, as a multiple of that at the beginning.
        overlap: Largest fall of the share of the student's top-k tokens that are among the self-teacher's.
    """

    entropy_fall: float = 0.1
    entropy_rise: float = 2.5
    lengthening: float = 0.2
    shortening: float = 0.6
    repetition: float = 0.15
    format: float = 0.25
    divergence: float = 3.0
    overlap: float = 0.15


class CollapseWatch(Callback):
    """Warns, once for each cause and student, when what a student writes is no longer as it was when the run began.

    Watched are the entropy of its tokens' distributions, the length, repetition and format of its responses, its
    divergence from its self-teacher, and how many of its likeliest tokens are also the self-teacher's; those that the
    method has.

    Args:
        beginning: The first steps of a student, whose mean is what it began with.
        window: The last steps since then, whose mean is compared with it.
        limits: How far it may go.
        stop: End the run instead of warning.

    Raises:
        CollapseError: With `stop`, at the first sign.
    """

    def __init__(self, beginning: int = 2, window: int = 2, limits: Limits = Limits(), stop: bool = False) -> None:
        check_counts(beginning=beginning, window=window)
        self.beginning = beginning
        self.window = window
        self.limits = limits
        self.stop = stop
        self._first: dict[str, list[dict[str, float]]] = {}
        self._last: dict[str, list[dict[str, float]]] = {}
        self.told: dict[str, list[str]] = {}  # student -> the causes that were named

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step, in each of the phases that it was a step of."""
        records: list[StepRecord] = getattr(pl_module, "records", [])
        if not records:
            raise ValueError(f"{type(pl_module).__name__} keeps no samples: take CollapseWatch out of the callbacks")
        signs = [sign for record in records for sign in self.observe(record.tutee, record.figures)]
        if signs and self.stop:
            raise CollapseError("; ".join(signs))
        for sign in signs if trainer.is_global_zero else []:
            warnings.warn(sign, stacklevel=1)

    def observe(self, student: str, figures: Mapping[str, float]) -> list[str]:
        """Take a step's figures, under the names they are logged by, and say which signs of a collapse are new."""
        found = {name: figures.get(f"train/{student}/{name}", math.nan) for name in WATCHED}
        first, last = self._first.setdefault(student, []), self._last.setdefault(student, [])
        told = self.told.setdefault(student, [])
        if len(first) < self.beginning:
            first.append(found)
            return []
        last.append(found)
        del last[: -self.window]
        shown = signs(student, _means(first), _means(last), self.limits)
        new = {cause: sign for cause, sign in shown.items() if cause not in told}
        told += new
        return list(new.values())

    def state_dict(self) -> dict[str, Any]:
        """What was seen, and what was said."""
        return {"first": self._first, "last": self._last, "told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._first, self._last, self.told = (state_dict[name] for name in ("first", "last", "told"))


def signs(who: str, began: Mapping[str, float], now: Mapping[str, float], limits: Limits) -> dict[str, str]:
    """The signs of a collapse: cause -> what is seen and what to do; a figure that is not known shows none.

    Args:
        who: The student.
        began: The figures of `WATCHED` when the run began.
        now: The same now.
        limits: How far they may be apart.
    """
    entropy, tokens, divergence = ((began[name], now[name]) for name in ("entropy", "response_tokens", "divergence"))
    rise = {name: now[name] - began[name] for name in ("truncated", "repetition", "format", "overlap")}

    def change(name: str) -> str:
        return f"{began[name]:.3g} to {now[name]:.3g}"

    told = {
        "entropy_fall": (
            entropy[1] < limits.entropy_fall * entropy[0],
            f"{who}'s responses become all alike, the entropy of a token went from {change('entropy')} nats: {_REMEDY}",
        ),
        "entropy_rise": (
            entropy[1] > limits.entropy_rise * entropy[0],
            f"{who} drifts to arbitrary tokens, the entropy of one went from {change('entropy')} nats: {_REMEDY}",
        ),
        "lengthening": (
            rise["truncated"] > limits.lengthening,
            f"{who}'s responses run to their limit, the share cut off went from {change('truncated')}: {_REMEDY}",
        ),
        "shortening": (
            tokens[1] < limits.shortening * tokens[0],
            f"{who}'s responses shrink, their mean length went from {change('response_tokens')} tokens: {_REMEDY}",
        ),
        "repetition": (
            rise["repetition"] > limits.repetition,
            f"{who} repeats itself, the share of repeated 4-grams went from {change('repetition')}: {_REMEDY}",
        ),
        "format": (
            -rise["format"] > limits.format,
            f"{who} loses the format, the share of responses in it went from {change('format')}: {_REMEDY}",
        ),
        "divergence": (
            divergence[1] > limits.divergence * divergence[0],
            f"{who} leaves its self-teacher, the divergence a token went from {change('divergence')} nats: {_REMEDY}",
        ),
        "overlap": (
            -rise["overlap"] > limits.overlap,
            f"{who} and its self-teacher part, the overlap of likely tokens went from {change('overlap')}: {_REMEDY}",
        ),
    }
    return {cause: sign for cause, (shown, sign) in told.items() if shown}


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each figure over the steps in which it is known."""
    known = {name: [step[name] for step in steps if not math.isnan(step[name])] for name in WATCHED}
    return {name: sum(values) / len(values) if values else math.nan for name, values in known.items()}
