"""The DataModule of a specialist: the lessons it is taught, and the questions it is scored on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from opcod.counts import check_counts
from opcod.data.lessons import Lesson, LessonMix, fiction_lessons, half_known_lessons, lessons
from opcod.data.loaders import SIDE_BY_SIDE, LessonLoader, QuestionBatches, batches_of
from opcod.data.questions import Question, QuestionError
from opcod.data.science import WorkedQuestion
from opcod.data.sources import QuestionSource, with_solutions


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
        validation: Validation questions a domain. Out of files let there be as many as its pair holds out, `validation`
            and `development` together: the others are taught.
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
        check_counts(home_lessons=home_lessons, batch_size=batch_size, validation=validation)
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
