"""Divergences over logits or hidden states: how far a student is from its self-teacher, token by token.

The divergence is SDPO's (arXiv 2601.20802): generalised Jensen-Shannon on the student's most likely tokens.
Averaging over tokens and responses is the caller's (section 1, One step, 5; the paper's Eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from opcod.logits import RowByRow, top, widened


class HiddenDivergence(NamedTuple):
    """Of N response positions.

    Args:
        per_token: D(student || self-teacher) [N], in nats, with a gradient.
        log_probs: The student's log-probabilities of the sampled tokens [N], in nats, detached.
        overlap: Share [N] of the student's `top_k` tokens that are among the self-teacher's; 1 without it, detached.
    """

    per_token: Tensor
    log_probs: Tensor
    overlap: Tensor


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float,
    top_k: int | None = None,
    add_tail: bool = True,
) -> Tensor:
    """D(student || self-teacher) of every token, with M = (1 - alpha) * student + alpha * teacher:

    (1 - alpha) * KL(student || M) + alpha * KL(teacher || M), the generalised Jensen-Shannon divergence; by
    definition KL(teacher || student), forward, at alpha 0 and KL(student || teacher), reverse, at alpha 1.

    Logits of -inf are probabilities of 0. No gradient flows to the teacher. Computed in float32 or float64.

    Args:
        student_logits: [B, T, V], or any leading dimensions.
        teacher_logits: Of the same shape.
        alpha: Weight of the teacher in the mixture, 0 to 1.
        top_k: Compare the student's k most likely tokens only; None or at least V: the whole vocabulary.
        add_tail: With `top_k`, add one bucket with the rest of the mass; otherwise both are renormalised over
            the k.

    Returns:
        [B, T], in nats; infinite where a KL that is asked for is.

    Raises:
        ValueError: If the shapes differ, `alpha` is not within 0 to 1 or `top_k` is below 1.
    """
    _check(student_logits, teacher_logits, alpha, top_k)
    student, teacher = widened(student_logits), widened(teacher_logits.detach())
    return _compare(student, teacher, _support(student, top_k), alpha, add_tail)[0]


def clip_importance(per_token: Tensor, log_probs: Tensor, old_log_probs: Tensor, *, limit: float) -> Tensor:
    """Weigh every token by min(exp(log_probs - old_log_probs), limit), detached.

    Corrects for tokens that were sampled by a student that is no longer quite the one that learns.

    Args:
        per_token: [B, T], already summed over the vocabulary.
        log_probs: The student's log-probabilities of the sampled tokens now [B, T], in nats.
        old_log_probs: The same at rollout [B, T].
        limit: The largest weight, above 0.

    Returns:
        [B, T].

    Raises:
        ValueError: If `limit` is not above 0.
    """
    if not limit > 0:
        raise ValueError(f"importance limit {limit} is not above 0: use the published 2, or no importance weights")
    log_ratio = (log_probs - old_log_probs).detach()
    return per_token * log_ratio.clamp(max=math.log(limit)).exp()


def hidden_divergence(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    tokens: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    alpha: float,
    top_k: int | None = None,
    add_tail: bool = True,
    chunk_tokens: int = 256,
) -> HiddenDivergence:
    """`token_divergence` over flat response positions, without ever holding all their logits.

    The output head is applied to `chunk_tokens` positions at a time, each of which is taken back to the hidden
    states at once, so that the full-vocabulary logits of one chunk are the memory's peak and nothing is computed
    twice. They are compared a few positions at a time, so that a CPU's cache holds what is computed in float32. Value
    and gradient are the dense loss's.

    Args:
        student_hidden: The student's last hidden states, from which each token is predicted [N, H].
        teacher_hidden: The self-teacher's [N, H].
        tokens: The sampled tokens [N].
        head: Hidden states [n, H] to logits [n, V], logit scaling and soft-capping included, in whatever numbers; it
            learns nothing.
        alpha: See `token_divergence`.
        top_k: See `token_divergence`.
        add_tail: See `token_divergence`.
        chunk_tokens: Positions per chunk, at least 1.

    Raises:
        ValueError: See `token_divergence`; or if `chunk_tokens` is below 1.
    """
    _check_chunk(chunk_tokens)

    def divergence(student: Tensor, teacher: Tensor, sampled: Tensor) -> HiddenDivergence:
        _check(student, teacher, alpha, top_k)
        support = _support(student, top_k)
        overlap = _overlap(support, teacher)
        drawn = student.detach().gather(-1, sampled.unsqueeze(-1)).squeeze(-1)
        per_token, whole = _compare(student, teacher, support, alpha, add_tail, spend=True)
        return HiddenDivergence(per_token, drawn - whole.detach().logsumexp(-1), overlap)

    parts = []
    for student, teacher, sampled in zip(
        student_hidden.split(chunk_tokens),
        teacher_hidden.detach().split(chunk_tokens),
        tokens.split(chunk_tokens),
        strict=True,
    ):
        with torch.no_grad():
            teacher_logits = head(teacher)
        parts.append(RowByRow.apply(divergence, head, student, teacher_logits, sampled))
    return HiddenDivergence(*(torch.cat(of_chunks) for of_chunks in zip(*parts, strict=True)))


def hidden_log_probs(
    hidden: Tensor, tokens: Tensor, head: Callable[[Tensor], Tensor], *, chunk_tokens: int = 256
) -> Tensor:
    """`token_log_probs` over flat response positions, in chunks as `hidden_divergence`.

    Args:
        hidden: Last hidden states, from which each token is predicted [N, H].
        tokens: The tokens [N].
        head: See `hidden_divergence`.
        chunk_tokens: See `hidden_divergence`.

    Returns:
        [N], in nats, with a gradient to `hidden`.
    """
    _check_chunk(chunk_tokens)

    def log_probs(logits: Tensor, sampled: Tensor) -> tuple[Tensor]:
        return (token_log_probs(logits, sampled),)

    chunks = zip(hidden.split(chunk_tokens), tokens.split(chunk_tokens), strict=True)
    return torch.cat([RowByRow.apply(log_probs, head, *chunk)[0] for chunk in chunks])


def _check_chunk(chunk_tokens: int) -> None:
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens {chunk_tokens} is below 1: use e.g. 256, fewer take less memory")


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """The log-probabilities [...] of `tokens` [...] under `logits` [..., V], in nats."""
    logits = widened(logits)
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def _compare(
    student: Tensor, teacher: Tensor, support: Tensor | None, alpha: float, add_tail: bool, spend: bool = False
) -> tuple[Tensor, Tensor]:
    """`token_divergence` [...] on the `support`, and logits [..., any] that hold all of the student's mass.

    With `spend` all logits may be overwritten.
    """
    whole = student
    if support is not None:
        student, teacher = (_restrict(logits, support, add_tail, spend) for logits in (student, teacher))
    per_token = _jensen_shannon(student.log_softmax(-1), teacher.log_softmax(-1), alpha)
    return per_token, student if add_tail else whole


def _support(student: Tensor, top_k: int | None) -> Tensor | None:
    """The student's `top_k` likeliest tokens [..., k]; None where these are all."""
    return None if top_k is None or top_k >= student.shape[-1] else top(student.detach(), top_k)


def _overlap(support: Tensor | None, teacher_logits: Tensor) -> Tensor:
    """Share [...] of the `support` tokens [..., k] that are among the teacher's k most likely ones."""
    if support is None:
        return teacher_logits.new_ones(teacher_logits.shape[:-1])
    least = teacher_logits.gather(-1, top(teacher_logits, support.shape[-1])).amin(-1, keepdim=True)
    return (teacher_logits.gather(-1, support) >= least).to(teacher_logits.dtype).mean(-1)


def _restrict(logits: Tensor, support: Tensor, add_tail: bool, spend: bool) -> Tensor:
    """Logits of the `support` tokens [..., k], and of all others together if `add_tail`, [..., k + 1].

    The others are summed by themselves: 1 - the support's mass would cancel where that mass is near 1.
    """
    return _WithTail.apply(logits, support, spend) if add_tail else logits.gather(-1, support)


class _WithTail(torch.autograd.Function):
    """The logits of a support [..., k] and the logarithm of all others' summed exponentials, in one scratch copy.

    With `spend` the logits' own memory is that scratch, and then the gradient's.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, support: Tensor, spend: bool) -> Tensor:
        kept = logits.gather(-1, support)
        rest = (logits.detach() if spend else logits.clone()).scatter_(-1, support, -torch.inf)
        largest = rest.amax(-1, keepdim=True)
        rest.sub_(largest.masked_fill(largest == -torch.inf, 0.0)).exp_()
        mass = rest.sum(-1, keepdim=True)
        ctx.save_for_backward(rest, mass, support)
        ctx.spend = spend
        return torch.cat([kept, mass.log() + largest], dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rest, mass, support = ctx.saved_tensors
        of_kept, tail = gradient.tensor_split([support.shape[-1]], dim=-1)
        share = (tail / mass).masked_fill(mass == 0, 0.0)
        return (rest.mul_(share) if ctx.spend else rest * share).scatter_(-1, support, of_kept), None, None


def _jensen_shannon(log_student: Tensor, log_teacher: Tensor, alpha: float) -> Tensor:
    if alpha == 0:
        return _kl(log_teacher, log_student)
    if alpha == 1:
        return _kl(log_student, log_teacher)
    # Where both are 0, so is their mixture; logaddexp has no gradient there, so it must not see them.
    impossible = (log_student == -torch.inf) & (log_teacher == -torch.inf)
    log_mixture = torch.logaddexp(
        log_student.masked_fill(impossible, 0.0) + math.log1p(-alpha),
        log_teacher.masked_fill(impossible, 0.0) + math.log(alpha),
    )
    return (1 - alpha) * _kl(log_student, log_mixture) + alpha * _kl(log_teacher, log_mixture)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), summed over the last dimension; where p is 0 it adds 0, whatever q is."""
    p = log_p.exp()
    support = p > 0
    return (p * (torch.where(support, log_p, 0.0) - torch.where(support, log_q, 0.0))).sum(-1)


def _check(student_logits: Tensor, teacher_logits: Tensor, alpha: float, top_k: int | None) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student logits {tuple(student_logits.shape)} and teacher logits {tuple(teacher_logits.shape)} "
            "differ in shape: score the same tokens of the same vocabulary with both"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} is not within 0 (forward KL) to 1 (reverse KL): use e.g. 0.5")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k {top_k} is below 1: use e.g. 100, or none for the whole vocabulary")
