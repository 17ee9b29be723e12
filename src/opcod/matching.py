"""Match the tutee to its self-teacher, token by token, in micro-batches sized by tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from opcod.attempts import Attempt
from opcod.contexts import Context
from opcod.counts import count_faults
from opcod.losses import clip_importance, hidden_divergence
from opcod.peers import Peer, Role
from opcod.prefixes import equal_runs, shared_length
from opcod.scoring import Scored, over_micro_batches, response_hidden, response_tokens

Average = Literal["responses", "tokens"]
"""Of tokens' losses: over a response's tokens, then over responses (the paper's Eq. 1); or over all tokens."""


def faults_of(importance_limit: float | None, **counts: int | None) -> list[str]:
    """What is impossible in the settings of a loss.

    Args:
        importance_limit: Above 0, or none.
        **counts: At least 1 each, or none.
    """
    faults = count_faults(**counts)
    if importance_limit is not None and not importance_limit > 0:
        faults.append(f"importance_limit is {importance_limit}, expected above 0")
    return faults


@dataclass(frozen=True)
class Matching:
    """The loss between tutee and self-teacher (Eq. 1).

    Args:
        alpha: Weight of the generalised Jensen-Shannon divergence: 0 forward KL, 1 reverse KL.
        top_k: Compare on the student's likeliest tokens; all without it.
        add_tail: Put the mass of all other tokens into one more bucket; unstable without.
        importance_limit: Weight tokens by min(exp(logp now - logp at rollout), this); not at all without it.
        average: Mean over a response's tokens, then over `responses`; or over all `tokens`, as SDPO's code does.
        self_teacher: `ema` of the student; the `live` student itself; or the `frozen` one of the start.
        ema_rate: teacher <- (1 - rate) * teacher + rate * student after every update.
        micro_batch_tokens: Most tokens, padding included, in one forward and backward pass; the self-teacher, which
            keeps nothing for a backward pass, reads twice as many at once.
        chunk_tokens: Response tokens whose logits over the whole vocabulary exist at once.
        share_prefixes: Read what the prompts of one question's responses begin with once, in the student's backward
            pass too; otherwise, and by models that keep a state, every response is scored with the whole of its prompt.
    """

    alpha: float = 0.5
    top_k: int | None = 100
    add_tail: bool = True
    importance_limit: float | None = 2.0
    average: Average = "responses"
    self_teacher: Literal["ema", "live", "frozen"] = "ema"
    ema_rate: float = 0.05
    micro_batch_tokens: int = 8192
    chunk_tokens: int = 256
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("top_k", "micro_batch_tokens", "chunk_tokens")}
        shares = {name: getattr(self, name) for name in ("alpha", "ema_rate")}
        faults = [f"{name} is {share}, expected 0 to 1" for name, share in shares.items() if not 0 <= share <= 1]
        faults += faults_of(self.importance_limit, **counts)
        if faults:
            raise ValueError("matching: " + "; ".join(faults))

    @property
    def teacher_role(self) -> Role:
        """The adapter that teaches."""
        return "student" if self.self_teacher == "live" else "teacher"

    @property
    def teacher_rate(self) -> float:
        """How far the teacher's adapter moves after an update; of a live student's it is kept for who asks it later."""
        return {"ema": self.ema_rate, "live": 1.0, "frozen": 0.0}[self.self_teacher]


@dataclass(frozen=True)
class Size:
    """What the mean of a step's loss is over, whichever ranks have it.

    Args:
        responses: In the mean.
        tokens: That these have.
    """

    responses: float
    tokens: float


@dataclass(frozen=True)
class Match:
    """What one step's matching came to; the gradient lies in the student's parameters.

    Args:
        loss: The step's loss, importance weights included.
        per_token: The divergence of each context's response tokens, without these weights, [T] each.
        overlap: Share of the student's `top_k` tokens that are among the self-teacher's, mean over all tokens.
    """

    loss: float
    per_token: list[Tensor]
    overlap: float

    @property
    def tokens(self) -> int:
        """Response tokens that were distilled."""
        return sum(map(len, self.per_token))

    @property
    def divergence(self) -> float:
        """Mean divergence a token."""
        return float(torch.cat(self.per_token).mean())


def match(
    tutee: Peer,
    contexts: Sequence[Context],
    settings: Matching,
    backward: Callable[[Tensor], None],
    size: Size | None = None,
) -> Match:
    """Accumulate the gradient of the loss over all contexts of a step, whatever the micro-batches.

    Args:
        tutee: Student and self-teacher.
        contexts: Of this rank, perhaps none.
        settings: The loss.
        backward: Called with each micro-batch's share of the loss.
        size: Of the whole step; by default that of these contexts.
    """
    share = settings.share_prefixes and tutee.base.family.goes_on
    order = _shown_alike_together(contexts)
    contexts = [contexts[i] for i in order]
    attempts = [c.attempt for c in contexts]
    asked = [a.question.id for a in attempts]
    shown = [_shown(c) for c in contexts]
    students = scored_together(attempts, [a.prompt for a in attempts], asked if share else None)
    teachers = scored_together(attempts, [c.prompt for c in contexts], shown if share else None)
    lengths = [len(s.response) for s in students]
    weights = token_weights(lengths, size or Size(len(lengths), sum(lengths)), settings.average)

    taught: dict[int, Tensor] = {}

    def teach(rows: list[int]) -> None:
        """The teacher first: activations that are recomputed in the backward pass need the student still active."""
        taught.clear()  # of a try that ran out of memory
        with tutee.using(settings.teacher_role):
            hidden = response_hidden(tutee.base, [teachers[i] for i in rows])
        taught.update(zip(rows, hidden.split([lengths[i] for i in rows]), strict=True))

    def micro_batch(rows: list[int]) -> tuple[float, float, dict[int, Tensor]]:
        """Its share of the loss, the sum of its tokens' overlaps, and the divergences of each row's tokens."""
        micro = [students[i] for i in rows]
        with tutee.using("student", train=True):
            matched = hidden_divergence(
                response_hidden(tutee.base, micro),
                torch.cat([taught.pop(i) for i in rows]),
                response_tokens(micro, tutee.base.device),
                head=tutee.base.narrow_head,
                alpha=settings.alpha,
                top_k=settings.top_k,
                add_tail=settings.add_tail,
                chunk_tokens=settings.chunk_tokens,
            )
            per_token = matched.per_token
            if settings.importance_limit is not None:
                old = torch.cat([attempts[i].response.log_probs for i in rows]).to(per_token.device)
                per_token = clip_importance(per_token, matched.log_probs, old, limit=settings.importance_limit)
            loss = (per_token * torch.cat([weights[i] for i in rows]).to(per_token.device)).sum()
            backward(loss)
        divergences = matched.per_token.detach().split([lengths[i] for i in rows])
        overlap = float(matched.overlap.sum())
        return float(loss.detach()), overlap, dict(zip((order[i] for i in rows), divergences, strict=True))

    parts = over_micro_batches(teachers, settings.micro_batch_tokens, tutee.parameters(), micro_batch, teach)
    found = {i: divergences for _, _, some in parts for i, divergences in some.items()}
    loss, overlap = sum(loss for loss, _, _ in parts), sum(overlap for _, overlap, _ in parts)
    return Match(loss, [found[i] for i in range(len(contexts))], overlap / max(sum(lengths), 1))


def _shown(context: Context) -> tuple[str, str | None]:
    """What a context begins with: s stands before f."""
    return context.attempt.question.id, context.solution


def _shown_alike_together(contexts: Sequence[Context]) -> list[int]:
    """Indices of contexts, those that are shown the same s side by side, question after question as they come."""
    asked = list(dict.fromkeys(c.attempt.question.id for c in contexts))
    shown = list(dict.fromkeys(map(_shown, contexts)))
    places = [(asked.index(c.attempt.question.id), shown.index(_shown(c))) for c in contexts]
    return sorted(range(len(contexts)), key=places.__getitem__)


def scored_together(
    attempts: Sequence[Attempt], prompts: Sequence[tuple[int, ...]], families: Sequence[Hashable] | None
) -> list[Scored]:
    """Every response behind its prompt; neighbours of a family share what their prompts begin with.

    Args:
        attempts: The responses.
        prompts: Of each.
        families: To which each belongs; none share without it.
    """
    scored = []
    for group in equal_runs(range(len(attempts)) if families is None else families):
        shared = shared_length([prompts[i] for i in group]) if families is not None else 0
        scored += [Scored(prompts[i], tuple(attempts[i].response.tokens.tolist()), shared) for i in group]
    return scored


def token_weights(lengths: Sequence[int], size: Size, average: Average) -> list[Tensor]:
    """The weights of each response's tokens in the step's loss.

    Args:
        lengths: Of the responses that are scored.
        size: What the mean is over.
        average: Which mean.
    """
    share = {"tokens": lambda n: 1 / size.tokens, "responses": lambda n: 1 / (n * size.responses)}[average]
    return [torch.full((n,), share(n)) for n in lengths]
