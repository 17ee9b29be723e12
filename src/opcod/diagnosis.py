"""The teacher gap: what there is to learn from a self-teacher before anything is trained (section 1, Scores)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opcod.attempts import Attempt
from opcod.codistillation import CoDistillation
from opcod.contexts import earliest_right
from opcod.data.questions import Question
from opcod.feedback import Feedback
from opcod.grading import grade
from opcod.peers import Peer
from opcod.prompts import teacher_messages
from opcod.rollout import Request, sample

SHOWN: dict[str, tuple[bool, bool]] = {
    "nothing": (False, False),
    "s": (True, False),
    "f": (False, True),
    "s and f": (True, True),
}
"""What a self-teacher may be shown -> whether s, whether f."""


@dataclass(frozen=True)
class TeacherGap:
    """The self-teacher against the student, on the same responses' questions.

    Args:
        student: The student's accuracy.
        teacher: The self-teacher's accuracy.
        count: Responses that had what is shown.
    """

    student: float
    teacher: float
    count: int

    @property
    def gap(self) -> float:
        """Teacher minus student: positive where there is something to learn."""
        return self.teacher - self.student


@dataclass(frozen=True)
class _Case:
    """A response with the s and f that its self-teacher could be shown."""

    attempt: Attempt
    solution: str | None
    feedback: str | None


def teacher_gaps(
    module: CoDistillation, questions: Sequence[Question], *, samples: int
) -> dict[str, dict[str, dict[str, TeacherGap]]]:
    """Student -> domain -> what is shown -> the teacher gap.

    Every student answers; its peer, whatever the gate says, gives feedback; then the student answers once more
    for each response as its own self-teacher. s is the earliest right response among the others, as in training.

    Args:
        module: With its peers set up.
        questions: Held-out questions.
        samples: Responses a question, at least 2 for there to be an s.
    """
    domains = sorted({q.domain for q in questions})
    gaps = {}
    for index, peer in enumerate(module.peers):
        tutor = module.peers[1 - index] if len(module.peers) == 2 else None
        groups = module.sampled(peer, questions, "teacher gap", samples=samples)
        key = (module.seed, "teacher gap feedback")
        feedbacks = module.give_feedback(peer, tutor, groups, frozenset(domains), key)
        cases = _cases(groups, feedbacks)
        gaps[peer.name] = {
            domain: {
                shown: _gap(module, peer, shown, [c for c in cases if c.attempt.question.domain == domain])
                for shown in SHOWN
            }
            for domain in domains
        }
    return gaps


def _cases(groups: Sequence[Sequence[Attempt]], feedbacks: Sequence[Sequence[Feedback]]) -> list[_Case]:
    cases = []
    for group, on_group in zip(groups, feedbacks, strict=True):
        for attempt, feedback in zip(group, on_group, strict=True):
            right = earliest_right(group, attempt, own=False)
            cases.append(_Case(attempt, None if right is None else right.text, feedback.text))
    return cases


def _gap(module: CoDistillation, peer: Peer, shown: str, cases: Sequence[_Case]) -> TeacherGap:
    with_s, with_f = SHOWN[shown]
    had = [c for c in cases if (c.solution or not with_s) and (c.feedback or not with_f)]
    if not had:
        return TeacherGap(float("nan"), float("nan"), 0)
    chat = module.chats[peer.name]
    requests = [
        Request(
            chat.prompt(
                teacher_messages(c.attempt.question, c.solution if with_s else None, c.feedback if with_f else None)
            ),
            (module.seed, "teacher gap", peer.name, shown, c.attempt.question.id, c.attempt.sample),
        )
        for c in had
    ]
    with peer.sampling("teacher"):
        answers = sample(peer.base, requests, module.evaluation, chat.ends)
    right = [
        grade(chat.text(answer.tokens.tolist()), c.attempt.question).correct
        for c, answer in zip(had, answers, strict=True)
    ]
    student = [c.attempt.grade.correct for c in had]
    return TeacherGap(sum(student) / len(had), sum(right) / len(had), len(had))
