"""How the C library hands out memory: tensors of a step are freed and wanted again within milliseconds.

The command line imports this at once, so it does without torch.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import cast

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
    4.2 GiB when this is done after every step, which makes a step fetch its memory anew. Scoring leaves gaps as well.
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
