"""What a GPU repeats: its operations captured as one CUDA graph, and launched at once instead of one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache

import torch


class Captured:
    """Work of a fixed shape, recorded so that a GPU can repeat it; recording it does not do it.

    Args:
        work: Reads and writes the same tensors every time, and asks for no number. It has been done once before.
        device: A GPU.
        before: What was captured before it and is not repeated any more; its memory is used again.

    Raises:
        RuntimeError: If the work cannot be captured, such as when it waits for a number; or for want of memory.
    """

    def __init__(self, work: Callable[[], object], device: torch.device, before: Captured | None = None) -> None:
        self._graph = torch.cuda.CUDAGraph()
        pool = None if before is None else before._graph.pool()
        torch.cuda.synchronize(device)
        with torch.cuda.stream(_stream(device)):
            self._graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    self._graph.capture_end()
                raise
            self._graph.capture_end()

    def __call__(self) -> None:
        """Do it once more."""
        self._graph.replay()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures, as memory is kept by stream."""
    return torch.cuda.Stream(device)
