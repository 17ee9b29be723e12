"""Step 3: the tutor writes one feedback on every response of its peer, and what can be kept of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from opcod.attempts import Attempt, Key
from opcod.chat import Chat
from opcod.drafts import Response
from opcod.feedback import Feedback, judge, tutor_messages
from opcod.peers import Peer
from opcod.prefixes import equal_runs, shared_length
from opcod.rollout import Request, Sampling, sample


def write_feedback(
    tutor: Peer,
    tutee: Peer,
    attempts: Sequence[Attempt],
    *,
    chat: Chat,
    sampling: Sampling,
    anchored: bool,
    key: Key,
) -> list[Feedback]:
    """One feedback on every attempt, right or wrong; the key to the question is not shown.

    Args:
        tutor: Who writes, as it was when it was frozen.
        tutee: Who answered.
        attempts: Its answers, those to one question side by side.
        chat: The tutor's.
        sampling: How feedback is sampled.
        anchored: Ask for a concept of the question, sanitize and anchor.
        key: Of the draw; the tutor, question and sample are added here.

    Returns:
        A feedback for each attempt, in their order.
    """
    prompts = [
        chat.prompt(
            tutor_messages(a.question, a.text, tutor_domain=tutor.domain, peer_domain=tutee.domain, anchored=anchored)
        )
        for a in attempts
    ]
    requests = []
    for group in equal_runs([a.question.id for a in attempts]):
        shared = shared_length([prompts[i] for i in group])
        for i in group:
            draw = (*key, tutor.name, attempts[i].question.id, attempts[i].sample)
            requests.append(Request(prompts[i], draw, shared))
    with tutor.sampling("tutor"):
        written = sample(tutor.base, requests, sampling, chat.ends)
    return [_judged(chat, a, response, anchored=anchored) for a, response in zip(attempts, written, strict=True)]


def _judged(chat: Chat, attempt: Attempt, written: Response, *, anchored: bool) -> Feedback:
    tokens = written.tokens.tolist()
    feedback = judge(chat.text(tokens), attempt.question, anchored=anchored)
    return replace(feedback, tokens=len(tokens), finished=written.finished)


def no_feedback(groups: Sequence[Sequence[Attempt]]) -> list[list[Feedback]]:
    """On every attempt that it was given none, in the same shape."""
    return [[judge(None, a.question, anchored=True) for a in group] for group in groups]
