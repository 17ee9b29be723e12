"""What `opcod plan` says of the work that is measured on a GPU, beside what was measured there.

    python -m benchmarks.planned --device h100 > docs/results/performance/planned-h100.md

It needs no GPU. Of opcod nothing is loaded or run. What is not opcod's, TRL's step and transformers' `generate`, runs
here once for the operations it launches, each of which is taken to last as long as the same would in a plan of opcod's.
How far plans are from what was measured says how far to trust the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import re
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import recorded
from benchmarks.compare import ROWS, Measured, Row, figure_of, line
from benchmarks.fixed_work import question_data, size_of
from benchmarks.opcod_step import model_of, step_arguments
from benchmarks.shapes import SHAPES
from benchmarks.workers import Told, Worker
from opcod.card import commit_of_checkout
from opcod.codistillation import CoDistillation
from opcod.devices import GIB, GPUS
from opcod.models import BaseModel
from opcod.passes import Lengths, answering, parts_of_step
from opcod.plan import beforehand, read_lengths, simulated_peers, standing
from opcod.rollout import Sampling
from opcod.students import Student

MEASURED = Path(__file__).parents[1] / "docs/results/performance/gpu.jsonl"
PACKED_BY_DEFAULT = "f4734b5"
"""The commit that was measured while `packed: auto` still meant that 4-bit weights stay packed."""
DEFAULT_SHAPE = "SmolLM2-135M"
QUESTIONS, SAMPLES, PROMPT, LENGTH = 4, 8, 300, 128
LENGTHS = Lengths(prompt=PROMPT, context=0, tutoring=0, response=LENGTH, feedback=0, limit=0)
CASES = [
    (shape, quantization, packed)
    for shape in (DEFAULT_SHAPE, "Qwen3-0.6B", "Qwen3-8B")
    for quantization, packed in (("none", "no"), ("nf4", "yes"), ("nf4", "auto"))
]
RECOMPUTED = "--checkpoint_activations"
LARGE = ("--micro_batch_tokens=8192",)
"""Micro-batches as a GPU wants them."""
FULL = (*LARGE, "--questions=16")
"""Enough responses to fill these."""
ALONE = "^(two peers|step with feedback|4-bit|n 16|responses of)"
TABLES = [
    (DEFAULT_SHAPE, (), ""),
    (DEFAULT_SHAPE, (*LARGE, RECOMPUTED), "to TRL$"),
    (DEFAULT_SHAPE, FULL, ALONE),
    ("Qwen3-0.6B", FULL, ALONE),
    ("Qwen3-8B", (*FULL, RECOMPUTED), ALONE),
]
"""Shapes, options that opcod's steps are given, and a pattern of the rows of `benchmarks.compare`."""
LIMIT = 2048  # tokens of the longest prompt, as published
LONGEST = (
    *("--questions=32", "--length=4096", "--feedback=1024", "--context=10240", "--micro_batch_tokens=32768"),
    *("--batch_size=64", "--feedback_batch_size=32", "--quantization=nf4", RECOMPUTED),
)


@dataclass(frozen=True)
class Rate:
    """Tokens a second that were measured.

    Args:
        opcod: Of captured steps.
        generate: Of transformers.
    """

    opcod: float
    generate: float


@contextlib.contextmanager
def folder_of(shape: str) -> Iterator[str]:
    """A folder with the shape's config, and no weights."""
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[shape]().save_pretrained(folder)
        yield folder


def planned(shape: str, quantization: str, packed: str, device: str) -> float:
    """Tokens a second of a rollout: 4 prompts of 300 tokens x 8 x 128 new ones."""
    with folder_of(shape) as folder:
        base = BaseModel(folder, quantization=quantization, packed=packed, dtype="bfloat16")  # type: ignore[arg-type]
        model = CoDistillation([Student("a", "physics")], base=base)
        (peer,) = simulated_peers(model, GPUS[device])
    sampling = Sampling(max_new_tokens=LENGTH, batch_size=QUESTIONS * SAMPLES)
    _, question = answering(peer.base, peer.adapter("student"), sampling, SAMPLES, QUESTIONS, LENGTHS, LENGTHS)
    return SAMPLES * LENGTH / question.seconds


def measured(path: Path = MEASURED) -> dict[tuple[str, str, str], Rate]:
    """By shape, quantisation and packing."""
    found = {}
    for one in recorded.lines(path):
        if rows := one.get("rollouts"):
            rates = {row["by"]: row["tokens_per_second"] for row in rows}
            case = one["options"]["shape"], one["options"]["quantization"], packing(one)
            found[case] = Rate(rates["opcod, captured"], rates["generate"])
    return found


def packing(one: dict[str, Any]) -> str:
    """What a line of what was measured means by `packed` today."""
    asked = one["options"]
    if asked["quantization"] == "none":
        return "no"
    return "yes" if one["commit"] == PACKED_BY_DEFAULT else str(asked["packed"])


def options_of(*arguments: str) -> argparse.Namespace:
    """Those of a step's worker, as a command line gives them."""
    parser = argparse.ArgumentParser()
    step_arguments(parser)
    return parser.parse_args(arguments)


def step(shape: str, options: argparse.Namespace, device: str, *, prompt: int | None = None) -> Told:
    """A step as `benchmarks.opcod_step` would tell of it, and the seconds of each part.

    Args:
        shape: Of the model.
        options: Of the worker.
        device: To run on.
        prompt: Tokens of every prompt; by default those of the questions, the longest of a step on average.
    """
    size, card = size_of(options), GPUS[device]
    with folder_of(shape) as folder:
        model = model_of(size, argparse.Namespace(**vars(options) | {"model": folder}))
        data = question_data(size, 1)
        data.setup("fit")
        assert data.splits is not None
        at, _ = read_lengths(model, data.splits.train, size.questions)
        peers = simulated_peers(model, card)
    if prompt is not None:
        at = replace(at, prompt=prompt, context=prompt, tutoring=prompt)
    parts = {name: work(at) for name, work in parts_of_step(model, peers[0], size.questions).items()}
    held = sum((beforehand(card) | standing(peers)).values())
    responses = size.questions * size.samples
    return {name: part.seconds for name, part in parts.items()} | {
        "seconds": sum(part.seconds for part in parts.values()),
        "peak_gib": (held + card.gaps * max(part.peak for part in parts.values())) / GIB,
        "rollout_tokens": responses * size.length,
        "feedback_tokens": responses * size.feedback,
    }


@cache
def told(worker: tuple[str, ...], shape: str, given: tuple[str, ...], device: str) -> Told:
    """What a worker of `benchmarks.compare` would tell on the device, if its steps are given some options more."""
    module, *options = worker
    if module == "opcod_step":
        return step(shape, options_of(*given, *options), device)
    if worker[:2] == ("rollouts", "opcod"):
        tokens = QUESTIONS * SAMPLES * LENGTH
        return {"seconds": tokens / planned(shape, "none", "no", device), "rollout_tokens": tokens}
    return counted(worker, device)


@cache
def counted(worker: tuple[str, ...], device: str) -> Told:
    """What another program's worker would tell, by the operations that it launches here."""
    with Worker(*worker, f"--counted_for={device}", threads=1) as other:
        return other.work()


def compared(row: Row, shape: str, given: tuple[str, ...], device: str) -> Measured:
    """A row of `benchmarks.compare`, planned."""
    ours, theirs = (figure_of(told(worker, shape, given, device), row.figure) for worker in row.pair)
    return Measured(row.name, [ours], [theirs], ours / theirs, row.wanted)


def steps_measured(path: Path = MEASURED) -> Iterator[tuple[str, argparse.Namespace, Told]]:
    """Shape, options and the medians of each part of the steps that were measured after a first one, if there were."""
    for one in recorded.lines(path):
        if seen := one.get("steps"):
            options = argparse.Namespace(**one["options"] | {"packed": packing(one)})
            counted = seen[1:] or seen
            yield one["options"]["shape"], options, {k: statistics.median(s[k] for s in counted) for k in counted[0]}


def longest_measured(path: Path = MEASURED) -> Told:
    """A step of the longest, put together from the parts of it that were measured."""
    (one,) = (line for line in recorded.lines(path) if {"rollout", "feedback", "match"} <= line.keys())
    size = size_of(options_of(*LONGEST))
    responses = size.questions * size.samples
    seconds = {"match": responses / one["match"]["responses"] * one["match"]["seconds"]}
    for part, tokens in (("rollout", size.length), ("feedback", size.feedback)):
        found = one[part]
        a_token = (found["seconds_a_token_first"] + found["seconds_a_token_last"]) / 2
        batches = math.ceil(responses / found["rows"])
        seconds[part] = batches * (found["seconds_to_read"] + tokens * a_token)
    peak = max(one[part]["peak_gib"] for part in seconds)
    return seconds | {"seconds": sum(seconds.values()), "peak_gib": peak}


def cells(*values: object) -> None:
    """A line of a table."""
    print(f"| {' | '.join(str(v) for v in values)} |", flush=True)


def heading(title: str, *columns: str) -> None:
    """A table begins."""
    print(f"\n## {title}\n")
    cells(*columns)
    print("|" + "---|" * len(columns))


def parts_cells(found: Told, prefix: str = "") -> list[str]:
    """Seconds of the step and of its parts, and its memory."""
    names = ["seconds", *(f"{prefix}{part}" for part in ("rollout", "feedback", "match"))]
    return [f"{found[name]:.3g}" for name in names] + [f"{found['peak_gib']:.3g}"]


def show_rollouts(device: str) -> None:
    """Planned, measured, and those of `generate`."""
    heading("Rollouts", "model", "weights", "packed", "planned, tokens/s", "measured", "generate")
    known = measured()
    generate = {(shape, quantization): rate.generate for (shape, quantization, _), rate in known.items()}
    for case in CASES:
        rate, seen, theirs = planned(*case, device), known.get(case), generate.get(case[:2])
        cells(*case, f"{rate:,.0f}", f"{seen.opcod:,.0f}" if seen else "", f"{theirs:,.0f}" if theirs else "")


def show_steps(device: str) -> None:
    """Those that were measured, and the longest; planned and measured."""
    parts = ("step, s", "rollout", "feedback", "match", "GiB")
    heading("Steps", "model", "weights", "packed", "response", "", *parts)
    for shape, options, seen in steps_measured():
        about = (shape, options.quantization, options.packed, options.length)
        cells(*about, "planned", *parts_cells(step(shape, options, device)))
        cells(*about, "measured", *parts_cells(seen, "seconds/"))
    for packed in ("yes", "auto"):
        options = options_of(*LONGEST, f"--packed={packed}")
        cells("Qwen3-8B", "nf4", packed, 4096, "planned", *parts_cells(step("Qwen3-8B", options, device, prompt=LIMIT)))
    cells("Qwen3-8B", "nf4", "yes", 4096, "parts measured", *parts_cells(longest_measured()))


def show_rows(shape: str, given: tuple[str, ...], pattern: str, device: str) -> None:
    """Rows of `benchmarks.compare`."""
    heading(" ".join([shape, *given]), "what", "ours", "theirs", "ratio", "at most", "met")
    has_trl = importlib.util.find_spec("trl") is not None
    for row in ROWS:
        if re.search(pattern, row.name) and (has_trl or not row.trl):
            print(line(compared(row, shape, given, device)), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=GPUS, default="h100")
    options = parser.parse_args()
    print(
        f"Computed, not measured: {GPUS[options.device].name}, at {commit_of_checkout()}, {date.today()}.", flush=True
    )
    show_rollouts(options.device)
    show_steps(options.device)
    for shape, given, pattern in TABLES:
        show_rows(shape, given, pattern, options.device)


if __name__ == "__main__":
    main()
