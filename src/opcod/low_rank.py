"""A linear layer with its low-rank adapter, x W' + s (x A') B', in no more passes over its output than products.

peft computes the same, and scales and adds up in passes of their own, forwards and backwards.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import bnb
from peft.tuners.lora.layer import Linear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

_KINDS: set[tuple[type, type]] = {(Linear, nn.Linear), (bnb.Linear4bit, Linear4bit)}
"""peft's kind of layer, and what it lies over."""


def fuse_low_rank(layer: nn.Module) -> None:
    """Let an adapted linear layer compute its output by `LowRankLinear` wherever that is what peft would compute.

    Layers of other kinds than plain ones, or ones that are packed in 4 bits, are left to peft. opcod's adapters have
    neither dropout nor a bias (`peers.Lora.config`), and `LowRankLinear` has none.
    """
    if isinstance(layer, BaseTunerLayer) and (type(layer), type(layer.get_base_layer())) in _KINDS:
        vars(layer)["forward"] = _Fused(layer)


class _Fused:
    """`forward` of an adapted linear layer [..., in] -> [..., out]."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer, active = self.layer, self.layer.active_adapters
        if layer.disable_adapters and not (args or kwargs or layer.merged):
            return layer.get_base_layer()(states)
        if args or kwargs or layer.disable_adapters or layer.merged or len(active) != 1 or layer.lora_variant:
            return type(layer).forward(layer, states, *args, **kwargs)
        base, name = layer.get_base_layer(), active[0]
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return LowRankLinear.apply(states, base, a, b, layer.scaling[name])


class LowRankLinear(torch.autograd.Function):
    """F.linear(x, W, bias) + scaling * F.linear(F.linear(x, A), B); gradients go to x, A and B, the rest is frozen.

    Computed in the numbers of W, or in those that it is unpacked to; the gradients of A and B are in theirs.

    Args:
        states: x [..., in].
        base: The layer with W [out, in] and the bias [out], if it has one.
        a: A [rank, in].
        b: B [out, rank].
        scaling: A number.

    Returns:
        [..., out].
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, base: nn.Linear, a: Tensor, b: Tensor, scaling: float) -> Tensor:
        x = states.reshape(-1, states.shape[-1]).to(_numbers(base))
        narrow_a, narrow_b = a.to(x.dtype), b.to(x.dtype)
        down = x @ narrow_a.T
        out = _product(x.view(states.shape), base)  # no view of itself: some models write to what a layer returns
        flat = out.view(-1, out.shape[-1])
        torch.addmm(flat, down, narrow_b.T, alpha=scaling, out=flat)
        ctx.save_for_backward(x, down, base.weight, narrow_a, narrow_b)
        ctx.scaling, ctx.dtype, ctx.adapter_dtype = scaling, states.dtype, a.dtype
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, down, weight, a, b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1]).to(x.dtype)
        of_down = _scaled_product(g, b, ctx.scaling)
        of_states = of_a = of_b = None
        if ctx.needs_input_grad[0]:
            of_states = of_down @ a
            torch.addmm(of_states, g, _unpacked(weight, g.dtype), out=of_states)
            of_states = of_states.view(*gradient.shape[:-1], -1).to(ctx.dtype)
        if ctx.needs_input_grad[2]:
            of_a = (of_down.T @ x).to(ctx.adapter_dtype)
        if ctx.needs_input_grad[3]:
            of_b = _scaled_product(down.T, g, ctx.scaling).T.to(ctx.adapter_dtype)  # a third faster than g.T @ down
        return of_states, None, of_a, of_b, None


def _scaled_product(a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """scaling * (a @ b), in one pass."""
    return torch.addmm(a.new_empty(1, 1), a, b, beta=0, alpha=scaling)


def _numbers(base: nn.Linear) -> torch.dtype:
    return base.compute_dtype if isinstance(base, Linear4bit) else base.weight.dtype


def _product(x: Tensor, base: nn.Linear) -> Tensor:
    """x W' + bias; few rows at a time are multiplied by packed weights without unpacking them."""
    if not isinstance(base, Linear4bit):
        return F.linear(x, base.weight, base.bias)
    bias = None if base.bias is None else base.bias.to(x.dtype)
    weight: Any = base.weight
    product: Tensor = matmul_4bit(x, weight, weight.quant_state, bias=bias)
    return product


def _unpacked(weight: Tensor, dtype: torch.dtype) -> Tensor:
    state = getattr(weight, "quant_state", None)
    return weight if state is None else dequantize_4bit(weight, state).to(dtype)
