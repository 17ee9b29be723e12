"""All of the GPU's table, one measurement after another, as far as the time allows.

    python -m benchmarks.gpu_runs --tokenizer FOLDER --output FOLDER --seconds 900

All but the run within 24 GB and TRL's share one process, as imports take half a minute on a slow disk. One that fails
is told, and does not keep the next from running.
"""

from __future__ import annotations

import argparse
import gc
import re
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import limits, on_gpu
from benchmarks.fixed_work import FixedWork
from benchmarks.shapes import SHAPES, model_of_shape
from opcod.devices import GIB

SMALL_MODEL = "SmolLM2-135M"
STEP = ["--questions=8", "--length=256", "--feedback=128", "--feedback_batch_size=64", "--micro_batch_tokens=8192"]
SMALL = [*STEP, "--groups", "4", "--turns=2"]
SMALLEST = [*SMALL, "--micro_batch_tokens=32768"]  # of a model that keeps so few numbers a token
LARGE = [*STEP, "--checkpoint_activations", "--steps=1", "--groups", "4", "--turns=1"]
CAPPED = ["--questions=8", "--length=1024", "--feedback=512", "--feedback_batch_size=32", "--context=4096"]
CAPPED += ["--micro_batch_tokens=8192", "--checkpoint_activations", "--steps=1", "--most=1", "--cap_gib=24"]
CAPPED += ["--packed=yes", "--groups"]


@dataclass(frozen=True)
class Run:
    """One measurement.

    Args:
        name: What it is called.
        takes: Seconds it took, or may take.
        module: Of this package.
        options: Of its command line.
        alone: Whether it has a process of its own.
    """

    name: str
    takes: float
    module: str
    options: tuple[str, ...]
    alone: bool = False


def shape(name: str, takes: float, model: str, quantization: str, options: list[str], *, alone: bool = False) -> Run:
    """A model's steps and rollouts."""
    return Run(name, takes, "on_gpu", (f"--shape={model}", f"--quantization={quantization}", *options), alone)


RUNS = [
    shape("SmolLM2-135M nf4", 45, SMALL_MODEL, "nf4", SMALLEST),
    shape("SmolLM2-135M bf16", 45, SMALL_MODEL, "none", SMALLEST),
    Run("TRL", 70, "compare", ("--only=to TRL$", "--repeats=3", "--ours", "micro_batch_tokens=8192"), alone=True),
    shape("Qwen3-8B nf4", 110, "Qwen3-8B", "nf4", LARGE),
    shape("Qwen3-8B bf16", 90, "Qwen3-8B", "none", LARGE),
    shape("Qwen3-0.6B nf4", 45, "Qwen3-0.6B", "nf4", SMALL),
    shape("Qwen3-0.6B bf16", 45, "Qwen3-0.6B", "none", SMALL),
    shape("Qwen3-8B nf4 packed", 110, "Qwen3-8B", "nf4", [*LARGE, "--packed=yes"]),
    shape("Qwen3-8B nf4 in 24 GB", 150, "Qwen3-8B", "nf4", CAPPED, alone=True),
    Run("Qwen3-8B limits", 60, "limits", ("--shape=Qwen3-8B", "--packed=yes")),
]


def work(run: Run, folder: Path, tokenizer: Path, models: Path) -> None:
    """Do it, here or in a process of its own."""
    given = [f"--tokenizer={tokenizer}", f"--output={folder / f'{run.module}.jsonl'}", f"--folder={models}"]
    if run.module == "compare":
        model = model_of_shape(SHAPES[SMALL_MODEL](), models / SMALL_MODEL, tokenizer)
        given = [f"--output={folder / 'trl.json'}", f"--model={model}"]
    arguments = [*given, *run.options]
    if run.alone:
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.{run.module}", *arguments], check=True, timeout=3 * run.takes
        )
    else:
        sys.argv = [run.module, *arguments]
        {"on_gpu": on_gpu.main, "limits": limits.main}[run.module]()


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
    FixedWork.cpu = lambda module: module  # type: ignore[assignment,method-assign]  # it would be carried off the GPU
    for run in RUNS:
        passed = time.monotonic() - began
        if not re.search(options.only, run.name):
            continue
        if passed + run.takes > options.seconds:
            print(f"== {passed:.0f} s: {run.name} is left out", flush=True)
            continue
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        held = torch.cuda.memory_allocated() / GIB if torch.cuda.is_available() else 0.0
        print(f"== {passed:.0f} s: {run.name}, beside {held:.2f} GiB", flush=True)
        try:
            work(run, options.output, options.tokenizer, options.models)
        except Exception:
            print(traceback.format_exc()[-1500:], flush=True)
    print(f"== {time.monotonic() - began:.0f} s: end", flush=True)


if __name__ == "__main__":
    main()
