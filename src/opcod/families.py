"""What transformers' model families do differently: what their layers cache, and whether opcod can go by that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from opcod.halving import is_out_of_memory
from opcod.models import ModelError, first_line
from opcod.prefixes import left_padded, positions

if TYPE_CHECKING:
    from opcod.peers import SharedBase

FOREIGN = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model's own code may raise where it is run in a way that it was not written for."""
_BEHIND = (
    "{} does not go on from what it has read, behind padding, as opcod would have it{}. Please report the model, or "
    "take another: Llama, Qwen, Mistral, Gemma, Granite and Cohere work."
)


@dataclass(frozen=True)
class Family:
    """How a model's layers read.

    Args:
        takes_attention: They call whatever attention they are told to, with the keys and values that they cache.
        minds_gaps: Some keep no more than the last tokens, or a state, which padding after these would enter.
        goes_on: All go on from what they cached, many tokens at a time and as often as they are computed.
    """

    takes_attention: bool
    minds_gaps: bool
    goes_on: bool


def family_of(model: PreTrainedModel) -> Family:
    """How the layers of `model` read."""
    config = model.config.get_text_config()
    latent = getattr(config, "kv_lora_rank", None) is not None  # DeepSeek caches others than it attends to
    borrowed = bool(getattr(config, "num_kv_shared_layers", None))  # Gemma 3n's last layers attend to others' keys
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    return Family(
        takes_attention=bool(model.is_backend_compatible()) and not latent and not borrowed,
        minds_gaps=kinds != {DynamicLayer},
        goes_on=not borrowed and kinds <= {DynamicLayer, DynamicSlidingWindowLayer},
    )


def check(base: SharedBase) -> None:
    """That a model is read as its own code reads it, and that its adapters leave embeddings and head alone.

    Raises:
        ModelError: If it is not, or they do not.
    """
    _check_adapted(base)
    _check_head(base)
    try:
        same = _decodes(base) and (not base.family.goes_on or _goes_on(base))
    except FOREIGN as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(_BEHIND.format(_name(base), f": {first_line(error)}")) from error
    if not same:
        raise ModelError(_BEHIND.format(_name(base), ""))


def _check_adapted(base: SharedBase) -> None:
    """That no adapter changes the output head, nor the embeddings, which in many models are the head."""
    model = base.loaded.model
    embeds = any(
        isinstance(m, BaseTunerLayer) and isinstance(m.get_base_layer(), nn.Embedding) for m in model.modules()
    )
    if embeds or isinstance(model.get_output_embeddings(), BaseTunerLayer):
        reached = "the embeddings" if embeds else "the output head"
        raise ModelError(
            f"lora.target_modules {base.lora.target_modules!r} reach {reached}, which all roles share: "
            "name linear layers without the head, or take all-linear."
        )


def _check_head(base: SharedBase) -> None:
    """That `head(hidden(x))` is what the model family itself computes."""
    model = base.loaded.model
    ids = torch.arange(8, device=base.device)[None] + 1
    try:
        with base.bare():
            ours = base.head(base.hidden(ids)[0])
            theirs = model(input_ids=ids, use_cache=False).logits[0].float()
    except FOREIGN as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{_name(base)} does not run with adapters of lora.target_modules {base.lora.target_modules!r}: "
            f"{first_line(error)}. Name other linear layers, or take another model."
        ) from error
    if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * theirs.abs().max().item()):
        raise ModelError(
            f"{_name(base)} turns hidden states into logits in a way that opcod does "
            "not know. Please report the model; Llama, Qwen, Mistral, Gemma, Granite and Cohere work."
        )


def _decodes(base: SharedBase) -> bool:
    """Whether a token behind a cache is read as in one pass, with padding before the first one, too."""
    config = base.loaded.model.config
    words = _words(base)
    ids, mask = left_padded([words[:8], words[8:]], base.device)
    places = positions(mask)
    cache = DynamicCache(config=config)
    with base.bare():
        whole = torch.cat([base.hidden(row[seen.bool()][None])[:, -1] for row, seen in zip(ids, mask, strict=True)])
        alone = base.hidden(ids[:, -1:])[:, 0]
        base.hidden(ids[:, :-1], attention_mask=mask[:, :-1], position_ids=places[:, :-1], cache=cache)
        behind = base.hidden(ids[:, -1:], attention_mask=mask, position_ids=places[:, -1:], cache=cache)[:, 0]
    return _alike(behind, whole, alone)


def _goes_on(base: SharedBase) -> bool:
    """Whether many tokens behind a cache are read as in one pass."""
    ids = torch.tensor([_words(base)], device=base.device)
    places = torch.arange(ids.shape[1], device=base.device)[None]
    cache = DynamicCache(config=base.loaded.model.config)
    with base.bare():
        whole, alone = base.hidden(ids)[0, 4:], base.hidden(ids[0, 4:, None])[:, 0]
        base.hidden(ids[:, :4], position_ids=places[:, :4], cache=cache)
        behind = base.hidden(ids[:, 4:], position_ids=places[:, 4:], cache=cache)[0]
    return _alike(behind, whole, alone)


def _words(base: SharedBase) -> tuple[int, ...]:
    """A short text of tokens from all over the vocabulary."""
    size = base.loaded.model.config.get_text_config().vocab_size
    return tuple(torch.linspace(0.1, 0.9, 13).mul(size).long().tolist())


def _alike(found: Tensor, expected: Tensor, alone: Tensor) -> bool:
    """Whether hidden states are far closer to what they should be than those of tokens read without any before them."""
    error, context = ((expected - other).float().norm() for other in (found, alone))
    return bool(error <= 0.5 * context)  # rounding, and experts that are chosen by a hair, do far less


def _name(base: SharedBase) -> str:
    return type(base.loaded.model).__name__
