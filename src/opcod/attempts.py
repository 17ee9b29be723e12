"""Questions answered: sampled, read and graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opcod.chat import Chat
from opcod.data.questions import Question
from opcod.drafts import Response
from opcod.grading import Grade, grade
from opcod.peers import SharedBase
from opcod.prompts import Message
from opcod.rollout import Request, Sampling, sample
from opcod.stopping import look_up

Key = tuple[int | str, ...]


class PromptTooLongError(ValueError):
    """A question that does not fit the prompt limit."""


@dataclass(frozen=True)
class Attempt:
    """One response y_j to a question x.

    Args:
        question: x.
        sample: j, counted from 0 within the question.
        prompt: Token ids the student was shown.
        response: Its tokens and their log-probabilities.
        text: The response as text.
        grade: Right or wrong, and whether in the format.
    """

    question: Question
    sample: int
    prompt: tuple[int, ...]
    response: Response
    text: str
    grade: Grade


def attempt(
    base: SharedBase,
    chat: Chat,
    questions: Sequence[Question],
    prompt_of: Callable[[Question], tuple[int, ...]],
    *,
    samples: int,
    sampling: Sampling,
    key: Key,
) -> list[list[Attempt]]:
    """Sample `samples` responses to each question from the active adapter, and grade them.

    Args:
        base: The model; call inside `SharedBase.using`.
        chat: Between text and tokens.
        questions: x.
        prompt_of: The prompt of a question, as token ids.
        samples: n responses each.
        sampling: How.
        key: Of the draw: (seed, purpose, student, round, phase, step); question and sample are added here.

    Returns:
        A list of `samples` attempts for each question.
    """
    prompts = [prompt_of(q) for q in questions]
    requests = [
        Request(prompt, (*key, question.id, j))
        for question, prompt in zip(questions, prompts, strict=True)
        for j in range(samples)
    ]
    responses = iter(sample(base, requests, sampling, chat.ends))
    return [
        [_graded(chat, question, j, prompt, next(responses)) for j in range(samples)]
        for question, prompt in zip(questions, prompts, strict=True)
    ]


def _graded(chat: Chat, question: Question, j: int, prompt: tuple[int, ...], response: Response) -> Attempt:
    look_up()
    text = chat.text(response.tokens.tolist())
    return Attempt(question, j, prompt, response, text, grade(text, question))


def prompt_within(chat: Chat, question: Question, messages: Sequence[Message], limit: int) -> tuple[int, ...]:
    """Token ids of a question's prompt.

    Args:
        chat: Between text and tokens.
        question: To be named where its prompt is too long.
        messages: The prompt.
        limit: Longest prompt, in tokens.

    Raises:
        PromptTooLongError: Names the question and the remedy.
    """
    prompt = chat.prompt(messages)
    if len(prompt) > limit:
        raise PromptTooLongError(
            f"question {question.id!r} takes {len(prompt)} tokens as a prompt, more than the limit of {limit}: "
            f"raise `prompt_limit` to at least {len(prompt)}, or leave the question out"
        )
    return prompt
