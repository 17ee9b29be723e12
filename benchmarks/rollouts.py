"""A worker: groups of responses whenever it is told, by opcod or by transformers' `generate`, of the same weights."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.workers import Told, Turn
from opcod.drafts import Response
from opcod.memory import keep_freed_memory
from opcod.models import BaseModel, LoadedBase, load_base
from opcod.peers import Lora, SharedBase
from opcod.rollout import Request, Sampling, sample

LOWEST_TOKEN = 100  # above special tokens
MOST = 1024  # rows side by side, as many as `generate` takes


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
    parser.add_argument("--counted_for", help="a GPU, whose seconds and memory are told")
    options = parser.parse_args()
    if options.counted_for is not None:
        turn.count_for(options.counted_for)
    attention = "auto" if options.by == "opcod" else "sdpa"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_base(BaseModel(options.model, quantization=options.quantization, attention=attention), device)
    prompts = prompts_of(loaded, options.questions, options.prompt)
    tokens = options.questions * options.samples * options.length
    sampling = Sampling(max_new_tokens=options.length, batch_size=MOST, share_prefixes=not options.plain)

    if options.by == "opcod":
        keep_freed_memory()
        base = SharedBase(loaded, Lora(rank=8))
        base.add_adapter("student", seed=0)

    def told() -> Told:
        if options.by == "opcod":
            sampled(base, "student", prompts, options.samples, sampling)
        else:
            generated(loaded.model, prompts, options.samples, options.length)
        return {"rollout_tokens": tokens}

    turn.serve(told)


def prompts_of(loaded: LoadedBase, count: int, length: int) -> list[list[int]]:
    """So many prompts of random tokens."""
    size = loaded.model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    prompts: list[list[int]] = torch.randint(LOWEST_TOKEN, size, (count, length), generator=generator).tolist()
    return prompts


def sampled(
    base: SharedBase,
    adapter: str,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    ends: Sequence[int] = (),
) -> list[Response]:
    """Responses to every prompt, by opcod; none ends by itself, unless there are tokens that end it."""
    with base.sampling(adapter):
        return sample(
            base, [Request(tuple(p), (i, j)) for i, p in enumerate(prompts) for j in range(samples)], sampling, ends
        )


@torch.no_grad()
def generated(model: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int, length: int) -> Tensor:
    """The same by transformers."""
    ids = torch.tensor(prompts, device=model.device)
    tokens: Tensor = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_new_tokens=length,
        min_new_tokens=length,
        num_return_sequences=samples,
        pad_token_id=0,
    )
    return tokens


if __name__ == "__main__":
    main()
