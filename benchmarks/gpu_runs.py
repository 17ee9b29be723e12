"""All of the GPU's table, what decides most first, as far as the time allows.

    python -m benchmarks.gpu_runs --tokenizer FOLDER --output FOLDER --seconds 570

Given again with the same output folder, it goes on: what `runs.jsonl` there has as done is left out, and what was begun
in vain comes last. Most runs share one process, as imports take half a minute on a slow disk; what others print stands
in `alone.log`. A run that fails is told, and does not keep the next from running. One that takes twice as long as it
may is ended; where it shares the process, that ends too and shows what it waited for: then give the command again.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import importlib
import re
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import recorded

SMALL_MODEL = "SmolLM2-135M"
STEP = ["--questions=8", "--length=256", "--feedback=128", "--feedback_batch_size=64", "--micro_batch_tokens=8192"]
SMALL = [*STEP, "--groups", "4", "--turns=2"]
SMALLEST = [*SMALL, "--micro_batch_tokens=32768"]  # of a model that keeps so few numbers a token
LARGE = [*STEP, "--checkpoint_activations", "--steps=1", "--groups", "4", "--turns=1"]
CAPPED = ["--questions=8", "--length=1024", "--feedback=512", "--feedback_batch_size=32", "--context=4096"]
CAPPED += ["--micro_batch_tokens=8192", "--checkpoint_activations", "--steps=2", "--most=3", "--cap_gib=24"]
CAPPED += ["--packed=yes", "--groups"]
MATCH = ["--parts", "match", "match_apart"]


@dataclass(frozen=True)
class Run:
    """One measurement.

    Args:
        name: What it is called.
        takes: Seconds it took, or may take.
        module: Which does it.
        options: Of its command line.
        alone: Whether it has a process of its own.
    """

    name: str
    takes: float
    module: str
    options: tuple[str, ...]
    alone: bool = False

    @property
    def named(self) -> dict[str, Any]:
        """What tells it from others in a line of `runs.jsonl`."""
        return {"name": self.name, "module": self.module, "options": list(self.options)}


def shape(
    name: str,
    takes: float,
    model: str,
    quantization: str,
    options: list[str],
    *,
    module: str = "on_gpu",
    alone: bool = False,
) -> Run:
    """What is measured of a model, by default steps and rollouts."""
    given = (f"--shape={model}", f"--quantization={quantization}", *options)
    return Run(name, takes, f"benchmarks.{module}", given, alone)


RUNS = [
    Run("tests", 100, "pytest", ("tests/test_cuda.py", "-q"), alone=True),
    shape("SmolLM2-135M places", 80, SMALL_MODEL, "none", [], module="places"),
    shape("Qwen3-8B places", 100, "Qwen3-8B", "nf4", ["--mean=100", "--limit=384", "--turns=1"], module="places"),
    shape("Qwen3-8B nf4", 100, "Qwen3-8B", "nf4", LARGE),
    shape("Qwen3-8B match, 1,024", 40, "Qwen3-8B", "nf4", [*MATCH, "--response=1024"], module="limits"),
    shape("Qwen3-8B match, 4,096", 55, "Qwen3-8B", "nf4", [*MATCH, "--response=4096"], module="limits"),
    shape("Qwen3-8B nf4 in 24 GB", 285, "Qwen3-8B", "nf4", CAPPED, alone=True),
    shape("Qwen3-8B nf4 packed", 100, "Qwen3-8B", "nf4", [*LARGE, "--packed=yes"]),
    shape("SmolLM2-135M nf4 packed", 80, SMALL_MODEL, "nf4", [*SMALLEST, "--packed=yes"]),
    shape("SmolLM2-135M nf4", 55, SMALL_MODEL, "nf4", [*SMALLEST, "--packed=no"]),
    shape("SmolLM2-135M bf16", 55, SMALL_MODEL, "none", SMALLEST),
    shape("Qwen3-8B bf16", 90, "Qwen3-8B", "none", LARGE),
    shape("Qwen3-0.6B nf4", 60, "Qwen3-0.6B", "nf4", SMALL),
    shape("Qwen3-0.6B bf16", 60, "Qwen3-0.6B", "none", SMALL),
    Run("TRL", 90, "benchmarks.compare", ("--only=to TRL$", "--repeats=3", "--ours", "micro_batch_tokens=8192"), True),
    shape("Qwen3-8B limits", 75, "Qwen3-8B", "nf4", ["--packed=yes"], module="limits"),
]


def work(run: Run, folder: Path, tokenizer: Path, models: Path) -> None:
    """Do it, here or in a process of its own."""
    arguments = [*given_to(run.module, folder, tokenizer, models), *run.options]
    if run.alone:
        by_itself([sys.executable, "-m", run.module, *arguments], folder / "alone.log", 2 * run.takes)
    else:
        here(run.module, arguments, 2 * run.takes)


def given_to(module: str, folder: Path, tokenizer: Path, models: Path) -> list[str]:
    """Where a module reads and writes, as it is told on its command line."""
    if module == "pytest":
        return []
    if module == "benchmarks.compare":
        from benchmarks.shapes import SHAPES, model_of_shape

        model = model_of_shape(SHAPES[SMALL_MODEL](), models / SMALL_MODEL, tokenizer)
        return [f"--output={folder / 'trl.json'}", f"--model={model}"]
    return [f"--output={folder / 'gpu.jsonl'}", f"--tokenizer={tokenizer}", f"--folder={models}"]


def by_itself(command: list[str], log: Path, seconds: float) -> None:
    """Run a command, and show the end of what it printed."""
    with log.open("a+", encoding="utf-8", errors="replace") as file:
        start = file.tell()
        try:
            subprocess.run(command, check=True, timeout=seconds, stdout=file, stderr=subprocess.STDOUT)
        finally:
            file.seek(start)
            print(file.read()[-1500:], flush=True)


def here(module: str, arguments: list[str], seconds: float) -> None:
    """Run a module in this process, which ends if that takes longer, whatever it waits for."""
    from benchmarks.fixed_work import FixedWork

    FixedWork.cpu = lambda module: module  # type: ignore[assignment,method-assign]  # it would be carried off the GPU
    sys.argv = [module, *arguments]
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        importlib.import_module(module).main()
    finally:
        faulthandler.cancel_dump_traceback_later()


def still_held() -> float:
    """GiB of the GPU that remain taken once all is given back; raises if it is of no more use to this process."""
    import torch

    from opcod.devices import GIB

    gc.collect()
    if not torch.cuda.is_available():
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated() / GIB


def left_to_do(file: Path, pattern: str) -> list[Run]:
    """What is asked for and not recorded as done; the later, the oftener it was begun."""
    seen = [(str({k: line[k] for k in ("name", "module", "options")}), line["state"]) for line in recorded.lines(file)]
    asked = [run for run in RUNS if re.search(pattern, run.name) and (str(run.named), "done") not in seen]
    return sorted(asked, key=lambda run: seen.count((str(run.named), "begun")))


def main() -> None:
    """One after another."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of one, with a chat template")
    parser.add_argument("--models", type=Path, default=Path("/tmp/opcod-shapes"), help="where these are written to")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--seconds", type=float, default=3600, help="no run is begun that may last longer than that")
    parser.add_argument("--only", default="", help="a pattern: runs in whose name it is found")
    options = parser.parse_args()
    record = options.output / "runs.jsonl"
    for run in left_to_do(record, options.only):
        held = still_held()
        passed = time.monotonic() - began
        if passed + run.takes > options.seconds:
            print(f"== {passed:.0f} s: {run.name} is left out", flush=True)
            continue
        print(f"== {passed:.0f} s: {run.name}, beside {held:.2f} GiB", flush=True)
        recorded.add(record, run.named | {"state": "begun"})
        state = "done"
        try:
            work(run, options.output, options.tokenizer, options.models)
        except (Exception, SystemExit):
            state = "failed"
            print(traceback.format_exc()[-1500:], flush=True)
        recorded.add(record, run.named | {"state": state, "seconds": time.monotonic() - began - passed})
    print(f"== {time.monotonic() - began:.0f} s: end", flush=True)


if __name__ == "__main__":
    main()
