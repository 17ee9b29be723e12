"""A linear layer with its low-rank adapter, x W' + s (x A') B', in no more passes over its output than products.

peft computes the same, and scales and adds up in passes of their own, forwards and backwards.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn


def fuse_low_rank(layer: nn.Module) -> None:
    """Let an adapted linear layer compute its output by `LowRankLinear` wherever that is what peft would compute.

    Layers of other kinds, such as those whose weights are packed in 4 bits, are left to peft. opcod's adapters have
    neither dropout nor a bias (`peers.Lora.config`), and `LowRankLinear` has none.
    """
    if type(layer) is Linear and type(layer.get_base_layer()) is nn.Linear:
        vars(layer)["forward"] = _Fused(layer)


class _Fused:
    """`forward` of an adapted linear layer [..., in] -> [..., out]."""

    def __init__(self, layer: Linear) -> None:
        self.layer = layer

    def __call__(self, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer, active = self.layer, self.layer.active_adapters
        if layer.disable_adapters and not (args or kwargs or layer.merged):
            return layer.get_base_layer()(states)
        if args or kwargs or layer.disable_adapters or layer.merged or len(active) != 1 or layer.lora_variant:
            return type(layer).forward(layer, states, *args, **kwargs)
        base, name = layer.get_base_layer(), active[0]
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return LowRankLinear.apply(states, base.weight, base.bias, a, b, layer.scaling[name])


class LowRankLinear(torch.autograd.Function):
    """F.linear(x, W, bias) + scaling * F.linear(F.linear(x, A), B); gradients go to x, A and B, the rest is frozen.

    Computed in the numbers of W; the gradients of A and B are in theirs.

    Args:
        states: x [..., in].
        weight: W [out, in].
        bias: [out], or None.
        a: A [rank, in].
        b: B [out, rank].
        scaling: A number.

    Returns:
        [..., out].
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        x = states.reshape(-1, states.shape[-1]).to(weight.dtype)
        down = x @ a.to(x.dtype).T
        out = F.linear(x, weight, bias)
        torch.addmm(out, down, b.to(x.dtype).T, alpha=scaling, out=out)
        ctx.save_for_backward(x, down, weight, a, b)
        ctx.scaling, ctx.dtype = scaling, states.dtype
        return out.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, down, weight, a, b = ctx.saved_tensors
        g = gradient.reshape(-1, gradient.shape[-1]).to(x.dtype)
        of_down = (g @ b.to(x.dtype)) * ctx.scaling
        of_states = of_a = of_b = None
        if ctx.needs_input_grad[0]:
            of_states = of_down @ a.to(x.dtype)
            torch.addmm(of_states, g, weight, out=of_states)
            of_states = of_states.view(*gradient.shape[:-1], -1).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            of_a = (of_down.T @ x).to(a.dtype)
        if ctx.needs_input_grad[4]:
            of_b = ((down * ctx.scaling).T @ g).T.to(b.dtype)  # a third faster than g.T @ down
        return of_states, None, None, of_a, of_b, None
