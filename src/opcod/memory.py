"""How the C library hands out memory: tensors of a step are freed and wanted again within milliseconds."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_KEPT = (1 << 31) - 1  # the most that mallopt's int holds


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors, up to 2 GiB, rather than give it back page by page.

    Fetching it anew cost 15-20 % of a training step of a 135M model on two cores. Elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, which has no such settings
        return
    for setting, value in ((_M_MMAP_THRESHOLD, _KEPT), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 1 << 28)):
        mallopt(setting, value)
