"""Sample responses to prompts, fast.

Knows nothing about questions or peers' roles: prompts are token ids, and the model is whichever adapter is
active. Every response draws from a generator of its own key, so a rollout is the same in whatever order or
company it is sampled (up to the rounding of batched matrix products), and no generator state is stored.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from opcod.captured import Captured
from opcod.decoding import GrowingLayer, SharedCache
from opcod.drawing import choose, drawn
from opcod.halving import halved_where_full, is_out_of_memory
from opcod.optimization import DivergedError
from opcod.peers import SharedBase
from opcod.prefixes import equal_runs, left_padded, positions, read_prefixes, repeat_runs
from opcod.stopping import look_up

_FEW = 0.8
"""Share of the rows of a batch that may go on before the others leave it."""
_FEW_IN_GRAPH = 0.5
"""The same where a step is then captured anew."""
_BETWEEN_LOOKS = 8
"""Tokens that a GPU samples before it is asked who has ended."""
_WORTH_CAPTURING = 16
"""Tokens that have to be left: to capture a step takes as long as to launch some."""
_BY_ROW = (
    "_hidden",
    "_mask",
    "_place",
    "_uniforms",
    "_chosen",
    "_tokens",
    "_log_probs",
    "_entropies",
    "_length",
    "_finished",
)
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
        capture: On a GPU, where prefixes are shared, record what is done for one token as a CUDA graph and repeat it;
            otherwise Python launches every operation anew.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    share_prefixes: bool = True
    capture: bool = True

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
    rows = Rows(base, requests, sampling, ends)
    with base.decoding(rows.cache):
        look_up()
        rows.begin()
        while tokens := rows.look():
            rows.reserve(tokens)
            for _ in range(tokens):
                look_up()
                rows.advance()
    return [rows.responses[i] for i in range(len(requests))]


class Rows:
    """Responses that are sampled side by side, token by token.

    What a token changes lies in tensors that stay as they are, and nothing is asked of these until `look`: so a GPU can
    repeat what it did for one token, as a captured graph, for those that follow.

    Args:
        base: The model; call inside `SharedBase.using`.
        requests: One a row.
        sampling: How they are sampled.
        ends: Token ids that end a response.
        on_gpu: Whether steps can be captured; by default what the device says.
    """

    def __init__(
        self,
        base: SharedBase,
        requests: Sequence[Request],
        sampling: Sampling,
        ends: Sequence[int],
        on_gpu: bool | None = None,
    ) -> None:
        device, rows, limit = base.device, len(requests), sampling.max_new_tokens
        self.base, self.sampling = base, sampling
        self.responses: dict[int, Response] = {}
        self.cache, mask, self._hidden = prefill(base, requests, share=sampling.share_prefixes)
        self._grows = not (isinstance(self.cache, SharedCache) and self.cache.shares_all)
        self._mask = mask if self._grows else _added(mask, base.loaded.dtype)
        self._place = mask.sum(1)  # [rows] of the next token
        self._uniforms = torch.stack([uniforms_of(r.key, limit) for r in requests]).to(device)  # [rows, limit]
        self._ends = torch.tensor(list(ends), dtype=torch.long, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._chosen = torch.zeros(rows, dtype=torch.long, device=device)
        self._tokens = torch.zeros(rows, limit, dtype=torch.long, device=device)
        self._log_probs, self._entropies = torch.zeros(2, rows, limit, device=device)
        self._length = torch.full((rows,), limit, device=device)
        self._finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self._live = list(range(rows))  # the request of each row
        self._drawn = self._seen = 0  # tokens of each row, and those of them that were looked at
        on_gpu = device.type == "cuda" if on_gpu is None else on_gpu
        self._captures = on_gpu and sampling.capture and not self._grows
        self._captured: Captured | None = None
        self._fits = False  # whether what was captured is of the shapes as they are

    def begin(self) -> None:
        """Draw the first token of every row."""
        self._draw()
        self._drawn += 1

    def advance(self) -> None:
        """Sample one more token of every row, for which there must be room."""
        if self._fits and self._captured is not None:
            self._captured()
            if self._draws_alone:
                self._draw()
        else:
            self._token()
            if self._captures and self.sampling.max_new_tokens - self._drawn > _WORTH_CAPTURING:
                self._capture()
        self._drawn += 1

    def look(self) -> int:
        """Let rows go that have ended, once they are many, and tell how many tokens to sample until the next look.

        Returns:
            0 when every row has ended, or is as long as it may be.

        Raises:
            DivergedError: If the model's probabilities are no numbers.
        """
        columns = torch.arange(self._seen, self._drawn, device=self.base.device)
        wrong = ~self._log_probs[:, self._seen : self._drawn].isfinite() & (columns < self._length[:, None])
        if bool(wrong.any()):
            raise DivergedError(_NO_NUMBERS.format(int(columns[wrong.any(0)][0]) + 1))
        self._seen = self._drawn
        left, going = self.sampling.max_new_tokens - self._drawn, ~self._finished
        count = int(going.sum()) if left else 0
        if count == 0:
            self._give_out(torch.ones_like(going))
            return 0
        if count <= len(going) * (_FEW_IN_GRAPH if self._captures else _FEW):
            self._give_out(self._finished)
            self._keep(going)
        return min(left, _BETWEEN_LOOKS if self._captures else 1)

    def reserve(self, tokens: int) -> None:
        """Have room for so many more tokens of every row."""
        if isinstance(self.cache, SharedCache):
            begun = self.cache.own - 1  # the last token that is drawn is not read
            self.cache.reserve(begun + self._drawn + tokens, begun + self.sampling.max_new_tokens)
            if not self._grows and (more := self.cache.positions - self._mask.shape[3]) > 0:
                self._mask = F.pad(self._mask, (0, more), value=torch.finfo(self._mask.dtype).min)
                self._fits = False

    @property
    def _draws_alone(self) -> bool:
        """Whether drawing a token asks for a number, so that it cannot be captured with the rest."""
        return self.sampling.temperature > 0 and self.sampling.top_p < 1

    def _token(self) -> None:
        self._read()
        self._draw()

    def _draw(self) -> None:
        """Draw a token of every row from its last hidden state."""
        at = self._step.expand(len(self._place), 1)
        logits = self.base.head(self._hidden)
        chosen = choose(logits, self._uniforms.gather(1, at)[:, 0], self.sampling.temperature, self.sampling.top_p)
        for kept, new in zip((self._log_probs, self._entropies), drawn(logits, chosen), strict=True):
            kept.scatter_(1, at, new[:, None])
        self._tokens.scatter_(1, at, chosen[:, None])
        self._chosen.copy_(chosen)
        self._step.add_(1)
        ended = (chosen[:, None] == self._ends).any(1) & ~self._finished
        self._length.copy_(torch.where(ended, self._step, self._length))
        self._finished.logical_or_(ended)

    def _read(self) -> None:
        """Read the tokens that were drawn last."""
        if self._grows:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        else:
            assert isinstance(self.cache, SharedCache)
            self._mask.index_fill_(3, self.cache.place + self.cache.shared, 0.0)
        hidden = self.base.hidden(
            self._chosen[:, None], attention_mask=self._mask, position_ids=self._place[:, None], cache=self.cache
        )
        self._hidden.copy_(hidden[:, 0])
        self._place.add_(1)
        if isinstance(self.cache, SharedCache):
            self.cache.place.add_(1)

    def _capture(self) -> None:
        """Have what was just done for one token repeated for the next ones."""
        try:
            work = self._read if self._draws_alone else self._token
            self._captured = Captured(work, self.base.device, self._captured)
            self._fits = True
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._captures = False
            warnings.warn(
                f"sampling launches every operation by itself, as they cannot be captured: {error}", stacklevel=2
            )

    def _give_out(self, chosen: Tensor) -> None:
        """The responses of these rows."""
        which = chosen.nonzero()[:, 0]
        kept = (self._tokens, self._log_probs, self._entropies, self._length, self._finished)
        tokens, log_probs, entropies, lengths, finished = (t[which].cpu() for t in kept)
        for i, row in enumerate(which.tolist()):
            n = int(lengths[i])
            self.responses[self._live[row]] = Response(
                tokens[i, :n].clone(), log_probs[i, :n].clone(), bool(finished[i]), float(entropies[i, :n].mean())
            )

    def _keep(self, chosen: Tensor) -> None:
        """Go on with these rows alone."""
        which = chosen.nonzero()[:, 0]
        self.cache.reorder_cache(which)  # type: ignore[arg-type]
        for name in _BY_ROW:
            setattr(self, name, getattr(self, name)[which])
        self._live = [self._live[row] for row in which.tolist()]
        self._fits = False


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask [rows, S], as it is added to the scores [rows, heads, 1, S]."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]


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
    starts = [0 if base.family.minds_gaps else r.shared for r in distinct]
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
    if share and base.family.takes_attention:
        groups = list(equal_runs(begins if common else range(len(runs))))
        cache = SharedCache(cache, common or mask.shape[1], groups, runs, base.device)
        return cache, repeat_runs(runs, mask), repeat_runs(runs, hidden).contiguous()
    return cache, repeat_runs(runs, mask, cache), repeat_runs(runs, hidden).contiguous()


def uniforms_of(key: tuple[int | str, ...], count: int) -> Tensor:
    """[count] float32 numbers in [0, 1) that belong to `key` alone."""
    generator = torch.Generator().manual_seed(seed_of(key))
    return torch.rand(count, generator=generator)


def seed_of(key: tuple[int | str, ...]) -> int:
    """A 63-bit seed from the parts of a key, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1
