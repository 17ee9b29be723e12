"""Logits [N, V] over a whole vocabulary, a few rows at a time: what a CPU computes of them stays in its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_CACHED = 1 << 20  # logits that are worked on at once on a CPU: 4 MiB in float32
_GROUP = 8


class RowByRow(torch.autograd.Function):
    """Differentiates in the forward pass: each row's first value depends on its own hidden state alone.

    `function` takes the logits that `head` makes of some rows' `hidden`, and these rows of the `others`, which are
    logits or tokens. Logits are copies in float32, or float64, which it may overwrite.
    """

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[..., tuple[Tensor, ...]],
        head: Callable[[Tensor], Tensor],
        hidden: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            hidden = hidden.detach().requires_grad_()
            logits = head(hidden)
            of_logits = torch.empty_like(logits)
            parts = []
            for gradient, some, *rest in _copies(of_logits, logits.detach(), *others):
                some.requires_grad_()
                values, *kept = function(some, *rest)
                gradient.copy_(torch.autograd.grad(values.sum(), some)[0])
                parts.append((values.detach(), *kept))
            (of_hidden,) = torch.autograd.grad(logits, hidden, of_logits)
        ctx.save_for_backward(of_hidden)
        ctx.others = len(others)
        values, *kept = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
        ctx.mark_non_differentiable(*kept)
        return (values, *kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return None, None, (gradients[0].unsqueeze(-1) * gradient).to(gradient.dtype), *[None] * ctx.others


def _copies(kept: Tensor, *inputs: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Some rows of all at a time; those of `kept` itself, and copies of logits [N, V] that are overwritten by the next.

    On a CPU they are as many as its cache holds; elsewhere one pass over all rows is fastest.
    """
    rows = max(_CACHED // kept.shape[-1], 1) if kept.device.type == "cpu" else max(len(kept), 1)
    copies = [torch.empty_like(i[:rows], dtype=_wide(i)) if i.is_floating_point() else None for i in inputs]
    for start in range(0, max(len(kept), 1), rows):
        some = [i[start : start + rows] for i in inputs]
        yield (
            kept[start : start + rows],
            *(i if c is None else c[: len(i)].detach().copy_(i) for i, c in zip(some, copies, strict=True)),
        )


def widened(logits: Tensor) -> Tensor:
    """In float32, or float64."""
    return logits.to(_wide(logits))


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def top(logits: Tensor, k: int) -> Tensor:
    """Indices [..., k] of the largest logits [..., V].

    On a CPU, groups of them are compared by their largest first: these are in the k groups whose own are largest.
    """
    size, rest = divmod(logits.shape[-1], _GROUP)
    if rest or size < _GROUP * k // 2 or logits.device.type != "cpu":
        return logits.topk(k, dim=-1, sorted=False).indices
    groups = logits.unflatten(-1, (_GROUP, size))  # far from each other, so that maxima are taken of whole vectors
    best = top(groups.amax(-2), k)
    some = groups.gather(-1, best.unsqueeze(-2).expand(*best.shape[:-1], _GROUP, k)).flatten(-2)
    found = some.topk(k, dim=-1, sorted=False).indices
    return found // k * size + best.gather(-1, found % k)
