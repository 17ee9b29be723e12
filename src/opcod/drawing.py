"""Draw one token a row from logits, and tell how likely it was.

Knows nothing about rows or prompts; a uniform number goes in for every token that comes out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 256  # tokens summed at once when a distribution is inverted
_CANDIDATES = 256  # tokens looked at for top-p before the whole vocabulary is sorted


def choose(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `uniform`.

    Args:
        logits: [B, V], of any offset: log-probabilities serve as well.
        uniform: [B] numbers in [0, 1).
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: The likeliest tokens whose probabilities before them sum to less than this are kept.

    Returns:
        [B] token ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    probabilities = scaled.softmax(-1)
    if top_p == 1:
        return _invert(probabilities, uniform)
    values, ids = probabilities.topk(min(_CANDIDATES, probabilities.shape[-1]))
    if bool((values.sum(-1) < top_p).any()):
        values, ids = probabilities.sort(descending=True)
    before = values.cumsum(-1) - values
    kept = torch.where(before < top_p, values, 0)
    return ids.gather(1, _invert(kept, uniform)[:, None])[:, 0]


def drawn(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability [B] of what was chosen, and the distribution's entropy [B], at temperature 1, in nats.

    Args:
        logits: [B, V] in float32.
        chosen: [B] token ids.
    """
    probabilities = logits.softmax(-1)
    log_probs = probabilities.gather(1, chosen[:, None])[:, 0].log()
    normaliser = logits.gather(1, chosen[:, None])[:, 0] - log_probs
    return log_probs, (normaliser - probabilities.mul_(logits).sum(-1)).clamp(min=0)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index [B] at which the cumulative sum of `weights` [B, V] first exceeds `uniform` of its total.

    In two steps, over blocks and then within one: a cumulative sum over a whole vocabulary is slow on a CPU.
    """
    batch, size = weights.shape
    blocks = F.pad(weights, (0, -size % _BLOCK)).view(batch, -1, _BLOCK)
    block, rest = _step(blocks.sum(-1), uniform[:, None], scale=True)
    within, _ = _step(blocks[torch.arange(batch, device=block.device), block], rest, scale=False)
    return block * _BLOCK + within


def _step(weights: Tensor, target: Tensor, *, scale: bool) -> tuple[Tensor, Tensor]:
    """Where the cumulative sum exceeds `target` [B, 1] (of the total, with `scale`), and what is left of it."""
    cumulative = weights.cumsum(-1)
    if scale:
        target = target * cumulative[:, -1:]
    last = (weights > 0).int().cumsum(-1).argmax(-1, keepdim=True)  # should rounding overshoot the end
    index = torch.minimum(torch.searchsorted(cumulative, target, right=True), last)
    left = target - (cumulative.gather(1, index) - weights.gather(1, index))
    return index[:, 0], left.clamp(min=0)
