"""The method's scores as torchmetrics: avg@k, pass@k, maj@k, format, feedback outcomes, break rate.

All states reduce over processes. What a single step logs, plain means and sums, stands in `opcod.records`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from opcod.feedback import Outcome

DIFFICULTIES = {"all": (0, 8), "easiest": (0, 1), "easy": (0, 4), "hard": (5, 7), "hardest": (7, 7)}
"""Difficulty -> fewest and most wrong of a question's 8 responses; the paper's bins overlap."""


def pass_at_k(correct: int, total: int, k: int) -> float:
    """The unbiased chance that at least one of k responses is right, 1 - C(total - correct, k) / C(total, k).

    Args:
        correct: How many of the sampled responses are right.
        total: How many were sampled.
        k: How many may be tried, at most `total`.

    Raises:
        ValueError: If not 0 <= correct <= total or not 1 <= k <= total.
    """
    if not (0 <= correct <= total and 1 <= k <= total):
        raise ValueError(f"pass@{k} of {correct} right in {total} responses is not defined: sample at least k = {k}")
    return 1.0 - math.comb(total - correct, k) / math.comb(total, k)


def maj_at_k(correct: Sequence[bool], choices: Sequence[str | None], k: int) -> float:
    """The chance that the majority's answer of the first k responses is right.

    Responses without a readable answer do not vote; of several leading answers each is as likely to be taken;
    without any vote the answer is wrong.

    Args:
        correct: Whether each response is right.
        choices: The answer each gives, None if it gives none.
        k: How many responses vote, at most all.

    Raises:
        ValueError: If there are fewer than k responses.
    """
    if not 1 <= k <= len(choices):
        raise ValueError(f"maj@{k} of {len(choices)} responses is not defined: sample at least k = {k}")
    votes = Counter(choice for choice in choices[:k] if choice is not None)
    leaders = {choice for choice, count in votes.items() if count == max(votes.values())}
    taken = [right for right, choice in zip(correct[:k], choices[:k], strict=True) if choice in leaders]
    return sum(taken) / len(taken) if taken else 0.0


class AnswerScores(Metric):
    """avg@k, its standard error, pass@k, maj@k and format rate of one student on one domain (Scores).

    A question that comes twice counts once.

    Args:
        ks: The k of pass@k and maj@k, each at most the number of responses per question.
    """

    full_state_update = False
    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, ks: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.ks = tuple(ks)
        # Flat float rows: from a process without questions torchmetrics gathers one of length 0.
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(
        self, question: str, correct: Sequence[bool], formatted: Sequence[bool], choices: Sequence[str | None]
    ) -> None:
        """Add all responses to one question.

        Args:
            question: The question's id, its identity over all processes.
            correct: Whether each response is right.
            formatted: Whether each is in the right format.
            choices: The answer each gives, None if it gives none.

        Raises:
            ValueError: If the three differ in length, or are fewer than the largest k.
        """
        if not len(correct) == len(formatted) == len(choices) > 0:
            raise ValueError(
                f"question {question!r} has {len(correct)} correct flags, {len(formatted)} formatted flags and "
                f"{len(choices)} choices: give one of each for every response"
            )
        majorities = [maj_at_k(correct, choices, k) for k in self.ks]
        row = [*_identity(question), len(correct), sum(correct), sum(formatted), *majorities]
        self.rows.append(torch.tensor(row, dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """`avg`, `stderr`, `format`, `count` (questions), and `pass@k` and `maj@k` for every k.

        `stderr` is the standard error over questions of the per-question mean; nan below two questions.
        """
        table = _distinct(self.rows, 5 + len(self.ks))
        total, correct, formatted = table[:, 2], table[:, 3], table[:, 4]
        means = correct / total
        named = {"avg": means.mean(), "stderr": _standard_error(means), "format": (formatted / total).mean()}
        for i, k in enumerate(self.ks):
            passes = [pass_at_k(int(right), int(of), k) for right, of in zip(correct, total, strict=True)]
            named[f"pass@{k}"] = torch.tensor(passes, dtype=table.dtype).mean()
            named[f"maj@{k}"] = table[:, 5 + i].mean()
        return named | {"count": torch.tensor(float(len(table)), dtype=table.dtype)}

    def shares(self) -> dict[str, float]:
        """Of every question the share of right responses, under a name that is the same in every run.

        For pairing runs question by question. Of this process's questions alone, unless the metric is synchronised.
        """
        return {
            _named(int(row[0]), int(row[1])): float(row[3] / row[2]) for row in _distinct(self.rows, 5 + len(self.ks))
        }


def _identity(question: str) -> tuple[int, int]:
    """48 bits of a question's id, as two numbers that float32 holds exactly."""
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:3]), int.from_bytes(digest[3:6])


def _named(first: int, second: int) -> str:
    return f"{first:06x}{second:06x}"


def share_name(question: str) -> str:
    """Under which name `AnswerScores.shares` has a question of this id."""
    return _named(*_identity(question))


class FeedbackOutcomes(Metric):
    """How many feedbacks were kept, and why the others were dropped (section 1, How feedback is given).

    Args:
        **settings: Of torchmetrics.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("counts", default=torch.zeros(len(Outcome), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes of some feedbacks."""
        counted = Counter(outcomes)
        self.counts += torch.tensor([counted[outcome] for outcome in Outcome], device=self.device)

    def compute(self) -> dict[str, Tensor]:
        """For every outcome its `count/...` and its `share/...`; shares are nan without any feedback."""
        shares = self.counts.double() / self.counts.sum()
        counts = {f"count/{outcome}": count for outcome, count in zip(Outcome, self.counts, strict=True)}
        return counts | {f"share/{outcome}": share for outcome, share in zip(Outcome, shares, strict=True)}


class BreakRate(Metric):
    """Break and rescue rate: what the context does to right and wrong responses (section 1, Scores).

    The break rate is the share of a student's correct responses that turn wrong when it answers again as the
    self-teacher; the rescue rate the share of wrong ones that turn right. By difficulty, see `DIFFICULTIES`. A
    question that comes twice counts once.

    Args:
        draws: Of questions with replacement, for the intervals.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, draws: int = 1000) -> None:
        super().__init__()
        self.draws = draws
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, question: str, before: Sequence[bool], after: Sequence[bool], wrong: int) -> None:
        """Add the responses to one question whose feedback was kept.

        Args:
            question: The question's id, its identity over all processes.
            before: Whether each response is right.
            after: Whether the answer given instead as the self-teacher is.
            wrong: How many of all 8 responses to the question are wrong, the question's difficulty.

        Raises:
            ValueError: If `before` and `after` differ in length or `wrong` is not within 0 to 8.
        """
        if len(before) != len(after):
            raise ValueError(f"{len(before)} responses before and {len(after)} after: give both of every response")
        if not 0 <= wrong <= 8:
            raise ValueError(f"{wrong} wrong responses: the difficulties are defined for 8 responses a question")
        pairs = Counter(zip(before, after, strict=True))
        counts = [pairs[was, is_now] for was in (True, False) for is_now in (True, False)]
        row = [*_identity(question), wrong, *counts]
        self.rows.append(torch.tensor(row, dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """`break/...` and `rescue/...` for every difficulty, and of how many: `right/...` and `wrong/...`.

        With `.../low` and `.../high`, the bounds of the rate's 95 % interval, by bootstrap over questions. A rate
        without any response is nan, and so are its bounds.
        """
        table = _distinct(self.rows, 7)
        named = {}
        for difficulty, (fewest, most) in DIFFICULTIES.items():
            kept, broken, rescued, lost = table[(table[:, 2] >= fewest) & (table[:, 2] <= most)][:, 3:].T
            for name, of, turned, total in (
                ("break", "right", broken, kept + broken),
                ("rescue", "wrong", rescued, rescued + lost),
            ):
                named[f"{of}/{difficulty}"] = total.sum().long()
                named[f"{name}/{difficulty}"] = turned.sum() / total.sum()
                low, high = share_interval(turned, total, draws=self.draws)
                named[f"{name}/{difficulty}/low"], named[f"{name}/{difficulty}/high"] = low, high
        return named


def share_interval(turned: Tensor, total: Tensor, *, draws: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The 95 % interval of sum(turned) / sum(total), by bootstrap over questions (percentiles).

    Args:
        turned: For each question, how many responses turned [questions].
        total: Of how many [questions].
        draws: Of as many questions with replacement.
        seed: Of the draws.

    Returns:
        Its bounds; nan where there is no response. Draws without any response are left out.
    """
    if total.sum() == 0:
        return torch.tensor(math.nan, dtype=torch.float64), torch.tensor(math.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(total), (draws, len(total)), generator=generator)
    shares = turned.double()[drawn].sum(1) / total.double()[drawn].sum(1)
    low, high = shares.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return low, high


def _distinct(rows: list[Tensor], width: int) -> Tensor:
    """One row a question, each question once, in float64 [questions, width]; the first two columns identify it."""
    table = (dim_zero_cat(rows) if len(rows) else torch.empty(0)).cpu().double().reshape(-1, width)
    first = {(int(row[0]), int(row[1])): i for i, row in reversed(list(enumerate(table)))}
    return table[sorted(first.values())]


def _standard_error(values: Tensor) -> Tensor:
    if len(values) < 2:
        return torch.tensor(math.nan, dtype=values.dtype)
    return values.std(correction=1) / math.sqrt(len(values))
