"""Read the answer out of a response; right or wrong.

Only the last complete <answer></answer> pair counts, and it must hold the answer alone, as the system message
asks. Knows nothing about prompts or models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from opcod.data.questions import Question, plain_answer
from opcod.expressions import read_expression, same_expression
from opcod.units import convert

_ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.IGNORECASE | re.DOTALL)

_NUMBER = re.compile(
    r"""
    (?P<mantissa> [+-]? (?=\.?[0-9]) (?: [1-9][0-9]{0,2}(?:,[0-9]{3})+ | [0-9]* ) (?:\.[0-9]*)? )
    (?: [eE](?P<e>[+-]?[0-9]+) | \s*[x×*·]\s*10\^(?P<power>[+-]?[0-9]+) )?
    \s*
    (?P<unit> (?! x\s*10 ) (?: [^\W\d_] | [%°\\] | [/(]\s*[^\W\d_] ) .* )?
    """,
    re.VERBOSE | re.DOTALL,
)
_ANOTHER_NUMBER = re.compile(r"\s[+-]?\.?[0-9]")

_SIGNS = (
    ("−", "-"),
    ("\\times", "×"),
    ("\\cdot", "·"),
    ("⋅", "·"),
    ("℃", "°C"),
    ("℉", "°F"),
    ("\\,", " "),
    ("~", " "),
)
_SUPERSCRIPTS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_SUPERSCRIPT = re.compile("[⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_BARE_POWER = re.compile(r"^([+-]?)(?=10\^)")


@dataclass(frozen=True)
class Grade:
    """What became of one response.

    Args:
        correct: Whether its answer is the key.
        formatted: Whether it holds a readable answer in a complete <answer></answer> pair.
        choice: The answer it gives, as a vote: an option's label, a number to three significant digits, or a text
            or expression in one spelling; None if it is not formatted. All right texts and expressions cast the key.
    """

    correct: bool
    formatted: bool
    choice: str | None


def grade(response: str, question: Question) -> Grade:
    """Grade `response` against the key of `question` (section 1, One step, 2).

    A number is right within the question's relative or absolute tolerance, whichever allows more. Where the question
    names a unit, a number in another unit is converted first, and one without is taken to be in that unit; a unit that
    is unreadable or measures something else makes it wrong, though readable. A text is right if it is the key or one of
    the accepted ones by `plain_answer`, an expression if math-verify finds it equal to the key. Without a key nothing
    is right.
    """
    match question.kind:
        case "choice":
            choice = extract_choice(response, question.labels)
            return Grade(correct=choice == question.answer, formatted=choice is not None, choice=choice)
        case "text":
            return _grade_text(response, question)
        case "expression":
            return _grade_expression(response, question)
        case _:
            return _grade_number(response, question)


def _grade_number(response: str, question: Question) -> Grade:
    quantity = extract_quantity(response, degrees=question.unit is not None)
    if quantity is None:
        return Grade(correct=False, formatted=False, choice=None)
    number, unit = quantity
    if question.unit is not None and unit:
        converted = convert(number, unit, question.unit)
        if converted is None:
            return Grade(correct=False, formatted=True, choice=f"{number:.3g} {unit}")
        number = converted
    correct = question.keyed and _is_near(number, float(question.answer), question)
    return Grade(correct=correct, formatted=True, choice=f"{number:.3g}")


def _is_near(number: float, key: float, question: Question) -> bool:
    """Within the error that is accepted, but for rounding; relative errors are of the key."""
    accepted = max(question.tolerance * abs(key), question.absolute_tolerance)
    return abs(number - key) <= accepted + 4 * math.ulp(max(abs(number), abs(key)))


def _grade_text(response: str, question: Question) -> Grade:
    answer, key = (plain_answer(text) for text in (extract_answer(response) or "", question.answer))
    if not answer:
        return Grade(correct=False, formatted=False, choice=None)
    correct = answer in {key, *map(plain_answer, question.accept)}
    return Grade(correct=correct, formatted=True, choice=key if correct else answer)


def _grade_expression(response: str, question: Question) -> Grade:
    answer = extract_answer(response) or ""
    read = read_expression(answer)
    if read is None:
        return Grade(correct=False, formatted=False, choice=None)
    correct = question.keyed and same_expression(question.answer, answer)
    return Grade(correct=correct, formatted=True, choice=question.answer if correct else read)


def extract_answer(response: str) -> str | None:
    """The stripped content of the last complete <answer></answer> pair, tags in any case, or None."""
    pairs = _ANSWER.findall(response)
    return pairs[-1].strip() if pairs else None


def extract_choice(response: str, labels: Iterable[str]) -> str | None:
    """The option that `response` answers with, as it stands in `labels`; None unless it is a label alone.

    Letters count in either case; `B.`, `(B)` or `B: 3 m` are not the letter alone.
    """
    answer = (extract_answer(response) or "").casefold()
    return next((label for label in labels if label.casefold() == answer), None)


def extract_quantity(response: str, *, degrees: bool = False) -> tuple[float, str] | None:
    """The number that `response` answers with and what unit stands after it, or None.

    Read are a sign, thousands separators (`12,300`), scientific notation (`1.2e3`, `1.2 x 10^3`, `1.2 × 10³`,
    LaTeX's `1.2 \\times 10^{3}`, `10^3`) and a unit after the number, which is not checked. Anything before
    the number, a second number (`3 or 4`, `3 ± 1`), a fraction (`3/4`) or an infinite value is not a number.

    Args:
        response: A student's.
        degrees: Read `25^\\circ` too, whose sign would else be an unfinished power.
    """
    answer = _plain(extract_answer(response) or "")
    number = _NUMBER.fullmatch(answer.replace("^\\circ", "°") if degrees else answer)
    if number is None or _ANOTHER_NUMBER.search(" " + (number["unit"] or "")):
        return None
    value = float(number["mantissa"].replace(",", "") + "e" + (number["e"] or number["power"] or "0"))
    return (value, number["unit"] or "") if math.isfinite(value) else None


def _plain(answer: str) -> str:
    """`answer` without LaTeX's signs, each sign in one spelling, and every power written as `10^3`."""
    for written, plain in _SIGNS:
        answer = answer.replace(written, plain)
    answer = answer.translate({ord(sign): None for sign in "${}"}).strip().rstrip(".")
    answer = _SUPERSCRIPT.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), answer)
    return _BARE_POWER.sub(r"\g<1>1×", answer)
