"""What was found in question files, for a terminal of 80 columns or for a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from opcod.data.check import CHANCE, DataReport, Defect, FileReport, Keys, Overlap, standard_error
from opcod.data.typography import visible

SHOWN = 3
"""How many of a kind are named."""

_PARTICULAR = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[0-9.]+""")
_ONE_OF = re.compile(r", expected one of .*")


def print_check(report: DataReport, console: Console) -> None:
    """Print what was found, file by file, then between them, then what it comes to."""
    for file in report.files:
        console.print(Text(visible(file.path), style="bold"))
        for table in _tables(file, report.prompt_limit):
            console.print(Padding(table, (0, 0, 1, 2)))
        _lines(console, _refusals(file, report.prompt_limit), "bold red")
        _lines(console, _warnings(file), "yellow")
        console.print()
    if len(report.files) > 1:
        console.print(Text("Between the files", style="bold"))
        for overlap in report.overlaps:
            _lines(console, _clashes(overlap), "bold red")
            _lines(console, _shared(overlap), "yellow")
        _lines(console, [] if report.overlaps else ["they share no question"], "green")
        console.print()
    if report.domains:
        console.print(Text("For a run", style="bold"))
        console.print(Padding(_needs(report), (0, 0, 0, 2)))
        _lines(console, _lacks(report), "bold red")
        _lines(console, _needed(report), "yellow")
        console.print()
    verdict = "A run takes these files." if report.usable else "A run would refuse these files: mend what is marked ✗."
    console.print(Text(verdict, style="bold green" if report.usable else "bold red"))


def _lines(console: Console, lines: Iterable[str], style: str) -> None:
    """Each line behind a mark, wrapped beneath itself."""
    mark = {"bold red": "✗", "yellow": "!", "green": "✓"}[style]
    for line in lines:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(Text(f"  {mark}", style=style), Text(visible(line), overflow="fold"))
        console.print(grid)


def _tables(file: FileReport, limit: int) -> Iterator[Table]:
    if not file.questions:
        return
    table = _table("domain", "type", right=("questions", "with a solution", "which is right"))
    for part in file.parts:
        right = part.solved - len(part.wrong)
        solved = (str(part.solved), str(right)) if part.solved else ("-", "-")
        table.add_row(_cell(part.domain), part.kind, str(part.questions), *solved)
    yield table
    table = _table("tokens", right=("shortest", "median", "95 %", "longest", f"over {limit}"))
    for lengths in file.lengths:
        numbers = (lengths.fewest, lengths.median, lengths.most_of_all, lengths.most, len(lengths.over))
        table.add_row(_cell(lengths.domain), *(f"{number:.0f}" for number in numbers))
    yield table
    if file.keys:
        table = _table("key", right=("questions",), last=("right letters, %", "longest is right, %"))
        for keys in file.keys:
            total = sum(keys.letters.values())
            shares = " ".join(f"{letter} {100 * count / total:.0f}" for letter, count in keys.letters.items())
            longest = f"{100 * keys.longest / keys.with_longest:.0f}" if keys.with_longest else "-"
            table.add_row(_cell(keys.domain), str(total), shares, f"{longest} of {100 / keys.options:.0f}")
        yield table


def _table(*left: str, right: Sequence[str] = (), last: Sequence[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in left:
        table.add_column(column)
    for column in right:
        table.add_column(column, justify="right")
    for column in last:
        table.add_column(column)
    return table


def _cell(text: str) -> Text:
    return Text(visible(text), overflow="ellipsis")


def _refusals(file: FileReport, limit: int) -> Iterator[str]:
    """Faults that are mended alike together: the first of them, and where the others are; then prompts too long."""
    groups: dict[tuple[str, str], list[Defect]] = {}
    for defect in file.defects:
        kind = (defect.fault.field, _PARTICULAR.sub("", f"{defect.fault.reason} {defect.suggestion}"))
        groups.setdefault(kind, []).append(defect)
    for defects in groups.values():
        fault = defects[0].fault
        where = f"line {fault.line}: {fault.field}" if fault.line else "the file"
        rest = [d.fault.line for d in defects[1:]]
        more = f"; the same in {_few(rest, 'more line')}" if rest else ""
        hint = f" → {defects[0].suggestion}" if defects[0].suggestion else ""
        yield f"{where}: {_ONE_OF.sub('', fault.reason) if hint else fault.reason}{hint}{more}"
    for lengths in file.lengths:
        if lengths.over:
            yield (
                f"{lengths.domain}: more than {limit} tokens as a prompt, in "
                f"{_few(lengths.over)}; raise `prompt_limit` to {lengths.most}, or take them out"
            )


def _warnings(file: FileReport) -> Iterator[str]:
    if file.duplicates:
        yield f"twice in the file, options and all: {_pairs(file.duplicates)}; of train, a run keeps the first"
    if file.conflicts:
        yield f"twice in the file with different keys: {_pairs(file.conflicts)}; at most one of each is right"
    for part in file.parts:
        if part.wrong:
            yield (
                f"{part.domain}, {part.kind}: the solution's answer is unreadable, or wrong by the question's own key, "
                f"in {_few(part.wrong)}"
            )
    for keys in file.keys:
        yield from _key_warnings(keys)
    for what, ids in file.odd.items():
        yield f"{what} stands in {_few(ids)}"


def _key_warnings(keys: Keys) -> Iterator[str]:
    if keys.chance is not None and keys.chance < CHANCE:
        letter = max(keys.letters, key=lambda letter: keys.letters[letter])
        yield (
            f"{keys.domain}: {letter} is right in {keys.letters[letter]} of {sum(keys.letters.values())} choices of "
            f"{keys.options}, which is no chance (chi-square, p = {keys.chance:.1g}): shuffle the options"
        )
    if keys.longest_chance is not None and keys.longest_chance < CHANCE:
        yield (
            f"{keys.domain}: the longest option is right in {keys.longest} of {keys.with_longest} choices of "
            f"{keys.options}, which is no chance (binomial, p = {keys.longest_chance:.1g}): length gives the key away"
        )


def _clashes(overlap: Overlap) -> Iterator[str]:
    if overlap.ids:
        names = f"{overlap.one} and {overlap.other}"
        yield f"{names} use the same id for different questions, which a run refuses: {_few(overlap.ids, 'id')}"


def _shared(overlap: Overlap) -> Iterator[str]:
    names = f"{overlap.one} and {overlap.other}"
    if overlap.same:
        yield (
            f"{names} share {_pairs(overlap.same)}, {overlap.verbatim} of them word for word; a run drops them from "
            f"{overlap.one}"
        )
    if overlap.near:
        yield (
            f"{names} differ in case and punctuation alone in {_pairs(overlap.near)}; a run takes them for different "
            "questions"
        )


def _needs(report: DataReport) -> Table:
    """Per domain, what is trained on and what is held out, and how sharp a score the latter gives."""
    held_out = report.files[1:]
    table = _table("domain", right=("to train on", *(visible(Path(file.path).name) for file in held_out)))
    for domain in report.domains:
        left = report.left.get(domain, 0)
        counts = [sum(q.domain == domain for q in file.questions) for file in held_out]
        sharp = [f"{n} (±{standard_error(n):.0f} points)" if n else "0" for n in counts]
        table.add_row(_cell(domain), str(left), *sharp)
    return table


def _lacks(report: DataReport) -> Iterator[str]:
    for path, domains in report.missing.items():
        dropped = " but copies, which are dropped" if path == report.files[0].path else ""
        yield f"{path} has no question of {', '.join(domains)}{dropped}: a run over that domain needs some"
    if report.short is not None:
        yield (
            f"{report.short} (`data.validation`). On these the gate compares the students: at 30 a domain its standard "
            "error is about as large as its threshold"
        )


def _needed(report: DataReport) -> Iterator[str]:
    if len(report.domains) < 2:
        yield f"all questions are of the domain {report.domains[0]}: two students need two domains"


def _few(items: Sequence[object], what: str = "question") -> str:
    """How many, and the first of them: `5 questions: a, b, c, ...`."""
    named = ", ".join(map(str, items[:SHOWN])) + (", ..." if len(items) > SHOWN else "")
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}: {named}"


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return _few([f"{one} = {other}" for one, other in pairs])
