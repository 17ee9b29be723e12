"""What a student and its self-teacher are shown.

Knows nothing about tokenizers: whoever turns messages into tokens passes every content through `neutralise`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from opcod.data.questions import Kind, Question

Message = dict[str, str]
"""One turn of a chat: its `role` (`system` or `user`) and its `content`."""

_FORMAT = (
    "You solve science questions. First reason step by step inside <reasoning></reasoning>. "
    "Then write your answer inside <answer></answer>: "
)
_ALONE: dict[Kind | None, str] = {
    "choice": "the letter of the one correct option alone, and nothing else.",
    "numeric": "the number alone, in the unit asked for, and nothing else.",
    "text": "the word or words asked for alone, and nothing else.",
    "expression": "the mathematical expression alone, in LaTeX, and nothing else.",
}
_NUMBER_IN = "the number alone, in UNIT, and nothing else."
_REQUEST = "Reason step by step, then answer."
_TEACHER_REQUEST = "Now solve the original question correctly. Reason step by step, then answer."
_KEYED_REQUEST = (
    "Write the reasoning that leads there step by step, as if you had found it yourself and nobody had told you, "
    "then that answer."
)
_SOLUTION_HEADING = "A correct solution:"
_FEEDBACK_HEADING = "Feedback on an attempt at this question:"


@dataclass(frozen=True)
class FittedContext:
    """The self-teacher's context, cut to its limit.

    Args:
        messages: The context prompt.
        prompt: Its tokens, as many as the limit at most.
        solution: What is left of s; None if there was none or nothing is left.
        feedback: What is left of f; None if there was none or nothing is left.
        cut: How many tokens of s and f were cut away, 0 if all of it fits.
    """

    messages: list[Message]
    prompt: tuple[int, ...]
    solution: str | None
    feedback: str | None
    cut: int


def format_question(question: Question) -> str:
    """The question's text and, one per line, its labelled options."""
    options = [label + ". " + option for label, option in zip(question.labels, question.options, strict=True)]
    return "\n".join([question.text.strip(), *([""] if options else []), *options])


def student_messages(question: Question) -> list[Message]:
    """The plain prompt, to which a student's responses are sampled and distilled (section 1, Prompts)."""
    return _chat(question, [format_question(question), _REQUEST])


def keyed_messages(question: Question) -> list[Message]:
    """The prompt for a worked solution whose writer is shown the key, for a specialist to learn from."""
    return _chat(question, [format_question(question), f"The correct answer is: {question.key}", _KEYED_REQUEST])


def teacher_messages(question: Question, solution: str | None, feedback: str | None) -> list[Message]:
    """The self-teacher's context prompt (section 1, Prompts).

    Args:
        question: x.
        solution: s, a correct response to x, or None.
        feedback: f, the tutor's feedback on the response that is distilled, or None.

    Returns:
        The student's system message, then one user message with x, s, f and the request, in this order.
    """
    parts = [format_question(question)]
    if solution is not None:
        parts.append(_SOLUTION_HEADING + "\n" + solution.strip())
    if feedback is not None:
        parts.append(_FEEDBACK_HEADING + "\n" + feedback.strip())
    return _chat(question, [*parts, _TEACHER_REQUEST])


def fit_context(
    question: Question,
    solution: str | None,
    feedback: str | None,
    *,
    limit: int,
    encode: Callable[[list[Message]], Sequence[int]],
    tokenize: Callable[[str], Sequence[int]],
    detokenize: Callable[[Sequence[int]], str],
) -> FittedContext:
    """The self-teacher's context prompt in at most `limit` tokens: f is cut first, then s, never x.

    Both are cut from their ends. Where nothing is left of both, the response is one without context.

    Args:
        question: x.
        solution: s or None.
        feedback: f or None.
        limit: The longest context prompt, in tokens.
        encode: Messages to the tokens of the whole prompt, chat template included.
        tokenize: Bare text to its tokens.
        detokenize: Tokens back to bare text.

    Raises:
        ValueError: If the question alone is longer than `limit`.
    """
    kept = {"solution": solution, "feedback": feedback}
    messages = teacher_messages(question, **kept)
    prompt = tuple(encode(messages))
    cut = 0
    for part in ("feedback", "solution"):
        while len(prompt) > limit and (text := kept[part]) is not None:
            tokens = tokenize(text)
            shorter = detokenize(tokens[: max(len(tokens) + limit - len(prompt), 0)])
            shorter = shorter.rstrip("\ufffd \n")  # the cut may fall within a character
            left = len(tokenize(shorter))
            kept[part] = shorter if 0 < left < len(tokens) else None
            cut += len(tokens) - (left if kept[part] else 0)
            messages = teacher_messages(question, **kept)
            prompt = tuple(encode(messages))
    if len(prompt) > limit:
        raise ValueError(
            f"question {question.id!r} alone takes {len(prompt)} tokens as a context prompt, more than the limit "
            f"of {limit}: raise the limit to at least {len(prompt)}, or leave the question out"
        )
    return FittedContext(messages, prompt, kept["solution"], kept["feedback"], cut)


def neutralise(text: str, special_tokens: Collection[str]) -> str:
    """`text` with every special token broken by a space after its first character, `< |im_end|>`.

    Nothing is removed (but special tokens of one character become a space), so no token can form out of the
    pieces around another; what overlaps is broken in turn until none is left. Blank tokens are ignored.

    Args:
        text: Text from a model or from data.
        special_tokens: The tokenizer's special tokens, as they are spelled.
    """
    cores = {token.strip() for token in special_tokens} - {""}
    if not cores:
        return text
    pattern = re.compile("|".join(re.escape(core) for core in sorted(cores, key=len, reverse=True)))
    while pattern.search(text):
        text = pattern.sub(lambda match: match[0][0] + " " + match[0][1:] if match[0][1:] else " ", text)
    return text


def _chat(question: Question, parts: list[str]) -> list[Message]:
    alone = _ALONE[question.kind] if question.unit is None else _NUMBER_IN.replace("UNIT", question.unit)
    return [
        {"role": "system", "content": _FORMAT + alone},
        {"role": "user", "content": "\n\n".join(parts)},
    ]
