"""A worker: groups of responses whenever it is told, by opcod or by transformers' `generate`, of the same weights."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch

from benchmarks.workers import Told, Turn
from opcod.memory import keep_freed_memory
from opcod.models import BaseModel, LoadedBase, load_base
from opcod.peers import Lora, SharedBase
from opcod.rollout import Request, Sampling, sample

LOWEST_TOKEN = 100  # above special tokens


def main() -> None:
    """Sample, again and again."""
    turn = Turn()
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("by", choices=["opcod", "generate"])
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=300)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--plain", action="store_true", help="rows have a copy of their prompt each")
    options = parser.parse_args()
    attention = "auto" if options.by == "opcod" else "sdpa"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(BaseModel(options.model, quantization=options.quantization, attention=attention), device)
    numbers = torch.randint(
        LOWEST_TOKEN,
        loaded.model.config.get_text_config().vocab_size,
        (options.questions, options.prompt),
        generator=torch.Generator().manual_seed(0),
    )
    work = {"opcod": _opcod, "generate": _generate}[options.by](loaded, numbers, options)
    tokens = options.questions * options.samples * options.length

    def told() -> Told:
        work()
        return {"rollout_tokens": tokens}

    turn.serve(told)


def _opcod(loaded: LoadedBase, prompts: torch.Tensor, options: argparse.Namespace) -> Callable[[], object]:
    keep_freed_memory()
    base = SharedBase(loaded, Lora(rank=8))
    base.add_adapter("student", seed=0)
    requests = [Request(tuple(p), (i, j)) for i, p in enumerate(prompts.tolist()) for j in range(options.samples)]
    sampling = Sampling(max_new_tokens=options.length, share_prefixes=not options.plain)

    def work() -> object:
        with base.sampling("student"):
            return sample(base, requests, sampling, ())

    return work


def _generate(loaded: LoadedBase, prompts: torch.Tensor, options: argparse.Namespace) -> Callable[[], object]:
    ids = prompts.to(loaded.model.device)

    @torch.no_grad()
    def work() -> object:
        return loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=options.length,
            min_new_tokens=options.length,
            num_return_sequences=options.samples,
            pad_token_id=0,
        )

    return work


if __name__ == "__main__":
    main()
