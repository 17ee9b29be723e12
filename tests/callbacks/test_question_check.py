"""Questions that cannot be asked, or learned from, are named before a run begins."""

from dataclasses import replace

import pytest

from opcod.callbacks import QuestionCheck
from opcod.contexts import ContextSettings
from opcod.data.datamodule import QuestionData
from opcod.data.lesson_data import LessonData
from opcod.data.questions import QuestionError
from opcod.data.sources import GeneratedScience, Splits
from opcod.finetuning import FineTuning
from opcod.prompts import student_messages, teacher_messages
from opcod.specialist import Specialist
from test_codistillation import ANN, BEN, SHORT, Watch, fit, module_of, shared_settings
from tiny import LORA

DOMAINS = ["physics", "chemistry"]
LONG = "And so on and on. " * 100


class Changed(GeneratedScience):
    """Generated questions, some of which are changed."""

    def __init__(self, change):
        super().__init__(DOMAINS, levels=[1], train=5)
        self.change = change

    def splits(self, **settings):
        made = super().splits(**settings)
        named = (("train", made.train), ("validation", made.validation), ("test", made.test))
        return Splits(*([self.change(name, i, q) for i, q in enumerate(of)] for name, of in named))


def lengthened(*places):
    """Makes questions in these places of their splits long."""
    return lambda name, i, q: replace(q, text=f"{LONG}{q.text}") if (name, i) in places else q


def refused(module, folder, change):
    """What is said before anything is sampled; and the questions."""
    source = Changed(change)
    data = QuestionData(source, batch_size=2, steps=2, validation=2, test=2)
    watch = Watch()
    with pytest.raises(QuestionError) as error:
        fit(module, folder, QuestionCheck(), watch, data=data)
    assert not watch.records
    assert module.scores is None
    return str(error.value), data.splits


def test_questions_of_all_splits_that_are_too_long_are_named(tiny_folder, tmp_path, chat):
    module = module_of(tiny_folder, prompt_limit=400)
    places = [("train", 3), ("validation", 0), ("test", 1)]
    said, splits = refused(module, tmp_path, lengthened(*places))
    long = [getattr(splits, name)[i] for name, i in places]
    lengths = [len(chat.prompt(student_messages(q))) for q in long]
    named = ", ".join(f"{q.id!r} ({n})" for q, n in zip(long, lengths, strict=True))
    assert said == (
        f"questions {named} alone take more tokens as a prompt than the limit of 400: raise `prompt_limit` to at least "
        f"{max(lengths)}, or leave them out"
    )


def test_training_questions_that_leave_no_room_in_the_context_are_named(tiny_folder, tmp_path, chat):
    module = module_of(tiny_folder, context=ContextSettings(limit=400))
    said, splits = refused(module, tmp_path, lengthened(("train", 3), ("test", 1)))
    question = splits.train[3]
    length = len(chat.prompt(teacher_messages(question, None, None)))
    assert said.startswith(f"questions {question.id!r} ({length}) alone take more tokens as a context prompt than")
    assert f"raise `context.limit` to at least {length}," in said


def test_of_many_a_few_are_named(tiny_folder, tmp_path):
    said, splits = refused(module_of(tiny_folder, prompt_limit=5), tmp_path, lambda name, i, q: q)
    assert said.count("'") == 2 * 5
    assert f"and {len(splits.train) + len(splits.validation) + len(splits.test) - 5} more alone take" in said


def test_what_has_no_solution_is_named_before_it_is_to_be_learned(tiny_folder, tmp_path):
    module = FineTuning([ANN, BEN], **shared_settings(tiny_folder))

    def unsolved(name, i, question):
        return replace(question, solution=None) if (name, i) in (("train", 7), ("test", 0)) else question

    said, splits = refused(module, tmp_path, unsolved)
    assert said.startswith(f"questions {splits.train[7].id!r} have no worked solution to learn from")


def test_a_specialists_questions_are_looked_at_too(tiny_folder, tmp_path):
    source = Changed(lambda name, i, q: q)
    data = LessonData(source, "physics", ["physics"], 8, 0, batch_size=4, validation=2)
    settings = shared_settings(tiny_folder)
    module = Specialist(settings["base"], LORA, evaluation=SHORT, prompt_limit=5)
    with pytest.raises(QuestionError, match="raise `prompt_limit` to at least"):
        fit(module, tmp_path, QuestionCheck(), data=data)


def test_a_run_whose_questions_fit_goes_through(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path, QuestionCheck(), watch)
    assert len(watch.records) == 4
