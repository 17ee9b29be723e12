"""Rollouts in which others take the places of those that end, beside batch after batch: seconds, and tokens a second.

    python -m benchmarks.places --shape SmolLM2-135M --tokenizer FOLDER --output FILE

With random weights every token is about as likely as any other, so a share of the vocabulary ends a response at each
token with that probability: lengths vary as a geometric distribution does, which is more than those of answers do. The
ends are the first ids, as a token is drawn by inverting the cumulative distribution in the order of ids: rounding makes
a token its neighbour, and hardly ever an end, so the two ways have the same work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.limits import base_arguments, base_of
from benchmarks.on_gpu import memory, show_what_matters, synchronize, tell, written
from benchmarks.rollouts import prompts_of, sampled
from opcod.drafts import Response
from opcod.peers import SharedBase
from opcod.rollout import Sampling

WARM = 24
"""Tokens of a response before anything is measured, enough for a step to be captured."""


def share(ours: Sequence[object], theirs: Sequence[object]) -> float:
    """How many are the same."""
    return statistics.mean(float(one == other) for one, other in zip(ours, theirs, strict=True))


def both_ways(base: SharedBase, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and tokens of both, by turns, and what their responses have in common."""
    base.add_adapter("student", seed=0)
    prompts = prompts_of(base.loaded, options.questions, options.prompt)
    size = base.loaded.model.config.get_text_config().vocab_size
    ends = range(round(size / options.mean))

    def responses(fill: bool, limit: int) -> list[Response]:
        sampling = Sampling(max_new_tokens=limit, batch_size=options.batch_size, fill_places=fill)
        return sampled(base, "student", prompts, options.samples, sampling, ends)

    ways = {"filled": True, "batch by batch": False}
    for fill in ways.values():
        responses(fill, min(WARM, options.limit))
    found: dict[str, Any] = {name: {"seconds": []} for name in ways}
    given: dict[str, list[Response]] = {}
    for _ in range(options.turns):
        for name, fill in ways.items():
            synchronize(reset=True)
            began = time.perf_counter()
            given[name] = responses(fill, options.limit)
            synchronize()
            found[name]["seconds"].append(time.perf_counter() - began)
            lengths = [float(len(r.tokens)) for r in given[name]]
            found[name] |= {
                "tokens": sum(lengths),
                "tokens_per_second": sum(lengths) / statistics.median(found[name]["seconds"]),
                "mean_length": statistics.mean(lengths),
                "deviation": statistics.pstdev(lengths),
                "cut": statistics.mean(float(not r.finished) for r in given[name]),
                **memory(),
            }
            tell(options, **{name: found[name]})
    filled, batches = (found[name]["tokens_per_second"] for name in ways)
    texts = [[r.tokens.tolist() for r in given[name]] for name in ways]
    agreed = {"responses": share(*texts), "lengths": share(*([len(t) for t in some] for some in texts))}
    return found | {"times_as_fast": filled / batches, "agreed": agreed}


def main() -> None:
    """Measure, and add a line of JSON to the output."""
    show_what_matters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base_arguments(parser)
    for name, default in {
        "questions": 32,
        "samples": 8,
        "prompt": 300,
        "batch_size": 64,
        "mean": 200,
        "limit": 768,
        "turns": 2,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with written(found, options), torch.no_grad():
        found |= both_ways(base_of(options), options)
        tell(options, times_as_fast=found["times_as_fast"], agreed=found["agreed"])


if __name__ == "__main__":
    main()
