"""What `opcod plan` says of the rollouts that `benchmarks.on_gpu` measures: 4 prompts of 300 x 8 x 128 new tokens.

    python -m benchmarks.planned --device h100

Nothing is loaded or run, so it needs no GPU. How far it is from what was measured says how far to trust the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks import recorded
from benchmarks.shapes import SHAPES
from opcod.codistillation import CoDistillation
from opcod.devices import GPUS, Device
from opcod.models import BaseModel
from opcod.passes import Lengths, answering
from opcod.plan import simulated_peers
from opcod.rollout import Sampling
from opcod.students import Student

MEASURED = Path(__file__).parents[1] / "docs/results/performance/gpu.jsonl"
QUESTIONS, SAMPLES, PROMPT, LENGTH = 4, 8, 300, 128
LENGTHS = Lengths(prompt=PROMPT, context=0, tutoring=0, response=LENGTH, feedback=0, limit=0)
CASES = [
    (shape, quantization, packed)
    for shape in ("SmolLM2-135M", "Qwen3-0.6B", "Qwen3-8B")
    for quantization, packed in (("none", "no"), ("nf4", "yes"), ("nf4", "auto"))
]


@dataclass(frozen=True)
class Rate:
    """Tokens a second that were measured.

    Args:
        opcod: Of captured steps.
        generate: Of transformers.
    """

    opcod: float
    generate: float


def planned(shape: str, quantization: str, packed: str, device: Device) -> float:
    """Tokens a second of the rollout."""
    with tempfile.TemporaryDirectory() as folder:
        SHAPES[shape]().save_pretrained(folder)
        base = BaseModel(folder, quantization=quantization, packed=packed, dtype="bfloat16")  # type: ignore[arg-type]
        model = CoDistillation([Student("a", "physics")], base=base)
        (peer,) = simulated_peers(model, device)
    sampling = Sampling(max_new_tokens=LENGTH, batch_size=QUESTIONS * SAMPLES)
    _, question = answering(peer.base, peer.adapter("student"), sampling, SAMPLES, QUESTIONS, LENGTHS, LENGTHS)
    return SAMPLES * LENGTH / question.seconds


def measured(path: Path = MEASURED) -> dict[tuple[str, str, str], Rate]:
    """By shape, quantisation and packing; at f4734b5 `auto` meant that 4-bit weights stay packed."""
    found = {}
    for one in recorded.lines(path):
        asked, rows = one["options"], one.get("rollouts")
        if rows:
            rates = {row["by"]: row["tokens_per_second"] for row in rows}
            packed = "yes" if one["commit"] == "f4734b5" else asked["packed"]
            case = asked["shape"], asked["quantization"], "no" if asked["quantization"] == "none" else packed
            found[case] = Rate(rates["opcod, captured"], rates["generate"])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=GPUS, default="h100")
    options = parser.parse_args()
    known = measured()
    generate = {(shape, quantization): rate.generate for (shape, quantization, _), rate in known.items()}
    print("| model | weights | packed | planned, tokens/s | measured | generate |\n|---|---|---|---|---|---|")
    for case in CASES:
        rate, seen, theirs = planned(*case, GPUS[options.device]), known.get(case), generate.get(case[:2])
        columns = [f"{rate:,.0f}", f"{seen.opcod:,.0f}" if seen else "", f"{theirs:,.0f}" if theirs else ""]
        print(f"| {' | '.join([*case, *columns])} |", flush=True)


if __name__ == "__main__":
    main()
