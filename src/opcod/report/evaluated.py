"""Candidates' scores side by side, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from opcod.evaluation import Answers, Table, known, percent
from opcod.metrics import share_name


@dataclass(frozen=True)
class Evaluated:
    """What came out for one candidate.

    Args:
        source: As the user named it.
        table: Its students' figures.
        right: Student -> domain -> question -> its share of right responses.
    """

    source: str
    table: Table
    right: Answers


def named(answers: Answers, ids: Iterable[str]) -> Answers:
    """The shares of right responses under the questions' own ids."""
    names = {share_name(name): name for name in ids}
    return {
        student: {domain: {names[q]: share for q, share in shares.items()} for domain, shares in by_domain.items()}
        for student, by_domain in answers.items()
    }


def evaluation_table(evaluated: Sequence[Evaluated], questions: str, samples: int) -> RichTable:
    """A row a student and domain: avg@k with its standard error, the majority's score, and the share in the format."""
    title = f"on the {questions} questions, in %"
    table = RichTable("model", "domain", title=title, title_style="bold", title_justify="left")
    for column in (f"avg@{samples}", f"maj@{samples}", "format", "questions"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in evaluated:
        for student, domains in one.table.items():
            name = one.source if len(one.table) == 1 else f"{one.source}: {student}"
            for place, (domain, figures) in enumerate(domains.items()):
                table.add_row(
                    Text(name if place == 0 else "", overflow="fold"),
                    domain,
                    percent(figures["avg"], figures["stderr"]),
                    f"{100 * figures[f'maj@{samples}']:.1f}",
                    f"{100 * figures['format']:.1f}",
                    f"{figures['count']:.0f}",
                    end_section=place == len(domains) - 1,
                )
    return table


def evaluation_json(evaluated: Sequence[Evaluated], questions: str) -> str:
    """All figures of all candidates; one that is not known is null."""
    listed = [{"model": one.source, "scores": known(one.table), "right": one.right} for one in evaluated]
    return json.dumps({"questions": questions, "models": listed}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
