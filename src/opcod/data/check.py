"""What there is to say about a user's question files before a run: findings, without a word printed.

The first file is taken for what students are trained on, the others for what is held out from it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from opcod.data.jsonl import Fault, parse_question, read_rows, repeated_id
from opcod.data.mending import suggestion
from opcod.data.questions import LABELS, Question, QuestionError, content_key, normalise
from opcod.data.splits import count_domains, drop_leaks, hold_out, sameness
from opcod.grading import grade

CHANCE = 0.001
"""What is less likely than this is not put down to chance."""
FEWEST_EXPECTED = 5
"""The fewest questions that each letter must be expected to be right in, for the chi-square test to hold."""

_ODD = {"\N{REPLACEMENT CHARACTER}", *map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
_LOST_BACKSLASH = re.compile(
    r"(?:\t(?:imes|heta|ext|au)|\n(?:u|abla|eq)|\r(?:ho|ight)|\f(?:rac)|[\b](?:eta|ar))(?![a-z])"
)
_WORDS = re.compile(r"\W+")


@dataclass(frozen=True)
class Defect:
    """A fault of a file, and what might mend it.

    Args:
        fault: As a run would name it.
        suggestion: What to write instead; None if nothing can be guessed.
    """

    fault: Fault
    suggestion: str | None


@dataclass(frozen=True)
class Part:
    """The questions of one domain and type in a file.

    Args:
        domain: Theirs.
        kind: Their type.
        questions: How many.
        solved: Those with a worked solution.
        wrong: The ids of those whose solution's answer is wrong by their own key, or unreadable.
    """

    domain: str
    kind: str
    questions: int
    solved: int
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Lengths:
    """Tokens of a domain's prompts, as a student is asked.

    Args:
        domain: The questions'.
        fewest: Of the shortest.
        median: Half are no longer.
        most_of_all: 95 of 100 are no longer.
        most: Of the longest.
        over: The ids of those that are longer than the limit.
    """

    domain: str
    fewest: int
    median: float
    most_of_all: float
    most: int
    over: tuple[str, ...]


@dataclass(frozen=True)
class Keys:
    """Where the right options stand, among a domain's choices of so many options.

    Args:
        domain: The questions'.
        options: How many each has.
        letters: Letter -> how often it is right.
        chance: How likely evenly drawn keys are to be as uneven (chi-square); None for too few questions.
        longest: How often the right option is the longest, where one is.
        with_longest: In how many questions one option is the longest.
        longest_chance: How likely that is where length tells nothing (binomial); None for too few questions.
    """

    domain: str
    options: int
    letters: Mapping[str, int]
    chance: float | None
    longest: int
    with_longest: int
    longest_chance: float | None


@dataclass(frozen=True)
class FileReport:
    """What was found in one file.

    Args:
        path: The file.
        rows: Lines that hold anything.
        questions: Those that can be read.
        defects: What a run would refuse the file for.
        parts: Counts by domain and type.
        lengths: By domain.
        keys: By domain and number of options.
        duplicates: Ids of questions that stand before, options and all: (first, again).
        conflicts: Ids of questions that stand before with another key: (first, again).
        odd: What is odd about a text -> the ids of the questions that hold it.
    """

    path: str
    rows: int
    questions: tuple[Question, ...]
    defects: tuple[Defect, ...]
    parts: tuple[Part, ...]
    lengths: tuple[Lengths, ...]
    keys: tuple[Keys, ...]
    duplicates: tuple[tuple[str, str], ...]
    conflicts: tuple[tuple[str, str], ...]
    odd: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Overlap:
    """What two files share.

    Args:
        one: The file that a run drops them from: the first, or of two that are held out the later.
        other: The file that keeps them.
        same: Ids of the same question: (in one, in the other).
        verbatim: How many of these are the same to the letter.
        near: Ids of questions that differ in case and punctuation alone; they are not dropped.
        ids: Ids that stand in both for different questions, for which a run is refused.
    """

    one: str
    other: str
    same: tuple[tuple[str, str], ...]
    verbatim: int
    near: tuple[tuple[str, str], ...]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class DataReport:
    """What was found in all files.

    Args:
        files: Each by itself, in the order given.
        overlaps: Of every two files that share something.
        left: Domain -> the training questions that are left when duplicates and leaks are dropped.
        short: Why the validation questions cannot be held out of them; None if they can.
        prompt_limit: Of `Lengths.over`.
        validation: Questions a domain to be held out.
    """

    files: tuple[FileReport, ...]
    overlaps: tuple[Overlap, ...]
    left: Mapping[str, int]
    short: str | None
    prompt_limit: int
    validation: int

    @property
    def usable(self) -> bool:
        """Whether a run with this limit, and as many validation questions, would take the files."""
        faulty = any(f.defects or any(lengths.over for lengths in f.lengths) for f in self.files)
        return not (faulty or any(o.ids for o in self.overlaps) or self.missing or self.short)

    @property
    def missing(self) -> dict[str, list[str]]:
        """Whole file -> the domains that occur, but of which a run would have no question of it."""
        usable = [self.left, *(count_domains(file.questions) for file in self.files[1:])]
        missing = {
            file.path: [d for d in self.domains if d not in counts]
            for file, counts in zip(self.files, usable, strict=True)
            if not file.defects
        }
        return {path: domains for path, domains in missing.items() if domains}

    @property
    def domains(self) -> list[str]:
        """All domains that occur."""
        return sorted({q.domain for f in self.files for q in f.questions})


@dataclass
class _Read:
    path: str
    rows: int = 0
    questions: list[Question] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


def check(
    paths: Sequence[str | Path],
    *,
    prompt_tokens: Callable[[Question], int],
    special_tokens: Collection[str],
    domains: Collection[str] | None = None,
    prompt_limit: int = 2048,
    validation: int = 30,
) -> DataReport:
    """Look through question files.

    Args:
        paths: The files; the first holds what students are trained on.
        prompt_tokens: How many tokens a question takes as a student's prompt.
        special_tokens: The tokenizer's special tokens, as they are spelled.
        domains: The domains that may occur; any if None.
        prompt_limit: Longest prompt, in tokens.
        validation: Validation questions a domain that a run holds out of the first file; 0 for none.

    Raises:
        QuestionError: If a file is named twice.
    """
    if twice := [str(p) for p, count in Counter(Path(p).resolve() for p in paths).items() if count > 1]:
        raise QuestionError(f"{', '.join(twice)} is named more than once; name every file once")
    read = [_read(path, domains) for path in paths]
    files = tuple(_report(file, prompt_tokens, special_tokens, prompt_limit) for file in read)
    train, *held_out = (file.questions for file in read)
    left, _ = drop_leaks(train, *held_out)
    pairs = [(one, other) if one is read[0] else (other, one) for one, other in combinations(read, 2)]
    return DataReport(
        files=files,
        overlaps=tuple(o for one, other in pairs if (o := _overlap(one, other)) is not None),
        left=count_domains(left),
        short=_short(left, validation),
        prompt_limit=prompt_limit,
        validation=validation,
    )


def _read(path: str | Path, domains: Collection[str] | None) -> _Read:
    """All rows that can be read, whatever is wrong with the others."""
    file = _Read(str(path))
    try:
        rows, faults = read_rows(path)
    except QuestionError as error:
        reason = str(error).removeprefix(f"{path}: ")
        file.defects.append(Defect(Fault(file.path, 0, "file", reason), None))
        return file
    file.rows = len(rows) + len(faults)
    found: list[tuple[Fault, Mapping[str, Any] | None]] = [(fault, None) for fault in faults]
    lines: dict[str, int] = {}
    for line, row in rows:
        try:
            file.questions.append(parse_question(row, domains=domains))
        except QuestionError as error:
            found += [(Fault(file.path, line, name, reason), row) for name, reason in error.faults]
        found += [(fault, row) for fault in repeated_id(path, line, row, lines)]
    found.sort(key=lambda item: item[0].line)
    file.defects += [Defect(fault, suggestion(fault, row, domains)) for fault, row in found]
    return file


def _report(
    file: _Read, prompt_tokens: Callable[[Question], int], special_tokens: Collection[str], limit: int
) -> FileReport:
    questions = file.questions
    by_domain = _grouped(questions, lambda q: q.domain)
    duplicates, conflicts = _repeated(questions)
    return FileReport(
        path=file.path,
        rows=file.rows,
        questions=tuple(questions),
        defects=tuple(file.defects),
        parts=tuple(
            _part(domain, kind, here) for (domain, kind), here in _grouped(questions, lambda q: (q.domain, str(q.kind)))
        ),
        lengths=tuple(_lengths(domain, here, prompt_tokens, limit) for domain, here in by_domain),
        keys=tuple(
            _keys(domain, options, here)
            for (domain, options), here in _grouped(
                [q for q in questions if q.kind == "choice"], lambda q: (q.domain, len(q.options))
            )
        ),
        duplicates=tuple(duplicates),
        conflicts=tuple(conflicts),
        odd=_odd(questions, special_tokens),
    )


def _grouped(questions: Iterable[Question], key: Callable[[Question], Any]) -> list[tuple[Any, list[Question]]]:
    groups: dict[Any, list[Question]] = defaultdict(list)
    for question in questions:
        groups[key(question)].append(question)
    return sorted(groups.items())


def _part(domain: str, kind: str, questions: Sequence[Question]) -> Part:
    solved = [q for q in questions if q.solution is not None]
    wrong = tuple(q.id for q in solved if not grade(q.solution or "", q).correct)
    return Part(domain, kind, len(questions), len(solved), wrong)


def _lengths(domain: str, questions: Sequence[Question], tokens: Callable[[Question], int], limit: int) -> Lengths:
    counts = [tokens(q) for q in questions]
    return Lengths(
        domain=domain,
        fewest=min(counts),
        median=float(np.median(counts)),
        most_of_all=float(np.percentile(counts, 95)),
        most=max(counts),
        over=tuple(q.id for q, count in zip(questions, counts, strict=True) if count > limit),
    )


def _keys(domain: str, options: int, questions: Sequence[Question]) -> Keys:
    counts = Counter(q.answer for q in questions)
    letters = {label: counts[label] for label in LABELS[:options]}
    enough = len(questions) >= FEWEST_EXPECTED * options
    longest = [letter == q.answer for q in questions if (letter := _longest(q)) is not None]
    enough_longest = len(longest) >= FEWEST_EXPECTED * options
    return Keys(
        domain=domain,
        options=options,
        letters=letters,
        chance=float(stats.chisquare(list(letters.values())).pvalue) if enough else None,
        longest=sum(longest),
        with_longest=len(longest),
        longest_chance=float(stats.binomtest(sum(longest), len(longest), 1 / options, alternative="greater").pvalue)
        if enough_longest
        else None,
    )


def _longest(question: Question) -> str | None:
    """The label of the longest option; None if several are."""
    lengths = [len(option.strip()) for option in question.options]
    return question.labels[lengths.index(max(lengths))] if lengths.count(max(lengths)) == 1 else None


def _repeated(questions: Sequence[Question]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Questions that stand before, with the same key and with another one."""
    first: dict[Any, Question] = {}
    same: list[tuple[str, str]] = []
    other: list[tuple[str, str]] = []
    for question in questions:
        before = first.setdefault(sameness(question), question)
        if before is not question:
            (same if _right(before) == _right(question) else other).append((before.id, question.id))
    return same, other


def _right(question: Question) -> object:
    """What is right, wherever it stands among the options."""
    if question.kind == "choice":
        return normalise(question.options[question.labels.index(question.answer)])
    return (float(question.answer), question.unit) if question.numeric else normalise(question.answer)


def _odd(questions: Sequence[Question], special_tokens: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Special tokens, control characters and what JSON made of LaTeX, with the questions whose texts hold them."""
    tokens = sorted({token.strip() for token in special_tokens} - {""})
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for question in questions:
        extras = (question.solution or "", question.answer, *question.accept)
        text = " ".join([question.id, question.text, *question.options, *extras])
        for token in tokens:
            if token in text:
                found[f"the special token {token}"][question.id] = None
        if _LOST_BACKSLASH.search(text):
            found["LaTeX whose backslash JSON took for an escape (\\times, \\frac), to be written as two,"][
                question.id
            ] = None
        for character in sorted(set(text) - set("\n\r\t")):
            if unicodedata.category(character) == "Cc" or character in _ODD:
                name = unicodedata.name(character, "a control character").lower()
                found[f"U+{ord(character):04X}, {name}"][question.id] = None
    return {what: tuple(ids) for what, ids in sorted(found.items())}


def _overlap(one: _Read, other: _Read) -> Overlap | None:
    kept = {content_key(q): q for q in other.questions}
    same = [(q, kept[content_key(q)]) for q in one.questions if content_key(q) in kept]
    left, _ = drop_leaks(one.questions, other.questions)
    loosely = {_loosely(q): q for q in other.questions}
    ids = {q.id for q in other.questions}
    overlap = Overlap(
        one=one.path,
        other=other.path,
        same=tuple((mine.id, theirs.id) for mine, theirs in same),
        verbatim=sum(mine.text == theirs.text for mine, theirs in same),
        near=tuple((q.id, loosely[_loosely(q)].id) for q in left if _loosely(q) in loosely),
        ids=tuple(q.id for q in left if q.id in ids),
    )
    return overlap if overlap.same or overlap.near or overlap.ids else None


def _loosely(question: Question) -> str:
    """A question's text without case and punctuation; its id where nothing else is in it."""
    return _WORDS.sub(" ", normalise(question.text).casefold()).strip() or question.id


def _short(questions: Sequence[Question], validation: int) -> str | None:
    if not validation or not questions:
        return None
    try:
        hold_out(questions, validation, seed=0)
    except QuestionError as error:
        return str(error)
    return None


def standard_error(questions: int) -> float:
    """Of a score near one half over so many questions, in points of a hundred: what a test can tell apart."""
    return 50 / math.sqrt(questions)
