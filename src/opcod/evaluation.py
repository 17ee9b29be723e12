"""Score a student as it is evaluated: sampled answers to questions, as torchmetrics per domain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product

from torch import nn

from opcod.attempts import Attempt
from opcod.metrics import AnswerScores

Scores = dict[str, dict[str, float]]
"""Student -> domain -> avg@k."""

Table = dict[str, dict[str, dict[str, float]]]
"""Student -> domain -> figure: `avg`, `stderr`, `format`, `pass@k`, `maj@k`, `count`."""

Answers = dict[str, dict[str, dict[str, float]]]
"""Student -> domain -> question -> share of right responses."""


class ScoreBoard(nn.Module):
    """An `AnswerScores` for every student and domain; a module, so that its states follow the device.

    Args:
        students: Their names.
        domains: Of the questions.
        samples: k, responses a question.
    """

    def __init__(self, students: Iterable[str], domains: Sequence[str], samples: int) -> None:
        super().__init__()
        self.domains = list(domains)
        ks = sorted({1, samples})
        self.students = list(students)
        self.places = {key: place for place, key in enumerate(product(self.students, self.domains))}
        self.metrics = nn.ModuleList(AnswerScores(ks=ks) for _ in self.places)

    def _of(self, student: str, domain: str) -> AnswerScores:
        metric = self.metrics[self.places[student, domain]]
        assert isinstance(metric, AnswerScores)
        return metric

    def update(self, student: str, answered: Iterable[Sequence[Attempt]]) -> None:
        """Add a student's attempts, grouped by question."""
        for attempts in answered:
            question = attempts[0].question
            self._of(student, question.domain).update(
                question.id,
                [a.grade.correct for a in attempts],
                [a.grade.formatted for a in attempts],
                [a.grade.choice for a in attempts],
            )

    def compute(self) -> Table:
        """The figures over all processes."""
        return {
            s: {d: {name: float(v) for name, v in self._of(s, d).compute().items()} for d in self.domains}
            for s in self.students
        }

    def answers(self) -> Answers:
        """The same, question by question."""
        return {s: {d: self._shares(s, d) for d in self.domains} for s in self.students}

    def _shares(self, student: str, domain: str) -> dict[str, float]:
        metric = self._of(student, domain)
        with metric.sync_context():
            return metric.shares()

    def reset(self) -> None:
        """Forget all attempts."""
        for student in self.students:
            for domain in self.domains:
                self._of(student, domain).reset()


def averages(table: Table) -> Scores:
    """The avg@k alone, as gate and Pareto comparison read them."""
    return {s: {d: figures["avg"] for d, figures in by.items()} for s, by in table.items()}


def flatten(table: Table, prefix: str) -> dict[str, float]:
    """One level of names for a logger: `<prefix>/<student>/<domain>/<figure>`."""
    return {
        f"{prefix}/{student}/{domain}/{name}": value
        for student, by in table.items()
        for domain, figures in by.items()
        for name, value in figures.items()
    }


def known(table: Table) -> dict[str, dict[str, dict[str, float | None]]]:
    """A table for JSON: a figure that is not known is null."""
    return {
        student: {
            domain: {name: value if math.isfinite(value) else None for name, value in figures.items()}
            for domain, figures in domains.items()
        }
        for student, domains in table.items()
    }


def percent(value: float, error: float, sign: str = "") -> str:
    """A share in per cent with its standard error, where that is known."""
    return f"{100 * value:{sign}.1f} ± {100 * error:.1f}" if math.isfinite(error) else f"{100 * value:{sign}.1f}"
