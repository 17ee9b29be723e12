"""Devices to plan a run for: GPUs by their data sheets, and the processor at hand as it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from opcod.containers import free_memory
from opcod.simulation import Speed

GIB = 2**30
_REACHED = 0.5
_CPU_GAPS, _GPU_GAPS = 1.7, 1.1
_LAUNCH, _REPEAT = 20e-6, 2.5e-6
"""Seconds an operation on a GPU, launched from Python and in a captured graph, as small ones took on an H100."""


@dataclass(frozen=True)
class Device:
    """A device to run on.

    Args:
        name: What it is called.
        kind: `cpu` or `cuda`.
        memory: Bytes; None where it is not known.
        speed: Of eager PyTorch on it.
        measured: Whether the speed was measured, rather than assumed from a data sheet.
        before: Bytes that are taken before anything is loaded.
        gaps: Bytes that are taken for each byte of short-lived tensors, as what is freed leaves gaps.
    """

    name: str
    kind: str
    memory: float | None
    speed: Speed
    measured: bool
    before: float
    gaps: float


def _gpu(name: str, gib: float, teraflops: float, terabytes: float) -> Device:
    """By its data sheet: dense bfloat16, of which large products reach about 60 %; 80 % of the bandwidth."""
    speed = Speed(0.6e12 * teraflops, 0.8e12 * terabytes, _LAUNCH, _REPEAT)
    return Device(name, "cuda", gib * GIB, speed, False, 0.6 * GIB, _GPU_GAPS)


GPUS = {
    "h200": _gpu("NVIDIA H200", 139, 989, 4.8),
    "h100": _gpu("NVIDIA H100 80 GB", 79, 989, 3.35),
    "a100": _gpu("NVIDIA A100 80 GB", 79, 312, 2.0),
    "l40s": _gpu("NVIDIA L40S", 44, 362, 0.864),
    "rtx4090": _gpu("NVIDIA RTX 4090", 23.5, 165, 1.008),
    "l4": _gpu("NVIDIA L4", 22, 121, 0.3),
}
"""By the name that `opcod plan --device` takes."""


def this_cpu(dtype: torch.dtype) -> Device:
    """The processor this runs on, as measured within a second; by its threads as they are set.

    A run's small products and scattered reads come to about half of what large ones do: in the demo's steps, sampling,
    feedback and matching took 1.9, 2.5 and 1.9 times what this would be without `_REACHED`.
    """
    square = torch.ones(1024, 1024, dtype=dtype)
    flops = 2 * 1024**3 / _seconds(lambda: square @ square)
    long = torch.ones(1 << 25)
    bandwidth = 8 * len(long) / _seconds(lambda: long.add_(1))
    small = torch.ones(8)
    launch = _seconds(lambda: [small.add_(1) for _ in range(100)]) / 100
    name = f"this CPU ({torch.get_num_threads()} threads)"
    return Device(
        name,
        "cpu",
        float(psutil.virtual_memory().total),
        Speed(_REACHED * flops, _REACHED * bandwidth, 4 * launch / _REACHED),
        True,
        _resident_memory(),
        _CPU_GAPS,
    )


def free_on(device: torch.device) -> Device | None:
    """What is free at this moment, for whoever asks about memory alone; None for a device that is not known."""
    unknown = Speed(1.0, 1.0, 0.0)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return Device(torch.cuda.get_device_name(device), "cuda", float(free), unknown, True, 0.0, _GPU_GAPS)
    if device.type == "cpu":
        taken = _resident_memory()
        return Device("this machine", "cpu", free_memory() + taken, unknown, True, taken, _CPU_GAPS)
    return None


def _resident_memory() -> float:
    """Of this process: the libraries, mostly."""
    return float(psutil.Process().memory_info().rss)


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of some repetitions."""
    work()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)
