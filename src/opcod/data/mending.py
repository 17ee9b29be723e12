"""What might mend a faulty row: a guess at what its writer meant, never applied."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from opcod.data.jsonl import KNOWN_FIELDS, Fault
from opcod.data.questions import KINDS, LABELS
from opcod.grading import extract_quantity

OTHER_NAMES = {
    "question": ("prompt", "text", "stem", "problem", "query", "q", "input", "instruction"),
    "options": ("choices", "candidates", "alternatives"),
    "answer": ("key", "label", "target", "gold", "correct", "correct_answer", "answerkey", "answer_key", "output"),
    "domain": ("subject", "topic", "category", "field", "discipline"),
    "solution": ("explanation", "rationale", "reasoning", "cot", "worked_solution"),
    "id": ("uid", "qid", "idx", "index", "question_id"),
    "unit": ("units",),
    "tolerance": ("tol", "rtol", "relative_tolerance"),
    "absolute_tolerance": ("atol",),
    "accept": ("aliases", "accepted", "synonyms"),
    "choice": ("mcq", "multiple_choice", "multiplechoice", "mc", "multiple-choice"),
    "numeric": ("number", "numerical", "float", "int", "integer"),
    "text": ("string", "exact", "exact_match", "short_answer", "free"),
    "expression": ("math", "latex", "formula", "equation", "symbolic"),
}
"""Field or type -> what others call it."""

_LETTER_AND_MORE = re.compile(r"\(?\s*([A-Za-z])\s*(?:[).:].*)?", re.DOTALL)
_PERCENT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*%\s*")
_LONGEST = 60


def suggestion(fault: Fault, row: Mapping[str, Any] | None, domains: Collection[str] | None = None) -> str | None:
    """What to write in place of what is faulty, in words; None if nothing can be guessed.

    Args:
        fault: What is wrong.
        row: The line's object; None if the line holds none.
        domains: The domains that may occur, if not any.
    """
    if row is None:
        return _for_line(fault)
    if fault.reason == "is missing":
        return _for_missing(fault.field, row)
    if fault.field not in KNOWN_FIELDS:
        meant = _meant(fault.field, KNOWN_FIELDS)
        return None if meant is None or meant in row else f"did you mean {_json(meant)}?"
    value = row.get(fault.field)
    match fault.field:
        case "id":
            return "give every question its own" if "already used" in fault.reason else _as_text(value)
        case "domain" if isinstance(value, str):
            meant = _meant(value, domains or ())
            return f"write {_json(meant or value.lower())}" if meant or value != value.lower() else None
        case "type" if isinstance(value, str):
            meant = _meant(value, KINDS)
            return None if meant is None else f"write {_json(meant)}"
        case "options":
            return _for_options(value, row)
        case "answer":
            return _for_answer(value, row)
        case "tolerance" | "absolute_tolerance":
            return _for_tolerance(value) if isinstance(value, str) else None
        case "accept" if isinstance(value, str):
            return f"write {_json([value])}"
        case _:
            return _as_text(value)


def _for_line(fault: Fault) -> str | None:
    if "is a list" in fault.reason or (fault.line == 1 and fault.reason.endswith("Expecting value at column 2")):
        return "a JSON list is no JSONL: write each of its objects on a line of its own, as `jq -c '.[]'` does"
    if "UTF-8" in fault.reason:
        return "save the file as UTF-8"
    if "double quotes" in fault.reason:
        return "names and texts stand in double quotes, and no comma before the closing brace"
    if "Extra data" in fault.reason:
        return "one object a line"
    if "Invalid \\escape" in fault.reason:
        return "write a backslash as two: \\\\frac"
    if "Invalid control character" in fault.reason:
        return "write a line break within a text as \\n, a tab as \\t"
    return None


def _for_missing(name: str, row: Mapping[str, Any]) -> str | None:
    """The field that it stands in under another name."""
    unknown = [other for other in row if other not in KNOWN_FIELDS and _meant(other, KNOWN_FIELDS) == name]
    return f"rename {_json(unknown[0])}" if unknown else None


def _for_options(value: object, row: Mapping[str, Any]) -> str | None:
    if isinstance(value, Mapping):
        return f"write a list: {_json([str(option) for option in value.values()])}"
    if isinstance(value, list) and any(isinstance(v, int | float) for v in value):
        return f"write texts: {_json([str(v) for v in value])}"
    if value is None or value == [] or row.get("type") not in (None, "choice"):
        return 'take "options" out'
    return None


def _for_answer(value: object, row: Mapping[str, Any]) -> str | None:
    options = row.get("options")
    texts = [str(o) for o in (options.values() if isinstance(options, Mapping) else options or ())]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not texts or row.get("type") not in (None, "choice"):
        return _for_open_answer(value, row)
    labels = LABELS[: len(texts)]
    if isinstance(value, str):
        same = [label for label, text in zip(labels, texts, strict=False) if text.strip() == value.strip()]
        letter = _LETTER_AND_MORE.fullmatch(value.strip())
        if same or (letter is not None and letter[1].upper() in labels):
            return f"write the letter: {_json(same[0] if same else letter[1].upper())}"  # type: ignore[index]
    index = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 4 else value
    if isinstance(index, int) and not isinstance(index, bool):
        guesses = [f"{_json(labels[index - n])} if it counts from {n}" for n in (0, 1) if 0 <= index - n < len(labels)]
        return f"write the letter: {', '.join(guesses)}" if guesses else None
    return None


def _for_open_answer(value: object, row: Mapping[str, Any]) -> str | None:
    """For an answer without options: the number within it, its text, or its other type."""
    if not isinstance(value, str) or not value.strip():
        return _as_text(value)
    if row.get("type") in ("text", "expression"):
        return None
    quantity = extract_quantity(f"<answer>{value}</answer>", degrees=True)
    if quantity is None:
        return 'add "type": "text", or "expression" for a formula'
    number, unit = quantity
    return f'write "answer": {_json(f"{number:g}")}' + (f', "unit": {_json(unit)}' if unit else "")


def _for_tolerance(value: str) -> str | None:
    if percent := _PERCENT.fullmatch(value):
        return f"write {float(percent[1]) / 100:g}"
    try:
        return f"write {float(value):g}, without quotes"
    except ValueError:
        return None


def _as_text(value: object) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return f"write {_json(str(value))}" if number else None


def _meant(name: str, known: Collection[str]) -> str | None:
    """Which of the known names a name stands for."""
    plain = name.strip().casefold().replace(" ", "_")
    if plain in known:
        return plain
    named = [k for k in known if plain in OTHER_NAMES.get(k, ())]
    return next(iter(named or get_close_matches(plain, known, n=1, cutoff=0.7)), None)


def _json(value: object) -> str:
    """As it would stand in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
