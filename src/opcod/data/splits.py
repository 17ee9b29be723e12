"""Keeping train, validation and test apart: no question stands in two of them.

Two questions are the same here if their `content_key` is, whatever their options and ids. Pure functions:
`split_of` depends on the one question alone, `hold_out` on the questions and the seed, not on their order.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, combinations

from opcod.data.questions import Question, QuestionError, content_key, normalise

FRACTIONS: Mapping[str, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}


@dataclass(frozen=True)
class Leaks:
    """What `drop_leaks` found; `str()` says it in sentences. All counts are per domain.

    Args:
        split: What the held-out questions are called, e.g. `test`.
        held_out: The held-out questions.
        leaked: Of these, the ones that also stand in train.
        verbatim: Of the leaked ones, those whose text stands in train to the letter.
        dropped: The train questions that were dropped for it.
        duplicates: The train questions that were dropped because train holds them, options and all, already.
        of: What the questions are called that they were dropped from, if not train.
    """

    split: str
    held_out: Mapping[str, int]
    leaked: Mapping[str, int]
    verbatim: Mapping[str, int]
    dropped: Mapping[str, int]
    duplicates: Mapping[str, int]
    of: str = "train"

    def __bool__(self) -> bool:
        """Whether anything was dropped."""
        return bool(self.dropped or self.duplicates)

    def __str__(self) -> str:
        sentences = [
            f"{leaked} of {self.held_out[domain]} {domain} {self.split} questions also stand in {self.of} "
            f"({self.verbatim.get(domain, 0)} word for word); "
            f"dropped from {self.of} ({counted(self.dropped.get(domain, 0))})."
            for domain, leaked in sorted(self.leaked.items())
        ]
        sentences += [
            f"{counted(count, domain)} stood in {self.of} before, options and all; dropped from {self.of}."
            for domain, count in sorted(self.duplicates.items())
        ]
        return " ".join(sentences) or f"No {self.split} question stands in {self.of}, and none repeats there."


def counted(number: int, domain: str = "") -> str:
    """`1 question`, `2 questions`, `2 physics questions`."""
    return " ".join(filter(None, [str(number), domain, "question" if number == 1 else "questions"]))


def drop_leaks(
    train: Sequence[Question], *held_out: Sequence[Question], split: str = "test", of: str = "train"
) -> tuple[list[Question], Leaks]:
    """Drop from train what a held-out split holds too, and what train itself holds twice.

    A leak goes by the text alone (`content_key`). A duplicate within train also has the same options, in any
    order: the same text over other options is practice, not a copy.

    Args:
        train: The training questions.
        held_out: The splits that training must not see.
        split: What to call these splits in the report.
        of: What to call the training questions there.

    Returns:
        The clean training questions in their order, and what was found.
    """
    held = list(chain.from_iterable(held_out))
    held_keys = {content_key(q) for q in held}
    train_keys = {content_key(q) for q in train}
    train_texts = {q.text for q in train}
    leaked = [q for q in held if content_key(q) in train_keys]

    clean: list[Question] = []
    dropped: list[Question] = []
    duplicates: list[Question] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    for question in train:
        key = sameness(question)
        if key[0] in held_keys:
            dropped.append(question)
        elif key in seen:
            duplicates.append(question)
        else:
            clean.append(question)
            seen.add(key)
    return clean, Leaks(
        split=split,
        held_out=count_domains(held),
        leaked=count_domains(leaked),
        verbatim=count_domains(q for q in leaked if q.text in train_texts),
        dropped=count_domains(dropped),
        duplicates=count_domains(duplicates),
        of=of,
    )


def sameness(question: Question) -> tuple[str, frozenset[str]]:
    """What makes two questions copies of each other: the text, and the options in any order."""
    return content_key(question), frozenset(map(normalise, question.options))


def count_domains(questions: Iterable[Question]) -> dict[str, int]:
    """The number of questions of each domain."""
    return dict(Counter(q.domain for q in questions))


def hold_out(questions: Sequence[Question], n_per_domain: int, seed: int) -> tuple[list[Question], list[Question]]:
    """Set aside a balanced sample, e.g. the validation questions that the gate reads.

    Exactly `n_per_domain` questions of every domain are held out. All questions of one content go together;
    a content that stands in two domains, or too often to fit, stays in the rest.

    Args:
        questions: The questions to draw from.
        n_per_domain: How many to hold out of each domain.
        seed: Another seed draws another sample.

    Returns:
        The rest and the held-out questions, each in their order.

    Raises:
        QuestionError: If a domain has too few questions to hold out so many and keep one.
    """
    if n_per_domain < 1:
        raise QuestionError(f"{n_per_domain} questions to hold out per domain, expected at least 1")
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        groups[content_key(question)].append(question)

    drawn: set[str] = set()
    missing = dict.fromkeys((q.domain for q in questions), n_per_domain)
    for key in sorted(groups, key=lambda key: fraction(f"{seed}\n{key}")):
        domains = {q.domain for q in groups[key]}
        domain = min(domains)
        if len(domains) == 1 and len(groups[key]) <= missing[domain]:
            drawn.add(key)
            missing[domain] -= len(groups[key])

    sizes = count_domains(questions)
    faults = [
        f"{domain} has {counted(sizes[domain])}, expected more than {n_per_domain}"
        for domain, left in sorted(missing.items())
        if left > 0 or sizes[domain] == n_per_domain
    ]
    if faults:
        raise QuestionError(
            f"cannot hold out {n_per_domain} questions per domain: {'; '.join(faults)} "
            "that stand in one domain only; hold out fewer or add questions"
        )
    rest = [q for q in questions if content_key(q) not in drawn]
    return rest, [q for q in questions if content_key(q) in drawn]


def split_of(question: Question, fractions: Mapping[str, float] = FRACTIONS) -> str:
    """The split a question belongs to, by a hash of its content.

    Args:
        question: The question.
        fractions: Each split's expected share of the questions; they add up to 1.

    Raises:
        QuestionError: If the fractions are no shares.
    """
    if any(share < 0 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1):
        raise QuestionError(f"the splits' shares are {dict(fractions)}, expected at least 0 each and 1 in sum")
    position = fraction(content_key(question))
    for split, share in fractions.items():
        if position < share:
            return split
        position -= share
    return [split for split, share in fractions.items() if share > 0][-1]  # the sum was rounded below 1


def fraction(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone, evenly spread over texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def contents(questions: Iterable[Question]) -> set[str]:
    """What tells questions apart, in few letters: a hash of each one's content."""
    return {hashlib.sha256(content_key(q).encode()).hexdigest()[:12] for q in questions}


def refuse_trained_on(held_out: Sequence[Question], trained_on: Set[str]) -> None:
    """Refuse to score a checkpoint's students on what they were trained on.

    Args:
        held_out: The questions that they are to be scored on.
        trained_on: The `contents` of their training questions.

    Raises:
        QuestionError: If some are among these.
    """
    if learned := sum(not trained_on.isdisjoint(contents([q])) for q in held_out):
        raise QuestionError(
            f"{learned} of {len(held_out)} questions that are to be scored are training questions of the run that the "
            "checkpoint is of: hold out of its files no more than it did, by `data.validation` and "
            "`data.development`, or give other files"
        )


def assert_disjoint(**splits: Sequence[Question]) -> None:
    """Refuse splits that share a question.

    Args:
        splits: The questions of each split, by its name.

    Raises:
        QuestionError: If two of them hold the same content or the same id; the message names the ids.
    """
    faults = []
    for (one, first), (other, second) in combinations(splits.items(), 2):
        by_content = {content_key(q): q.id for q in first}
        ids = {q.id for q in first}
        faults += [
            f"{one} {by_content[content_key(q)]!r} and {other} {q.id!r} are the same question"
            for q in second
            if content_key(q) in by_content
        ]
        faults += [
            f"{one} and {other} both use the id {q.id!r}"
            for q in second
            if q.id in ids and content_key(q) not in by_content
        ]
    if faults:
        raise QuestionError(
            f"the splits {', '.join(splits)} share questions: {'; '.join(faults)}; drop them from one split"
        )
