"""What to do where memory runs out: the same in smaller parts."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

from opcod.memory import give_back_freed_memory

T = TypeVar("T")


def halved_where_full(
    work: Callable[[int], T], size: int, *, setting: str, parameters: Sequence[nn.Parameter] = ()
) -> T:
    """`work(size)`; where that runs out of memory, it is started over with half the size, once.

    Args:
        work: Its result must not depend on the size, but for rounding.
        size: Of what it holds in memory at a time.
        setting: What the size is called in a config, for the warning.
        parameters: Whose gradients `work` adds to; they begin again from what they were.

    Raises:
        RuntimeError, MemoryError: If that does not fit either, or for any other reason.
    """
    gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
    try:
        return work(size)
    except (RuntimeError, MemoryError) as error:
        if size < 2 or not is_out_of_memory(error):
            raise
    # Only here have the frames in which it failed, and their tensors, been let go.
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(
        f"out of memory with {setting} at {size}: this is done again with {size // 2}; set it to that, so that no step "
        "is begun in vain",
        stacklevel=2,
    )
    return work(size // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had, by torch on a GPU or from the system, or by Python."""
    if isinstance(error, RuntimeError):
        return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError)
