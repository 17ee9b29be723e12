"""Weights laid out for oneDNN once, rather than at every product with them, for sampling on a CPU in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

ROWS = 32
"""For products with about so many rows the layout is chosen; it serves any number."""


def can_prepack(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by this weight natively, and torch has the operations its compiler does so with."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


@contextlib.contextmanager
def prepacked(layers: Iterable[nn.Linear]) -> Iterator[None]:
    """Let `layers` multiply by a copy of their weights in oneDNN's own layout, as these are now; no gradient flows.

    Layers of other numbers, or on another device, are left as they are.
    """
    plain = [layer for layer in layers if type(layer) is nn.Linear and "forward" not in vars(layer)]
    changed = [layer for layer in plain if can_prepack(layer.weight)]
    try:
        for layer in changed:
            vars(layer)["forward"] = _Prepacked(layer)
        yield
    finally:
        for layer in changed:
            vars(layer).pop("forward", None)


class _Prepacked:
    """`forward` of a linear layer [..., in] -> [..., out]."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.data, ROWS)
        self.bias = layer.bias
        self.dtype = layer.weight.dtype

    def __call__(self, states: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(states.to(self.dtype), self.weight, self.bias, "none", [], "")
