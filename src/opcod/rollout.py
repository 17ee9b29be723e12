"""Sample responses to prompts, fast.

Knows nothing about questions or peers' roles: prompts are token ids, and the model is whichever adapter is
active. Every response draws from a generator of its own key, so a rollout is the same in whatever order or
company it is sampled (up to the rounding of batched matrix products), and no generator state is stored.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from opcod.captured import Captured, Waits
from opcod.counts import count_faults
from opcod.decoding import GrowingLayer, SharedCache
from opcod.drafts import Drafts, Response
from opcod.halving import halved_where_full, is_out_of_memory
from opcod.optimization import DivergedError
from opcod.peers import SharedBase
from opcod.prefixes import equal_runs, left_padded, padding, positions, read_prefixes, repeat_runs
from opcod.stopping import look_up

_FEW = 0.8
"""Share of the rows of a batch that may go on before the others leave it."""
_FEW_IN_GRAPH = 0.5
"""The same where a step is then captured anew, and nobody waits for a place."""
_TOGETHER = 4
"""Requests with one prompt begin together, up to one in so many of a batch."""
PREFIXES = 2
"""Most prefixes that are kept, as a multiple of those that a batch begins with."""
_BETWEEN_LOOKS = 8
"""Tokens that a GPU samples before it is asked who has ended."""
_WORTH_CAPTURING = 16
"""Tokens that have to be left: to capture a step takes as long as to launch some."""
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
        fill_places: As responses end, others that wait take their places, where prefixes are shared; otherwise batch
            follows batch. On a CPU, where a token takes the longer the more rows there are, that is slower where
            responses are of like lengths; on a GPU it has not been measured.
        share_prefixes: Keep and read what neighbours begin with once, by opcod's own attention, for models that take
            one; otherwise every row has a copy, read by the model's attention.
        capture: On a GPU, where prefixes are shared, record what is done for one token as a CUDA graph and repeat it;
            otherwise Python launches every operation anew.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    batch_size: int = 64
    fill_places: bool = False
    share_prefixes: bool = True
    capture: bool = True

    def __post_init__(self) -> None:
        faults = []
        if not self.temperature >= 0:
            faults.append(f"temperature is {self.temperature}, expected at least 0")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p is {self.top_p}, expected above 0 and at most 1")
        faults += count_faults(max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)
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

    responses: dict[int, Response] = {}

    def answer(size: int) -> None:
        """Those that have no response yet, so many side by side."""
        left = [i for i in range(len(requests)) if i not in responses]
        rows = Rows(base, [requests[i] for i in left], replace(sampling, batch_size=size), ends)
        try:
            _go_through(rows)
        finally:
            responses.update({left[i]: response for i, response in rows.responses.items()})

    if requests:
        halved_where_full(answer, min(sampling.batch_size, len(requests)), setting="batch_size")
    return [responses[i] for i in range(len(requests))]


@torch.no_grad()
def _go_through(rows: Rows) -> None:
    look_up()
    while rows.fill():
        with rows.base.decoding(rows.cache):
            while tokens := rows.look():
                rows.reserve(tokens)
                for _ in range(tokens):
                    look_up()
                    rows.advance()


class Rows:
    """Responses that are sampled side by side, token by token.

    What a token changes lies in tensors that stay as they are, and nothing is asked of these until `look`: so a GPU can
    repeat what it did for one token, as a captured graph, for those that follow.

    Args:
        base: The model; call inside `SharedBase.using`.
        requests: A batch of them is begun with; the others wait until places are free.
        sampling: How they are sampled.
        ends: Token ids that end a response.
        on_gpu: Whether steps can be captured; by default what the device is.
    """

    cache: DynamicCache
    _mask: Tensor | None  # [rows, positions] of a cache that has none itself
    _hidden: Tensor  # [rows, H], from which the next token is drawn
    _place: Tensor  # [rows] of the next token, counted without padding
    _drafts: Drafts
    _most_prefixes: int

    def __init__(
        self,
        base: SharedBase,
        requests: Sequence[Request],
        sampling: Sampling,
        ends: Sequence[int],
        on_gpu: bool | None = None,
    ) -> None:
        self.base, self.requests, self.sampling = base, requests, sampling
        self.responses: dict[int, Response] = {}
        self._ends = torch.tensor(list(ends), dtype=torch.long, device=base.device)
        self._begun = 0  # requests that have, or had, a row
        self._live: list[int] = []  # the request of each row
        self._since: list[int] = []  # tokens that others had before its first
        self._drawn = 0  # tokens since the first row began
        on_gpu = base.device.type == "cuda" if on_gpu is None else on_gpu
        self._may_capture = on_gpu and sampling.capture
        self._captured: Captured | None = None
        self._fits = False  # whether what was captured is of the shapes as they are

    def fill(self) -> bool:
        """Give free places to requests that wait; if there are any, draw a token of every row.

        Returns:
            Whether there are rows.
        """
        if count := self._next(range(len(self._live))):
            if self._live:
                self.reserve(1)
                with self.base.decoding(self.cache):
                    self._read()
                self._moved()
            self._begin(self.requests[self._begun : self._begun + count])
            self._draw()
            self._drawn += 1
        return bool(self._live)

    def advance(self) -> None:
        """Sample one more token of every row, for which there must be room."""
        if self._fits and self._captured is not None:
            self._captured()
            if self._draws_alone:
                self._draw()
        else:
            worth = self._captures and self._left > _WORTH_CAPTURING
            self._read_watched() if worth and self.base.captures is None else self._read()
            self._draw()
            if worth and self._captures:
                self._capture()
        self._moved()
        self._drawn += 1

    def look(self) -> int:
        """Let rows go that have ended, once they are many, and tell how many tokens to sample until the next look.

        Returns:
            0 when every row has ended, or others can have their places.

        Raises:
            DivergedError: If the model's probabilities are no numbers.
        """
        if (place := self._drafts.first_without_number()) is not None:
            raise DivergedError(_NO_NUMBERS.format(place))
        going = self._drafts.going
        which = going.nonzero()[:, 0].tolist()
        followed = len(which) <= _FEW * len(going) and self._next(which) > 0
        if followed or len(which) <= len(going) * (_FEW_IN_GRAPH if self._captures else _FEW):
            self._let_go(going)
            if followed or not which:
                return 0
        return min(self._left, _BETWEEN_LOOKS if self._captures else 1)

    def reserve(self, tokens: int) -> None:
        """Have room for so many more tokens of every row."""
        if isinstance(self.cache, SharedCache) and self.cache.reserve(tokens, self._left):
            self._fits = False

    @property
    def _shared(self) -> SharedCache | None:
        """The cache, if nothing in it is of a row alone but what is its own."""
        return self.cache if isinstance(self.cache, SharedCache) and self.cache.mask is not None else None

    @property
    def _joinable(self) -> bool:
        """Whether rows may join those that there are."""
        return self.sampling.fill_places and self._shared is not None

    @property
    def _captures(self) -> bool:
        """Whether steps are captured, whose shapes must change only when there is to be more room."""
        return self._may_capture and self.base.captures is not False and self._shared is not None

    @property
    def _draws_alone(self) -> bool:
        """Whether drawing a token asks for a number, so that it cannot be captured with the rest."""
        return self.sampling.temperature > 0 and self.sampling.top_p < 1

    @property
    def _left(self) -> int:
        """Most tokens that a row may still get."""
        return self.sampling.max_new_tokens - self._drawn + max(self._since)

    def _next(self, beside: Sequence[int]) -> int:
        """How many requests can begin beside these rows: those with one prompt together, and not too many prompts."""
        size = self.sampling.batch_size
        free, together, prefixes = size - len(beside), max(size // _TOGETHER, 1), len(self.requests)
        if beside:
            if not self._joinable:
                return 0
            assert self._shared is not None
            prefixes = self._most_prefixes - len({self._shared.groups.of_row[row] for row in beside})
        asked = self.requests[self._begun : self._begun + free + 1]  # one more tells whether the last is cut off
        count = 0
        for run in list(equal_runs([r.prompt[: r.shared] or r.prompt for r in asked]))[: max(prefixes, 0)]:
            parts = [*run[together::together], run.stop]
            count = max([end for end in parts if end <= free], default=count)
            if count < run.stop:
                break
        return count

    def _begin(self, requests: Sequence[Request]) -> None:
        """Read these requests' prompts, and have them as rows beside those that there are."""
        cache, mask, hidden = prefill(self.base, requests, share=self.sampling.share_prefixes)
        uniforms = torch.stack([uniforms_of(r.key, self.sampling.max_new_tokens) for r in requests])
        drafts, place = Drafts(uniforms, self.base.device), mask.sum(1)
        if self._live:
            assert isinstance(cache, SharedCache)
            assert self._shared is not None
            self._shared.join(cache, self.sampling.max_new_tokens)
            self._hidden, self._place = torch.cat([self._hidden, hidden]), torch.cat([self._place, place])
            self._drafts.add(drafts)
        else:
            self.cache, self._hidden, self._place, self._drafts = cache, hidden, place, drafts
            self._mask = mask if self._shared is None else None
            if isinstance(cache, SharedCache):
                self._most_prefixes = PREFIXES * cache.groups.count
        self._live += range(self._begun, self._begun + len(requests))
        self._since += [self._drawn] * len(requests)
        self._begun += len(requests)
        self._fits = False

    def _token(self) -> None:
        self._read()
        self._draw()

    def _draw(self) -> None:
        """Draw a token of every row from its last hidden state."""
        self._drafts.draw(self.base.head(self._hidden), self.sampling.temperature, self.sampling.top_p, self._ends)

    def _read(self) -> None:
        """Read the tokens that were drawn last."""
        if self._shared is not None:
            self._shared.show_next()
        if self._mask is not None:
            self._mask = F.pad(self._mask, (0, 1), value=1)
        hidden = self.base.hidden(
            self._drafts.chosen[:, None],
            attention_mask=self._mask if self._shared is None else self._shared.mask,
            position_ids=self._place[:, None],
            cache=self.cache,
        )
        self._hidden.copy_(hidden[:, 0])
        self._place.add_(1)
        if isinstance(self.cache, SharedCache):
            self.cache.place.add_(1)

    def _read_watched(self) -> None:
        """As `_read`; note whether it could be captured."""
        with Waits(self.base.device) as waits:
            self._read()
        self.base.captures = waits.found is None
        if waits.found:
            _tell_launched(f"the model waits for a number as it reads a token ({waits.found})")

    def _moved(self) -> None:
        """What a repeated graph does not do: note that a token was read."""
        if isinstance(self.cache, SharedCache):
            self.cache.at += 1

    def _capture(self) -> None:
        """Have what was just done for one token repeated for the next ones."""
        try:
            work = self._read if self._draws_alone else self._token
            self._captured = Captured(work, self.base.device, self._captured)
            self._fits = True
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.base.captures = False
            _tell_launched(str(error))

    def _let_go(self, going: Tensor) -> None:
        """Give out the responses of rows that have ended, and keep the others."""
        which, ended = going.nonzero()[:, 0], (~going).nonzero()[:, 0].tolist()
        self.responses.update(zip([self._live[row] for row in ended], self._drafts.responses(ended), strict=True))
        rows = which.tolist()
        self._live, self._since = [self._live[row] for row in rows], [self._since[row] for row in rows]
        if self._live:
            self.cache.reorder_cache(which)  # type: ignore[arg-type]
            self._mask = None if self._mask is None else self._mask[which]
            self._hidden, self._place = self._hidden[which], self._place[which]
            self._drafts.keep(which)
        self._fits = False


def _tell_launched(why: str) -> None:
    warnings.warn(f"sampling launches every operation by itself, as they cannot be captured: {why}", stacklevel=3)


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
        attention_mask=padding(mask),
        position_ids=positions(mask)[:, -ids.shape[1] :],
        cache=cache,
    )[:, -1]
    if share and base.family.takes_attention:
        groups = list(equal_runs(begins if common else range(len(runs))))
        mask = repeat_runs(runs, mask)
        cache = SharedCache(cache, mask, common or mask.shape[1], groups, runs, base.loaded.dtype)
        return cache, mask, repeat_runs(runs, hidden).contiguous()
    return cache, repeat_runs(runs, mask, cache), repeat_runs(runs, hidden).contiguous()


def uniforms_of(key: tuple[int | str, ...], count: int) -> Tensor:
    """[count] float32 numbers in [0, 1) that belong to `key` alone."""
    generator = torch.Generator().manual_seed(seed_of(key))
    return torch.rand(count, generator=generator)


def seed_of(key: tuple[int | str, ...]) -> int:
    """A 63-bit seed from the parts of a key, the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1
