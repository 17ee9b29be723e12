"""Batches of a run: a step's questions, a step's lessons, and questions to evaluate, each from any place in the run."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import lightning as L

from opcod.data.lessons import Lesson
from opcod.data.questions import Question

T = TypeVar("T")

SIDE_BY_SIDE = 16
"""Questions that are evaluated side by side, where no setting says so."""


@dataclass(frozen=True)
class StepBatch:
    """The questions x of one step, with its place in the run.

    Args:
        round: Counted from 0.
        phase: Counted from 0 within the round: whose turn it is to be the tutee.
        step: Counted from 0 within the phase.
        questions: Of all domains.
    """

    round: int
    phase: int
    step: int
    questions: list[Question]


class ResumableLoader(ABC, Generic[T]):
    """Batches that each follow from their round and place alone.

    Lightning tells a loader's `sampler` the epoch, and saves and restores a loader's own state: with these two
    a run that is resumed in the middle of a round goes on at its next batch.
    """

    def __init__(self) -> None:
        self.round = 0
        self.next = 0

    @property
    def sampler(self) -> Self:
        """Itself, for Lightning to tell it the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Begin round `epoch`, unless that is the round it is in the middle of."""
        if epoch != self.round:
            self.round, self.next = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where it stands, and in a round of how many batches."""
        return {"round": self.round, "next": self.next, "batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state_dict` stood."""
        self.round, self.next = state["round"], state["next"]

    def __iter__(self) -> Iterator[T]:
        while self.next < len(self):
            self.next += 1
            yield self.at(self.round, self.next - 1)
        self.next = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches a round."""

    @abstractmethod
    def at(self, round: int, place: int) -> T:
        """A batch of a round; both are counted from 0."""


class StepLoader(ResumableLoader[StepBatch]):
    """The training batches of a round, K a phase, each drawn from (seed, round, phase, step) alone.

    Args:
        questions: The training questions of all domains.
        batch_size: Questions a step.
        steps: K, steps a phase.
        seed: Of the draw.
        phases: Of a round.
        phase: The only one that this process goes through, where others go through the other ones at the same time.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int,
        steps: int,
        seed: int,
        phases: int = 2,
        phase: int | None = None,
    ) -> None:
        super().__init__()
        self.phase = phase
        self.questions = list(questions)
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.phases = phases
        self._orders: dict[int, list[list[int]]] = {}

    def __len__(self) -> int:
        return self.steps * (self.phases if self.phase is None else 1)

    def at(self, round: int, place: int) -> StepBatch:
        """The batch of a round's phase and step."""
        phase, step = divmod(place, self.steps) if self.phase is None else (self.phase, place)
        return self.batch(round, phase, step)

    def batch(self, round: int, phase: int, step: int) -> StepBatch:
        """The questions of a step, all different.

        Each phase goes through the training questions in an order of its own, through all of them before any again.
        """
        first = (round * self.steps + step) * self.batch_size
        places = [divmod(i, len(self.questions)) for i in range(first, first + self.batch_size)]
        return StepBatch(round, phase, step, [self.questions[self._lap(phase, lap)[place]] for lap, place in places])

    def _lap(self, phase: int, lap: int) -> list[int]:
        """The order of a phase's lap through all questions."""
        orders = self._orders.setdefault(phase, [])
        while len(orders) <= lap:
            orders.append(self._order(phase, len(orders), orders[-1] if orders else []))
        return orders[lap]

    def _order(self, phase: int, lap: int, before: list[int]) -> list[int]:
        """A lap shuffled, but what the batch that it begins in the midst of has of the lap `before` comes later."""
        order = list(range(len(self.questions)))
        random.Random(f"{self.seed} order {phase} {lap}").shuffle(order)
        begun = lap * len(order) % self.batch_size
        has = set(before[len(order) - begun :])
        rest = [i for i in order if i not in has][: self.batch_size - begun]
        return list(dict.fromkeys([*rest, *order]))


class LessonLoader(ResumableLoader[list[Lesson]]):
    """All lessons in their order, a batch after another; those that fill no batch are left out.

    Args:
        lessons: All of them.
        batch_size: Lessons a step.
    """

    def __init__(self, lessons: Sequence[Lesson], batch_size: int) -> None:
        super().__init__()
        self.lessons = list(lessons)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.lessons) // self.batch_size

    def at(self, round: int, place: int) -> list[Lesson]:
        """A batch, the same in every epoch."""
        return self.lessons[place * self.batch_size : (place + 1) * self.batch_size]


class QuestionBatches:
    """The questions of this process that are to be evaluated, in batches.

    Every process has as many batches as the others, perhaps an empty one, and no question is in two processes;
    Lightning's own sampler would repeat some to fill up.

    Args:
        questions: Of all processes.
        batch_size: Questions a batch.
        rank: Which process this is.
        size: How many they are.
    """

    def __init__(self, questions: Sequence[Question], batch_size: int, *, rank: int = 0, size: int = 1) -> None:
        self.questions = list(questions[rank::size])
        self.batch_size = batch_size
        self.count = math.ceil(len(questions) / (size * batch_size))

    @property
    def most(self) -> int:
        """Questions of the largest batch."""
        return min(self.batch_size, len(self.questions))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[Question]]:
        for start in range(0, self.count * self.batch_size, self.batch_size):
            yield self.questions[start : start + self.batch_size]


def batches_of(questions: Sequence[Question], batch_size: int, trainer: L.Trainer | None) -> QuestionBatches:
    """The questions that this process of a run evaluates."""
    if trainer is None:
        return QuestionBatches(questions, batch_size)
    return QuestionBatches(questions, batch_size, rank=trainer.global_rank, size=trainer.world_size)
