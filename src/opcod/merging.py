"""An adapter added to the weights it lies on, for as long as responses are sampled from both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from torch import Tensor, nn


def can_merge(layer: Any, *, unpack: bool) -> bool:
    """Whether the weight below an adapted layer is a plain one, or a packed one that may be unpacked."""
    weight = getattr(layer.get_base_layer(), "weight", None)  # experts in one tensor have none of this name
    return type(weight) is nn.Parameter or (unpack and isinstance(weight, Params4bit))


@contextlib.contextmanager
def merged(layers: Sequence[Any], name: str, dtype: torch.dtype) -> Iterator[None]:
    """Let the layers below adapted ones compute with W + B A, rounded to W's numbers, as long as the block lasts.

    Args:
        layers: Adapted layers, which `can_merge`.
        name: Of the adapter.
        dtype: What packed weights are unpacked to.
    """
    plain: list[tuple[nn.Parameter, Tensor]] = []
    packed: list[nn.Module] = []
    try:
        with torch.no_grad():
            for layer in layers:
                linear = layer.get_base_layer()
                weight = linear.weight
                if isinstance(weight, Params4bit):
                    unpacked = dequantize_4bit(weight.data, weight.quant_state).to(dtype)
                    vars(linear)["forward"] = _Unpacked(_sum(unpacked, layer, name), linear.bias)
                    packed.append(linear)
                else:
                    plain.append((weight, weight.data))
                    weight.data = _sum(weight.data, layer, name)
        yield
    finally:
        for weight, original in plain:
            weight.data = original
        for linear in packed:
            vars(linear).pop("forward", None)


def _sum(weight: Tensor, layer: Any, name: str) -> Tensor:
    return (weight + layer.get_delta_weight(name)).to(weight.dtype)


class _Unpacked:
    """`forward` of a packed linear layer [..., in] -> [..., out], by its weight unpacked."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, states: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return F.linear(states.to(self.weight.dtype), self.weight, bias)
