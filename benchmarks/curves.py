"""How the cost of a step grows: seconds and memory over n, lengths, batch and model, with the exponents they follow.

python -m benchmarks.curves --output docs/results/performance/curves.csv
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from benchmarks.shapes import model_of_shape
from benchmarks.workers import Worker
from opcod.models import bundled_folder

COLUMNS = ("curve", "value", "seconds", "peak_gib")


@dataclass(frozen=True)
class Curve:
    """A step, of which one thing grows and the others stay.

    Args:
        name: Of what grows.
        option: Of the step's worker.
        values: It takes.
    """

    name: str
    option: str
    values: tuple[int, ...]


CURVES = [
    Curve("n, responses to a question", "--samples", (4, 8, 16)),
    Curve("questions a step", "--questions", (2, 4, 8)),
    Curve("tokens of a response", "--length", (32, 64, 128)),
    Curve("words more in a prompt", "--filler", (100, 200, 400)),
]
SHAPES = {  # millions of parameters, as SmolLM2 comes -> what differs from the bundled model's config
    135: {},
    360: {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
    },
}


def measure(option: str, value: object, repeats: int, threads: int) -> tuple[float, float]:
    """Median seconds of a step, and its peak of memory in GiB."""
    with Worker("opcod_step", "--peers=1", f"{option}={value}", threads=threads) as worker:
        worker.work()
        told = [worker.work() for _ in range(repeats)]
    return statistics.median(t["seconds"] for t in told), max(t["peak_gib"] for t in told)


def exponent(values: list[float], costs: list[float]) -> float:
    """The least-squares slope of log cost over log value."""
    xs, ys = [math.log(v) for v in values], [math.log(c) for c in costs]
    return statistics.linear_regression(xs, ys).slope


def main() -> None:
    """Measure every curve, write the CSV and print the exponents."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows: list[tuple[str, int, float, float]] = []
    for curve in CURVES:
        for value in curve.values:
            rows.append((curve.name, value, *measure(curve.option, value, options.repeats, options.threads)))
            print(rows[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for size, changes in SHAPES.items():
            config = AutoConfig.from_pretrained(bundled_folder(), **changes, head_dim=64)
            model = model_of_shape(config, Path(folder) / str(size), tokenizer=bundled_folder())
            rows.append(("million parameters", size, *measure("--model", model, options.repeats, options.threads)))
            print(rows[-1], flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, value, f"{s:.3f}", f"{g:.3f}") for name, value, s, g in rows)
    print("| curve | seconds grow as | peak memory grows as |\n|---|---|---|")
    for name in dict.fromkeys(row[0] for row in rows):
        of = [row for row in rows if row[0] == name]
        values = [float(row[1]) for row in of]
        slopes = [exponent(values, figures) for figures in ([row[2] for row in of], [row[3] for row in of])]
        print(f"| {name} | x^{slopes[0]:.2f} | x^{slopes[1]:.2f} |")


if __name__ == "__main__":
    main()
