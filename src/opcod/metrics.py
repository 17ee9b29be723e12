"""The method's scores as torchmetrics: avg@k, pass@k, maj@k, format, feedback outcomes, break rate.

All states reduce over processes. Plain means and sums are torchmetrics' own `MeanMetric` and `SumMetric`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence

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

    A question that comes twice, as DistributedSampler makes some to fill up, counts once.

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
        table = self._table()
        total, correct, formatted = table[:, 2], table[:, 3], table[:, 4]
        means = correct / total
        named = {"avg": means.mean(), "stderr": _standard_error(means), "format": (formatted / total).mean()}
        for i, k in enumerate(self.ks):
            passes = [pass_at_k(int(right), int(of), k) for right, of in zip(correct, total, strict=True)]
            named[f"pass@{k}"] = torch.tensor(passes, dtype=table.dtype).mean()
            named[f"maj@{k}"] = table[:, 5 + i].mean()
        return named | {"count": torch.tensor(float(len(table)), dtype=table.dtype)}

    def _table(self) -> Tensor:
        """One row per question, each question once, in float64 [questions, 5 + len(ks)]."""
        width = 5 + len(self.ks)
        rows = dim_zero_cat(self.rows) if len(self.rows) else torch.empty(0)
        table = rows.cpu().double().reshape(-1, width)
        first = {(int(row[0]), int(row[1])): i for i, row in reversed(list(enumerate(table)))}
        return table[sorted(first.values())]


def _identity(question: str) -> tuple[int, int]:
    """48 bits of a question's id, as two numbers that float32 holds exactly."""
    digest = hashlib.sha256(question.encode()).digest()
    return int.from_bytes(digest[:3]), int.from_bytes(digest[3:6])


class FeedbackOutcomes(Metric):
    """How many feedbacks were kept, and why the others were dropped (section 1, How feedback is given)."""

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
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
    self-teacher; the rescue rate the share of wrong ones that turn right. By difficulty, see `DIFFICULTIES`.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(DIFFICULTIES), 2, 2, dtype=torch.long)  # [difficulty, right before, right after]
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, before: Sequence[bool], after: Sequence[bool], wrong: int) -> None:
        """Add the responses to one question whose feedback was kept.

        Args:
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
        for i, (fewest, most) in enumerate(DIFFICULTIES.values()):
            if fewest <= wrong <= most:
                for was, is_now in zip(before, after, strict=True):
                    self.counts[i, int(was), int(is_now)] += 1

    def compute(self) -> dict[str, Tensor]:
        """`break/...` and `rescue/...` for every difficulty, and of how many: `right/...` and `wrong/...`.

        A rate without any response is nan.
        """
        named = {}
        for difficulty, counts in zip(DIFFICULTIES, self.counts, strict=True):
            wrong, right = counts.sum(dim=1)
            named[f"break/{difficulty}"] = counts[1, 0].double() / right
            named[f"rescue/{difficulty}"] = counts[0, 1].double() / wrong
            named[f"right/{difficulty}"], named[f"wrong/{difficulty}"] = right, wrong
        return named


def _standard_error(values: Tensor) -> Tensor:
    if len(values) < 2:
        return torch.tensor(math.nan, dtype=values.dtype)
    return values.std(correction=1) / math.sqrt(len(values))
