"""The one schema of a question; every source of questions ends here.

Knows nothing about prompts, models or where the questions came from.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from opcod.data.typography import plain
from opcod.expressions import read_expression
from opcod.units import unit_fault

LABELS = tuple(string.ascii_uppercase)

Kind = Literal["choice", "numeric", "text", "expression"]
"""What a question is answered with: an option's letter, a number, a text or a mathematical expression."""
KINDS: tuple[Kind, ...] = get_args(Kind)

FIELDS_OF_A_KIND: dict[str, Kind] = {
    "options": "choice",
    "tolerance": "numeric",
    "absolute_tolerance": "numeric",
    "unit": "numeric",
    "accept": "text",
}
"""Field -> the one kind of question that has it."""

HEADING = re.compile(r"\Aquestion ?: ?", re.IGNORECASE)


class QuestionError(ValueError):
    """A file or a set of questions that cannot be used; the message names every fault and the remedy.

    Args:
        message: What is wrong and what to do.
        faults: The faults of a single question, as (field, reason).
    """

    def __init__(self, message: str, faults: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Question:
    """One question with its key.

    Args:
        id: Unique within its file.
        domain: Lower-case name of the subject, e.g. `physics`.
        text: The question itself, without its options.
        options: 2 to 26 option texts, labelled A, B, ... in order; empty unless it is a choice.
        answer: The key: an option's label, the number as text, the text, or the expression.
        tolerance: Numeric questions: accepted relative error, 0.01 is one per cent.
        absolute_tolerance: Numeric questions: accepted absolute error, in the answer's unit.
        solution: A worked solution in the response format, where there is one.
        family: The kind of question, for generated ones.
        kind: What it is answered with; by default a choice where there are options, else a number.
        unit: Numeric questions: the answer's unit, which a response may give it in or convert from; where there is
            none, a response's unit is not looked at.
        accept: Text questions: further texts that are right.
        keyed: Whether the key is known; without it `answer` is empty, and no response is right.

    Raises:
        QuestionError: If a field is faulty; the message names all faulty fields.
    """

    id: str
    domain: str
    text: str
    options: tuple[str, ...]
    answer: str
    tolerance: float = 0.01
    absolute_tolerance: float = 0.0
    solution: str | None = None
    family: str | None = None
    kind: Kind | None = None
    unit: str | None = None
    accept: tuple[str, ...] = ()
    keyed: bool = True

    def __post_init__(self) -> None:
        if self.kind is None:
            object.__setattr__(self, "kind", "choice" if self.options else "numeric")
        if faults := self.faults():
            listed = "; ".join(f"{field}: {reason}" for field, reason in faults)
            raise QuestionError(f"question {self.id!r}: {listed}", faults)

    def faults(self) -> list[tuple[str, str]]:
        """All that is wrong with the question, as (field, reason)."""
        faults = [(f, "is empty") for f in ("id", "domain") if not getattr(self, f).strip()]
        if self.domain != self.domain.lower():
            faults.append(("domain", f"{self.domain!r} is not in lower case, expected {self.domain.lower()!r}"))
        if "/" in self.domain:
            faults.append(("domain", f"{self.domain!r} holds a /, which stands between the names of logged figures"))
        if not self.text.strip():
            faults.append(("question", "is empty"))
        for name in ("options", "unit", "accept"):
            if getattr(self, name) and self.kind != FIELDS_OF_A_KIND[name]:
                faults.append((name, f"only a question of type {FIELDS_OF_A_KIND[name]} has it"))
        match self.kind:
            case "choice":
                faults += self._choice_faults()
            case "numeric":
                faults += self._numeric_faults()
            case "text":
                faults += self._text_faults()
            case "expression":
                faults += self._expression_faults()
            case _:
                faults.append(("type", f"{self.kind!r} is unknown, expected one of {', '.join(KINDS)}"))
        for name in ("tolerance", "absolute_tolerance"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                faults.append((name, f"{getattr(self, name)} is not a finite number of at least 0"))
        return faults

    def _choice_faults(self) -> list[tuple[str, str]]:
        faults = []
        if not 2 <= len(self.options) <= len(LABELS):
            faults.append(("options", f"holds {len(self.options)}, expected 2 to {len(LABELS)}"))
        faults += [("options", f"option {n} is empty") for n, o in enumerate(self.options, 1) if not o.strip()]
        if repeated := repeated_options(self.options):
            faults.append(("options", f"{', '.join(map(repr, repeated))} stands more than once"))
        if self.keyed and self.answer not in self.labels:
            faults.append(("answer", f"key {self.answer!r} is not among the labels {', '.join(self.labels)}"))
        return faults

    def _numeric_faults(self) -> list[tuple[str, str]]:
        faults = []
        if self.keyed and not is_number(self.answer):
            faults.append(("answer", f"{self.answer!r} is not a finite number, and there are no options"))
        if self.unit is not None and (reason := unit_fault(self.unit)):
            faults.append(("unit", reason))
        return faults

    def _text_faults(self) -> list[tuple[str, str]]:
        blank = "holds nothing that counts: white space and full stops at the end do not"
        faults = [("answer", blank)] if self.keyed and not plain_answer(self.answer) else []
        return faults + [("accept", f"item {n} {blank}") for n, t in enumerate(self.accept, 1) if not plain_answer(t)]

    def _expression_faults(self) -> list[tuple[str, str]]:
        if self.keyed and read_expression(self.answer) is None:
            return [("answer", f"{self.answer!r} is no expression that math-verify reads; write it in LaTeX")]
        return []

    @property
    def labels(self) -> tuple[str, ...]:
        """The options' labels, A, B, ...; empty unless it is a choice."""
        return LABELS[: len(self.options)]

    @property
    def numeric(self) -> bool:
        """Whether the answer is a number."""
        return self.kind == "numeric"

    @property
    def key(self) -> str:
        """The right answer as a reader is shown it: a choice's with the option's text, a number with its unit."""
        if self.kind == "choice":
            return f"{self.answer}. {self.options[self.labels.index(self.answer)]}"
        return self.answer if self.unit is None else f"{self.answer} {self.unit}"


def is_number(text: str) -> bool:
    """Whether `text` reads as a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def repeated_options(options: Iterable[str]) -> list[str]:
    """The option texts that stand more than once, white space apart."""
    counts = Counter(" ".join(option.split()) for option in options)
    return [option for option, count in counts.items() if option and count > 1]


def normalise(text: str) -> str:
    """A question's text without what does not change the question.

    White space is collapsed, a leading `Question:` and trailing full stops, colons and question marks are
    dropped, and typography is unified (NFKC): `CsNb₃` reads `CsNb3`. A superscript number keeps its meaning
    (`10²` reads `10^2`, not `102`), and letters keep their case, which tells apart Co from CO, and in SMILES
    benzene (`c1ccccc1`) from cyclohexane (`C1CCCCC1`).
    """
    return HEADING.sub("", plain(text)).rstrip(" .:?")


def plain_answer(text: str) -> str:
    """A text answer without what does not count: case, white space, typography and full stops at the end."""
    return plain(plain(text).casefold()).rstrip(" .")


def content_key(question: Question) -> str:
    """What makes two questions the same for keeping splits apart: the normalised text alone.

    Options do not count, neither their order nor which wrong ones were drawn: who has seen the question
    with its right option in training knows the answer in the test whatever stands beside it.
    """
    return normalise(question.text)


def check_unique_ids(questions: Iterable[Question]) -> None:
    """Refuse questions that share an id.

    Raises:
        QuestionError: If an id occurs more than once; the message names all such ids.
    """
    counts = Counter(q.id for q in questions)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise QuestionError(f"ids used more than once: {', '.join(repeated)}; give every question its own")
