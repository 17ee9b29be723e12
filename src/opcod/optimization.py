"""How an adapter is optimised: AdamW, its schedule, clipping, and updates that must be skipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup


class DivergedError(RuntimeError):
    """Several updates in a row were not finite."""


@dataclass(frozen=True)
class Optimization:
    """AdamW with warm-up and clipping.

    Args:
        lr: Learning rate after warm-up. Low-rank adapters want one about ten times that of full weights.
        schedule: `constant`, or `cosine` down to zero at the last step.
        warmup: Warm-up steps; below 1 a share of all steps.
        weight_decay: Decoupled weight decay.
        clip: Largest norm of the gradient over all of an adapter's parameters; 0 does not clip.
    """

    lr: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 5
    weight_decay: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        faults = [
            f"{name} is {value}, expected a finite number of at least 0"
            for name in ("lr", "warmup", "weight_decay", "clip")
            if not (math.isfinite(value := getattr(self, name)) and value >= 0)
        ]
        if faults:
            raise ValueError("optimization: " + "; ".join(faults))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> AdamW:
        """An AdamW over an adapter's parameters."""
        return AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def scheduler(self, optimizer: AdamW, steps: int) -> LRScheduler:
        """Its learning-rate schedule over `steps` updates."""
        warmup = math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)
        if self.schedule == "cosine":
            return get_cosine_schedule_with_warmup(optimizer, warmup, steps)
        return get_constant_schedule_with_warmup(optimizer, warmup)

    def take_over(self, optimizer: Any, schedule: Any) -> None:
        """Let these settings hold from here on, whatever the two were made with before a checkpoint restored them.

        Args:
            optimizer: As `optimizer` makes it, perhaps wrapped by Lightning.
            schedule: As `scheduler` makes it.
        """
        (share,) = schedule.lr_lambdas
        schedule.base_lrs = [self.lr] * len(optimizer.param_groups)
        for group in optimizer.param_groups:
            group["initial_lr"], group["weight_decay"] = self.lr, self.weight_decay
            group["lr"] = self.lr * share(schedule.last_epoch)


class UpdateGuard:
    """Skips updates that are not finite, counts them, and stops the run after a few in a row.

    Args:
        patience: Skipped updates in a row after which the run stops.
    """

    def __init__(self, patience: int = 3) -> None:
        self.patience = patience
        self.skipped = 0
        self.in_a_row = 0

    def admits(self, parameters: Sequence[nn.Parameter], loss: float, clip: float) -> tuple[bool, float]:
        """Clip the gradient and decide on the update.

        Returns:
            Whether to update, and the gradient's norm before clipping.

        Raises:
            DivergedError: After `patience` skipped updates in a row.
        """
        norm = float(nn.utils.clip_grad_norm_(parameters, clip if clip > 0 else math.inf))
        if math.isfinite(norm) and math.isfinite(loss):
            self.in_a_row = 0
            return True, norm
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= self.patience:
            raise DivergedError(
                f"{self.in_a_row} updates in a row were not finite (loss {loss}, gradient norm {norm}): lower the "
                "learning rate, or compute in float32"
            )
        return False, norm
