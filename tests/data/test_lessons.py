"""Lessons: what a specialist is taught beside solving, over all families of generated science."""

import random
from collections import Counter

import pytest

from opcod.chat import Chat
from opcod.data.lessons import LessonMix, half_known_lessons, lessons, solve, tutor, use_context
from opcod.data.questions import Question, QuestionError
from opcod.data.science import DOMAINS, LEVELS, generate
from opcod.data.science.worked import twist
from opcod.feedback import judge, sanitize
from opcod.grading import grade
from opcod.specialist import sequence_of
from tiny import build_folder, load_tiny


@pytest.fixture(scope="module", params=DOMAINS)
def worked(request):
    return generate(request.param, len(DOMAINS[request.param]) * len(LEVELS), seed=3, split="train", levels=LEVELS)


def attempts(item):
    return [item.right, *item.wrong, item.lucky]


def rule_of(item):
    return judge(item.right.feedback, item.question, anchored=True).text.partition(" You wrote:")[0]


def test_attempts_end_as_they_should(worked):
    for item in worked:
        assert grade(item.right.response, item.question).correct
        assert grade(item.lucky.response, item.question).correct
        assert item.lucky.response != item.right.response
        grades = [grade(attempt.response, item.question) for attempt in item.wrong]
        assert all(g.formatted and not g.correct for g in grades)
        assert {g.choice for g in grades} == set(item.question.labels) - {item.question.answer}


def test_feedback_is_kept_and_states_the_rule_the_step_and_what_to_do(worked):
    for item in worked:
        for attempt in attempts(item):
            feedback = judge(attempt.feedback, item.question, anchored=True)
            assert feedback.text is not None, attempt.feedback
            assert sanitize(attempt.feedback) == attempt.feedback
            assert len(feedback.text.split()) <= 80
            rule, _, rest = feedback.text.partition(" You wrote: ")
            assert rule == rule_of(item)
            step = next(s for s in (rest[:i] for i in range(len(rest), 0, -1)) if f" {s}" in attempt.response)
            assert step.rstrip().endswith("."), "the peer's working is cited whole"


def test_feedback_does_not_judge(worked):
    def advice(given):
        return {attempt.feedback.rpartition(". ")[2] for attempt in given}

    assert advice(item.right for item in worked) == advice(attempt for item in worked for attempt in item.wrong)


def test_the_misled_state_a_wrong_rule(worked):
    for item in worked:
        feedback = judge(item.misled.feedback, item.question, anchored=True)
        assert rule_of(item) not in feedback.text
        assert " You wrote: " in feedback.text


def test_at_home_f_is_sometimes_wrong(worked):
    item = worked[0]
    said = judge(item.misled.feedback, item.question, anchored=True).text
    for at_home in (True, False):
        shown = [use_context(item, random.Random(i), at_home=at_home).messages[-1]["content"] for i in range(100)]
        assert any(said in text for text in shown) == at_home


def test_a_tutor_cannot_take_the_rule_from_a_faulty_response(worked):
    faulty = [(rule_of(item), a) for item in worked for a in (*item.wrong[:3], item.lucky)]
    stated = Counter(rule in attempt.response for rule, attempt in faulty)
    assert stated[False] > len(faulty) / 4
    assert stated[True] > len(faulty) / 4


def test_twisted_rules_differ(worked):
    for item in worked:
        rule = rule_of(item)
        assert twist(rule, random.Random(0)) != rule


def test_twist_exchanges_opposites():
    rule = "Net force points forward when speeding up, backward when slowing, zero otherwise."
    assert twist(rule, random.Random(0)).startswith("Net force points backward when speeding up, forward when")
    assert twist("An fcc cell holds 4 atoms.", random.Random(0)) == "An fcc cell."


def test_context_lessons_show_what_a_self_teacher_is_shown(worked):
    kinds = Counter()
    for item in worked:
        for draw in range(20):
            lesson = use_context(item, random.Random(f"{item.question.id} {draw}"))
            attempt = next((a for a in attempts(item) if a.begun and a.begun == lesson.begun), item.right)
            assert lesson.begun + lesson.response == attempt.response
            assert bool(lesson.begun) != (lesson.response == item.right.response)
            shown = lesson.messages[-1]["content"]
            kinds["s" if "A correct solution:" in shown else "f alone"] += 1
            kinds["goes on" if lesson.begun else "whole"] += 1
            kinds["lucky s"] += item.lucky.response in shown
    assert set(kinds) == {"s", "f alone", "goes on", "whole", "lucky s"}
    assert min(kinds.values()) > len(worked)


def test_the_mistaken_go_by_the_opposite_rule_to_the_likeliest_mistake(worked):
    for item in worked:
        assert item.mistaken.response.startswith(f"<reasoning>{twist(rule_of(item))} ")
        assert not grade(item.mistaken.response, item.question).correct
        assert judge(item.mistaken.feedback, item.question, anchored=True).text.startswith(rule_of(item))


def test_the_half_known_is_often_solved_by_mistake():
    items = generate("physics", 400, seed=0, split="train")
    made = half_known_lessons(items, seed=0)
    kinds = Counter(lesson.kind for lesson in made)
    assert set(kinds) == {"solve", "context"}
    assert kinds["context"] / 400 == pytest.approx(0.5, abs=0.08)
    solved = [(item, lesson) for item, lesson in zip(items, made, strict=True) if lesson.kind == "solve"]
    assert {lesson.response in (item.right.response, item.mistaken.response) for item, lesson in solved} == {True}
    mistaken = sum(lesson.response == item.mistaken.response for item, lesson in solved)
    assert mistaken / len(solved) == pytest.approx(0.6, abs=0.1)
    assert made == half_known_lessons(items, seed=0)


def test_tutor_lessons_never_show_the_key(worked):
    item = worked[0]
    lesson = tutor(item, random.Random(0), home="physics", peers=["physics", "biology"])
    assert item.right.response not in lesson.messages[-1]["content"] or lesson.response == item.right.feedback
    assert "specialist in biology" in lesson.messages[0]["content"]


def test_the_mix_decides_the_kinds():
    items = generate("physics", 300, seed=0, split="train")
    made = lessons(items, LessonMix(context=0.3, tutor=0.5), home="physics", peers=["chemistry"], seed=0)
    kinds = Counter(lesson.kind for lesson in made)
    assert kinds["tutor"] / 300 == pytest.approx(0.5, abs=0.08)
    assert kinds["context"] / 300 == pytest.approx(0.3, abs=0.08)
    assert made == lessons(items, LessonMix(context=0.3, tutor=0.5), home="physics", peers=["chemistry"], seed=0)


def test_a_question_without_a_solution_is_refused():
    with pytest.raises(QuestionError, match="'q' has no worked solution"):
        solve(Question("q", "physics", "Which?", ("1", "2"), "A"))


def test_what_is_begun_is_not_learned(tmp_path, worked):
    loaded = load_tiny(build_folder(tmp_path))
    chat = Chat(loaded.tokenizer, loaded.end_tokens)
    lesson = next(x for x in (use_context(worked[0], random.Random(i)) for i in range(50)) if x.begun)
    sequence = sequence_of(lesson, chat)
    assert chat.text(sequence.prompt).endswith(lesson.begun)
    assert chat.text(sequence.response) == lesson.response
    assert sequence.response[-1] == chat.end
