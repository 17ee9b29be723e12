"""Sample responses to prompts, fast.

Knows nothing about questions or peers' roles: prompts are token ids, and the model is whichever adapter is
active. Every response draws from a generator of its own key, so a rollout is the same in whatever order or
company it is sampled (up to the rounding of batched matrix products), and no generator state is stored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from opcod.decoding import GrowingLayer, SharedCache
from opcod.halving import halved_where_full
from opcod.optimization import DivergedError
from opcod.peers import SharedBase
from opcod.prefixes import equal_runs, left_padded, positions, read_prefixes, repeat_runs
from opcod.stopping import look_up

_BLOCK = 256  # tokens summed at once when a distribution is inverted
_CANDIDATES = 256  # tokens looked at for top-p before the whole vocabulary is sorted
_NO_NUMBERS = (
    "the model's probabilities at token {} of a response are not finite: its adapter or weights hold no numbers, or "
    "overflow. Go on from an earlier checkpoint with a lower learning rate, or compute in float32"
)


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Args:
        temperature: Logits are divided by it; 0 takes the likeliest token.
        top_p: Keep the likeliest tokens that together hold this probability.
        max_new_tokens: Longest response, its end token included.
        batch_size: Responses sampled side by side.
        share_prefixes: Keep and read what neighbours begin with once, by opcod's own attention, for models that take
            one; otherwise every row has a copy, read by the model's attention.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        faults = []
        if not self.temperature >= 0:
            faults.append(f"temperature is {self.temperature}, expected at least 0")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if self.max_new_tokens < 1:
            faults.append(f"max_new_tokens is {self.max_new_tokens}, expected at least 1")
        if self.batch_size < 1:
            faults.append(f"batch_size is {self.batch_size}, expected at least 1")
        if faults:
            raise ValueError("sampling: " + "; ".join(faults))


@dataclass(frozen=True)
class Request:
    """One response to be sampled.

    Args:
        prompt: Token ids of the prompt; equal prompts side by side are read by the model once.
        key: Names the draw, e.g. (seed, "rollout", student, round, phase, step, question, sample).
        shared: Tokens that the prompt begins with as its neighbours do (`prefixes.shared_length`); they are read once.
    """

    prompt: tuple[int, ...]
    key: tuple[int | str, ...]
    shared: int = 0


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Args:
        tokens: [T] its token ids, the end token included where it was reached.
        log_probs: [T] the model's log-probability of each token, at temperature 1 over the whole vocabulary.
        finished: Whether it ended by itself rather than by its length.
        entropy: Of the model's distribution over a token, at temperature 1, in nats; the mean of its tokens.
    """

    tokens: Tensor
    log_probs: Tensor
    finished: bool
    entropy: float = math.nan


def sample(base: SharedBase, requests: Sequence[Request], sampling: Sampling, ends: Sequence[int]) -> list[Response]:
    """Sample a response to every request from the adapter that is active.

    Args:
        base: The model; call inside `SharedBase.using`.
        requests: In any order; group equal prompts for speed.
        sampling: Temperature, top-p and lengths.
        ends: Token ids that end a response.

    Returns:
        One response a request, in their order.

    Raises:
        DivergedError: If the model's probabilities are no numbers.
    """

    def sampled(batch: Sequence[Request], size: int) -> list[Response]:
        """So many side by side."""
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        return [response for part in parts for response in _sample_batch(base, part, sampling, ends)]

    responses: list[Response] = []
    for start in range(0, len(requests), sampling.batch_size):
        batch = requests[start : start + sampling.batch_size]
        responses += halved_where_full(partial(sampled, batch), len(batch), setting="batch_size")
    return responses


@torch.no_grad()
def _sample_batch(
    base: SharedBase, requests: Sequence[Request], sampling: Sampling, ends: Sequence[int]
) -> list[Response]:
    device, rows, limit = base.device, len(requests), sampling.max_new_tokens
    uniforms = torch.stack([uniforms_of(r.key, limit) for r in requests]).to(device)  # [rows, limit]
    end_ids = torch.tensor(list(ends), device=device)
    cache, mask, hidden = prefill(base, requests, share=sampling.share_prefixes)
    tokens = torch.zeros(rows, limit, dtype=torch.long, device=device)
    log_probs, entropies = torch.zeros(2, rows, limit, device=device)
    length = torch.full((rows,), limit, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    live = torch.arange(rows, device=device)  # the request of each row still in the batch
    place = mask.sum(1)  # [live] of the next token
    with base.decoding(cache):
        for step in range(limit):
            look_up()
            logits = base.head(hidden)
            chosen = choose(logits, uniforms[live, step], sampling.temperature, sampling.top_p)
            tokens[live, step] = chosen
            log_probs[live, step], entropies[live, step] = drawn(logits, chosen)
            if not bool(log_probs[live, step].isfinite().all()):
                raise DivergedError(_NO_NUMBERS.format(step + 1))
            ended = torch.isin(chosen, end_ids) & ~finished[live]
            length[live[ended]], finished[live[ended]] = step + 1, True
            going = ~finished[live]
            if step + 1 == limit or not bool(going.any()):
                break
            if int(going.sum()) <= 0.8 * len(live):
                keep = going.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                live, mask, place, chosen = live[keep], mask[keep], place[keep], chosen[keep]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
            hidden = base.hidden(chosen[:, None], attention_mask=mask, position_ids=place[:, None], cache=cache)[:, 0]
            place = place + 1
    tokens, log_probs, lengths, done = tokens.cpu(), log_probs.cpu(), length.tolist(), finished.tolist()
    mean_entropies = [float(entropies[i, : lengths[i]].mean()) for i in range(rows)]
    return [
        Response(tokens[i, : lengths[i]].clone(), log_probs[i, : lengths[i]].clone(), done[i], mean_entropies[i])
        for i in range(rows)
    ]


def prefill(base: SharedBase, requests: Sequence[Request], *, share: bool) -> tuple[DynamicCache, Tensor, Tensor]:
    """Read every distinct prompt once, and what neighbours begin with once for all of them.

    Args:
        base: The model; call inside `SharedBase.using`.
        requests: One a row.
        share: Let rows share the cache of what they begin with, where the model takes opcod's attention.

    Returns:
        The cache of all rows, its mask [rows, positions], and the hidden state [rows, H] at each prompt's end.
    """
    runs = list(equal_runs([r.prompt for r in requests]))
    distinct = [requests[run[0]] for run in runs]
    windows = base.has_windows
    starts = [0 if windows else r.shared for r in distinct]
    begins = [r.prompt[:start] for r, start in zip(distinct, starts, strict=True)]
    cache, mask = read_prefixes(base, begins, GrowingLayer)
    common = mask.shape[1]
    ids, own = left_padded([r.prompt[start:] for r, start in zip(distinct, starts, strict=True)], base.device)
    mask = torch.cat([mask, own], 1)
    hidden = base.hidden(
        ids,
        attention_mask=None if bool(mask.all()) else mask,
        position_ids=positions(mask)[:, -ids.shape[1] :],
        cache=cache,
    )[:, -1]
    if share and base.takes_attention:
        groups = list(equal_runs(begins if common else range(len(runs))))
        cache = SharedCache(cache, common or mask.shape[1], groups, runs, base.device)
        return cache, repeat_runs(runs, mask), repeat_runs(runs, hidden).contiguous()
    return cache, repeat_runs(runs, mask, cache), repeat_runs(runs, hidden).contiguous()


def choose(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at `uniform`.

    Args:
        logits: [B, V], of any offset: log-probabilities serve as well.
        uniform: [B] numbers in [0, 1).
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: The likeliest tokens whose probabilities before them sum to less than this are kept.

    Returns:
        [B] token ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    probabilities = scaled.softmax(-1)
    if top_p == 1:
        return _invert(probabilities, uniform)
    values, ids = probabilities.topk(min(_CANDIDATES, probabilities.shape[-1]))
    if bool((values.sum(-1) < top_p).any()):
        values, ids = probabilities.sort(descending=True)
    before = values.cumsum(-1) - values
    kept = torch.where(before < top_p, values, 0)
    return ids.gather(1, _invert(kept, uniform)[:, None])[:, 0]


def drawn(logits: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability [B] of what was chosen, and the distribution's entropy [B], at temperature 1, in nats.

    Args:
        logits: [B, V] in float32.
        chosen: [B] token ids.
    """
    probabilities = logits.softmax(-1)
    log_probs = probabilities.gather(1, chosen[:, None])[:, 0].log()
    normaliser = logits.gather(1, chosen[:, None])[:, 0] - log_probs
    return log_probs, (normaliser - probabilities.mul_(logits).sum(-1)).clamp(min=0)


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """The index [B] at which the cumulative sum of `weights` [B, V] first exceeds `uniform` of its total.

    In two steps, over blocks and then within one: a cumulative sum over a whole vocabulary is slow on a CPU.
    """
    batch, size = weights.shape
    blocks = F.pad(weights, (0, -size % _BLOCK)).view(batch, -1, _BLOCK)
    block, rest = _step(blocks.sum(-1), uniform[:, None], scale=True)
    within, _ = _step(blocks[torch.arange(batch, device=block.device), block], rest, scale=False)
    return block * _BLOCK + within


def _step(weights: Tensor, target: Tensor, *, scale: bool) -> tuple[Tensor, Tensor]:
    """Where the cumulative sum exceeds `target` [B, 1] (of the total, with `scale`), and what is left of it."""
    cumulative = weights.cumsum(-1)
    if scale:
        target = target * cumulative[:, -1:]
    last = (weights > 0).int().cumsum(-1).argmax(-1, keepdim=True)  # should rounding overshoot the end
    index = torch.minimum(torch.searchsorted(cumulative, target, right=True), last)
    left = target - (cumulative.gather(1, index) - weights.gather(1, index))
    return index[:, 0], left.clamp(min=0)


def uniforms_of(key: tuple[int | str, ...], count: int) -> Tensor:
    """[count] float32 numbers in [0, 1) that belong to `key` alone."""
    generator = torch.Generator().manual_seed(seed_of(key))
    return torch.rand(count, generator=generator)


def seed_of(key: tuple[int | str, ...]) -> int:
    """A 63-bit seed from the parts of a key, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1
