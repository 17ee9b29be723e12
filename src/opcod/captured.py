"""What a GPU repeats: its operations captured as one CUDA graph, and launched at once instead of one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_NUMBERS = (_aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten.repeat_interleave)
_BY_INDEX = (_aten.index, _aten.index_put, _aten.index_put_)


class Captured:
    """Work of a fixed shape, recorded so that a GPU can repeat it; recording it does not do it.

    Args:
        work: Reads and writes the same tensors every time, and asks for no number. It has been done once before.
        device: A GPU.
        before: What was captured before it and is not repeated any more; its memory is used again.

    Raises:
        RuntimeError: If the work cannot be captured, such as when it waits for a number; or for want of memory.
    """

    _graph: torch.cuda.CUDAGraph

    def __init__(self, work: Callable[[], object], device: torch.device, before: Captured | None = None) -> None:
        pool = None if before is None else before._graph.pool()
        try:
            self._graph = _recorded(work, device, pool)
            return
        except torch.OutOfMemoryError:
            pass  # what is captured has memory from the device, which may have given all of it to what is free again
        torch.cuda.empty_cache()
        self._graph = _recorded(work, device, pool)

    def __call__(self) -> None:
        """Do it once more."""
        self._graph.replay()


def _recorded(work: Callable[[], object], device: torch.device, pool: Any) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.stream(_stream(device)):
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            work()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    return graph


class Waits(TorchDispatchMode):
    """Notes whether what is done in its block waits for a number, or copies from one device to another.

    None of that can be captured; and torch, having tried, no longer gives back memory that is free when it is full.

    Args:
        device: Of the work.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.found: str | None = None
        """The first operation that does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, torch.Tensor)]
        here = [t for t in tensors if t.device.type == self.device.type]
        elsewhere = [t for t in tensors if t.device.type != self.device.type and t.dim() > 0]  # a scalar is handed over
        kind = func.overloadpacket
        counted = kind in _BY_INDEX and any(t is not None and t.dtype == torch.bool for t in args[1])
        if here and (elsewhere or counted or kind in _NUMBERS):
            self.found = self.found or str(func)
        return made


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures, as memory is kept by stream."""
    return torch.cuda.Stream(device)
