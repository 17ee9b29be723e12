"""The DataModule of co-distillation: its questions, split, and in batches."""

from __future__ import annotations

from typing import Literal

import lightning as L

from opcod.counts import check_counts
from opcod.data.loaders import SIDE_BY_SIDE, QuestionBatches, StepLoader, batches_of
from opcod.data.questions import Question, QuestionError
from opcod.data.sources import QuestionSource, Splits


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
        evaluation_batch_size: Questions that are evaluated at a time; so many of their responses as the model's
            `evaluation.batch_size` says are sampled side by side.
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
        check_counts(
            batch_size=batch_size,
            steps=steps,
            validation=validation,
            evaluation_batch_size=evaluation_batch_size,
            test=test,
            development=development or None,
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
        needed = {"fit": ("train", "validation", "test", self.scored), "validate": ("validation",)}
        for name in needed.get(stage, (self.scored,)):
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
