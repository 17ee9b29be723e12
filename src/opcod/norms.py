"""A root-mean-square norm whose backward pass goes over its input half as often; its values are the model's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def fuse_norm(norm: nn.Module) -> None:
    """Let a norm x w / sqrt(mean(x x) + eps), or one with 1 + w, differentiate by `RmsNorm`.

    Which it is, if any, is found by its gradients; norms of other kinds are left as they are.
    """
    eps = vars(norm).get("variance_epsilon", vars(norm).get("eps"))
    weight = norm._parameters.get("weight")
    if not (type(norm).__name__.endswith("RMSNorm") and isinstance(eps, float) and weight is not None):
        return
    if "forward" in vars(norm) or weight.ndim != 1 or weight.is_meta:
        return
    for offset in (0.0, 1.0):
        if _alike(norm, weight, offset, eps):
            vars(norm)["forward"] = _Fused(norm, offset, eps)
            return


def _alike(norm: nn.Module, weight: Tensor, offset: float, eps: float) -> bool:
    """Whether `RmsNorm` has the norm's gradients, and thus differentiates what the norm computes."""
    with torch.enable_grad(), torch.autocast(weight.device.type, enabled=False):
        states = torch.arange(2.0 * len(weight), device=weight.device).square_().sin_().add_(0.5)
        states = states.view(2, -1).requires_grad_()
        outs = RmsNorm.apply(states, weight, norm, offset, eps), norm(states)
        ours, theirs = (torch.autograd.grad(out.cos().sum(), states)[0] for out in outs)
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


class _Fused:
    """`forward` of a norm [..., n] -> [..., n]."""

    def __init__(self, norm: nn.Module, offset: float, eps: float) -> None:
        self.norm, self.offset, self.eps = norm, offset, eps

    def __call__(self, states: Tensor) -> Tensor:
        weight: Any = self.norm.weight
        if torch.is_grad_enabled() and states.requires_grad and not weight.requires_grad:
            return RmsNorm.apply(states, weight, self.norm, self.offset, self.eps)
        return type(self.norm).forward(self.norm, states)


class RmsNorm(torch.autograd.Function):
    """What `norm` makes of states [..., n], with a gradient to them alone.

    Args:
        states: x.
        weight: w [n], which is frozen.
        norm: A module that computes x (offset + w) / sqrt(mean(x x) + eps).
        offset: 0 or 1.
        eps: A number.

    Returns:
        [..., n].
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, norm: nn.Module, offset: float, eps: float) -> Tensor:
        ctx.save_for_backward(states, weight)
        ctx.offset, ctx.eps = offset, eps
        return type(norm).forward(norm, states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        dtype = torch.promote_types(states.dtype, torch.float32)
        x, g = states.to(dtype), gradient.to(dtype, copy=True).mul_(weight.to(dtype) + ctx.offset)
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1] + ctx.eps).rsqrt_()
        along = (g * x).mean(-1, keepdim=True) * scale**3
        return g.mul_(scale).addcmul_(x, along, value=-1).to(states.dtype), None, None, None, None
