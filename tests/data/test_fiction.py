"""Made-up things: every answer is derived again from the question's text and the rule alone."""

import random
import re

import pytest

from opcod.data.lessons import use_context
from opcod.data.questions import QuestionError
from opcod.data.science import DOMAINS, FICTION, generate
from opcod.data.science.fiction import FAMILIES
from opcod.feedback import judge
from opcod.grading import grade
from opcod.prompts import teacher_messages

RECKONED = {"times": lambda a, b: a * b, "divided by": lambda a, b: a / b, "plus": lambda a, b: a + b}
RECKONED["minus"] = lambda a, b: a - b


@pytest.fixture(scope="module")
def invented():
    return generate(FICTION, 200, seed=4, split="train", levels=[1])


def answer_of(item):
    return item.question.options["ABCD".index(item.question.answer)]


def rule_of(item):
    return judge(item.right.feedback, item.question, anchored=True).text.partition(" You wrote:")[0]


def number(word, text):
    return float(re.search(rf"\b{word} of (-?\d+)", text)[1])


def derive(item):
    rule, text = rule_of(item), item.question.text
    match item.question.family:
        case "made_up_quantity" | "made_up_sum":
            first, operation, second = re.fullmatch(r"The \w+ is the (\w+) ([a-z ]+) the (\w+)\.", rule).groups()
            return RECKONED[operation](number(first, text), number(second, text))
        case "made_up_pairing":
            mixed, *alone = re.findall(r"\w+ with \w+: (\w+)|(\w+) only: (\w+)", rule)
            kinds = re.search(r"\w+ is a (\w+) and \w+ a (\w+)", text).groups()
            return mixed[0] if kinds[0] != kinds[1] else {k.lower(): v for _, k, v in alone}[kinds[0]]
        case "made_up_treatment":
            makes = {k.lower(): v for k, v in re.findall(r"(\w+) makes it (\w+)", rule)}
            return next(colour for treatment, colour in makes.items() if treatment in text)
        case "made_up_threshold":
            low, high = re.search(r"it is (\w+), above it (\w+)", rule).groups()
            limit, here = map(int, re.findall(r"(\d+) C", text))
            return low if here < limit else high


def test_every_answer_follows_from_the_rule(invented):
    assert {item.question.family for item in invented} == set(FAMILIES)
    for item in invented:
        derived = derive(item)
        if isinstance(derived, float):
            assert float(answer_of(item).split()[0]) == pytest.approx(derived)
        else:
            assert answer_of(item) == derived


def test_attempts_end_as_they_should(invented):
    for item in invented:
        assert grade(item.right.response, item.question).correct
        assert not any(grade(attempt.response, item.question).correct for attempt in item.wrong)
        assert all(judge(a.feedback, item.question, anchored=True).text for a in (item.right, *item.wrong))


def test_words_are_hardly_ever_drawn_twice(invented):
    asked = [re.search(r"<concept>(.*?)</concept>", item.right.feedback)[1] for item in invented]
    assert len(set(asked)) > 0.95 * len(asked)


def test_without_feedback_the_rule_is_nowhere_to_be_read(invented):
    for item in invented:
        assert rule_of(item) not in teacher_messages(item.question, None, None)[-1]["content"]


def test_lessons_on_made_up_things_always_show_the_rule(invented):
    for seed, item in enumerate(invented):
        lesson = use_context(item, random.Random(seed), invented=True)
        assert rule_of(item) in lesson.messages[-1]["content"]


def test_fiction_is_no_domain_of_science():
    assert FICTION not in DOMAINS


@pytest.mark.parametrize(("levels", "said"), [([], "levels are empty"), ([1, 9], "levels {9}")])
def test_levels_that_there_are_none_of_are_refused(levels, said):
    with pytest.raises(QuestionError, match=re.escape(f"{said}: expected some of 1, 2, 3")):
        generate(FICTION, 1, seed=0, split="train", levels=levels)
