"""Memory: how the C library hands it out, as a step's tensors are freed and wanted again within milliseconds; and what
to do when there is none left.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar, cast

import torch
from torch import nn

T = TypeVar("T")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_KEPT = (1 << 31) - 1  # the most that mallopt's int holds


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors, up to 2 GiB, rather than give it back page by page.

    Fetching it anew cost 15-20 % of a training step of a 135M model on two cores. Elsewhere nothing is changed.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        for setting, value in ((_M_MMAP_THRESHOLD, _KEPT), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 1 << 28)):
            mallopt(setting, value)


def give_back_freed_memory() -> None:
    """Return what is free at the moment to the system, once in a while.

    Tensors of other shapes at every step leave gaps behind that nothing fits into: in the demo 5.6 GiB by its end, and
    4.2 GiB when this is done after every step, which took no time that could be measured. Scoring leaves gaps as well.
    """
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


@cache
def _glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, where it is one that has it."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return cast("Callable[..., int]", getattr(ctypes.CDLL(None), name))
    except (OSError, AttributeError):  # another C library
        return None


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
        RuntimeError: If that does not fit either, or for any other reason.
    """
    gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
    try:
        return work(size)
    except RuntimeError as error:
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory, on a GPU or from the system."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
