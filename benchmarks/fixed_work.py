"""A step whose work does not depend on what is sampled, and the questions that every trainer here is given."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Any

from opcod.attempts import Attempt
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.loaders import StepBatch
from opcod.data.questions import Question
from opcod.data.sources import GeneratedScience, Splits
from opcod.gate import Gate
from opcod.grading import Grade
from opcod.peers import Peer
from opcod.rollout import Sampling

DOMAINS = ["materials", "physics"]


@dataclass(frozen=True)
class Size:
    """How much work a step is.

    Args:
        questions: A step.
        samples: n, responses to each.
        length: Tokens of every response.
        feedback: Tokens of every feedback; 0 where there is no tutor.
        filler: Words that every question is longer by.
    """

    questions: int = 4
    samples: int = 8
    length: int = 64
    feedback: int = 0
    filler: int = 0


def size_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `Size`, on a command line."""
    for name, default in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=default)


def size_of(options: argparse.Namespace) -> Size:
    """What was asked for by `size_arguments`."""
    return Size(**{name: getattr(options, name) for name in vars(Size())})


class LongQuestions(GeneratedScience):
    """Generated questions that begin with words which say nothing.

    Args:
        words: How many.
    """

    def __init__(self, words: int) -> None:
        super().__init__(DOMAINS, levels=[1], train=200)
        self.words = words

    def splits(self, **counts: Any) -> Splits:
        """See `QuestionSource`."""
        splits = super().splits(**counts)
        return replace(splits, train=[replace(q, text="so " * self.words + q.text) for q in splits.train])


def question_data(size: Size, steps: int) -> QuestionData:
    """Generated questions, in the same order for everybody."""
    return QuestionData(LongQuestions(size.filler), batch_size=size.questions, steps=steps, validation=1, test=1)


def is_right(sample: int) -> bool:
    """Which of a group's responses count as right: every other, so that all have a right one beside them."""
    return sample % 2 == 0


class FixedWork(CoDistillation):
    """Co-distillation in which nothing ends by itself, and every other response counts as right.

    Args:
        size: How much work a step is.
        **settings: What `CoDistillation` takes.
    """

    def __init__(self, size: Size, **settings: Any) -> None:
        super().__init__(
            samples=size.samples,
            rollout=replace(settings.pop("rollout", Sampling()), max_new_tokens=size.length),
            feedback=replace(settings.pop("feedback", Sampling()), max_new_tokens=max(size.feedback, 1)),
            gate=Gate("always" if size.feedback else "never"),
            anchored=False,  # or some feedback might be dropped
            **settings,
        )

    def configure_model(self) -> None:
        """No token ends a response."""
        super().configure_model()
        self.chats = {name: replace(chat, ends=()) for name, chat in self.chats.items()}

    def on_train_epoch_start(self) -> None:
        """A round begins, without a validation before it; both tutors are frozen."""
        self.score_table = {s.name: {d: {"avg": 0.0} for d in DOMAINS} for s in self.students}
        for peer in self.peers:
            peer.copy("student", "tutor")

    def validation_step(self, batch: list[Question], batch_idx: int) -> None:
        """Nobody is scored."""

    def on_validation_epoch_end(self) -> None:
        """Nor are there any scores."""

    def roll_out(self, tutee: Peer, batch: StepBatch, *, samples: int, sampling: Sampling) -> list[list[Attempt]]:
        """Responses, of which every other counts as right."""
        groups = super().roll_out(tutee, batch, samples=samples, sampling=sampling)
        return [[replace(a, grade=Grade(is_right(a.sample), True, None)) for a in group] for group in groups]


def questions_of(size: Size, steps: int) -> list[Question]:
    """The questions of so many steps, in order."""
    data = question_data(size, steps)
    data.setup("fit")
    return [question for batch in data.train_dataloader() for question in batch.questions]
