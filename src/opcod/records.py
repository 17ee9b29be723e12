"""What one step of training leaves behind: its record, its figures, and warnings of a dead run."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opcod.attempts import Attempt
from opcod.contexts import Context
from opcod.data.loaders import StepBatch
from opcod.feedback import Feedback, Outcome
from opcod.matching import Match

_NGRAM = 4  # tokens in a row that count as a repetition when they come again


@dataclass(frozen=True)
class Mean:
    """What one rank adds to a figure that is a mean over the whole step: a sum, and of how many."""

    total: float
    count: float


@dataclass(frozen=True)
class Sum:
    """What one rank adds to a figure that is a sum over the whole step."""

    value: float


@dataclass(frozen=True)
class Slowest:
    """Seconds that one rank took; the step takes as long as the slowest does."""

    value: float


Figure = Mean | Sum | Slowest | float
"""A figure as one rank has it; a plain number is the same on all."""


def over_ranks(figures: Sequence[Mapping[str, Figure]]) -> dict[str, float]:
    """The figures of a whole step.

    Args:
        figures: Of every rank, under the same names; a rank without questions may lack some.
    """
    names = dict.fromkeys(name for of_rank in figures for name in of_rank)
    return {name: _over_ranks([of_rank[name] for of_rank in figures if name in of_rank]) for name in names}


def _over_ranks(parts: Sequence[Figure]) -> float:
    if isinstance(parts[0], Mean):
        means = [part for part in parts if isinstance(part, Mean)]
        return sum(m.total for m in means) / max(sum(m.count for m in means), 1)
    if isinstance(parts[0], Sum):
        return sum(part.value for part in parts if isinstance(part, Sum))
    if isinstance(parts[0], Slowest):
        return max(part.value for part in parts if isinstance(part, Slowest))
    return float(parts[0])


@dataclass
class StepRecord:
    """All that happened in one step, for whoever shows or keeps it.

    Args:
        batch: Questions and the step's place in the run.
        tutee: Who learns.
        tutor: Who gives feedback; empty where a student is alone.
        spoken: The domains on which the tutor may speak this round.
        groups: The attempts on each question; none where nothing is sampled.
        feedbacks: On each attempt, in the same shape.
        contexts: What was distilled.
        figures: What is logged.
        divergences: Of each context's response tokens, student from self-teacher, [T] each in nats; none in baselines.
    """

    batch: StepBatch
    tutee: str
    tutor: str
    spoken: frozenset[str]
    groups: list[list[Attempt]]
    feedbacks: list[list[Feedback]]
    contexts: list[Context]
    figures: dict[str, float] = field(default_factory=dict)
    divergences: list[Tensor] = field(default_factory=list)

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts, question after question."""
        return [a for group in self.groups for a in group]

    def head(self) -> StepRecord:
        """The record without what was asked, said and distilled."""
        batch = replace(self.batch, questions=[])
        return replace(self, batch=batch, groups=[], feedbacks=[], contexts=[], figures={}, divergences=[])

    def asked_feedbacks(self) -> list[Feedback]:
        """All feedback that the tutor was asked for."""
        pairs = zip(self.attempts, (f for group in self.feedbacks for f in group), strict=True)
        return [f for a, f in pairs if a.question.domain in self.spoken]


def figures_of(record: StepRecord, *, norm: float, skipped: int) -> dict[str, Figure]:
    """The figures of any step, under the names they are logged by, as far as they are this rank's.

    Args:
        record: The step, with this rank's share of it.
        norm: The gradient's norm before clipping.
        skipped: Updates of this tutee that were skipped so far.
    """
    attempts, asked, who = record.attempts, record.asked_feedbacks(), f"train/{record.tutee}"
    figures: dict[str, Figure] = {
        "round": float(record.batch.round),
        "phase": float(record.batch.phase),
        "phase_step": float(record.batch.step),
        f"{who}/gradient_norm": norm,
        f"{who}/skipped_updates": float(skipped),
    }
    if attempts:
        figures |= {
            f"{who}/accuracy": _mean(a.grade.correct for a in attempts),
            f"{who}/format": _mean(a.grade.formatted for a in attempts),
            f"{who}/success_groups": _mean(any(a.grade.correct for a in group) for group in record.groups),
            f"{who}/response_tokens": _mean(len(a.response.tokens) for a in attempts),
            f"{who}/truncated": _mean(not a.response.finished for a in attempts),
            f"{who}/entropy": _mean_of_tokens(attempts),
            f"{who}/repetition": _mean(repetition(a.response.tokens.tolist()) for a in attempts),
        }
    if asked:
        figures[f"{who}/feedback_kept"] = _mean(f.outcome is Outcome.MATCH for f in asked)
        figures[f"{who}/feedback_tokens"] = _mean(f.tokens for f in asked)
        figures[f"{who}/feedback_truncated"] = _mean(not f.finished for f in asked)
    return figures


def repetition(tokens: Sequence[int]) -> float:
    """The share of a response's n-grams, n = 4, that stood in it before; 0 where it has none."""
    found = list(zip(*(tokens[start:] for start in range(_NGRAM)), strict=False))
    return 1 - len(set(found)) / len(found) if found else 0.0


def distillation_figures(record: StepRecord, matched: Match | None, cut: int) -> dict[str, Figure]:
    """What of the step was distilled, and what it came to.

    Args:
        record: The step, with this rank's share of it.
        matched: None where nothing was distilled.
        cut: Tokens of s and f that were cut away.
    """
    who = f"train/{record.tutee}"
    figures: dict[str, Figure] = {
        f"{who}/distilled": Mean(len(record.contexts), len(record.attempts)),
        f"{who}/context_cut": Sum(cut),
    }
    if matched is not None:
        figures[f"{who}/loss"] = Sum(matched.loss)
        if matched.tokens:
            figures[f"{who}/divergence"] = Mean(matched.divergence * matched.tokens, matched.tokens)
            figures[f"{who}/overlap"] = Mean(matched.overlap * matched.tokens, matched.tokens)
    return figures


def deaths_of(figures: Mapping[str, float], tutee: str, tutor: str = "the tutor") -> list[str]:
    """Why a step, by its figures, could not teach anything, and what to do about it."""
    who = f"train/{tutee}"
    deaths = []
    if figures.get(f"{who}/success_groups") == 0:
        deaths.append("no right response to any question; take easier questions or more samples")
    if figures.get(f"{who}/feedback_kept") == 0:
        deaths.append(
            f"none of {tutor}'s feedback was kept; read the samples, teach the specialist to tutor, or set `anchored` "
            "to false"
        )
    if figures.get(f"{who}/truncated") == 1:
        deaths.append("every response was cut off; raise `rollout.max_new_tokens`")
    if figures.get(f"{who}/distilled") == 0:
        if figures.get(f"{who}/context_cut"):
            deaths.append("every s and f was cut away whole, so nothing is distilled; raise `context.limit`")
        else:
            deaths.append("no response has a context, so nothing is distilled")
    elif figures.get(f"{who}/contrasted") == 0:
        deaths.append("every question's responses are all right or all wrong, so none has an advantage")
    elif not all(math.isfinite(figures.get(f"{who}/{name}", 0)) for name in ("loss", "gradient_norm")):
        deaths.append("the loss or its gradient is not finite, so the update is skipped; lower the learning rate")
    elif figures.get(f"{who}/gradient_norm") == 0:
        deaths.append("the gradient is zero; does the self-teacher see what the student does not, is there a loss?")
    place = [figures.get(name, math.nan) + 1 for name in ("round", "phase", "phase_step")]
    return ["round {:.0f}, phase {:.0f}, step {:.0f}: ".format(*place) + death for death in deaths]


def warn_if_dead(record: StepRecord) -> None:
    """Say so where a step cannot teach anything, and what to do."""
    for death in deaths_of(record.figures, record.tutee, record.tutor):
        warnings.warn(death, stacklevel=2)


class Clock:
    """Seconds of each part of a step, and the tokens it dealt with."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens: dict[str, int] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Time a part."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[part] = time.perf_counter() - start

    def count(self, part: str, tokens: int) -> None:
        """Note how many tokens a part sampled or distilled."""
        self.tokens[part] = tokens

    @property
    def figures(self) -> dict[str, Figure]:
        """As `paced` takes them, over all ranks."""
        seconds: dict[str, Figure] = {f"seconds/{part}": Slowest(spent) for part, spent in self.seconds.items()}
        return seconds | {f"tokens/{part}": Sum(count) for part, count in self.tokens.items()}


def paced(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of a step with tokens a second in place of tokens, where there are any."""
    kept = {}
    for name, value in figures.items():
        kind, _, part = name.partition("/")
        if kind != "tokens":
            kept[name] = value
        elif value:
            kept[f"tokens_per_second/{part}"] = value / max(figures[f"seconds/{part}"], 1e-9)
    return kept


def _mean_of_tokens(attempts: Sequence[Attempt]) -> Mean:
    """The entropy of a token, mean over all tokens of all responses."""
    lengths = [len(a.response.tokens) for a in attempts]
    return Mean(sum(a.response.entropy * n for a, n in zip(attempts, lengths, strict=True)), sum(lengths))


def _mean(values: Iterable[float]) -> Mean:
    listed = list(values)
    return Mean(sum(listed), len(listed))
