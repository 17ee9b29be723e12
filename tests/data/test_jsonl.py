"""A user's own file: read whole, or refused whole with every fault named."""

import json
import os

import pytest

from opcod.data.jsonl import KNOWN_FIELDS, MAX_CHARACTERS, read_questions, write_questions
from opcod.data.questions import Question, QuestionError

CHOICE = {
    "id": "c",
    "domain": "physics",
    "question": "How fast?",
    "options": ["1 m/s", "2 m/s"],
    "answer": "B",
}
NUMERIC = {"id": "n", "domain": "physics", "question": "How many?", "answer": 3}
TEXT = {"id": "t", "domain": "physics", "question": "Which metal?", "type": "text", "answer": "iron"}
EXPRESSION = {"id": "e", "domain": "physics", "question": "Which energy?", "type": "expression", "answer": "m c^2"}


def write(path, *rows):
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def without(row, field):
    return {name: value for name, value in row.items() if name != field}


def faults(path, **options):
    """The fault lines of a refused file, without its name in front."""
    with pytest.raises(QuestionError) as refused:
        read_questions(path, **options)
    return [line.removeprefix(f"{path}:") for line in str(refused.value).splitlines()[1:-1]]


def test_reads_choice_and_numeric_questions(tmp_path):
    path = write(tmp_path / "q.jsonl", CHOICE, NUMERIC | {"tolerance": 0.05, "solution": "1 + 2"})
    assert read_questions(path) == [
        Question("c", "physics", "How fast?", ("1 m/s", "2 m/s"), "B"),
        Question("n", "physics", "How many?", (), "3", tolerance=0.05, solution="1 + 2"),
    ]


@pytest.mark.parametrize(("answer", "text"), [(3, "3"), (2.5, "2.5"), ("3.10", "3.10"), ("-1e-3", "-1e-3")])
def test_numeric_answers_are_numbers_or_texts(tmp_path, answer, text):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"type": "numeric", "answer": answer})
    assert read_questions(path)[0].answer == text


def test_26_options_are_read(tmp_path):
    path = write(tmp_path / "q.jsonl", CHOICE | {"options": [str(n) for n in range(26)], "answer": "Z"})
    assert len(read_questions(path)[0].options) == 26


def test_byte_order_mark_blank_lines_and_windows_line_ends_are_passed_over(tmp_path):
    content = b"\xef\xbb\xbf" + json.dumps(CHOICE).encode() + b"\r\n\r\n  \n" + json.dumps(NUMERIC).encode()
    (tmp_path / "q.jsonl").write_bytes(content)
    assert [q.id for q in read_questions(tmp_path / "q.jsonl")] == ["c", "n"]


def test_line_separators_inside_a_text_do_not_end_the_line(tmp_path):
    path = write(tmp_path / "q.jsonl", json.dumps(CHOICE | {"question": "a\u2028b"}, ensure_ascii=False).encode())
    assert read_questions(path)[0].text == "a\u2028b"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b'{"id": "c",', "line: is not JSON: Expecting property name enclosed in double quotes at column 12"),
        (b"[1, 2]", "line: is a list, expected an object with a question's fields"),
        (b'{"id": "\xff"}', "line: is not UTF-8 at byte 9"),
        (b"[" * 100_000, "line: is nested too deeply"),
        (b'{"id": "a", "id": "b"}', "line: names 'id' twice"),
        (without(CHOICE, "id"), "id: is missing"),
        (without(CHOICE, "domain"), "domain: is missing"),
        (without(CHOICE, "question"), "question: is missing"),
        (without(CHOICE, "answer"), "answer: is missing"),
        (without(NUMERIC, "answer"), "answer: is missing"),
        (without(CHOICE, "options"), "answer: 'B' is not a finite number, and there are no options"),
        (without(CHOICE, "options") | {"type": "choice"}, "options: is missing"),
        (CHOICE | {"id": 7}, "id: is a number, expected a text"),
        (CHOICE | {"question": None}, "question: is null, expected a text"),
        (CHOICE | {"question": " "}, "question: is empty"),
        (CHOICE | {"question": "x" * 20_001}, "question: has 20001 characters, expected at most 20000"),
        (CHOICE | {"question": "\ud800"}, "question: holds half a surrogate pair, which is no character"),
        (CHOICE | {"solution": ["x"]}, "solution: is a list, expected a text"),
        (CHOICE | {"options": "1 m/s"}, "options: is a text, expected a list of texts"),
        (CHOICE | {"options": ["1 m/s", 2]}, "options: item 2 is a number, expected a text"),
        (CHOICE | {"options": ["1 m/s", ""]}, "options: option 2 is empty"),
        (CHOICE | {"options": ["1 m/s", "1 m/s"]}, "options: '1 m/s' stands more than once"),
        (CHOICE | {"options": []}, "options: holds 0, expected 2 to 26"),
        (CHOICE | {"options": ["1"], "answer": "A"}, "options: holds 1, expected 2 to 26"),
        (CHOICE | {"options": [str(n) for n in range(27)]}, "options: holds 27, expected 2 to 26"),
        (CHOICE | {"answer": "C"}, "answer: key 'C' is not among the labels A, B"),
        (CHOICE | {"answer": "b"}, "answer: key 'b' is not among the labels A, B"),
        (CHOICE | {"answer": 1}, "answer: is a number, expected a text"),
        (NUMERIC | {"answer": True}, "answer: is true or false, expected a text"),
        (
            NUMERIC | {"answer": float("nan")},
            "answer: 'nan' is not a finite number, and there are no options",
        ),
        (NUMERIC | {"answer": "inf"}, "answer: 'inf' is not a finite number, and there are no options"),
        (NUMERIC | {"tolerance": -1}, "tolerance: -1.0 is not a finite number of at least 0"),
        (NUMERIC | {"tolerance": 10**400}, "tolerance: inf is not a finite number of at least 0"),
        (NUMERIC | {"absolute_tolerance": "1"}, "absolute_tolerance: is a text, expected a number"),
        (CHOICE | {"tolerance": 0.1}, "tolerance: only a question of type numeric has it"),
        (CHOICE | {"type": "numeric", "answer": "1"}, "options: only a question of type choice has it"),
        (CHOICE | {"type": "essay"}, "type: 'essay' is unknown, expected one of choice, numeric, text, expression"),
        (
            CHOICE | {"type": ["numeric"]},
            "type: ['numeric'] is unknown, expected one of choice, numeric, text, expression",
        ),
        (CHOICE | {"unit": "m"}, "unit: only a question of type numeric has it"),
        (NUMERIC | {"accept": ["3"]}, "accept: only a question of type text has it"),
        (NUMERIC | {"unit": 3}, "unit: is a number, expected a text"),
        (
            NUMERIC | {"unit": "furlongz"},
            "unit: 'furlongz' is no unit that pint knows ('furlongz' is not defined in the unit registry)",
        ),
        (
            NUMERIC | {"unit": "J/kg K"},
            "unit: 'J/kg K' can be read in two ways: put what is below the line in parentheses, J/(kg K)",
        ),
        (TEXT | {"answer": " . "}, "answer: holds nothing that counts: white space and full stops at the end do not"),
        (TEXT | {"answer": 3}, "answer: is a number, expected a text"),
        (TEXT | {"accept": "Fe"}, "accept: is a text, expected a list of texts"),
        (
            TEXT | {"accept": ["Fe", ""]},
            "accept: item 2 holds nothing that counts: white space and full stops at the end do not",
        ),
        (TEXT | {"options": ["a", "b"]}, "options: only a question of type choice has it"),
        (
            EXPRESSION | {"answer": "\\frac{1"},
            "answer: '\\\\frac{1' is no expression that math-verify reads; write it in LaTeX",
        ),
        (EXPRESSION | {"tolerance": 0.1}, "tolerance: only a question of type numeric has it"),
        (CHOICE | {"hint": "x"}, f"hint: is unknown, expected one of {', '.join(KNOWN_FIELDS)}"),
        (CHOICE | {"domain": "Physics"}, "domain: 'Physics' is not in lower case, expected 'physics'"),
    ],
)
def test_each_fault_names_file_line_field_and_reason(tmp_path, row, fault):
    good = CHOICE | {"id": "good"}
    assert faults(write(tmp_path / "q.jsonl", good, b"", row)) == [f"3: {fault}"]


def test_unknown_domain_names_the_known_ones(tmp_path):
    path = write(tmp_path / "q.jsonl", CHOICE, CHOICE | {"id": "d", "domain": "alchemy"})
    known = {"physics", "chemistry"}
    assert faults(path, domains=known) == ["2: domain: 'alchemy' is unknown, expected one of chemistry, physics"]


def test_duplicate_ids_name_both_lines(tmp_path):
    path = write(tmp_path / "q.jsonl", CHOICE, NUMERIC, CHOICE, CHOICE)
    assert faults(path) == ["3: id: 'c' is already used in line 1", "4: id: 'c' is already used in line 1"]


def test_all_faults_of_all_lines_stand_in_one_error(tmp_path):
    path = write(
        tmp_path / "q.jsonl",
        CHOICE | {"answer": "Z", "question": ""},
        NUMERIC,
        b"oops",
        without(CHOICE, "domain") | {"options": ["1"], "answer": "B"},
        b'{"answer": ' + b"9" * 5000 + b"}",
    )
    with pytest.raises(QuestionError) as refused:
        read_questions(path)
    assert str(refused.value).splitlines() == [
        f"{path} was refused as a whole, 8 faults:",
        f"{path}:1: question: is empty",
        f"{path}:1: answer: key 'Z' is not among the labels A, B",
        f"{path}:3: line: is not JSON: Expecting value at column 1",
        f"{path}:4: domain: is missing",
        f"{path}:4: options: holds 1, expected 2 to 26",
        f"{path}:4: answer: key 'B' is not among the labels A",
        f"{path}:4: id: 'c' is already used in line 1",
        f"{path}:5: line: holds a number of 5000 digits, which is too long",
        "Correct the lines named above, or take them out, and run again. The fields of a line are: "
        "id, domain, question, options, answer, type, tolerance, absolute_tolerance, unit, accept, solution, family.",
    ]


def test_a_text_of_the_greatest_length_is_read(tmp_path):
    path = write(tmp_path / "q.jsonl", CHOICE | {"question": "x" * MAX_CHARACTERS})
    assert len(read_questions(path)[0].text) == 20_000


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_empty_file_is_refused(tmp_path, content):
    (tmp_path / "q.jsonl").write_bytes(content)
    assert faults(tmp_path / "q.jsonl") == ["1: line: the file holds no question"]


def test_missing_file_and_folder_are_said_plainly(tmp_path):
    with pytest.raises(QuestionError, match="no such file; expected JSONL, one question a line: check the path"):
        read_questions(tmp_path / "absent.jsonl")
    with pytest.raises(QuestionError, match="cannot be read"):
        read_questions(tmp_path)


def test_written_questions_read_back_equal(tmp_path):
    questions = [
        Question("c", "physics", "Ångström \u2028 \\frac{1}{2}?", ("α", "β"), "B", solution="s", family="optics"),
        Question("n", "chemistry", "How many?", (), "3.10", tolerance=0.0, absolute_tolerance=0.5),
        Question("u", "physics", "How fast?", (), "3", unit="m/s²"),
        Question("t", "chemistry", "Which metal?", (), "iron", kind="text", accept=("Fe", "ferrum")),
        Question("e", "physics", "Which energy?", (), "\\frac{1}{2} m v^2", kind="expression"),
    ]
    write_questions(tmp_path / "q.jsonl", questions)
    assert read_questions(tmp_path / "q.jsonl") == questions


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write(tmp_path / "q.jsonl", CHOICE)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(QuestionError, match=r"cannot be written \(No space left on device\)"):
        write_questions(path, [Question("n", "chemistry", "How many?", (), "3")])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_questions_that_share_an_id_are_not_written(tmp_path):
    question = Question("n", "chemistry", "How many?", (), "3")
    with pytest.raises(QuestionError, match="ids used more than once: n"):
        write_questions(tmp_path / "q.jsonl", [question, question])
    assert not list(tmp_path.iterdir())
