"""The question loader: any bytes are a file of questions, or are refused as one."""

import tempfile
from contextlib import suppress
from pathlib import Path

from opcod.data.check import check
from opcod.data.jsonl import read_questions, read_rows, write_questions
from opcod.data.questions import QuestionError
from opcod.data.sciknoweval import parse_row
from opcod.units import unit_fault

unit_fault("m")  # makes the table of units now, so that no single input seems to take the time


def examine(data: bytes) -> None:
    """The first byte says who reads the rest: a run, a prediction, SciKnowEval's reader, or `opcod check-data`."""
    reader, content = data[:1], data[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "questions.jsonl")
        path.write_bytes(content)
        match reader:
            case b"s":
                _rows(path)
            case b"c":
                other = path.with_name("other.jsonl")
                other.write_bytes(content[len(content) // 2 :])
                check([path, other], prompt_tokens=lambda q: len(q.text), special_tokens=["<|im_end|>"], validation=1)
            case _:
                _round_trip(path, keyed=reader != b"p")


def _round_trip(path: Path, *, keyed: bool) -> None:
    try:
        questions = read_questions(path, keyed=keyed)
    except QuestionError:
        return
    again = path.with_name("again.jsonl")
    write_questions(again, questions)
    assert read_questions(again, keyed=keyed) == questions


def _rows(path: Path) -> None:
    rows, _ = read_rows(path)
    for _, row in rows:
        with suppress(QuestionError):
            parse_row(row, "physics")
