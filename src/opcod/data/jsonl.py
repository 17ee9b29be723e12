"""A user's own questions: one JSON object a line, refused whole with every fault named, or read.

Fields of a line:

- `id`, `domain`, `question`: texts; ids are unique within the file, domains in lower case.
- `type`: `choice`, `numeric`, `text` or `expression`; if left out, a question without options is numeric.
- `options`: 2 to 26 different texts, of a choice.
- `answer`: the right option's label (A, B, ...); or the number, as a number or as text; or the text or expression.
- `tolerance`, `absolute_tolerance`, `unit`: accepted errors and the unit of a numeric answer, see `Question`.
- `accept`: further texts that are right, of a text question.
- `solution`, `family`: texts, may be left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opcod.data.questions import FIELDS_OF_A_KIND, KINDS, LABELS, Question, QuestionError, check_unique_ids
from opcod.data.typography import visible

KNOWN_FIELDS = (
    "id",
    "domain",
    "question",
    "options",
    "answer",
    "type",
    "tolerance",
    "absolute_tolerance",
    "unit",
    "accept",
    "solution",
    "family",
)
MAX_CHARACTERS = 20_000
"""The most characters a single text may have."""

JSON_TYPES = {bool: "true or false", dict: "an object", list: "a list", str: "a text", type(None): "null"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a file, printed as `file:line: field: reason`."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {visible(self.field)}: {self.reason}"


class Fields:
    """Takes typed values out of one row and remembers what is wrong with them.

    A faulty value is replaced by a harmless one, so that the rest of the row can be checked as well;
    `question` then raises all faults at once, and no such replacement gets out.
    """

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.row = row
        self.faults: list[tuple[str, str]] = []

    def fault(self, field: str, reason: str) -> None:
        """Remember that `field` is faulty."""
        self.faults.append((field, reason))

    def faulty(self, field: str) -> bool:
        """Whether `field` already has a fault."""
        return any(field == name for name, _ in self.faults)

    def get(self, field: str) -> Any:
        """The value of `field`, looked up through dots (`choices.text`); a fault if there is none."""
        value: Any = self.row
        for name in field.split("."):
            if not isinstance(value, Mapping) or name not in value:
                self.fault(field, "is missing")
                return None
            value = value[name]
        return value

    def text(self, field: str) -> str:
        """A text that must be there."""
        value = self.get(field)
        if self.faulty(field) or not self._is_text(field, value):
            return "?"
        return value

    def optional_text(self, field: str) -> str | None:
        """A text that may be left out."""
        return self.text(field) if field in self.row else None

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts that must be there."""
        value = self.get(field)
        if self.faulty(field):
            return ()
        if not isinstance(value, list):
            self.fault(field, f"is {json_type(value)}, expected a list of texts")
            return ()
        valid = [self._is_text(field, item, f"item {n} ") for n, item in enumerate(value, start=1)]
        return tuple(value) if all(valid) else ()

    def number(self, field: str, default: float) -> float:
        """A number that may be left out."""
        if field not in self.row:
            return default
        value = self.row[field]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(field, f"is {json_type(value)}, expected a number")
            return default
        return float(str(value))  # an integer beyond the range of floats becomes inf, which is refused later

    def question(self, names: Mapping[str, str] | None = None, **values: Any) -> Question:
        """Make the question.

        Args:
            names: What this kind of row calls the schema's fields, where it differs.
            values: `Question`'s arguments, from this row's fields.

        Raises:
            QuestionError: With all faults of the row.
        """
        try:
            question = Question(**values)
        except QuestionError as error:
            for field, reason in error.faults:
                name = (names or {}).get(field, field)
                if not self.faulty(name):
                    self.fault(name, reason)
        if self.faults:
            raise QuestionError("; ".join(f"{f}: {reason}" for f, reason in self.faults), self.faults)
        return question

    def _is_text(self, field: str, value: object, which: str = "") -> bool:
        if not isinstance(value, str):
            self.fault(field, f"{which}is {json_type(value)}, expected a text")
        elif len(value) > MAX_CHARACTERS:
            self.fault(field, f"{which}has {len(value)} characters, expected at most {MAX_CHARACTERS}")
        elif any("\ud800" <= character <= "\udfff" for character in value):
            self.fault(field, f"{which}holds half a surrogate pair, which is no character")
        else:
            return True
        return False


def json_type(value: object) -> str:
    """What a JSON value is, in words."""
    return JSON_TYPES.get(type(value), "a number")


def read_questions(path: str | Path, *, domains: Collection[str] | None = None, keyed: bool = True) -> list[Question]:
    """Read a JSONL file of questions in the schema of this module.

    Blank lines and a byte order mark are passed over.

    Args:
        path: The file, in UTF-8.
        domains: The domains that may occur; any if None.
        keyed: Whether every question needs an `answer`.

    Raises:
        QuestionError: If the file cannot be read or anything in it is faulty: one message with a line
            `file:line: field: reason` for each fault.
    """
    rows, faults = read_rows(path)
    questions: list[Question] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        try:
            question = parse_question(row, domains=domains, keyed=keyed)
        except QuestionError as error:
            faults += [Fault(str(path), line, field, reason) for field, reason in error.faults]
        else:
            questions.append(question)
        faults += repeated_id(path, line, row, lines)
    refuse(path, faults, f"The fields of a line are: {', '.join(KNOWN_FIELDS)}.")
    return questions


def parse_question(row: Mapping[str, Any], *, domains: Collection[str] | None = None, keyed: bool = True) -> Question:
    """One question from one line's object; see `read_questions`.

    Raises:
        QuestionError: With all faults of the row in `faults`.
    """
    fields = Fields(row)
    for field in row:
        if field not in KNOWN_FIELDS:
            fields.fault(field, f"is unknown, expected one of {', '.join(KNOWN_FIELDS)}")

    domain = fields.text("domain")
    if domains is not None and not fields.faulty("domain") and domain not in domains:
        fields.fault("domain", f"{domain!r} is unknown, expected one of {', '.join(sorted(domains))}")

    kind = row.get("type", "choice" if "options" in row else "numeric")
    if kind not in KINDS:
        fields.fault("type", f"{kind!r} is unknown, expected one of {', '.join(KINDS)}")
    for field, owner in FIELDS_OF_A_KIND.items():
        if field in row and kind in KINDS and kind != owner:
            fields.fault(field, f"only a question of type {owner} has it")
    options = fields.texts("options") if kind == "choice" else ()
    if kind == "choice" and not options and not fields.faulty("options"):
        fields.fault("options", f"holds 0, expected 2 to {len(LABELS)}")

    return fields.question(
        id=fields.text("id"),
        domain=domain,
        text=fields.text("question"),
        options=options,
        answer=_answer(fields, kind, options) if keyed or "answer" in row else "",
        keyed=keyed or "answer" in row,
        tolerance=fields.number("tolerance", Question.tolerance),
        absolute_tolerance=fields.number("absolute_tolerance", Question.absolute_tolerance),
        solution=fields.optional_text("solution"),
        family=fields.optional_text("family"),
        kind=None if fields.faulty("type") or fields.faulty("options") else kind,
        unit=fields.optional_text("unit"),
        accept=fields.texts("accept") if "accept" in row else (),
    )


def _answer(fields: Fields, kind: str, options: tuple[str, ...]) -> str:
    """The key as text; a valid one where the kind or the options are faulty and it cannot be judged."""
    value = fields.row.get("answer")
    if kind == "numeric" and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    answer = fields.text("answer")
    if fields.faulty("answer") or fields.faulty("options") or fields.faulty("type"):
        return "A" if options else "0"
    return answer


def read_rows(path: str | Path) -> tuple[list[tuple[int, dict[str, Any]]], list[Fault]]:
    """The JSON objects of a file with their line numbers, and a fault for each line that holds none.

    Raises:
        QuestionError: If the file cannot be read at all.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise QuestionError(f"{path}: no such file; expected JSONL, one question a line: check the path") from None
    except OSError as error:
        raise QuestionError(f"{path}: cannot be read ({error.strerror}); expected a readable JSONL file") from None
    rows: list[tuple[int, dict[str, Any]]] = []
    faults: list[Fault] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append((number, _parse_line(line)))
            except ValueError as error:
                faults.append(Fault(str(path), number, "line", str(error)))
    if not rows and not faults:
        faults.append(Fault(str(path), 1, "line", "the file holds no question"))
    return rows, faults


def _parse_line(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"is {json_type(row)}, expected an object with a question's fields")
    return row


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python reads no more than some thousands
        raise ValueError(f"holds a number of {len(digits)} digits, which is too long") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"names {next(n for n in names if names.count(n) > 1)!r} twice")
    return row


def repeated_id(path: str | Path, line: int, row: Mapping[str, Any], lines: dict[str, int]) -> list[Fault]:
    """A fault if the row's id was used before; `lines` keeps the line that used each id first."""
    name = row.get("id")
    if not isinstance(name, str) or lines.setdefault(name, line) == line:
        return []
    return [Fault(str(path), line, "id", f"{name!r} is already used in line {lines[name]}")]


def refuse(source: str | Path, faults: Sequence[Fault], hint: str = "") -> None:
    """Refuse a file if it has any fault.

    Raises:
        QuestionError: With one line for each fault, in the file's order, then the remedy.
    """
    if not faults:
        return
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    listed = [str(fault) for fault in sorted(faults, key=lambda fault: (fault.file, fault.line))]
    remedy = f"Correct the lines named above, or take them out, and run again. {hint}".rstrip()
    raise QuestionError("\n".join([f"{source} was refused as a whole, {count}:", *listed, remedy]))


def write_questions(path: str | Path, questions: Sequence[Question]) -> None:
    """Write questions as JSONL that `read_questions` reads back; the file appears whole or not at all.

    Raises:
        QuestionError: If two questions share an id, or the file cannot be written.
    """
    check_unique_ids(questions)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            for question in questions:
                file.write(json.dumps(_row(question), ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(unfinished, path)
    except OSError as error:
        raise QuestionError(
            f"{path}: cannot be written ({error.strerror}); choose another path or free space"
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _row(question: Question) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": question.id,
        "domain": question.domain,
        "type": question.kind,
        "question": question.text,
    }
    if question.numeric:
        row |= {"tolerance": question.tolerance, "absolute_tolerance": question.absolute_tolerance}
    elif question.kind == "choice":
        row["options"] = list(question.options)
    extras = {
        "answer": question.answer if question.keyed else None,
        "unit": question.unit,
        "accept": list(question.accept) or None,
        "solution": question.solution,
        "family": question.family,
    }
    return row | {field: value for field, value in extras.items() if value is not None}
