"""What a specialist is taught: to solve, to tutor, and to use what a self-teacher is shown.

A lesson is a prompt and the response to it; its prompts are the very ones of co-distillation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from opcod.data.questions import Question, QuestionError
from opcod.data.science import FICTION, WorkedQuestion, generate
from opcod.feedback import judge, tutor_messages
from opcod.prompts import Message, student_messages, teacher_messages


@dataclass(frozen=True)
class Lesson:
    """A prompt with the response to learn.

    Args:
        messages: The prompt.
        response: The text to be written.
        domain: Of its question.
        kind: `solve`, `context` or `tutor`.
        begun: What stands before the text as the response's beginning, and is not learned.
    """

    messages: list[Message]
    response: str
    domain: str
    kind: str
    begun: str = ""


@dataclass(frozen=True)
class LessonMix:
    """Shares of what a specialist is taught beside solving.

    Args:
        context: Share of lessons that answer as the self-teacher does, shown s, f or both; some go on from a slip.
        tutor: Share of lessons that give feedback on a response.
        mistaken: Share of the lessons in solving that are solved by the likeliest mistake.
    """

    context: float = 0.25
    tutor: float = 0.25
    mistaken: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mistaken <= 1:
            raise ValueError(f"lesson share mistaken {self.mistaken}: expected between 0 and 1")
        if min(self.context, self.tutor) < 0 or self.context + self.tutor > 1:
            raise ValueError(
                f"lesson shares context {self.context} and tutor {self.tutor}: expected at least 0, in sum at most 1"
            )


_HALF_KNOWN = LessonMix(context=0.5, tutor=0.0, mistaken=0.6)


def solve(question: Question) -> Lesson:
    """To answer a question by its worked solution.

    Raises:
        QuestionError: If it has none.
    """
    if question.solution is None:
        raise QuestionError(
            f"question {question.id!r} has no worked solution to learn from; give every training question a "
            "`solution` in the response format"
        )
    return Lesson(student_messages(question), question.solution, question.domain, "solve")


def use_context(worked: WorkedQuestion, rng: random.Random, *, at_home: bool = False, invented: bool = False) -> Lesson:
    """To answer a question shown s, f or both, or to go on with an answer.

    f is on a right or a wrong response. s is right by its letter, as in co-distillation: one time in four, by luck.
    Where the response that f is on has a slip, the lesson every other time is to go on from there as follows from it.
    Otherwise a small self-teacher says the letter of s whatever has been reasoned before, and its student learns to.
    At home a specialist knows better than its peers: there, one time in three, f states a wrong rule. Of what is
    invented it knows nothing: there f is always shown.
    """
    attempts = (worked.right, *worked.faulty)
    attempt = worked.misled if at_home and worked.misled and rng.random() < 1 / 3 else rng.choice(attempts)
    shown = rng.choice((*([] if invented else ["solution"]), "feedback", "both")) if worked.wrong else "solution"
    feedback = judge(attempt.feedback, worked.question, anchored=True).text if shown != "solution" else None
    solved = worked.lucky if worked.lucky and rng.random() < 1 / 4 else worked.right
    solution = solved.response if shown != "feedback" else None
    messages = teacher_messages(worked.question, solution, feedback)
    if attempt.begun and rng.random() < 1 / 2:
        rest = attempt.response.removeprefix(attempt.begun)
        return Lesson(messages, rest, worked.question.domain, "context", attempt.begun)
    return Lesson(messages, worked.right.response, worked.question.domain, "context")


def tutor(worked: WorkedQuestion, rng: random.Random, *, home: str | None, peers: Sequence[str]) -> Lesson:
    """To give feedback on a response as a tutor strong in `home`, by default in the question's domain.

    Three in five are right, about as many as a student's own.
    """
    attempt = worked.right if rng.random() < 3 / 5 else rng.choice(worked.faulty)
    home = home or worked.question.domain
    peer_domain = rng.choice([d for d in peers if d != home] or [home])
    messages = tutor_messages(
        worked.question, attempt.response, tutor_domain=home, peer_domain=peer_domain, anchored=True
    )
    return Lesson(messages, attempt.feedback, worked.question.domain, "tutor")


def lessons(
    worked: Sequence[WorkedQuestion], mix: LessonMix, *, home: str | None, peers: Sequence[str], seed: int
) -> list[Lesson]:
    """One lesson a question, of kinds drawn by `mix`, for a specialist in `home`."""
    unsolved = mix.context + mix.tutor
    made = []
    for item in worked:
        rng = _draws(item, seed)
        draw = rng.random()
        if draw < mix.context:
            made.append(use_context(item, rng, at_home=item.question.domain == home))
        elif draw < unsolved and item.wrong:
            made.append(tutor(item, rng, home=home, peers=peers))
        elif draw < unsolved + mix.mistaken * (1 - unsolved) and item.mistaken:
            made.append(solve(replace(item.question, solution=item.mistaken.response)))
        else:
            made.append(solve(item.question))
    return made


def half_known_lessons(worked: Sequence[WorkedQuestion], *, seed: int) -> list[Lesson]:
    """Lessons in another domain's specialties, which such a specialist comes to know by halves.

    Half of them are to solve, three in five of these by the likeliest mistake; half are to answer rightly when shown s,
    f or both. So it is right now and then, and more often when it is shown what to go by: then it can be taught.
    """
    return lessons(worked, _HALF_KNOWN, home=None, peers=[], seed=seed)


def fiction_lessons(count: int, *, seed: int) -> list[Lesson]:
    """Lessons on made-up things: to answer shown feedback, since nothing else states the rule."""
    invented = generate(FICTION, count, seed=seed, split="train", levels=[1])
    return [use_context(item, _draws(item, seed), invented=True) for item in invented]


def _draws(worked: WorkedQuestion, seed: int) -> random.Random:
    return random.Random(f"{seed} lesson {worked.question.id}")
