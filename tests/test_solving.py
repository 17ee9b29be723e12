"""`opcod solve`: which responses become worked solutions, and what a specialist then learns from."""

import pytest

from opcod import cli, solving
from opcod.attempts import Attempt
from opcod.data.jsonl import read_questions, write_questions
from opcod.data.lesson_data import LessonData
from opcod.data.questions import Question, QuestionError
from opcod.data.sources import GeneratedScience, JsonQuestions
from opcod.grading import grade
from opcod.prompts import keyed_messages
from opcod.rollout import Sampling
from opcod.solving import Solving, solve

QUESTIONS = [Question(f"q{i}", "physics", f"Which {i}?", ("left", "right"), "B") for i in range(3)]


def written(answer, reasoning="It goes there."):
    return f"<reasoning>{reasoning}</reasoning><answer>{answer}</answer>"


@pytest.fixture
def says(monkeypatch):
    """Responses by (how, question): those listed, one for each sample; the calls are kept."""
    calls = []

    def scripted(texts):
        def attempt(base, chat, questions, prompt_of, *, samples, sampling, key):
            calls.append((key[-1], [q.id for q in questions]))
            groups = [texts.get((key[-1], q.id), [written("A")] * samples) for q in questions]
            return [
                [Attempt(q, j, (), None, text, grade(text, q)) for j, text in enumerate(group)]
                for q, group in zip(questions, groups, strict=True)
            ]

        monkeypatch.setattr(solving, "attempt", attempt)
        return calls

    return scripted


def solved(settings):
    found = solve(None, None, QUESTIONS, settings, prompt_limit=64, key=(0,))
    return {s.question.id: (s.question.solution, s.keyed) for s in found}


def test_the_first_right_and_whole_response_is_the_solution(says):
    says({("alone", "q1"): [written("A"), "so it is <answer>B</answer>", written("B", "One."), written("B", "Two.")]})
    assert solved(Solving(samples=4, key="never")) == {"q1": (written("B", "One."), False)}


def test_the_key_is_shown_where_nothing_else_helped(says):
    calls = says({("alone", "q0"): [written("B")], ("keyed", "q2"): [written("B", "Shown.")]})
    assert solved(Solving(samples=1)) == {"q0": (written("B"), False), "q2": (written("B", "Shown."), True)}
    assert calls == [("alone", ["q0", "q1", "q2"]), ("keyed", ["q1", "q2"])]


def test_the_key_may_always_be_shown(says):
    calls = says({("keyed", "q0"): [written("B")]})
    assert solved(Solving(samples=1, key="always")) == {"q0": (written("B"), True)}
    assert calls == [("keyed", ["q0", "q1", "q2"])]


@pytest.mark.parametrize("told", ["As the given answer is B.", "The answer key says B.", "We were told so."])
def test_who_was_told_must_not_say_so(says, told):
    says({("keyed", "q0"): [written("B", told), written("B", "It goes there.")], ("alone", "q1"): [written("B", told)]})
    assert solved(Solving(samples=2)) == {
        "q0": (written("B", "It goes there."), True),
        "q1": (written("B", told), False),
    }


def test_solutions_are_sampled_as_the_settings_say_and_both_ways_draw_apart(monkeypatch):
    asked = []

    def attempt(base, chat, questions, prompt_of, *, samples, sampling, key):
        asked.append((samples, sampling, key))
        return [[] for _ in questions]

    monkeypatch.setattr(solving, "attempt", attempt)
    sampling = Sampling(temperature=0.3, max_new_tokens=7)
    assert solved(Solving(samples=5, sampling=sampling)) == {}
    assert asked == [(5, sampling, (0, "alone")), (5, sampling, (0, "keyed"))]


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match=r"^solving: samples is 0, expected at least 1$"):
        Solving(samples=0)


def test_the_key_is_an_option_with_its_text_or_a_number():
    assert "The correct answer is: B. right" in keyed_messages(QUESTIONS[0])[1]["content"]
    number = Question("n", "physics", "How many?", (), "4.5")
    assert "The correct answer is: 4.5" in keyed_messages(number)[1]["content"]


# ---- the file


@pytest.fixture
def own(tmp_path):
    """Twelve training questions without solutions, of which four are held out."""
    train = [Question(f"q{i}", "physics", f"What is {i}?", ("left", "right"), "B") for i in range(12)]
    write_questions(tmp_path / "train.jsonl", train)
    write_questions(tmp_path / "test.jsonl", [Question("t", "physics", "What then?", ("left", "right"), "A")])
    return JsonQuestions(["physics"], str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"))


def lesson_data(source, **settings):
    return LessonData(source, "physics", ["physics"], home_lessons=100, validation=4, **settings)


def test_what_is_held_out_is_neither_solved_nor_taught(own, tmp_path):
    data = lesson_data(own)
    data.setup("predict")
    held = {q.id for q in own.splits(validation=4, test=None, seed=0).validation}
    assert len(data.unsolved) == 8
    assert held.isdisjoint(q.id for q in data.unsolved)
    everything = read_questions(own.train)
    write_questions(tmp_path / "s.jsonl", [Question(**vars(q) | {"solution": written("B")}) for q in everything])
    data = lesson_data(own, solutions=str(tmp_path / "s.jsonl"))
    data.setup("fit")
    assert len(data.lessons) == 8
    assert held == {q.id for q in data.questions}
    data.setup("predict")
    assert data.unsolved == []


def test_only_what_is_solved_is_taught(own, tmp_path):
    data = lesson_data(own, solutions=str(tmp_path / "s.jsonl"))
    data.setup("predict")
    one = data.unsolved[0]
    write_questions(tmp_path / "s.jsonl", [Question(**vars(one) | {"solution": written("B")})])
    data.setup("fit")
    assert [lesson.response for lesson in data.lessons] == [written("B")]
    data.setup("predict")
    assert len(data.unsolved) == 7


def test_a_file_of_other_questions_is_refused(own, tmp_path):
    data = lesson_data(own, solutions=str(tmp_path / "s.jsonl"))
    with pytest.raises(QuestionError, match="no such file"):
        data.setup("fit")
    write_questions(tmp_path / "s.jsonl", [Question("x", "physics", "Else?", ("a", "b"), "A", solution=written("A"))])
    with pytest.raises(QuestionError, match="no physics question has a worked solution"):
        data.setup("fit")
    write_questions(
        tmp_path / "s.jsonl",
        [Question(f"q{i}", "physics", f"Else {i}?", ("a", "b"), "A", solution=written("A")) for i in range(12)],
    )
    with pytest.raises(QuestionError, match="another question than the source's"):
        data.setup("fit")


def test_generated_questions_may_be_taught_by_a_file_instead_of_their_own_solutions(tmp_path):
    data = lesson_data(GeneratedScience(["physics"], train=10), solutions=str(tmp_path / "s.jsonl"))
    data.setup("predict")
    assert len(data.unsolved) == 10
    q = data.unsolved[3]
    write_questions(tmp_path / "s.jsonl", [Question(**vars(q) | {"solution": "mine"})])
    data.setup("fit")
    assert [lesson.response for lesson in data.lessons] == ["mine"]


# ---- the command


def test_solve_asks_each_question_both_ways_and_goes_on_where_it_stopped(tiny_folder, tmp_path, capsys):
    command = [
        "solve",
        "-c=configs/specialist.yaml",
        f"--model.base.model={tiny_folder}",
        "--model.base.quantization=none",
        "--model.solving.samples=2",
        "--model.solving.sampling.max_new_tokens=4",
        "--data.source.train=3",
        "--data.other_lessons=0",
        "--trainer.accelerator=cpu",
        "--quiet",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}",
        f"--output={tmp_path / 'new' / 'solved.jsonl'}",
    ]
    cli.main(command)
    assert "physics: of 3 questions 0 were solved, and 0 more" in capsys.readouterr().out
    made = GeneratedScience(["physics", "chemistry", "materials"], levels=[1], train=3).splits(
        validation=30, test=1, seed=0
    )
    written_before = [q for q in made.train if q.domain == "physics"][:2]
    write_questions(tmp_path / "new" / "solved.jsonl", written_before)
    cli.main(command)
    assert "physics: of 1 questions 0 were solved" in capsys.readouterr().out
    assert read_questions(tmp_path / "new" / "solved.jsonl") == written_before


def test_an_answer_may_hold_an_angle_bracket(says, monkeypatch):
    inequality = Question("q0", "physics", "When?", (), "t < 3", kind="text")
    monkeypatch.setattr("test_solving.QUESTIONS", [inequality])
    says({("alone", "q0"): [written("t < 3</answer><answer>t < 3"), written("t < 3")]})
    assert solved(Solving(samples=2)) == {"q0": (written("t < 3"), False)}
