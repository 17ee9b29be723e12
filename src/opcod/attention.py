"""Attention for a CPU, in plain matrix products and without repeated keys and values.

Where several query heads share a key-value head, their queries stand under one another in one product; transformers'
own `eager` and `sdpa` copy the keys and values for every one of them first, at every decoded token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "opcod_grouped"
"""The name under which transformers knows it."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' attention interface defines it.

    Args:
        module: The calling layer; not used.
        query: [B, heads, T, D].
        key: [B, key-value heads, S, D].
        value: [B, key-value heads, S, D].
        attention_mask: [B, 1, T, S], added to the scores; None where everything is seen.
        scaling: Of the scores; 1 / sqrt(D) by default.
        dropout: Must be 0, so that a pass can be repeated exactly.
        softcap: Scores are bent to stay within it (Gemma 2).
        s_aux: Attention sinks, which are not supported.

    Returns:
        [B, T, heads, D], and no attention weights.

    Raises:
        ValueError: For dropout or sinks.
    """
    if dropout or s_aux is not None:
        raise ValueError("this model's attention has dropout or sinks: set the base model's `attention` to `sdpa`")
    batch, heads, queries, size = query.shape
    shared = key.shape[1]
    grouped = query.reshape(batch, shared, heads // shared * queries, size)
    scores = grouped @ key.transpose(2, 3) * (size**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores.view(batch, shared, heads // shared, queries, -1) + attention_mask[:, :, None]
        scores = scores.view(batch, shared, heads // shared * queries, -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).view(batch, heads, queries, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
