"""Grpo: the baseline that learns from right and wrong alone, group-relative policy optimisation.

As the paper ran it: no division by the standard deviation, no KL term, no critic, token-level importance weights that
are truncated at 2 (section 1, Baselines).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from opcod.attempts import Attempt
from opcod.data.loaders import StepBatch
from opcod.losses import clip_importance, hidden_log_probs
from opcod.matching import Average, Size, faults_of, scored_together, token_weights
from opcod.peers import Peer
from opcod.records import Clock, Figure, Mean, StepRecord, Sum
from opcod.rollout import Sampling
from opcod.scoring import over_micro_batches, response_hidden, response_tokens
from opcod.students import Student, Students
from opcod.tutoring import no_feedback


@dataclass(frozen=True)
class PolicyGradient:
    """The policy-gradient loss of a step.

    Args:
        importance_limit: Weight tokens by min(exp(logp now - logp at rollout), this); not at all without it.
        average: Mean over a response's tokens, then over `responses`; or over all `tokens`.
        micro_batch_tokens: Most tokens, padding included, in one forward and backward pass.
        chunk_tokens: Response tokens whose logits over the whole vocabulary exist at once.
        share_prefixes: Read what the prompts of one question's responses begin with once; see `Matching`.
    """

    importance_limit: float | None = 2.0
    average: Average = "responses"
    micro_batch_tokens: int = 8192
    chunk_tokens: int = 256
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("micro_batch_tokens", "chunk_tokens")}
        if faults := faults_of(self.importance_limit, **counts):
            raise ValueError("policy_gradient: " + "; ".join(faults))


class Grpo(Students):
    """Every student by itself learns to give the responses that were better than its others to the same question.

    Args:
        students: With different names; they do not meet.
        samples: n, responses to each question of a step; the group.
        rollout: How they are sampled.
        policy_gradient: The loss.
        **training: What `Students` takes.
    """

    def __init__(
        self,
        students: list[Student],
        samples: int = 8,
        rollout: Sampling = Sampling(max_new_tokens=4096),
        policy_gradient: PolicyGradient = PolicyGradient(),
        **training: Any,
    ) -> None:
        super().__init__(students, **training)
        if samples < 2:
            raise ValueError(f"samples is {samples}, expected at least 2: a response is compared with its group")
        self.samples = samples
        self.rollout = rollout
        self.policy_gradient = policy_gradient

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One step: rollout, grade, advantage, update."""
        tutee = self.tutee(batch)
        clock = Clock()
        with clock.of("rollout"):
            groups = self.roll_out(tutee, batch, samples=self.samples, sampling=self.rollout)
        attempts = [a for group in groups for a in group]
        with clock.of("reinforce"):
            gained = group_advantages(torch.tensor([float(a.grade.correct) for a in attempts]).view(-1, self.samples))
            size, contrasted = self._size(attempts, gained)
            loss = reinforce(
                tutee, attempts, gained.flatten().tolist(), self.policy_gradient, self.manual_backward, size
            )
            if loss is None and contrasted:
                loss = 0.0  # other ranks have something to learn from
        with clock.of("update"):
            _, norm = self.update(tutee, loss)
        who = f"train/{tutee.name}"
        record = StepRecord(batch, tutee.name, "", frozenset(), groups, no_feedback(groups), [])
        figures: dict[str, Figure] = {f"{who}/contrasted": Mean(int((gained != 0).sum()), gained.numel())}
        if loss is not None:
            figures[f"{who}/loss"] = Sum(loss)
        clock.count("rollout", sum(len(a.response.tokens) for a in attempts))
        self.keep(record, clock, norm, figures)

    def _size(self, attempts: Sequence[Attempt], gained: Tensor) -> tuple[Size, float]:
        """What the loss is a mean over, and how many responses have an advantage, on all ranks."""
        tokens = sum(len(a.response.tokens) for a in attempts)
        *size, contrasted = self.ranks.total(len(attempts), tokens, int((gained != 0).sum()))
        return Size(*size), contrasted


def group_advantages(rewards: Tensor) -> Tensor:
    """A_j = r_j - the mean reward of its group, not divided by their standard deviation.

    Args:
        rewards: [questions, n], of the n responses to each question.

    Returns:
        Of the same shape; 0 where a group's responses are all right or all wrong.
    """
    return rewards - rewards.mean(dim=-1, keepdim=True)


def reinforce(
    tutee: Peer,
    attempts: Sequence[Attempt],
    advantages: Sequence[float],
    settings: PolicyGradient,
    backward: Callable[[Tensor], None],
    size: Size | None = None,
) -> float | None:
    """Accumulate the gradient of -mean A_j w_t log p(y_j,t) over all attempts of a step, whatever the micro-batches.

    Attempts without an advantage count in the mean, but cost no pass.

    Args:
        tutee: The student.
        attempts: Its responses on this rank, those to one question side by side.
        advantages: A_j, of each.
        settings: The loss.
        backward: Called with each micro-batch's share of the loss.
        size: Of the whole step; by default that of these attempts.

    Returns:
        The loss; None where no attempt has an advantage.
    """
    chosen = [i for i, advantage in enumerate(advantages) if advantage != 0]
    if not chosen:
        return None
    kept = [attempts[i] for i in chosen]
    size = size or Size(len(attempts), sum(len(a.response.tokens) for a in attempts))
    weights = token_weights([len(a.response.tokens) for a in kept], size, settings.average)
    weighted = [advantages[i] * weight for i, weight in zip(chosen, weights, strict=True)]
    share = settings.share_prefixes and tutee.base.family.goes_on
    sequences = scored_together(kept, [a.prompt for a in kept], [a.question.id for a in kept] if share else None)

    def micro_batch(rows: list[int]) -> float:
        """Its share of the loss."""
        micro = [sequences[i] for i in rows]
        with tutee.using("student", train=True):
            log_probs = hidden_log_probs(
                response_hidden(tutee.base, micro),
                response_tokens(micro, tutee.base.device),
                tutee.base.narrow_head,
                chunk_tokens=settings.chunk_tokens,
            )
            per_token = -log_probs * torch.cat([weighted[i] for i in rows]).to(log_probs.device)
            if settings.importance_limit is not None:
                old = torch.cat([kept[i].response.log_probs for i in rows]).to(log_probs.device)
                per_token = clip_importance(per_token, log_probs, old, limit=settings.importance_limit)
            loss = per_token.sum()
            backward(loss)
        return float(loss.detach())

    return sum(over_micro_batches(sequences, settings.micro_batch_tokens, tutee.parameters(), micro_batch))
