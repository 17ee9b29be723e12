"""Layers that are computed again in the backward pass, instead of having their activations kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from opcod.models import ModelError


@contextlib.contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Keep no more of the layers of `model` than what they take, for passes forward and backward within the block.

    Unlike transformers' own switch it hands them the cache: whoever gives one sees to it that a layer can be computed
    again (`prefixes.ReplayedCache`).

    Raises:
        ModelError: If transformers marks none of the layers as one that may be computed again.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ModelError(f"{type(model).__name__} cannot recompute activations: set `checkpoint_activations` to false")
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:  # in eval mode, without dropout: there is no random state to keep
            again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            vars(layer)["forward"] = again
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                vars(layer)["forward"] = forward
