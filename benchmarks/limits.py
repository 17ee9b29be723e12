"""A step's parts at the longest that their limits allow: memory, and what a token or a group takes there.

    python -m benchmarks.limits --shape Qwen3-8B --tokenizer FOLDER --output FILE

The limits are those of `configs/size-paper.yaml`. Every row is as long as it may be, so nothing a run meets takes more.
Of a rollout only some tokens are sampled, with the room that the last one needs; of matching, one question's responses.
These share what their prompts begin with; `--parts match match_apart` measures it with whole prompts, too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.on_gpu import memory, model_at_hand, shape_arguments, show_what_matters, synchronize, tell, written
from opcod.contexts import ContextSettings
from opcod.matching import Matching, match
from opcod.models import BaseModel, load_base
from opcod.passes import Lengths, matching_contexts
from opcod.peers import Lora, Peer, SharedBase
from opcod.rollout import Request, Rows, Sampling

TOKENS = 32
"""Sampled where a token's time is measured; the lengths with which matching warms up."""
PARTS = ("rollout", "feedback", "match")


def sampled(base: SharedBase, adapter: str, requests: list[Request], longest: int) -> dict[str, float]:
    """Prefill, a token at the beginning, and one of the same with room for the longest."""
    found: dict[str, float] = {"rows": len(requests)}
    sampling = Sampling(max_new_tokens=longest, batch_size=len(requests))
    synchronize(reset=True)
    with base.sampling(adapter), torch.no_grad():
        began = time.perf_counter()
        rows = Rows(base, requests, sampling, ())
        rows.fill()
        synchronize()
        found["seconds_to_read"] = time.perf_counter() - began
        with base.decoding(rows.cache):
            for name, reserved in (("first", TOKENS), ("last", longest - 1 - TOKENS)):
                rows.reserve(reserved)
                rows.advance()  # is captured
                synchronize()
                began = time.perf_counter()
                for _ in range(TOKENS - 1):
                    rows.advance()
                synchronize()
                found[f"seconds_a_token_{name}"] = (time.perf_counter() - began) / (TOKENS - 1)
    return found | memory()


def matched(tutee: Peer, at: Lengths, samples: int, settings: Matching) -> dict[str, float]:
    """Matching of one question's responses, all with s and f of the longest."""
    brief = replace(at, **dict.fromkeys(("prompt", "context", "response", "feedback"), TOKENS))
    for lengths in (brief, at):
        contexts = matching_contexts(lengths, ContextSettings(), questions=1, samples=samples)
        synchronize(reset=True)
        began = time.perf_counter()
        match(tutee, contexts, settings, Tensor.backward)
        synchronize()
    shown = {"context_tokens": float(len(contexts[0].prompt)), "responses": float(samples)}
    return shown | {"seconds": time.perf_counter() - began} | memory()


def base_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `base_of`, on a command line."""
    shape_arguments(parser)
    parser.add_argument("--quantization", default="nf4")
    parser.add_argument("--packed", default="auto")
    parser.add_argument("--dtype", default="bfloat16")


def base_of(options: argparse.Namespace) -> SharedBase:
    """A model of the shape, without adapters."""
    device, folder = model_at_hand(options)
    spec = BaseModel(folder, quantization=options.quantization, packed=options.packed, dtype=options.dtype)
    return SharedBase(load_base(spec, device), Lora(rank=8), checkpoint_activations=True)


def main() -> None:
    """Measure, and add a line of JSON to the output."""
    show_what_matters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base_arguments(parser)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS, "match_apart"], default=PARTS)
    parser.add_argument("--samples", type=int, default=8)
    for name, default in {
        "prompt": 2048,
        "response": 4096,
        "feedback": 1024,
        "context": 10240,
        "micro_batch_tokens": 32768,
        "batch_size": 64,
        "feedback_batch_size": 32,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    base = base_of(options)
    peers = [Peer(name, "physics", base) for name in ("one", "other")]
    for peer in peers:
        peer.create(seed=0, source=None)
    tutee, tutor = peers
    n, own = options.samples, options.response
    at = Lengths(
        prompt=options.prompt,
        context=options.prompt,
        tutoring=options.prompt,
        response=own,
        feedback=options.feedback,
        limit=options.context,
    )
    matching = Matching(micro_batch_tokens=options.micro_batch_tokens)
    found: dict[str, Any] = {}
    asked = [
        Request((100 + row // n,) * options.prompt, (row,), options.prompt - 1) for row in range(options.batch_size)
    ]
    told = [
        Request((100 + row // n,) * at.tutoring + (200 + row,) * own, (row,), at.tutoring)
        for row in range(options.feedback_batch_size)
    ]
    parts = {
        "rollout": lambda: sampled(base, tutee.adapter("student"), asked, own),
        "feedback": lambda: sampled(base, tutor.adapter("tutor"), told, options.feedback),
        "match": lambda: matched(tutee, at, n, matching),
        "match_apart": lambda: matched(tutee, at, n, replace(matching, share_prefixes=False)),
    }
    with written(found, options):
        for name in options.parts:
            found[name] = parts[name]()
            tell(options, **{name: found[name]})


if __name__ == "__main__":
    main()
