"""What a step takes on 1 to 1,024 GPUs: the plan of each rank's share, the wait for the longest response, the wire.

python -m benchmarks.scaling --samples RUN/samples.jsonl --output docs/results/performance/scaling.csv

Nothing here runs on a GPU. Work is `opcod plan`'s; how unequally long responses are is measured, in a run's samples.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from transformers import AutoTokenizer

from benchmarks.shapes import SHAPES
from opcod.codistillation import CoDistillation
from opcod.devices import GPUS
from opcod.models import bundled_folder
from opcod.passes import parts_of_step
from opcod.plan import read_lengths, simulated_peers
from opcod.plan_commands import Planned
from opcod.rollout import Sampling

COLUMNS = ("model", "batch", "gpus", "questions", "rollout", "feedback", "match", "wire", "step", "responses_per_hour")
GPU_COUNTS = [2**i for i in range(11)]
QUESTIONS = 32
"""A step's, as published."""
QUESTIONS_A_GPU = 4
"""Where the batch grows with the GPUs."""
WITHIN, BETWEEN, MACHINE = 450e9, 50e9, 8
"""Bytes a second of a GPU to others in its machine (NVLink) and in other machines (400 Gb/s), and GPUs a machine."""
LATENCY = 10e-6
"""Seconds for a message to the next GPU, however small."""
MODELS = {"8B": "Qwen3-8B", "70B": "Llama-70B"}
"""What each is called -> its shape."""
ON = {"8B": "h100", "70B": "h200"}
"""The GPU that holds each, 64 responses of the published length side by side."""
RESPONSE, FEEDBACK = 600, 200
"""Tokens that responses and feedback take on average."""
_DRAWS = 200
_FULL = 8
"""Questions whose responses fill whole batches of every part."""


@dataclass(frozen=True)
class Row:
    """A step on so many GPUs, in seconds.

    Args:
        model: Its shape.
        batch: `fixed`, or `grown` with the GPUs.
        gpus: How many.
        questions: Of the step.
        rollout: Until the last GPU has its responses.
        feedback: The same of feedback.
        match: Of the GPU with the most questions.
        wire: The all-reduce of the adapter's gradient.
    """

    model: str
    batch: str
    gpus: int
    questions: int
    rollout: float
    feedback: float
    match: float
    wire: float

    def cells(self, samples: int) -> tuple[object, ...]:
        """As `COLUMNS` are named."""
        parts = (self.rollout, self.feedback, self.match, self.wire)
        rate = 3600 * self.questions * samples / sum(parts)
        return (
            self.model,
            self.batch,
            self.gpus,
            self.questions,
            *(f"{part:.4g}" for part in (*parts, sum(parts))),
            f"{rate:.0f}",
        )


def all_reduce(size: float, gpus: int) -> float:
    """Seconds for a ring within each machine and a tree between them; the first bound of the two that holds.

    Args:
        size: Bytes that every GPU has.
        gpus: That sum them up.
    """
    if gpus == 1:
        return 0.0
    speed = WITHIN if gpus <= MACHINE else BETWEEN
    return 2 * (gpus - 1) / gpus * size / speed + 2 * math.ceil(math.log2(gpus)) * LATENCY


def wait(lengths: Sequence[float], rows: int, gpus: int, batch: int) -> float:
    """Decoding steps until the last GPU is done, to those that responses of average length would take.

    Args:
        lengths: Measured lengths of responses, of which the rows' are drawn.
        rows: Responses a GPU.
        gpus: That wait for one another.
        batch: Rows side by side: each batch lasts as long as its longest.
    """
    rng = random.Random(0)
    batches = [min(batch, rows - start) for start in range(0, rows, batch)]
    last = [max(sum(max(rng.choices(lengths, k=size)) for size in batches) for _ in range(gpus)) for _ in range(_DRAWS)]
    return fmean(last) / (len(batches) * fmean(lengths))


def rows_of(name: str, lengths: Sequence[float]) -> tuple[list[Row], int, float]:
    """The steps of a shape, n, and the bytes of its adapter's gradient."""
    device = GPUS[ON[name]]
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[MODELS[name]]().save_pretrained(folder)
        configs = ["configs/base.yaml", "configs/pair-physics-chemistry.yaml", "configs/size-paper.yaml"]
        options = [o for config in configs for o in ("-c", config)]
        command = Planned([*options, f"--model.base.model={folder}", f"--device={ON[name]}"])
        model, data = command.model, command.datamodule
        assert isinstance(model, CoDistillation)
        data.setup("fit")
        limits, _ = read_lengths(model, data.splits.train, QUESTIONS)
        at = replace(limits, response=RESPONSE, feedback=FEEDBACK)
        peers = simulated_peers(model, device)

    @cache
    def seconds(part: str, questions: int) -> float:
        if questions > _FULL:  # batch after batch of the same
            return questions / _FULL * seconds(part, _FULL)
        return parts_of_step(model, peers[0], questions)[part](at).seconds

    def until_last(part: str, sampling: Sampling, share: int, gpus: int) -> float:
        return seconds(part, share) * wait(lengths, share * model.samples, gpus, sampling.batch_size)

    size = 4.0 * sum(p.numel() for p in peers[0].parameters())
    made = []
    for batch, gpus in [(batch, gpus) for batch in ("fixed", "grown") for gpus in GPU_COUNTS]:
        questions = QUESTIONS if batch == "fixed" else QUESTIONS_A_GPU * gpus
        share, busy = math.ceil(questions / gpus), min(gpus, questions)
        made.append(
            Row(
                name,
                batch,
                gpus,
                questions,
                rollout=until_last("rollout", model.rollout, share, busy),
                feedback=until_last("feedback", model.feedback, share, busy),
                match=seconds("match", share),
                wire=all_reduce(size, gpus),
            )
        )
    return made, model.samples, size


def lengths_in(samples: Path) -> list[float]:
    """Tokens of the responses that a run kept."""
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    with samples.open(encoding="utf-8") as file:
        return [float(len(tokenizer(json.loads(line)["response"])["input_ids"]) + 1) for line in file]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="samples.jsonl of a run of the default model")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    lengths = lengths_in(given.samples)
    print(f"{len(lengths)} responses: {fmean(lengths):.0f} tokens on average, the longest {max(lengths):.0f}")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    with given.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name in MODELS:
            made, samples, size = rows_of(name, lengths)
            print(f"{name}: {size / 1e6:.0f} MB of gradient a step")
            writer.writerows(row.cells(samples) for row in made)


if __name__ == "__main__":
    main()
