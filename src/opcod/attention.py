"""The ways of attention that opcod adds to transformers': in plain products, and behind what was read before.

`opcod_grouped`, in plain matrix products without repeated keys and values, is for a CPU, and for sampling anywhere.

Where several query heads share a key-value head, their queries stand under one another in one product; transformers'
own `eager` and `sdpa` copy the keys and values for every one of them first, at every decoded token. Where several
responses share what they begin with (`decoding.SharedCache`), so do theirs.

`opcod_causal`, for a GPU, is `sdpa`, whose fast kernels take no mask: it gives them none where tokens without padding
go on from keys that were read before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from opcod.decoding import WHOLE, SharedCache

GROUPED, CAUSAL = "opcod_grouped", "opcod_causal"
"""The names under which transformers knows them."""

_decoded: ContextVar[SharedCache | None] = ContextVar("decoded", default=None)


@contextlib.contextmanager
def decoding_with(cache: SharedCache) -> Iterator[None]:
    """Let attention fetch from `cache` what rows share, as long as the block lasts.

    Not an argument of the model's, since not every model hands those on to its layers.
    """
    token = _decoded.set(cache)
    try:
        yield
    finally:
        _decoded.reset(token)


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
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' attention interface defines it.

    Args:
        module: The calling layer; within `decoding_with` its rows may share P keys and values before the S given ones.
        query: [B, heads, T, D].
        key: [B, key-value heads, S, D].
        value: [B, key-value heads, S, D'], D' being D but in models with latent attention (DeepSeek).
        attention_mask: [B, 1, T, P + S], added to the scores; None where everything is seen.
        scaling: Of the scores; 1 / sqrt(D) by default.
        dropout: Must be 0, so that a pass can be repeated exactly.
        softcap: Scores are bent to stay within it (Gemma 2).
        s_aux: [heads] scores of attention sinks, which take weight and give nothing (GPT-OSS).
        settings: What other implementations may need.

    Returns:
        [B, T, heads, D'], and no attention weights.

    Raises:
        ValueError: For dropout, and for models that choose some of the keys.
    """
    _refuse_choices(settings)
    if dropout:
        raise ValueError("this model's attention has dropout: set the base model's `attention` to `sdpa`")
    batch, heads, queries, size = query.shape
    kept = key.shape[1]
    scaled = query * (size**-0.5 if scaling is None else scaling)
    grouped = scaled.reshape(batch, kept, heads // kept * queries, size)
    cache = _decoded.get()
    prefix = None if cache is None else cache.prefix_of(module.layer_idx)  # type: ignore[arg-type]
    if attention_mask is not None and prefix is None and queries > 1:
        key, value, attention_mask = _in_whole_vectors(key, value, attention_mask)
    scores = grouped @ key.transpose(2, 3)
    if prefix is not None:
        groups, keys, values = prefix
        common = groups.unstack(groups.stack(grouped) @ keys.transpose(2, 3))
        scores = torch.cat([common, scores], -1)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores.view(batch, kept, heads // kept, queries, -1) + attention_mask[:, :, None]
        scores = scores.view(batch, kept, heads // kept * queries, -1)
    if s_aux is not None:
        sinks = s_aux.to(scores.dtype).view(kept, -1, 1).expand(batch, kept, heads // kept, queries)
        scores = torch.cat([scores, sinks.reshape(batch, kept, -1, 1)], -1)
    weights = scores.softmax(-1).to(value.dtype)  # summed up in float32 whatever the numbers of the scores
    if s_aux is not None:
        weights = weights[..., :-1]
    if prefix is not None:
        on_common, weights = weights.tensor_split([keys.shape[2]], -1)
        out = groups.unstack(groups.stack(on_common) @ values) + weights @ value
    else:
        out = weights @ value
    return out.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous(), None


def _in_whole_vectors(key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With more keys that nobody sees, where few make whole vectors of them (`decoding.WHOLE`)."""
    spare = -key.shape[2] % WHOLE
    on_cpu = key.device.type in ("cpu", "meta")  # the meta device is planned with as a CPU
    if spare > WHOLE // 2 or not spare or not on_cpu:
        return key, value, mask
    return F.pad(key, (0, 0, 0, spare)), F.pad(value, (0, 0, 0, spare)), F.pad(mask, (0, spare), value=-torch.inf)


def _refuse_choices(settings: Mapping[str, Any]) -> None:
    """Refuse a model that leaves it to attention to see only the keys that it names (DeepSeek 3.2, MiniMax M3)."""
    if chosen := [name for name, value in settings.items() if name.endswith("indices") and value is not None]:
        raise ValueError(f"this model attends to {chosen[0]} alone: set the base model's `attention` to `sdpa`")


def causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """As transformers' `sdpa`, where no mask means that every query sees all keys but those of the queries after it.

    Args:
        module: The calling layer.
        query: [B, heads, T, D], the last T of S.
        key: [B, key-value heads, S, D].
        value: [B, key-value heads, S, D].
        attention_mask: [B, 1, T, S], or None.
        settings: See transformers' attention interface.

    Returns:
        [B, T, heads, D], and no attention weights.

    Raises:
        ValueError: For models that choose some of the keys.
    """
    _refuse_choices(settings)
    if attention_mask is None and 1 < query.shape[2] < key.shape[2] and getattr(module, "is_causal", True):
        attention_mask = causal_lower_right(query.shape[2], key.shape[2])
        if torch.is_autocast_enabled(query.device.type):  # whose casts that mask goes around
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    attended: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)[0]
    return attended, None


def causal_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **settings: Any,
) -> Tensor | None:
    """The mask of `causal_attention`, as transformers' mask interface defines it: None where it can do without."""
    last = kv_offset == 0 and q_offset + q_length == kv_length
    everywhere = attention_mask is None and (local_size is None or kv_length < local_size)
    if last and everywhere and allow_is_causal_skip:
        return None
    made: Tensor | None = sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        **settings,
    )
    return made


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
AttentionInterface.register(CAUSAL, causal_attention)
AttentionMaskInterface.register(CAUSAL, causal_mask)
