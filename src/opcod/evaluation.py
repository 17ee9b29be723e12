"""Score a student as it is evaluated: sampled answers to questions, as torchmetrics per domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from opcod.attempts import Attempt
from opcod.metrics import AnswerScores

Scores = dict[str, dict[str, float]]
"""Student -> domain -> avg@k."""


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
        self.scores = nn.ModuleDict(
            {s: nn.ModuleDict({d: AnswerScores(ks=ks) for d in domains}) for s in students}
        )

    def update(self, student: str, answered: Iterable[Sequence[Attempt]]) -> None:
        """Add a student's attempts, grouped by question."""
        for attempts in answered:
            question = attempts[0].question
            metric: AnswerScores = self.scores[student][question.domain]  # type: ignore[index, assignment]
            metric.update(
                question.id,
                [a.grade.correct for a in attempts],
                [a.grade.formatted for a in attempts],
                [a.grade.choice for a in attempts],
            )

    def compute(self) -> dict[str, dict[str, dict[str, float]]]:
        """Student -> domain -> figure, over all processes: `avg`, `stderr`, `format`, `pass@k`, `maj@k`, `count`."""
        return {
            student: {
                domain: {name: _number(value) for name, value in metric.compute().items()}  # type: ignore[operator]
                for domain, metric in by_domain.items()  # type: ignore[operator, union-attr]
            }
            for student, by_domain in self.scores.items()
        }

    def reset(self) -> None:
        """Forget all attempts."""
        for by_domain in self.scores.values():
            for metric in by_domain.values():  # type: ignore[operator, union-attr]
                metric.reset()


def averages(table: dict[str, dict[str, dict[str, float]]]) -> Scores:
    """The avg@k alone, as gate and Pareto comparison read them."""
    return {s: {d: figures["avg"] for d, figures in by.items()} for s, by in table.items()}


def flatten(table: dict[str, dict[str, dict[str, float]]], prefix: str) -> dict[str, float]:
    """One level of names for a logger: `<prefix>/<student>/<domain>/<figure>`."""
    return {
        f"{prefix}/{student}/{domain}/{name}": value
        for student, by in table.items()
        for domain, figures in by.items()
        for name, value in figures.items()
    }


def _number(value: Tensor | float) -> float:
    return float(value)
