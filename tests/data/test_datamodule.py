"""QuestionData: which questions a step has."""

import random
from dataclasses import replace

import pytest

from opcod.data.datamodule import QuestionData
from opcod.data.jsonl import write_questions
from opcod.data.loaders import StepLoader
from opcod.data.questions import Question, QuestionError
from opcod.data.sources import GeneratedScience, QuestionFile

MANY = [Question(f"q{i}", "physics", f"What is {i}?", (), str(i)) for i in range(50)]


def steps_of(count, batch_size, steps, rounds=3):
    """The ids of each step's questions, of one phase over all rounds."""
    loader = StepLoader(MANY[:count], batch_size=batch_size, steps=steps, seed=3)
    return [[q.id for q in loader.batch(r, 1, s).questions] for r in range(rounds) for s in range(steps)]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (7, 4), (5, 4), (4, 4), (50, 8), (9, 1)])
def test_no_step_takes_a_question_twice_and_all_come_equally_often(count, batch_size):
    steps = steps_of(count, batch_size, steps=20)
    assert all(len(set(step)) == batch_size for step in steps)
    drawn = [q for step in steps for q in step]
    assert all(len(set(drawn[lap : lap + count])) == count for lap in range(0, len(drawn) - count, count))


@pytest.mark.parametrize("count", [16, 50])
def test_steps_are_drawn_as_ever_where_nothing_comes_twice(count):
    expected = []
    for lap in range(30):
        order = [q.id for q in MANY[:count]]
        random.Random(f"3 order 1 {lap}").shuffle(order)
        expected += order
    drawn = steps_of(count, 8, steps=20)
    apart = [i for i, step in enumerate(drawn) if step != expected[8 * i : 8 * (i + 1)]]
    twice = [i for i in range(len(drawn)) if len(set(expected[8 * i : 8 * (i + 1)])) < 8]
    assert set(apart) <= {j for i in twice for j in (i, i + 1)}
    assert bool(apart) == (count == 50)


def test_a_step_is_the_same_whichever_were_asked_for_before():
    for round, step in ((2, 1), (0, 0), (1, 3)):
        loader = StepLoader(MANY[:7], batch_size=4, steps=4, seed=3)
        assert [q.id for q in loader.batch(round, 1, step).questions] == steps_of(7, 4, 4)[4 * round + step]


def test_a_step_of_more_questions_than_there_are_is_refused():
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=3)
    QuestionData(source, batch_size=6, validation=2, test=2).setup("fit")
    QuestionData(source, batch_size=7, validation=2, test=2).setup("validate")
    with pytest.raises(QuestionError, match=r"data\.batch_size is 7, but there are 6 training questions"):
        QuestionData(source, batch_size=7, validation=2, test=2).setup("fit")


@pytest.mark.parametrize("lacking", ["train", "validation", "test", "development"])
def test_a_run_needs_a_question_of_each_domain_in_every_set_that_it_takes(lacking, monkeypatch):
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=3)
    made = source.splits(validation=2, test=2, seed=0, development=2)
    rest = {lacking: [q for q in getattr(made, lacking) if q.domain == "physics"]}
    monkeypatch.setattr(source, "splits", lambda **_: replace(made, **rest))
    data = QuestionData(source, batch_size=2, validation=2, test=2, development=2)
    with pytest.raises(QuestionError, match=f"the {lacking} set has no question of chemistry: add some, or take"):
        data.setup("fit")
    refused = {"validation": "validate", "development": "test"}.get(lacking)
    for stage in {"validate", "test", "predict"} - {refused, "predict" if lacking == "development" else None}:
        data.setup(stage)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_where_development_questions_would_be_scored_and_there_are_none_it_is_said(stage, tmp_path):
    write_questions(tmp_path / "asked.jsonl", MANY[:3])
    source = QuestionFile(str(tmp_path / "asked.jsonl"))
    with pytest.raises(QuestionError, match="the development set has no question of physics"):
        QuestionData(source, development=2).setup(stage)
    QuestionData(source).setup(stage)
