"""Of any questions and any files of them."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opcod.data.jsonl import KNOWN_FIELDS, parse_question, read_questions, write_questions
from opcod.data.questions import LABELS, Question, QuestionError, normalise, plain_answer
from opcod.data.sciknoweval import parse_row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ROWS = st.dictionaries(
    st.sampled_from(KNOWN_FIELDS) | st.text(max_size=4),
    JSON | st.sampled_from(["choice", "numeric", "text", "A", "B", "1.5", "km/h"]),
)
GOOD = '{"id": "%d", "domain": "physics", "question": "How far is %d?", "answer": 1}'


@st.composite
def questions(draw):
    kind = draw(st.sampled_from(["choice", "numeric", "text"]))
    given = {
        "id": draw(TEXTS),
        "domain": draw(TEXTS).lower().replace("/", "."),
        "text": draw(TEXTS),
        "kind": kind,
        "options": (),
        "solution": draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)),
        "family": draw(st.none() | TEXTS),
    }
    assume(given["domain"] == given["domain"].lower())  # a few letters have a lower case of their own
    if kind == "choice":
        options = draw(st.lists(TEXTS, min_size=2, max_size=26, unique_by=lambda text: " ".join(text.split())))
        return Question(**given | {"options": tuple(options), "answer": draw(st.sampled_from(LABELS[: len(options)]))})
    if kind == "numeric":
        number = draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300))
        errors = {name: draw(st.floats(0, 1e300)) for name in ("tolerance", "absolute_tolerance")}
        return Question(**given, answer=str(number), unit=draw(st.sampled_from([None, "m", "km/h", "degC"])), **errors)
    texts = TEXTS.filter(lambda text: plain_answer(text))
    return Question(**given, answer=draw(texts), accept=tuple(draw(st.lists(texts, max_size=3))))


@given(st.lists(questions(), min_size=1, max_size=5, unique_by=lambda question: question.id))
def test_what_is_written_is_read_back(tmp_path, asked):
    write_questions(tmp_path / "asked.jsonl", asked)
    assert read_questions(tmp_path / "asked.jsonl") == asked


@given(questions())
def test_without_its_key_a_question_is_read_back_too(tmp_path, question):
    unknown = Question(
        question.id, question.domain, question.text, question.options, "", kind=question.kind, keyed=False
    )
    write_questions(tmp_path / "asked.jsonl", [unknown])
    assert read_questions(tmp_path / "asked.jsonl", keyed=False) == [unknown]


@given(ROWS, st.booleans())
def test_any_row_is_a_question_or_names_its_faults(row, keyed):
    try:
        question = parse_question(row, keyed=keyed)
    except QuestionError as error:
        fields = {field for field, _ in error.faults}
        assert fields
        assert fields <= {*KNOWN_FIELDS, *row}
    else:
        assert question.id == row["id"]
        assert not question.faults()


@given(
    st.dictionaries(
        st.sampled_from(["id", "domain", "type", "question", "choices", "details", "answerKey"]),
        JSON | st.sampled_from(["Physics", "mcq-4-choices", "C", {"level": "L3"}]),
    )
)
def test_any_row_of_sciknoweval_is_a_question_or_is_refused(row):
    try:
        question = parse_row(row, "physics")
    except QuestionError:
        return
    assert question is None or question.domain == "physics"


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.binary(max_size=30))
def test_every_faulty_line_is_named_and_no_other(tmp_path, faulty, rubbish):
    assume(b"\n" not in rubbish and rubbish.strip())
    with_rubbish = rubbish if not rubbish.startswith(b"\xef\xbb\xbf") else b"?"
    lines = [with_rubbish if bad else (GOOD % (n, n)).encode() for n, bad in enumerate(faulty)]
    path = tmp_path / "asked.jsonl"
    path.write_bytes(b"\n".join(lines))
    if not any(faulty):
        assert len(read_questions(path)) == len(faulty)
        return
    with pytest.raises(QuestionError) as refused:
        read_questions(path)
    said = str(refused.value).splitlines()
    named = {int(line.removeprefix(f"{path}:").partition(":")[0]) for line in said if line.startswith(f"{path}:")}
    assert named == {n for n, bad in enumerate(faulty, start=1) if bad}


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(tmp_path, content):
    path = tmp_path / "asked.jsonl"
    path.write_bytes(content)
    with pytest.raises(QuestionError) as refused:  # no 200 bytes at random are a question
        read_questions(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500])
def test_depth_is_a_fault_like_any_other(tmp_path, nested):
    path = tmp_path / "asked.jsonl"
    path.write_text(f'{{"id": {nested}\n{nested}\n')
    with pytest.raises(QuestionError, match=r"asked\.jsonl:2"):
        read_questions(path)


@given(st.text())
def test_what_makes_two_texts_one_stays_the_same_when_applied_again(text):
    assert plain_answer(plain_answer(text)) == plain_answer(text)
    once = normalise(text)
    assert " ".join(once.split()) == once


@given(TEXTS)
def test_white_space_and_a_heading_make_no_other_question(text):
    spaced = text.replace(" ", " \n ")
    assert normalise(f"Question: {spaced}. ") == normalise(f"Question: {text}")


def test_a_line_of_megabytes_is_read(tmp_path):
    path = tmp_path / "asked.jsonl"
    path.write_text(json.dumps({"id": "1", "domain": "physics", "question": "x" * 5_000_000, "answer": 1}))
    with pytest.raises(QuestionError, match="has 5000000 characters, expected at most 20000"):
        read_questions(path)
