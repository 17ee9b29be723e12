"""What the self-teacher of each response is shown beyond the question: s and f."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opcod.attempts import Attempt
from opcod.chat import Chat
from opcod.data.questions import Question
from opcod.feedback import Feedback
from opcod.prompts import FittedContext, fit_context


@dataclass(frozen=True)
class ContextSettings:
    """What goes into a context.

    Args:
        solution: Show s, the tutee's earliest right response to the same question.
        feedback: Show f, the tutor's feedback on the response.
        own_solution: Let s be the very response that is distilled.
        limit: Longest context prompt, in tokens; f is cut first, then s.
    """

    solution: bool = True
    feedback: bool = True
    own_solution: bool = False
    limit: int = 10240


@dataclass(frozen=True)
class Context:
    """A response y_j with the prompt of its self-teacher.

    Args:
        attempt: y_j.
        prompt: Token ids of the context prompt.
        solution: s as shown, or None.
        feedback: f as shown, or None.
    """

    attempt: Attempt
    prompt: tuple[int, ...]
    solution: str | None
    feedback: str | None


def earliest_right(group: Sequence[Attempt], distilled: Attempt, *, own: bool) -> Attempt | None:
    """s: the earliest right response to the question, by default not the one that is distilled."""
    return next((a for a in group if a.grade.correct and (own or a is not distilled)), None)


def fit_with(
    chat: Chat, question: Question, solution: str | None, feedback: str | None, *, limit: int
) -> FittedContext:
    """The self-teacher's context prompt as `chat` has it, in at most `limit` tokens; see `fit_context`."""
    return fit_context(
        question,
        solution,
        feedback,
        limit=limit,
        encode=chat.prompt,
        tokenize=chat.tokenize,
        detokenize=chat.text,
    )


def build_contexts(
    groups: Sequence[Sequence[Attempt]],
    feedbacks: Sequence[Sequence[Feedback]],
    chat: Chat,
    settings: ContextSettings,
) -> tuple[list[Context], int]:
    """The contexts of all responses that have s or f; the others are left out of the loss.

    Args:
        groups: The attempts of every question.
        feedbacks: The feedback on each of them, in the same shape.
        chat: Of the tutee, which is its own teacher.
        settings: What to show.

    Returns:
        The contexts, and how many tokens of s and f were cut away, of responses that are left with neither as well.
    """
    contexts, cut = [], 0
    for group, on_group in zip(groups, feedbacks, strict=True):
        for attempt, feedback in zip(group, on_group, strict=True):
            right = earliest_right(group, attempt, own=settings.own_solution) if settings.solution else None
            solution = None if right is None else right.text
            f = feedback.text if settings.feedback else None
            if solution is None and f is None:
                continue
            fitted = fit_with(chat, attempt.question, solution, f, limit=settings.limit)
            cut += fitted.cut
            if fitted.solution is not None or fitted.feedback is not None:
                contexts.append(Context(attempt, fitted.prompt, fitted.solution, fitted.feedback))
    return contexts, cut
