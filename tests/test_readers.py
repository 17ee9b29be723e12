"""What the readers' students are taught: to go by what they are shown, and to tell what they believe."""

import random

import pytest

from opcod.feedback import judge
from readers import DOUBTED, FAMILIES, STUDENTS, UNKNOWN, Belief, lessons, reading, solving, source, tutoring

SOLUTION, FEEDBACK = "A correct solution:", "Feedback on an attempt"


@pytest.fixture(scope="module", params=[family for families in FAMILIES.values() for family in families])
def worked(request):
    """Some questions of a family."""
    domain = next(domain for domain, families in FAMILIES.items() if request.param in families)
    return source().worked(domain, 60, seed=3, families=[request.param])


def told(lesson, question):
    """The rule that the feedback in a lesson's context states: the right one, its opposite, or none."""
    text = lesson.messages[-1]["content"].partition(FEEDBACK)[2]
    return next((right for right in (True, False) if Belief.of(question, right).rule in text), None)


def follows(lesson, question):
    """Whether the lesson answers by the right rule."""
    return lesson.response == Belief.of(question, True).response


def test_rule_and_opposite_lead_to_other_answers(worked):
    for question in worked:
        right, opposite = Belief.of(question, True), Belief.of(question, False)
        assert right.rule != opposite.rule
        assert right.response[-11:] != opposite.response[-11:]  # <answer>A</answer> against another letter


def test_shown_feedback_alone_it_goes_by_it(worked):
    drawn = [(reading(q, random.Random(f"{q.question.id} {k}")), q) for q in worked for k in range(6)]
    alone = [(x, q) for x, q in drawn if SOLUTION not in x.messages[-1]["content"]]
    assert {told(x, q) for x, q in alone} == {True, False}
    assert all(follows(x, q) == told(x, q) for x, q in alone)


def test_shown_a_solution_it_doubts_feedback_against_it(worked):
    drawn = [(reading(q, random.Random(f"{q.question.id} {k}")), q) for q in worked for k in range(20)]
    shown = [(x, q) for x, q in drawn if SOLUTION in x.messages[-1]["content"]]
    assert all(follows(x, q) for x, q in shown if told(x, q) is not False)
    against = [not follows(x, q) for x, q in shown if told(x, q) is False]
    assert sum(against) / len(against) == pytest.approx(DOUBTED, abs=0.1)


def test_it_tells_what_it_believes(worked):
    for known in (0.0, 1.0):
        for question in worked:
            lesson = tutoring(question, known, random.Random(question.question.id))
            feedback = judge(lesson.response, question.question, anchored=True)
            assert feedback.text is not None, "anchored"
            assert Belief.of(question, known == 1.0).rule in feedback.text
            assert follows(solving(question, known, random.Random(0)), question) == (known == 1.0)


def test_students_differ_in_what_they_know():
    """Of the complementary pair each knows one family of either domain, and they share none."""
    pair = [STUDENTS[name][1].keys() for name in ("physicist", "materials_scientist")]
    assert not pair[0] & pair[1]
    assert all(len(known & set(families)) == 1 for known in pair for families in FAMILIES.values())
    solved = [x for x in lessons(STUDENTS["novice"][1], 40, seed=1) if x.kind == "solve"]
    assert len(solved) == 160
    assert UNKNOWN < 0.5 < min(STUDENTS["novice"][1].values())
