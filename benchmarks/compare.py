"""Opcod beside what a user would run instead: the work is fixed, the two take turns, and ratios of medians decide.

    python -m benchmarks.compare --output runs/benchmarks.json
    python -m benchmarks.compare --output runs/benchmarks.json --check docs/results/performance/benchmarks.json

Without TRL (`pip install -e '.[bench]'`, or `--trl_python` of an environment that has it) its rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

import bitsandbytes
import peft
import torch
import transformers

from benchmarks.workers import Told, Worker
from opcod.card import commit_of_checkout

TOLERANCE = 0.25
"""How much of a measured ratio may be lost before `--check` fails."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of one worker as a ratio to another's.

    Args:
        name: What is compared.
        ours: Module and options of the worker that is measured.
        theirs: Of the one it is measured against.
        figure: Of what a worker told; less is better.
        wanted: The ratio that is aimed at, of ours to theirs.
        trl: Whether theirs is TRL.
    """

    name: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    figure: str
    wanted: float
    trl: bool = False

    @property
    def pair(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The two workers, whose turns serve all rows about them."""
        return self.ours, self.theirs


@dataclass
class Measured:
    """What came of a row.

    Args:
        name: Of the row.
        ours: The figures of every turn.
        theirs: Of the other worker.
        ratio: Of the medians, ours to theirs.
        wanted: See `Row`.
    """

    name: str
    ours: list[float]
    theirs: list[float]
    ratio: float
    wanted: float


@dataclass
class Report:
    """All that was measured, and on what.

    Args:
        machine: The processor, or the GPU.
        threads: Of torch.
        versions: Of what was measured with.
        commit: Of opcod.
        day: When.
        rows: What was measured.
    """

    machine: str
    threads: int
    versions: dict[str, str]
    commit: str
    day: str
    rows: list[Measured] = field(default_factory=list)


STEP, TUTORED, RECOMPUTED = ("opcod_step",), ("opcod_step", "--feedback=64"), ("opcod_step", "--checkpoint_activations")
ROLLOUT = ("--questions=4", "--samples=8", "--prompt=300", "--length=128")
ROWS = [
    Row("step without feedback, seconds, to TRL", STEP, ("trl_step",), "seconds", 1 / 4, trl=True),
    Row("step without feedback, peak memory, to TRL", STEP, ("trl_step",), "peak_gib", 1 / 4, trl=True),
    Row(
        "step without feedback, seconds, to TRL that recomputes activations",
        STEP,
        ("trl_step", "--checkpoint_activations"),
        "seconds",
        1 / 4,
        trl=True,
    ),
    Row(
        "rollout, seconds a token, to transformers' generate",
        ("rollouts", "opcod", *ROLLOUT),
        ("rollouts", "generate", *ROLLOUT),
        "seconds_a_token",
        1 / 4,
    ),
    Row("two peers, peak memory, to one student", TUTORED, ("opcod_step", "--peers=1"), "peak_gib", 1.2),
    Row("step with feedback, seconds a token, to one without", TUTORED, STEP, "seconds_a_token", 1.25),
    Row("4-bit step, seconds, to bfloat16", ("opcod_step", "--quantization=nf4"), STEP, "seconds", 1.2),
    Row("step that recomputes activations, seconds, to one that keeps them", RECOMPUTED, STEP, "seconds", 1.4),
    Row("step that recomputes activations, peak memory, to one that keeps them", RECOMPUTED, STEP, "peak_gib", 0.9),
    Row("step, seconds, to one that shares nothing", STEP, ("opcod_step", "--plain"), "seconds", 1.0),
    Row("n 16, peak memory, to n 4", ("opcod_step", "--samples=16"), ("opcod_step", "--samples=4"), "peak_gib", 1.2),
    Row(
        "responses of 256, peak memory, to 64",
        ("opcod_step", "--length=256"),
        STEP,
        "peak_gib",
        4.0,
    ),
]


def figure_of(told: Told, name: str) -> float:
    """A figure that a worker told, or one that follows from it."""
    if name == "seconds_a_token":
        return told["seconds"] / (told["rollout_tokens"] + told.get("feedback_tokens", 0))
    return told[name]


def take_turns(ours: Worker, theirs: Worker, repeats: int) -> tuple[list[Told], list[Told]]:
    """Both do their work once to warm up, and then by turns."""
    ours.work(), theirs.work()
    turns = [(ours.work(), theirs.work()) for _ in range(repeats)]
    return [a for a, _ in turns], [b for _, b in turns]


def measure(
    rows: list[Row],
    repeats: int,
    threads: int,
    trl_python: str,
    tell: Callable[[str], None],
    given: Sequence[str] = (),
    ours_given: Sequence[str] = (),
) -> list[Measured]:
    """Measure all rows, those about the same two workers in the same turns; they are given some more options."""
    measured = []
    for pair in dict.fromkeys(row.pair for row in rows):
        about = [row for row in rows if row.pair == pair]
        theirs_python = trl_python if about[0].trl else sys.executable
        with (
            Worker(*pair[0], *given, *ours_given, threads=threads) as ours,
            Worker(*pair[1], *given, python=theirs_python, threads=threads) as theirs,
        ):
            told = take_turns(ours, theirs, repeats)
        for row in about:
            a, b = ([figure_of(one, row.figure) for one in side] for side in told)
            ratio = statistics.median(a) / statistics.median(b)
            measured.append(Measured(row.name, a, b, ratio, row.wanted))
            tell(line(measured[-1]))
    return measured


def line(row: Measured) -> str:
    """A row of the table."""
    ours, theirs = statistics.median(row.ours), statistics.median(row.theirs)
    met = "yes" if row.ratio <= row.wanted else "NO"
    return f"| {row.name} | {ours:.4g} | {theirs:.4g} | {row.ratio:.2f} | {row.wanted:.2f} | {met} |"


def worse(now: list[Measured], before: list[dict[str, float]]) -> list[str]:
    """The rows whose ratio is worse than it was, by more than the tolerance."""
    stored = {str(row["name"]): row["ratio"] for row in before}
    return [
        f"{row.name}: {row.ratio:.2f}, was {stored[row.name]:.2f}"
        for row in now
        if row.name in stored and row.ratio > stored[row.name] * (1 + TOLERANCE)
    ]


def machine() -> str:
    """The GPU, or the processor as the system names it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    names = [s.split(":")[1].strip() for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Print the table, write it as JSON, and compare it with an earlier one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--trl_python", default=sys.executable, help="an interpreter that has TRL")
    parser.add_argument("--model", help="folder of another model than the bundled one")
    parser.add_argument("--only", default="", help="a pattern: rows in whose name it is found")
    parser.add_argument("--ours", nargs="*", default=[], help="more options of opcod's workers, without their dashes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--check", type=Path, help="an earlier output; fails where a ratio is worse")
    options = parser.parse_args()
    has_trl = options.trl_python != sys.executable or importlib.util.find_spec("trl") is not None
    rows = [row for row in ROWS if re.search(options.only, row.name) and (has_trl or not row.trl)]
    if not has_trl:
        print("TRL is not installed: its rows are left out", file=sys.stderr)
    report = Report(
        machine(),
        options.threads,
        {module.__name__: module.__version__ for module in (torch, transformers, peft, bitsandbytes)},
        commit_of_checkout(),
        date.today().isoformat(),
    )
    print("| what | ours | theirs | ratio | at most | met |\n|---|---|---|---|---|---|", flush=True)
    report.rows = measure(
        rows,
        options.repeats,
        options.threads,
        options.trl_python,
        lambda text: print(text, flush=True),
        [] if options.model is None else [f"--model={options.model}"],
        [f"--{option}" for option in options.ours],
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    if options.check is not None:
        before = json.loads(options.check.read_text(encoding="utf-8"))["rows"]
        if lost := worse(report.rows, before):
            sys.exit("slower or larger than before:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
