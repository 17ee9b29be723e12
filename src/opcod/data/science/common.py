"""What every question family shares: drafts, mistakes, and the worked question made of them.

A family is a function `(rng, level) -> Draft`. It knows its physics or chemistry; it knows nothing about
options, labels, response formats or tutoring, which are added here, once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A typical mistake and what it leads to.

    Args:
        value: The wrong option, as it is printed.
        steps: The faulty working that ends in `value`, one or two short sentences.
    """

    value: str
    steps: str


@dataclass(frozen=True)
class Draft:
    """A question as its family writes it.

    Args:
        question: The question's text, at most about 50 words, without options.
        answer: The right option, as it is printed.
        rule: The principle in one short sentence, in general terms, e.g. `Density is mass divided by volume.`
        steps: The right working for these numbers that ends in `answer`, one or two short sentences.
        concept: 1-3 words copied exactly from `question`, its key term.
        mistakes: At least three, with values distinct from each other and from `answer`, likeliest first.
    """

    question: str
    answer: str
    rule: str
    steps: str
    concept: str
    mistakes: tuple[Mistake, ...]


Family = Callable[[random.Random, int], Draft]


def redraw_until_distinct(family: Family) -> Family:
    """Decorates a family: it draws again until at least three mistakes differ from the answer and each other.

    Of mistakes that come out the same, as text or as a number, the first is kept.

    Raises:
        RuntimeError: If 1000 draws in a row collide; the family is faulty.
    """

    @functools.wraps(family)
    def distinct(rng: random.Random, level: int) -> Draft:
        for _ in range(1000):
            draft = family(rng, level)
            kept: dict[str | float, Mistake] = {}
            for mistake in draft.mistakes:
                kept.setdefault(_sameness(mistake.value), mistake)
            kept.pop(_sameness(draft.answer), None)
            if len(kept) >= 3:
                return dataclasses.replace(draft, mistakes=tuple(kept.values()))
        raise RuntimeError(f"{family.__name__} level {level}: 1000 draws without three distinct mistakes")

    return distinct


def _sameness(value: str) -> str | float:
    """What equal options share: the number of a number with at most one unit, else the text in lower case."""
    number = re.fullmatch(r"([+-]?\d+(?:\.\d+)?)(?: \S+)?", value)
    return float(number[1]) if number else value.casefold()


def num(value: float) -> str:
    """`value` without trailing zeros, exact up to six characters, else to three significant digits."""
    text = f"{value:.10g}"
    if len(text) <= 6 or float(value).is_integer():
        return text
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):.10g}"


def amount(value: float, unit: str) -> str:
    """A number and its unit, if it has one, as options print it, e.g. `3 g/cm3`."""
    return f"{num(value)} {unit}".rstrip()


def slip(working: str, value: float, unit: str) -> Mistake:
    """The mistake of reckoning `working`, which gives `value`."""
    return Mistake(amount(value, unit), f"{working} = {amount(value, unit)}.")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; prints as `24 g`."""

    value: float
    unit: str

    def __str__(self) -> str:
        return amount(self.value, self.unit)


@dataclass(frozen=True)
class Working:
    """A calculation in one step, with the mistakes people make in it."""

    answer: str
    steps: str
    mistakes: tuple[Mistake, ...]

    def draft(self, question: str, rule: str, concept: str, *mistakes: Mistake) -> Draft:
        """The question this is the working of; its own `mistakes` come before the general ones."""
        return Draft(question, self.answer, rule, self.steps, concept, mistakes + self.mistakes)


def multiply(a: Quantity, b: Quantity, unit: str, first: str = "") -> Working:
    """`a` times `b` in `unit`, after the step `first`; people divide, add or subtract instead."""
    slips = (
        (f"{a} / {b}", a.value / b.value),
        (f"{a} + {b}", a.value + b.value),
        (f"{b} / {a}", b.value / a.value),
        (f"{a} - {b}", a.value - b.value),
    )
    return _working(f"{first}{a} x {b}", a.value * b.value, unit, first, slips)


def divide(a: Quantity, b: Quantity, unit: str, first: str = "") -> Working:
    """`a` over `b` in `unit`, after the step `first`; people multiply, subtract or turn it upside down."""
    slips = (
        (f"{a} x {b}", a.value * b.value),
        (f"{b} / {a}", b.value / a.value),
        (f"{a} - {b}", a.value - b.value),
        (f"{a} + {b}", a.value + b.value),
    )
    return _working(f"{first}{a} / {b}", a.value / b.value, unit, first, slips)


def _working(working: str, value: float, unit: str, first: str, slips: tuple[tuple[str, float], ...]) -> Working:
    """The right `working` and those `slips` (working, value) whose value could pass for an answer."""
    return Working(
        amount(value, unit),
        f"{working} = {amount(value, unit)}.",
        tuple(slip(first + wrong, result, unit) for wrong, result in slips if result > 0),
    )
