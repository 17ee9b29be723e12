"""Worked solutions for a specialist to learn from: a model's own, kept where they are right.

No outside model is needed: what a model answers rightly now and then it can be taught to answer rightly as a rule
(rejection sampling), and what it never does it may explain when it is shown the key (STaR, arXiv 2203.14465).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from opcod.attempts import Key, attempt, prompt_within
from opcod.chat import Chat
from opcod.counts import count_faults
from opcod.data.questions import Question
from opcod.peers import SharedBase
from opcod.prompts import Message, keyed_messages, student_messages
from opcod.rollout import Sampling

_WHOLE = re.compile(r"\s*<reasoning>(.*\S.*)</reasoning>\s*<answer>(?:(?!</?answer>).)*</answer>\s*", re.DOTALL)
_TOLD = re.compile(
    r"\b(?:given|provided|stated|told|supplied|known) (?:correct |right )?(?:answer|key|solution)\b"
    r"|\banswer key\b|\banswer (?:is|was) (?:given|provided|told)\b|\b(?:we|i) (?:are|were|am|was) told\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Solving:
    """How solutions are found.

    Args:
        samples: Responses to a question; its solution is the first one that is whole and right.
        sampling: How they are sampled.
        key: Which questions the key is shown to: those that were not solved without it, all, or none.
    """

    samples: int = 8
    sampling: Sampling = Sampling(max_new_tokens=1024)
    key: Literal["unsolved", "always", "never"] = "unsolved"

    def __post_init__(self) -> None:
        if faults := count_faults(samples=self.samples):
            raise ValueError("solving: " + "; ".join(faults))


@dataclass(frozen=True)
class Solved:
    """A question that was solved.

    Args:
        question: With its solution.
        keyed: Whether the key was shown.
    """

    question: Question
    keyed: bool


def solve(
    base: SharedBase, chat: Chat, questions: Sequence[Question], settings: Solving, *, prompt_limit: int, key: Key
) -> list[Solved]:
    """Find worked solutions by the active adapter.

    Args:
        base: The model; call inside `SharedBase.sampling`.
        chat: Between text and tokens.
        questions: To be solved.
        settings: How.
        prompt_limit: Longest prompt, in tokens.
        key: Of the draw; how the question is asked, the question and the sample are added.

    Returns:
        The questions that were solved, in their order.
    """

    def right(asked: Sequence[Question], messages: Callable[[Question], list[Message]], how: str) -> dict[str, str]:
        groups = attempt(
            base,
            chat,
            asked,
            lambda question: prompt_within(chat, question, messages(question), prompt_limit),
            samples=settings.samples,
            sampling=settings.sampling,
            key=(*key, how),
        )
        found = {q.id: [a.text for a in group if a.grade.correct] for q, group in zip(asked, groups, strict=True)}
        return {name: text for name, texts in found.items() if (text := _first(texts, keyed=how == "keyed"))}

    alone = {} if settings.key == "always" else right(questions, student_messages, "alone")
    rest = [] if settings.key == "never" else [q for q in questions if q.id not in alone]
    keyed = right(rest, keyed_messages, "keyed") if rest else {}
    solutions = alone | keyed
    return [Solved(replace(q, solution=solutions[q.id]), q.id in keyed) for q in questions if q.id in solutions]


def _first(texts: Sequence[str], *, keyed: bool) -> str | None:
    """The first that is reasoning and answer and nothing else, and does not say that it was told."""
    return next((t.strip() for t in texts if _WHOLE.fullmatch(t) and not (keyed and _TOLD.search(t))), None)
