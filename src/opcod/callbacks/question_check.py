"""Say before a run begins which of its questions it could not ask, or learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import lightning as L

from opcod.chat import Chat
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.lesson_data import LessonData
from opcod.data.questions import Question, QuestionError
from opcod.finetuning import FineTuning
from opcod.prompts import Message, student_messages, teacher_messages
from opcod.specialist import Specialist
from opcod.students import Students

_NAMED = 5


class QuestionCheck(L.Callback):
    """Before a run reads all questions as they will be asked, a second for some thousands.

    Otherwise a question that is too long, or has no solution to learn from, would end the run where it is drawn.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read them.

        Raises:
            QuestionError: Names the questions and the remedy, for all faults at once.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(pl_module, Students) and isinstance(data, QuestionData):
            faults = _faults_of(pl_module, data)
        elif isinstance(pl_module, Specialist) and isinstance(data, LessonData):
            asked = _Asked([pl_module.chat], student_messages, data.questions)
            faults = asked.beyond(pl_module.prompt_limit, "prompt", "prompt_limit")
        else:
            return
        if found := "\n".join(faults):
            raise QuestionError(found)


@dataclass(frozen=True)
class _Asked:
    """Questions as one or more models are asked them.

    Args:
        chats: Of the models.
        messages: The prompt of a question.
        questions: All of them.
    """

    chats: Sequence[Chat]
    messages: Callable[[Question], list[Message]]
    questions: Sequence[Question]

    def beyond(self, limit: int, kind: str, setting: str) -> Iterator[str]:
        """A sentence on those whose prompts are longer than `limit` tokens, if any are.

        Args:
            limit: Longest prompt, in tokens.
            kind: What to call the prompt.
            setting: What the limit is called in a config.
        """
        lengths = {q.id: max(len(chat.prompt(self.messages(q))) for chat in self.chats) for q in self.questions}
        if long := [f"{name!r} ({length})" for name, length in lengths.items() if length > limit]:
            yield (
                f"{_listed(long)} alone take more tokens as a {kind} than the limit of {limit}: raise `{setting}` to "
                f"at least {max(lengths.values())}, or leave them out"
            )


def _faults_of(students: Students, data: QuestionData) -> Iterator[str]:
    assert data.splits is not None
    train = data.splits.train
    chats = list({id(peer.base): students.chats[peer.name] for peer in students.peers}.values())
    scored = [*data.splits.validation, *getattr(data.splits, data.scored)]
    yield from _Asked(chats, student_messages, [*train, *scored]).beyond(
        students.prompt_limit, "prompt", "prompt_limit"
    )
    if isinstance(students, CoDistillation):
        bare = _Asked(chats, lambda question: teacher_messages(question, None, None), train)
        yield from bare.beyond(students.context.limit, "context prompt", "context.limit")
    if isinstance(students, FineTuning) and (unsolved := [repr(q.id) for q in train if q.solution is None]):
        yield (
            f"{_listed(unsolved)} have no worked solution to learn from; give training questions a `solution` in the "
            "response format, or take another method"
        )


def _listed(names: Sequence[str]) -> str:
    """`questions 'a', 'b' and 7 more`."""
    more = len(names) - _NAMED
    return "questions " + ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
