"""FineTuning: the baseline that goes on with supervised learning, on the worked solutions of all domains."""

from __future__ import annotations

from typing import Any

from opcod.counts import check_counts
from opcod.data.loaders import StepBatch
from opcod.data.questions import Question, QuestionError
from opcod.peers import Peer
from opcod.records import Clock, StepRecord, Sum
from opcod.scoring import Scored
from opcod.specialist import imitate
from opcod.students import Student, Students


class FineTuning(Students):
    """Every student by itself learns the worked solutions of a step's questions.

    Args:
        students: With different names; they do not meet.
        micro_batch_tokens: Most tokens, padding included, in one forward and backward pass.
        **training: What `Students` takes.
    """

    def __init__(self, students: list[Student], micro_batch_tokens: int = 8192, **training: Any) -> None:
        super().__init__(students, **training)
        check_counts(micro_batch_tokens=micro_batch_tokens)
        self.micro_batch_tokens = micro_batch_tokens

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One step: read the solutions, update."""
        tutee = self.tutee(batch)
        clock = Clock()
        with clock.of("imitate"):
            worked = [self._worked(tutee, question) for question in self.ranks.share(batch.questions)]
            student = tutee.adapter("student")
            (tokens,) = self.ranks.total(sum(len(w.response) for w in worked))
            loss = imitate(tutee.base, student, worked, self.micro_batch_tokens, self.manual_backward, tokens)
        with clock.of("update"):
            _, norm = self.update(tutee, loss)
        record = StepRecord(batch, tutee.name, "", frozenset(), [], [], [])
        clock.count("imitate", sum(len(w.response) for w in worked))
        self.keep(record, clock, norm, {f"train/{tutee.name}/loss": Sum(loss)})

    def _worked(self, tutee: Peer, question: Question) -> Scored:
        if question.solution is None:
            raise QuestionError(
                f"question {question.id!r} has no worked solution to learn from; give training questions a `solution` "
                "in the response format, or take another method"
            )
        return Scored(self.student_prompt(tutee, question), self.chats[tutee.name].response(question.solution))
