"""Processes that do a fixed piece of work whenever they are told to, so that two ways of doing it can take turns."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch.utils.flop_counter import flop_registry

from opcod.devices import GIB, GPUS, Device
from opcod.simulation import Tally

Told = dict[str, float]
"""What a piece of work came to: `seconds`, `peak_gib`, and what the work tells of itself."""


class Worker:
    """A module of this package in a process of its own, as its driver sees it.

    Args:
        module: Its name within this package.
        arguments: Of its command line.
        python: The interpreter; the driver's by default.
        threads: For torch.

    Raises:
        RuntimeError: If the process ends before it is ready; its last lines of output are named.
    """

    def __init__(self, module: str, *arguments: str, python: str = sys.executable, threads: int) -> None:
        self.name = " ".join([module, *arguments])
        self.log = Path(tempfile.gettempdir()) / f"opcod-bench-{os.getpid()}-{id(self)}.log"
        root = Path(__file__).resolve().parents[1]
        paths = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
        self._errors: IO[str] = self.log.open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.{module}", *arguments],
            cwd=root,
            env=os.environ
            | {
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": str(threads),
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._hear()

    def work(self) -> Told:
        """Have the piece of work done once."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Told:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.flush()
            last = self.log.read_text(encoding="utf-8").splitlines()[-15:]
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}:\n" + "\n".join(last))
        told: Told = json.loads(line)
        return told

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        self.log.unlink(missing_ok=True)


class Turn:
    """The worker's side: waits to be told, and tells. What libraries print goes to the error output."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self._told = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._start = 0.0
        self._elsewhere: Device | None = None
        self._counted: Tally | None = None

    def count_for(self, device: str) -> None:
        """Tell what the operations that run here would take on a GPU, as `opcod plan` has it of opcod's own."""
        self._elsewhere = GPUS[device]
        aten = torch.ops.aten
        for there, here in (
            (aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_flash_attention_for_cpu),
            (
                aten._scaled_dot_product_flash_attention_backward,
                aten._scaled_dot_product_flash_attention_for_cpu_backward,
            ),
        ):
            flop_registry[here] = flop_registry[there]

    def ready(self) -> None:
        """Everything is loaded."""
        self._tell({})

    def begin(self) -> None:
        """Wait for the driver's word, and start the clock."""
        if not sys.stdin.readline():
            sys.exit()
        if self._elsewhere is not None:
            self._counted = Tally(self._elsewhere.speed, device=torch.device("cpu"))
            self._counted.__enter__()
        self._start = time.perf_counter()

    def end(self, **told: float) -> None:
        """The work is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, peak = time.perf_counter() - self._start, float(peak_memory())
        if self._counted is not None:
            assert self._elsewhere is not None
            self._counted.__exit__(None, None, None)
            seconds, held = self._counted.seconds, self._counted.now
            peak = self._elsewhere.before + held + self._elsewhere.gaps * (self._counted.peak - held)
        self._tell({"seconds": seconds, "peak_gib": peak / GIB} | told)

    def serve(self, work: Callable[[], Told]) -> None:
        """Do a piece of work whenever the driver says so."""
        self.ready()
        while True:
            self.begin()
            self.end(**work())

    def _tell(self, told: dict[str, Any]) -> None:
        self._told.write(json.dumps(told) + "\n")
        self._told.flush()


def peak_memory() -> int:
    """The most bytes of memory so far: allocated on the GPU, or resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
