"""Methods side by side, from a grid's `answers.csv`: gains and differences, with paired intervals.

Differences are taken question by question and seed by seed, so that what is hard for all methods cancels.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from opcod import pareto
from opcod.callbacks.checkpoints import write_whole

Shares = dict[int, dict[str, float]]
"""Seed -> question -> share of right responses."""


class Cell(NamedTuple):
    """Whose answers: the pair's, with which method, by which student, on which domain."""

    pair: str
    method: str
    student: str
    domain: str


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Args:
        mean: Over seeds of the mean over questions.
        low: Lower bound.
        high: Upper bound.
    """

    mean: float
    low: float
    high: float


Answers = dict[str, dict[Cell, Shares]]
"""`initial` or `final` -> cell -> shares."""


def read_answers(path: Path, **common: str) -> Answers:
    """A grid's `answers.csv`; or a single run's, with `pair`, `method` and `seed` given."""
    answers: Answers = {"initial": defaultdict(dict), "final": defaultdict(dict)}
    with path.open(encoding="utf-8", newline="") as file:
        for row in ({**common, **found} for found in csv.DictReader(file)):
            cell = Cell(row["pair"], row["method"], row["student"], row["domain"])
            answers[row["end"]][cell].setdefault(int(row["seed"]), {})[row["question"]] = float(row["right"])
    return answers


def mean_share(shares: Shares) -> float:
    """The mean over seeds of the mean over questions: avg@k."""
    return float(np.mean([np.mean(list(of.values())) for of in shares.values()]))


def paired_difference(one: Shares, other: Shares, *, draws: int = 2000, seed: int = 0) -> Interval:
    """`one` minus `other` on the seeds and questions that both have.

    Args:
        one: The shares of right responses.
        other: Those to be taken away.
        draws: Of seeds, and within each of questions, with replacement (bootstrap percentiles).
        seed: Of the draws.

    Raises:
        ValueError: If they share no question.
    """
    paired = {
        s: np.array([one[s][q] - other[s][q] for q in sorted(one[s].keys() & other[s].keys())])
        for s in sorted(one.keys() & other.keys())
    }
    differences = [d for d in paired.values() if len(d)]
    if not differences:
        raise ValueError("nothing to compare: the runs share no seed and question")
    generator = np.random.default_rng(seed)
    means = np.stack([_drawn_means(d, draws, generator) for d in differences])  # [seeds, draws]
    chosen = generator.integers(len(means), size=(len(means), draws))
    low, high = np.quantile(np.take_along_axis(means, chosen, 0).mean(0), [0.025, 0.975])
    return Interval(float(np.mean([d.mean() for d in differences])), float(low), float(high))


def _drawn_means(values: NDArray[np.float64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    return values[generator.integers(len(values), size=(draws, len(values)))].mean(1)


def pooled(cells: Mapping[Cell, Shares], method: str, pairs: Sequence[str]) -> Shares:
    """The shares of all students of some pairs together, on the seeds that all of them have.

    A question that several answer is one question, with their mean.
    """
    chosen = {cell: by_seed for cell, by_seed in cells.items() if cell.method == method and cell.pair in pairs}
    shares: Shares = {}
    for seed in sorted(set.intersection(*(set(by_seed) for by_seed in chosen.values()))):
        found: dict[str, list[float]] = defaultdict(list)
        for cell, by_seed in chosen.items():
            for question, share in by_seed[seed].items():
                found[f"{cell.domain} {question}"].append(share)
        shares[seed] = {name: float(np.mean(of)) for name, of in found.items()}
    return shares


def mutual_runs(answers: Answers, pair: str, method: str) -> tuple[int, int]:
    """Of how many runs of a method, and of how many in all, the improvement is mutual."""
    ends = [_by_seed(answers[end], pair, method) for end in ("initial", "final")]
    seeds = ends[0].keys() & ends[1].keys()
    return sum(pareto.mutual(ends[0][s], ends[1][s]) for s in seeds), len(seeds)


def _by_seed(cells: Mapping[Cell, Shares], pair: str, method: str) -> dict[int, dict[str, dict[str, float]]]:
    """Seed -> student -> domain -> avg@k."""
    scores: dict[int, dict[str, dict[str, float]]] = {}
    for cell, shares in cells.items():
        if (cell.pair, cell.method) == (pair, method):
            for seed, of in shares.items():
                scores.setdefault(seed, {}).setdefault(cell.student, {})[cell.domain] = float(
                    np.mean(list(of.values()))
                )
    return scores


def write_tables(runs: Path, output: Path) -> Path:
    """Write `tables.md` from a grid's `answers.csv`."""
    path = output / "tables.md"
    write_whole(path, tables(read_answers(runs / "answers.csv")))
    return path


def tables(answers: Answers) -> str:
    """For every pair a table of gains and one of what the first method is ahead of the others by, in Markdown."""
    parts = []
    pairs = list(dict.fromkeys(cell.pair for cell in answers["final"]))
    for pair in pairs:
        of_pair = [cell for cell in answers["final"] if cell.pair == pair]
        columns = list(dict.fromkeys((cell.student, cell.domain) for cell in of_pair))
        methods = list(dict.fromkeys(cell.method for cell in of_pair))
        parts += [f"## {pair}\n", _gains(answers, pair, methods, columns)]
        if len(methods) > 1:
            parts.append(_ahead(answers["final"], pair, methods[0], methods[1:], columns))
    first, *others = dict.fromkeys(cell.method for cell in answers["final"])
    met = [other for other in others if _both(answers["final"], pairs, first, other)]
    if len(pairs) > 1 and met:
        parts += ["## All pairs\n", _ahead_of_all(answers["final"], pairs, first, met)]
    return "\n".join(parts)


def _gains(answers: Answers, pair: str, methods: Sequence[str], columns: Sequence[tuple[str, str]]) -> str:
    rows = []
    for method in methods:
        cells = [Cell(pair, method, *column) for column in columns]
        found = [paired_difference(answers["final"][c], answers["initial"][c]) for c in cells]
        ends = [
            f"{100 * mean_share(answers['initial'][c]):.1f} -> {100 * mean_share(answers['final'][c]):.1f}"
            for c in cells
        ]
        mutual, runs = mutual_runs(answers, pair, method)
        rows.append([method, *(f"{e} ({_points(d)})" for e, d in zip(ends, found, strict=True)), f"{mutual} of {runs}"])
    heading = "Avg@k before and after, in per cent, with the difference and its 95 % interval.\n"
    return heading + "\n" + _markdown(["method", *map(" on ".join, columns), "mutual"], rows)


def _ahead(
    final: Mapping[Cell, Shares], pair: str, first: str, others: Sequence[str], columns: Sequence[tuple[str, str]]
) -> str:
    rows = []
    for other in others:
        found = [paired_difference(final[Cell(pair, first, *c)], final[Cell(pair, other, *c)]) for c in columns]
        rows.append([other, *map(_points, [*found, _difference(final, [pair], first, other)])])
    heading = f"What {first} is ahead of each method by at the end, in points, with its 95 % interval.\n"
    return heading + "\n" + _markdown(["method", *map(" on ".join, columns), "all"], rows)


def _ahead_of_all(final: Mapping[Cell, Shares], pairs: Sequence[str], first: str, others: Sequence[str]) -> str:
    rows = [[other, _points(_difference(final, pairs, first, other))] for other in others]
    heading = f"What {first} is ahead of each method by at the end, over all pairs, students and domains.\n"
    return heading + "\n" + _markdown(["method", "points, with their 95 % interval"], rows)


def _difference(final: Mapping[Cell, Shares], pairs: Sequence[str], first: str, other: str) -> Interval:
    """Over all students and domains, on the seeds and pairs that both methods have."""
    both = _both(final, pairs, first, other)
    return paired_difference(pooled(final, first, both), pooled(final, other, both))


def _both(final: Mapping[Cell, Shares], pairs: Sequence[str], first: str, other: str) -> list[str]:
    """The pairs that both methods have."""
    return [p for p in pairs if {first, other} <= {cell.method for cell in final if cell.pair == p}]


def _points(found: Interval) -> str:
    return f"{100 * found.mean:+.1f}, {100 * found.low:+.1f} to {100 * found.high:+.1f}"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
