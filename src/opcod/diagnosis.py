"""What a self-teacher's context does: the teacher gap, and break and rescue rates (section 1, Scores)."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Literal

from torch import Tensor

from opcod.attempts import Attempt, Key
from opcod.codistillation import CoDistillation
from opcod.contexts import earliest_right, fit_with
from opcod.data.questions import Question
from opcod.feedback import Feedback
from opcod.gate import Gate, cognizance_gaps
from opcod.grading import grade
from opcod.metrics import BreakRate, FeedbackOutcomes
from opcod.peers import Peer
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
class Case:
    """A response with the s and f that its self-teacher could be shown.

    Args:
        attempt: The response.
        solution: s, another right response to the question, or None.
        given: The peer's feedback, of which f is what was kept.
    """

    attempt: Attempt
    solution: str | None
    given: Feedback

    @property
    def feedback(self) -> str | None:
        """f, or None."""
        return self.given.text


@dataclass(frozen=True)
class Turn:
    """What the self-teacher answers in place of a response.

    Args:
        case: The response, and what was shown.
        again: The new response.
        right: Whether that is right.
    """

    case: Case
    again: str
    right: bool

    @property
    def flip(self) -> Literal["broken", "rescued", "neither"]:
        """Whether a right response became wrong, or a wrong one right."""
        if self.right == self.case.attempt.grade.correct:
            return "neither"
        return "rescued" if self.right else "broken"


def teacher_gaps(
    module: CoDistillation, questions: Sequence[Question], *, samples: int
) -> dict[str, dict[str, dict[str, TeacherGap]]]:
    """Student -> domain -> what is shown -> the teacher gap.

    Every student answers; its peer, whatever the gate says, gives feedback; then the student answers once more
    for each response as its own self-teacher. s is the earliest right response among the others, as in training. Of
    several peers the one with the smallest gap, by these answers, gives the feedback.

    Args:
        module: With its peers set up.
        questions: Held-out questions.
        samples: Responses a question, at least 2 for there to be an s.
    """
    domains = sorted({q.domain for q in questions})
    peers = {peer.name: peer for peer in module.peers}
    answered = {name: module.sampled(p, questions, "teacher gap", samples=samples) for name, p in peers.items()}
    scores = {name: _accuracies(groups, domains) for name, groups in answered.items()}
    gaps = {}
    for peer in module.peers:
        tutor = next((peers[name] for name in Gate("always").tutors(peer.name, scores)), None)
        key = (module.seed, "teacher gap feedback", peer.name)
        feedbacks = module.give_feedback(peer, tutor, answered[peer.name], frozenset(domains), key)
        cases = _cases(answered[peer.name], feedbacks)
        gaps[peer.name] = {
            domain: {
                shown: _gap(module, peer, shown, [c for c in cases if c.attempt.question.domain == domain])
                for shown in SHOWN
            }
            for domain in domains
        }
    return gaps


def _cases(groups: Sequence[Sequence[Attempt]], feedbacks: Sequence[Sequence[Feedback]]) -> list[Case]:
    cases = []
    for group, on_group in zip(groups, feedbacks, strict=True):
        for attempt, feedback in zip(group, on_group, strict=True):
            right = earliest_right(group, attempt, own=False)
            cases.append(Case(attempt, None if right is None else right.text, feedback))
    return cases


def _gap(module: CoDistillation, peer: Peer, shown: str, cases: Sequence[Case]) -> TeacherGap:
    with_s, with_f = SHOWN[shown]
    had = [c for c in cases if (c.solution or not with_s) and (c.feedback or not with_f)]
    if not had:
        return TeacherGap(float("nan"), float("nan"), 0)
    key = (module.seed, "teacher gap", peer.name, shown)
    turns = _again(module, peer, had, key, with_s=with_s, with_f=with_f)
    student = [c.attempt.grade.correct for c in had]
    return TeacherGap(sum(student) / len(had), sum(t.right for t in turns) / len(had), len(had))


def _again(
    module: CoDistillation, peer: Peer, cases: Sequence[Case], key: Key, *, with_s: bool, with_f: bool
) -> list[Turn]:
    """The peer answers each case once more, as its own self-teacher: that of training, and shown no more than there."""
    chat = module.chats[peer.name]
    requests = []
    for c in cases:
        s, f = c.solution if with_s else None, c.feedback if with_f else None
        shown = fit_with(chat, c.attempt.question, s, f, limit=module.context.limit)
        requests.append(Request(shown.prompt, (*key, c.attempt.question.id, c.attempt.sample)))
    with peer.sampling(module.matching.teacher_role):
        answers = sample(peer.base, requests, module.evaluation, chat.ends)
    texts = [chat.text(answer.tokens.tolist()) for answer in answers]
    return [Turn(c, text, grade(text, c.attempt.question).correct) for c, text in zip(cases, texts, strict=True)]


@dataclass(frozen=True)
class Diagnosis:
    """What a tutor's feedback does to the responses of its tutee.

    Args:
        tutee: Who answers, and answers again as its own self-teacher.
        tutor: Who gives the feedback, whatever the gate says.
        gap: The tutor's cognizance gap, on the same questions.
        cognizant: Whether the gate would let it speak.
        rates: Domain, or `all` -> the figures of `BreakRate`.
        outcomes: The figures of `FeedbackOutcomes`.
        turns: Every response that was answered again.
    """

    tutee: str
    tutor: str
    gap: float
    cognizant: bool
    rates: dict[str, dict[str, float]]
    outcomes: dict[str, float]
    turns: list[Turn] = field(default_factory=list)


SAMPLES = 8
"""Responses a question, for which the difficulties of break rates are defined."""


def refuse_alone(students: Sized) -> None:
    """Refuse a student alone.

    Raises:
        ValueError: If it is.
    """
    if len(students) < 2:
        raise ValueError("break and rescue rates need a tutor: give two students")


def diagnose(module: CoDistillation, questions: Sequence[Question]) -> list[Diagnosis]:
    """Every direction between two students: one answers, the other's frozen tutor gives feedback, it answers again.

    Only responses whose feedback was kept are answered again, shown f and s, where there is one and training shows it.

    Args:
        module: With two peers or more set up, their `tutor` adapters being the tutors in question.
        questions: Held-out questions of the training distribution.

    Raises:
        ValueError: If a student is alone.
    """
    refuse_alone(module.peers)
    domains = sorted({q.domain for q in questions})
    answered = {p.name: module.sampled(p, questions, "diagnosis", samples=SAMPLES) for p in module.peers}
    tutors = {
        p.name: _accuracies(module.sampled(p, questions, "diagnosis", samples=SAMPLES, role="tutor"), domains)
        for p in module.peers
    }
    found = []
    for tutee, tutor in permutations(module.peers, 2):
        groups = answered[tutee.name]
        gap = cognizance_gaps(tutors | {tutee.name: _accuracies(groups, domains)})[tutor.name]
        found.append(_diagnosis(module, tutee, tutor, groups, gap))
    return found


def _diagnosis(
    module: CoDistillation, tutee: Peer, tutor: Peer, groups: Sequence[Sequence[Attempt]], gap: float
) -> Diagnosis:
    domains = sorted({group[0].question.domain for group in groups})
    key = (module.seed, "diagnosis feedback", tutee.name)
    feedbacks = module.give_feedback(tutee, tutor, groups, frozenset(domains), key)
    outcomes = FeedbackOutcomes()
    outcomes.update(f.outcome for on_group in feedbacks for f in on_group)
    kept = [c for c in _cases(groups, feedbacks) if c.feedback is not None]
    if not module.context.solution:
        kept = [replace(c, solution=None) for c in kept]
    drawn = (module.seed, "diagnosis again", tutee.name, tutor.name)
    again = _again(module, tutee, kept, drawn, with_s=True, with_f=True)
    turned = {id(turn.case.attempt): turn.right for turn in again}
    rates = {name: BreakRate() for name in ("all", *domains)}
    for group in groups:
        before = [a.grade.correct for a in group if id(a) in turned]
        after = [turned[id(a)] for a in group if id(a) in turned]
        question, wrong = group[0].question, sum(not a.grade.correct for a in group)
        for name in ("all", question.domain):
            rates[name].update(question.id, before, after, wrong)
    return Diagnosis(
        tutee.name,
        tutor.name,
        gap,
        module.gate.cognizant(gap),
        {name: _floats(rate.compute()) for name, rate in rates.items()},
        _floats(outcomes.compute()),
        again,
    )


def _accuracies(groups: Sequence[Sequence[Attempt]], domains: Sequence[str]) -> dict[str, float]:
    of = {d: [a.grade.correct for group in groups for a in group if a.question.domain == d] for d in domains}
    return {domain: sum(right) / len(right) for domain, right in of.items()}


def _floats(figures: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items()}
