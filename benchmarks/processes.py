"""A run by one process and by several: seconds of a step, bytes on the wire, and how far the results are apart.

python -m benchmarks.processes --output docs/results/performance/processes.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch
import torch.distributed as dist
from torch import nn

from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.gate import Gate
from opcod.models import BaseModel, bundled_folder
from opcod.optimization import Optimization
from opcod.processes import AdapterStrategy
from opcod.ranks import Ranks
from opcod.rollout import Sampling
from opcod.students import Student

COLUMNS = (
    "processes",
    "phases",
    "cores",
    "load",
    "step_seconds",
    "tokens_per_second",
    "gradient_bytes",
    "reduce_wire_bytes",
    "reduce_seconds",
    "step_wire_bytes",
    "update_difference",
    "loss_difference",
)
AT_ONCE, IN_TURN = "at once", "in turn"


class Meter(L.Callback):
    """Seconds and bytes of every step, and of the all-reduce in it, as one process has them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.sent: list[int] = []
        self.reductions: list[tuple[float, int, int]] = []  # seconds, bytes on the wire, bytes of the gradient
        self.figures: list[dict[str, float]] = []
        self._began, self._sent = 0.0, 0
        self._reduce = Ranks.add_gradients
        Ranks.add_gradients = self._metered  # type: ignore[method-assign, assignment]

    def _metered(self, parameters: Sequence[nn.Parameter]) -> None:
        ranks = self._ranks
        ranks.gather(None)  # so that waiting for the others is no part of it
        began, sent = time.perf_counter(), wire()
        self._reduce(ranks, parameters)
        seconds = time.perf_counter() - began
        ranks.gather(None)  # what is under way arrives
        self.reductions.append((seconds, wire() - sent, 4 * sum(p.numel() for p in parameters)))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A step begins on all."""
        self._ranks: Ranks = pl_module.ranks
        pl_module.everyone.gather(None)
        self._began, self._sent = time.perf_counter(), wire()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """It is over."""
        self.seconds.append(time.perf_counter() - self._began)
        self.sent.append(wire() - self._sent)
        self.figures += [record.figures for record in pl_module.records]


def wire() -> int:
    """Bytes that went over the loopback so far, of whichever process."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


def work(size: int, phases: str, settings: argparse.Namespace, folder: Path) -> None:
    """What one process does; it writes down what it measured."""
    torch.set_num_threads(1)
    sampling = Sampling(max_new_tokens=settings.length)
    module = CoDistillation(
        [Student("physicist", "physics"), Student("chemist", "chemistry")],
        base=BaseModel(settings.model, quantization="none", dtype="float32"),
        samples=settings.samples,
        rollout=sampling,
        feedback=sampling,
        evaluation=Sampling(max_new_tokens=1),
        evaluation_samples=1,
        gate=Gate("always"),
        anchored=False,
        optimization=Optimization(warmup=0),
        parallel_phases=phases == AT_ONCE,
    )
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=100)
    data = QuestionData(source, batch_size=settings.questions, steps=settings.steps, validation=1, test=1)
    meter = Meter()
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[meter],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        devices=size,
        strategy=AdapterStrategy() if size > 1 else "auto",
    )
    trainer.fit(module, data)
    if trainer.global_rank == 0:
        students = [p.detach() for peer in module.peers for p in peer.parameters()]
        told = {
            "seconds": meter.seconds,
            "sent": meter.sent,
            "reductions": meter.reductions,
            "figures": meter.figures,
            "students": students,
        }
        torch.save(told, folder / "told.pt")
    if dist.is_initialized():
        dist.barrier()


def measured(size: int, phases: str, given: Sequence[str]) -> dict[str, Any]:
    """Run so many processes, on two cores at most or as many as there are, and read what rank 0 measured."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.processes", *given, "--as", str(size), phases, folder]
        ranks = [
            subprocess.Popen(
                command,
                env=os.environ
                | {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        errors = [rank.communicate()[1] for rank in ranks]
        if failed := [error for rank, error in zip(ranks, errors, strict=True) if rank.returncode]:
            raise RuntimeError(failed[0])
        told: dict[str, Any] = torch.load(Path(folder) / "told.pt", weights_only=True)
        return told


def row_of(size: int, phases: str, told: dict[str, Any], alone: dict[str, Any]) -> dict[str, Any]:
    """A row of the table; the first step, which warms up, is left out of the medians."""
    seconds = statistics.median(told["seconds"][1:])
    together = 2 if phases == AT_ONCE else 1
    tokens = [
        sum(figures.get(f"tokens_per_second/{p}", 0) * figures[f"seconds/{p}"] for p in ("rollout", "feedback"))
        for figures in told["figures"]
    ]
    reduce_seconds, reduce_wire, gradient = (
        statistics.median(column) for column in zip(*told["reductions"], strict=True)
    )
    losses = [sorted(loss for f in t["figures"] for n, loss in f.items() if n.endswith("/loss")) for t in (alone, told)]
    pairs = zip(alone["students"], told["students"], strict=True)
    return {
        "processes": size,
        "phases": phases,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "step_seconds": round(seconds / together, 3),
        "tokens_per_second": round(statistics.mean(tokens) * together / seconds, 1),
        "gradient_bytes": int(gradient),
        "reduce_wire_bytes": int(reduce_wire) if size > together else 0,
        "reduce_seconds": round(reduce_seconds, 4) if size > together else 0,
        "step_wire_bytes": int(statistics.median(told["sent"][1:])) if size > 1 else 0,
        "update_difference": max(float((a - b).abs().max()) for a, b in pairs),
        "loss_difference": max(abs(a - b) for a, b in zip(*losses, strict=True)),
    }


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="a folder; the bundled model by default")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes; 1 comes first"
    )
    parser.add_argument("--questions", type=int, default=4, help="questions a step")
    parser.add_argument("--samples", type=int, default=4, help="responses to each")
    parser.add_argument("--length", type=int, default=32, help="tokens of a response and of a feedback, at most")
    parser.add_argument("--steps", type=int, default=3, help="steps a phase")
    parser.add_argument("--output", type=Path, default=None, help="CSV file of the table")
    parser.add_argument("--as", dest="role", nargs=3, default=None, help=argparse.SUPPRESS)
    return parser


def main(given: Sequence[str]) -> None:
    """Measure one after the other, and print and write the table."""
    settings = parser().parse_args(given)
    settings.model = settings.model or str(bundled_folder())
    if settings.role is not None:
        size, phases, folder = settings.role
        work(int(size), phases, settings, Path(folder))
        return
    rows: list[dict[str, Any]] = []
    alone: dict[str, Any] = {}
    runs = [(size, IN_TURN) for size in settings.processes] + [(s, AT_ONCE) for s in settings.processes if s % 2 == 0]
    for size, phases in runs:
        told = measured(size, phases, given)
        alone = alone or told
        rows.append(row_of(size, phases, told, alone))
        print(rows[-1], flush=True)
    if settings.output is not None:
        with settings.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
