"""DataModules: questions for co-distillation, lessons for a specialist."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

import lightning as L

from opcod.data.lessons import Lesson, LessonMix, fiction_lessons, half_known_lessons, lessons
from opcod.data.questions import Question, QuestionError
from opcod.data.science import WorkedQuestion
from opcod.data.sources import QuestionSource, Splits, with_solutions

T = TypeVar("T")

SIDE_BY_SIDE = 16
"""Questions that are evaluated side by side, where no setting says so."""
_NEEDED = {"fit": ("train", "validation", "test"), "validate": ("validation",)}


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
        """Where it stands."""
        return {"round": self.round, "next": self.next}

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


def check_settings(**counts: int) -> None:
    """Refuse counts below 1, all at once.

    Raises:
        ValueError: Names each.
    """
    if low := [f"{name} is {value}" for name, value in counts.items() if value < 1]:
        raise ValueError(", ".join(low) + ": expected at least 1")


class QuestionData(L.LightningDataModule):
    """The questions of some domains.

    Args:
        source: Where they come from.
        batch_size: Questions a step, at most all training questions.
        steps: K, steps a phase; a round has a phase for each student, and two for a student alone.
        validation: Validation questions a domain, on which the gate's scores are measured. At 30 a domain the
            standard error of a gap is about as large as the threshold tau itself.
        test: Test questions a domain; all by default.
        development: Development questions a domain, to choose settings by. Where there are any, they are scored
            wherever the test questions would be, and nobody looks at those.
        evaluation_batch_size: Questions that are evaluated side by side.
        seed: Of every draw.
    """

    def __init__(
        self,
        source: QuestionSource,
        batch_size: int = 32,
        steps: int = 50,
        validation: int = 30,
        test: int | None = None,
        development: int = 0,
        evaluation_batch_size: int = SIDE_BY_SIDE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_settings(
            batch_size=batch_size,
            steps=steps,
            validation=validation,
            evaluation_batch_size=evaluation_batch_size,
            **({} if test is None else {"test": test}),
            **({} if development == 0 else {"development": development}),
        )
        self.source = source
        self.batch_size = batch_size
        self.steps = steps
        self.validation = validation
        self.test = test
        self.development = development
        self.evaluation_batch_size = evaluation_batch_size
        self.seed = seed
        self.phases = 2  # of a round; the students say how many
        self.splits: Splits | None = None
        self.phase: int | None = None  # see `StepLoader`

    @property
    def domains(self) -> list[str]:
        """The domains of the questions."""
        return self.source.domains

    @property
    def scored(self) -> Literal["test", "development"]:
        """Which questions are scored before and after a run."""
        return "development" if self.development else "test"

    def setup(self, stage: str) -> None:
        """Load the questions, once.

        Raises:
            QuestionError: If a domain has no question of a set that the stage takes, or one to be scored has no key; or
                a step would take more questions than there are.
        """
        if self.splits is None:
            self.splits = self.source.splits(
                validation=self.validation, test=self.test, seed=self.seed, development=self.development
            )
        for name in _NEEDED.get(stage, ("test",)):
            questions = getattr(self.splits, name)
            present = {q.domain for q in questions}
            if missing := [d for d in self.domains if d not in present]:
                raise QuestionError(
                    f"the {name} set has no question of {', '.join(missing)}: add some, or take the domain out of "
                    "`domains`"
                )
            if stage != "predict" and (keyless := [q.id for q in questions if not q.keyed]):
                raise QuestionError(f"no answer to score {', '.join(keyless[:5])} by: give every question its `answer`")
        if stage == "fit" and self.batch_size > len(self.splits.train):
            raise QuestionError(
                f"data.batch_size is {self.batch_size}, but there are {len(self.splits.train)} training questions, and "
                f"no step takes one twice: set it to at most {len(self.splits.train)}, or give more questions"
            )

    def train_dataloader(self) -> StepLoader:
        """K batches a phase."""
        assert self.splits is not None
        return StepLoader(
            self.splits.train,
            batch_size=self.batch_size,
            steps=self.steps,
            seed=self.seed,
            phases=self.phases,
            phase=self.phase,
        )

    def val_dataloader(self) -> QuestionBatches:
        """The gate's questions."""
        assert self.splits is not None
        return self._evaluation(self.splits.validation)

    def test_dataloader(self) -> QuestionBatches:
        """The questions that are reported; or those that settings are chosen by."""
        assert self.splits is not None
        return self._evaluation(getattr(self.splits, self.scored))

    def predict_dataloader(self) -> QuestionBatches:
        """As the test questions."""
        return self.test_dataloader()

    def _evaluation(self, questions: list[Question]) -> QuestionBatches:
        return batches_of(questions, self.evaluation_batch_size, self.trainer)


class LessonData(L.LightningDataModule):
    """What one specialist is taught, and the questions it is scored on.

    Args:
        source: Where the questions come from.
        home: The domain it becomes a specialist in; none for what specialists learn before they part.
        peers: The domains its peers are strong in, as the tutoring prompts name them.
        home_lessons: Lessons in its own domain.
        other_lessons: Lessons in each of the other domains, so that it is not lost there.
        half_known_lessons: Lessons in the specialties of each of the other domains, in which it learns to solve some
            questions by a typical mistake.
        fiction_lessons: Lessons on made-up things, to answer by a rule that only f states.
        specialties: Domain -> families of questions that only the specialist of this domain is taught wholly.
        solutions: File of worked solutions that `opcod solve` wrote; by default the questions' own are taught.
        mix: Shares of lessons that are not plain solving.
        batch_size: Lessons a step.
        validation: Validation questions a domain.
        seed: Of every draw.
    """

    def __init__(
        self,
        source: QuestionSource,
        home: str | None,
        peers: list[str],
        home_lessons: int = 1200,
        other_lessons: int = 400,
        half_known_lessons: int = 0,
        fiction_lessons: int = 0,
        specialties: dict[str, list[str]] | None = None,
        solutions: str | None = None,
        mix: LessonMix = LessonMix(),
        batch_size: int = 16,
        validation: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_settings(home_lessons=home_lessons, batch_size=batch_size, validation=validation)
        for domain in (*([] if home is None else [home]), *(specialties or {})):
            if domain not in source.domains:
                raise QuestionError(f"unknown domain {domain!r}: the source has {', '.join(source.domains)}")
        self.source = source
        self.home = home
        self.peers = peers
        self.home_lessons = home_lessons
        self.other_lessons = other_lessons
        self.half_known_lessons = half_known_lessons
        self.fiction_lessons = fiction_lessons
        self.specialties = specialties or {}
        self.solutions = solutions
        self.mix = mix
        self.batch_size = batch_size
        self.validation = validation
        self.seed = seed

    def setup(self, stage: str) -> None:
        """Make the lessons and load the validation questions; or the questions that are to be solved.

        Raises:
            QuestionError: If a file is faulty, or there is nothing to learn from.
        """
        if stage == "predict":
            self.unsolved = self._to_solve()
            return
        made: list[Lesson] = []
        for domain in self.source.domains:
            unknown = [] if domain == self.home else self.specialties.get(domain, [])
            if count := self._count(domain):
                worked = self._worked(domain, count, without=unknown)
                made += lessons(worked, self.mix, home=self.home, peers=self.peers, seed=self.seed)
            if unknown and self.half_known_lessons:
                worked = self._worked(domain, self.half_known_lessons, families=unknown)
                made += half_known_lessons(worked, seed=self.seed)
        made += fiction_lessons(self.fiction_lessons, seed=self.seed)
        random.Random(f"{self.seed} lessons {self.home}").shuffle(made)
        self.lessons = made
        self.questions = self.held_out()

    def held_out(self) -> list[Question]:
        """The validation questions of all domains."""
        return self.source.splits(validation=self.validation, test=1, seed=self.seed).validation

    def is_solved(self) -> bool:
        """Whether there are worked solutions to learn from: in the file if one is named, else the questions' own."""
        if self.solutions is not None:
            return Path(self.solutions).exists()
        known = [
            question
            for domain in self.source.domains
            if self._count(domain)
            for question in self.source.to_solve(domain, seed=self.seed, held_out=self.validation)
        ]
        return not known or any(question.solution is not None for question in known)

    def _count(self, domain: str) -> int:
        """Lessons in solving a domain's questions."""
        return self.home_lessons if domain == self.home else self.other_lessons

    def _worked(self, domain: str, count: int, **which: Any) -> list[WorkedQuestion]:
        return self.source.worked(
            domain, count, seed=self.seed, held_out=self.validation, solutions=self.solutions, **which
        )

    def _to_solve(self) -> list[Question]:
        """The training questions that lessons would be made of, but for those that the file has solutions to."""
        wanted: list[Question] = []
        for domain in self.source.domains:
            known = self.source.to_solve(domain, seed=self.seed, held_out=self.validation)
            wanted += [replace(q, solution=None) for q in known[: self._count(domain)]]
        if self.solutions is not None and Path(self.solutions).exists():
            wanted = with_solutions(wanted, Path(self.solutions))
        return [q for q in wanted if q.solution is None]

    def predict_dataloader(self) -> QuestionBatches:
        """The questions that are to be solved."""
        return batches_of(self.unsolved, self.batch_size, self.trainer)

    def train_dataloader(self) -> LessonLoader:
        """The lessons, in an order of their own for the seed.

        Raises:
            QuestionError: If they fill no batch.
        """
        if len(self.lessons) < self.batch_size:
            raise QuestionError(
                f"{len(self.lessons)} lessons do not fill a step of {self.batch_size}: lower `data.batch_size`, or "
                "give more questions with a solution"
            )
        return LessonLoader(self.lessons, self.batch_size)

    def val_dataloader(self) -> QuestionBatches:
        """Validation questions of all domains."""
        return batches_of(self.questions, SIDE_BY_SIDE, self.trainer)
