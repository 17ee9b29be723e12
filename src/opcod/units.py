"""Units of measurement: what a unit's text means, and a value in another unit. The units are pint's.

A unit comes from a model or from a user's file. It is therefore short, and read by a grammar of its own before pint
sees it: pint evaluates what it is given, and `9**9**9` would keep it busy for good.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from opcod.data.typography import spell_powers

if TYPE_CHECKING:
    from pint import Unit, UnitRegistry

MAX_CHARACTERS = 60
"""The most characters a unit may have."""

_LATEX = (
    (re.compile(r"\\(?:text|mathrm|mathit|operatorname|rm)(?![a-z]*\\)\s*"), ""),
    (re.compile(r"\^?\\(?:circ|degree)\s*"), "°"),
    (re.compile(r"\\mu\s*"), "µ"),
    (re.compile(r"\\(?:Omega|ohm)\s*"), "Ω"),
    (re.compile(r"\\[ ;:!]"), " "),
    (re.compile(r"\\(?=%)"), ""),
)
_DEGREES = re.compile(r"(?:°|\bdeg(?:rees?)?\b)\s*(C(?:elsius)?|F(?:ahrenheit)?|K(?:elvin)?)\b", re.IGNORECASE)
_SCALES = {"c": "degC", "f": "degF", "k": "kelvin"}
_SIGNS = (("·", "*"), ("⋅", "*"), ("•", "*"), ("×", "*"), ("**", "^"), ("°", " degree "), ("%", " percent "))
_BRACES = {ord(sign): None for sign in "${}"}
_HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
_POWER = re.compile(r"\^\s*(?:\(\s*([+-]?[0-9]+)\s*\)|([+-]?[0-9]+))")
_BARE_POWER = re.compile(r"(?<=[^\W\d_])(?=[+-]?[0-9])")
_NAME = re.compile(r"[^\W\d_]+(?:_[^\W\d_]+)*")
_GRAMMAR = re.compile(r"(?:1\s*/)? (?: [^\W\d] | [*/()\s] | \^[+-]?[0-9]{1,2} (?![\^0-9]) )+", re.VERBOSE)
_ONE_SLASH = re.compile(r"([^/()]*)/\s*([^/()]*[^/()*\s]\s*[*\s]\s*[^/()*\s][^/()]*)")


class UnitError(ValueError):
    """A text that is no unit; the message says why."""


def unit_fault(text: str) -> str | None:
    """Why `text` cannot be the unit that a question asks for; None if it can."""
    try:
        readings = _readings(text)
    except UnitError as error:
        return str(error)
    if len(readings) > 1:
        above, below = (part.strip() for part in text.split("/"))
        return f"{text!r} can be read in two ways: put what is below the line in parentheses, {above}/({below})"
    if _converted(1.0, readings[0], readings[0]) is None:
        return f"{text!r} is a logarithmic unit or a temperature within a product, which nothing can be converted to"
    return None


def convert(value: float, unit: str, wanted: str) -> float | None:
    """`value` in `unit`, as a number in the unit `wanted`; None if `unit` is unreadable or measures something else.

    A unit such as `J/kg K` is read as J K/kg or as J/(kg K), whichever measures what is wanted. A temperature in °C
    or °F is one on its scale (25 °C is 298.15 K); within a product, J/(kg °C), they are steps of it. A hertz is a turn
    a second beside angles (1 Hz is 60 rpm, or 6.28 rad/s), and else 1/s.
    """
    try:
        readings = _readings(unit)
    except UnitError:
        return None
    asked = _readings(wanted)[0]
    for reading in readings:
        if reading.dimensionality == asked.dimensionality:
            return _converted(value, reading, asked)
    return None


def _converted(value: float, unit: Unit, wanted: Unit) -> float | None:
    from pint import PintError

    try:
        with np.errstate(all="ignore"):
            unit, wanted = _in_turns(unit, wanted), _in_turns(wanted, unit)
            converted = float(_registry().Quantity(value, unit).m_as(wanted))
    except (PintError, ArithmeticError):  # a step of a temperature and one on its scale; a logarithm out of range
        return None
    return converted if math.isfinite(converted) else None


def _in_turns(unit: Unit, beside: Unit) -> Unit:
    """`unit`, where that is a frequency and `beside` is of an angle, in turns: pint has both as 1/s."""
    hertz = sum(power for name, power in _parts(unit).items() if name.endswith("hertz"))
    if not hertz or "radian" not in _parts(_registry().Quantity(1, beside).to_base_units().units):
        return unit
    return unit * _registry().Unit("turn") ** hertz


def _parts(unit: Any) -> dict[str, Any]:
    """The names of a unit, with their powers."""
    return dict(_registry().Quantity(1, unit).unit_items())


@lru_cache(maxsize=1)
def _registry() -> UnitRegistry:
    from pint import UnitRegistry  # takes half a second

    return UnitRegistry()


@lru_cache(maxsize=4096)
def _readings(text: str) -> tuple[Unit, ...]:
    """What a unit's text means; in second place, where it has a product below a slash, that product as a whole.

    Raises:
        UnitError: If it is no unit.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnitError(f"has {len(text)} characters, expected at most {MAX_CHARACTERS}")
    spelled = _spelled(text)
    if not _GRAMMAR.fullmatch(spelled):
        raise UnitError(f"{text!r} is no unit: expected names, such as m, kg or ohm, with * / ^ and parentheses")
    from pint import PintError

    halves = _ONE_SLASH.fullmatch(spelled)
    ways = [spelled] if halves is None else [spelled, f"{halves[1] or '1'}/({halves[2]})"]
    try:
        ways = [_NAME.sub(lambda match: _known(match[0]), way) for way in ways]
        units = [_registry().parse_units(f"1{way}" if way.startswith("/") else way) for way in ways]
        for unit in units:
            unit.dimensionality  # noqa: B018  # pint finds out late that a product holds a logarithmic unit
    except Exception as error:  # pint, its evaluator and the tokenizer each have their own for half a unit
        reason = f" ({error})" if isinstance(error, PintError) else ""
        raise UnitError(f"{text!r} is no unit that pint knows{reason}") from None
    return tuple(dict.fromkeys(units))


def _spelled(text: str) -> str:
    """A unit in pint's signs."""
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    text = unicodedata.normalize("NFKC", spell_powers(text)).replace("\N{MINUS SIGN}", "-")
    text = _DEGREES.sub(lambda match: _SCALES[match[1][0].lower()], text)
    for sign, plain in _SIGNS:
        text = text.replace(sign, plain)
    text = _BARE_POWER.sub("^", _HYPHEN.sub("*", text.translate(_BRACES)))
    text = _POWER.sub(lambda match: f"^{match[1] or match[2]}", text)
    return " ".join(text.split())


def _known(name: str) -> str:
    """A name in lower case where only that is known: `Newton`, but never a symbol, as mW is not MW."""
    return name if len(name) < 4 or name in _registry() else name.lower()
