"""The schema's checks, and what makes two questions the same."""

import pickle

import pytest

from opcod.data.questions import (
    Question,
    QuestionError,
    check_unique_ids,
    content_key,
    normalise,
    plain_answer,
    repeated_options,
)


def choice(**changes):
    fields = {
        "id": "q1",
        "domain": "physics",
        "text": "How fast?",
        "options": ("1 m/s", "2 m/s"),
        "answer": "A",
    }
    return Question(**(fields | changes))


def test_labels_follow_the_options():
    assert choice().labels == ("A", "B")
    assert choice(options=tuple(map(str, range(26))), answer="Z").labels[-1] == "Z"


def test_question_without_options_is_numeric():
    assert choice(options=(), answer="9.81").numeric
    assert not choice().numeric


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"id": " "}, ("id", "is empty")),
        ({"text": "\n"}, ("question", "is empty")),
        ({"domain": "Physics"}, ("domain", "'Physics' is not in lower case, expected 'physics'")),
        ({"options": ("1",)}, ("options", "holds 1, expected 2 to 26")),
        ({"options": tuple(map(str, range(27)))}, ("options", "holds 27, expected 2 to 26")),
        ({"options": ("1", " ")}, ("options", "option 2 is empty")),
        ({"options": ("1  m", "2 m", "1 m ")}, ("options", "'1 m' stands more than once")),
        ({"answer": "C"}, ("answer", "key 'C' is not among the labels A, B")),
        (
            {"options": (), "answer": "nan"},
            ("answer", "'nan' is not a finite number, and there are no options"),
        ),
        ({"tolerance": -0.1}, ("tolerance", "-0.1 is not a finite number of at least 0")),
        (
            {"absolute_tolerance": float("inf")},
            ("absolute_tolerance", "inf is not a finite number of at least 0"),
        ),
    ],
)
def test_each_fault_is_named(changes, fault):
    with pytest.raises(QuestionError) as refused:
        choice(**changes)
    assert refused.value.faults == (fault,)


def test_all_faults_of_a_question_are_named_at_once():
    with pytest.raises(QuestionError) as refused:
        choice(text="", answer="D")
    assert str(refused.value) == ("question 'q1': question: is empty; answer: key 'D' is not among the labels A, B")


def test_error_survives_a_process_boundary():
    error = QuestionError("no", [("id", "is empty")])
    assert pickle.loads(pickle.dumps(error)).faults == (("id", "is empty"),)


def test_repeated_options_ignores_white_space_and_empty_ones():
    assert repeated_options(["a b", "", "a  b", " ", "c"]) == ["a b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is it?", "  What\nis   it"),
        ("Question: What is it?", "What is it ?"),
        ("QUESTION : What is it?", "What is it:"),
        ("Volume of CsNb₃SBr₇.", "Volume of CsNb3SBr7"),
        ("What is 10² m?", "What is 10^2 m?"),
        ("Speed in m s⁻¹", "Speed in m s^-1"),
        ("Take −5 °C", "Take -5 °C"),
        ("e\u0301nergie", "\u00e9nergie"),
    ],
)
def test_typography_makes_no_other_question(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 10² m?", "What is 102 m?"),
        ("Molar mass of Co?", "Molar mass of CO?"),
        ("Name c1ccccc1", "Name C1CCCCC1"),
        ("What is 3!", "What is 3"),
        ("A question: why", "A why"),
    ],
)
def test_meaning_makes_another_question(one, other):
    assert normalise(one) != normalise(other)


def test_normalising_again_changes_nothing():
    once = normalise(" Question:  Is 10⁻³ Å³ the volume of LiSm₆B₃O₁₄ ?")
    assert once == normalise(once) == "Is 10^-3 Å^3 the volume of LiSm6B3O14"


def test_shuffled_or_other_options_are_the_same_content():
    assert content_key(choice()) == content_key(choice(id="q2", options=("2 m/s", "1 m/s"), answer="B"))
    assert content_key(choice()) == content_key(choice(id="q3", options=("7 m/s", "1 m/s"), answer="B"))


def test_shared_ids_are_named():
    check_unique_ids([choice(), choice(id="q2")])
    with pytest.raises(QuestionError, match=r"ids used more than once: q1; give every question its own"):
        check_unique_ids([choice(), choice(id="q2"), choice(), choice()])


def test_a_kind_that_is_not_given_goes_by_the_options():
    assert choice().kind == "choice"
    assert choice(options=(), answer="9.81").kind == "numeric"
    assert choice(options=(), answer="iron", kind="text").labels == ()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": "text"}, ("options", "only a question of type choice has it")),
        ({"unit": "m"}, ("unit", "only a question of type numeric has it")),
        ({"accept": ("x",)}, ("accept", "only a question of type text has it")),
        ({"kind": "essay"}, ("type", "'essay' is unknown, expected one of choice, numeric, text, expression")),
    ],
)
def test_a_field_of_another_kind_is_named(changes, fault):
    with pytest.raises(QuestionError) as refused:
        choice(**changes)
    assert fault in refused.value.faults


@pytest.mark.parametrize("text", ["Iron.", " ｉron ", "İSTANBUL ", "Straße", "H₂O ..", "10⁻³ M", "ﬁne", "a\u2028b"])
def test_plain_answers_stay_as_they_are(text):
    assert plain_answer(plain_answer(text)) == plain_answer(text) != text
