"""Read what several sequences begin with once, and share its keys and values."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from opcod.peers import SharedBase


class ReplayedCache(DynamicCache):
    """Keys and values behind which layers may be computed again: what a layer adds, it does not find there then.

    Rows are repeated where they are read, so that no more than one of each is kept.

    Args:
        layers: What was read so far, one row a distinct beginning.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        super().__init__()
        self.layers = list(layers)
        self.runs: Sequence[range] | None = None  # the rows to come of each row
        self._grown: ReplayedCache | None = None

    def growing(self) -> ReplayedCache:
        """A cache that comes to hold what layers add in the next pass, too."""
        self._grown = ReplayedCache(self.layers)
        return self._grown

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [rows, heads, T, D] of new tokens behind those that were read."""
        before: Any = self.layers[layer_idx]
        layer = copy.copy(before)
        if self.runs is not None:
            _repeat_layer(self.runs, layer, key_states.device)
        seen: tuple[Tensor, Tensor] = layer.update(key_states, value_states, *args, **kwargs)
        if self._grown is not None and self._grown.layers[layer_idx] is before:
            self._grown.layers[layer_idx] = layer
        return seen


def shared_length(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all of `prompts` begin with, less one where a prompt has no more, so that one is left to read."""
    first, last = min(prompts), max(prompts)  # what these two begin with, all do
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(common, min(map(len, prompts)) - 1)


def read_prefixes(
    base: SharedBase, prefixes: Sequence[tuple[int, ...]], layer: type[DynamicLayer] = DynamicLayer
) -> tuple[DynamicCache, Tensor]:
    """The keys and values of one prefix a row, with a gradient where one is recorded.

    Equal neighbours are read once, and so is what kindred ones begin with.

    Args:
        base: The model; call inside `SharedBase.using`.
        prefixes: Token ids, one prefix a row, empty ones among them or not.
        layer: What the cache is made of, where the model asks for nothing else.

    Returns:
        The cache of all rows, and the mask [rows, P] of its positions, 0 where they are padding.
    """
    runs = list(equal_runs(prefixes))
    distinct = [prefixes[run[0]] for run in runs]
    begins = [0] * len(distinct) if base.family.minds_gaps else _common_begins(distinct)
    if any(begins):
        cache, mask = read_prefixes(base, [p[:n] for p, n in zip(distinct, begins, strict=True)], layer)
    else:
        cache = DynamicCache(config=base.loaded.model.config)
        cache.layers = [layer() if type(old) is DynamicLayer else old for old in cache.layers]
        cache = ReplayedCache(cache.layers) if base.recomputes else cache
        mask = torch.zeros(len(distinct), 0, dtype=torch.long, device=base.device)
    ids, own = left_padded([p[n:] for p, n in zip(distinct, begins, strict=True)], base.device)
    mask = torch.cat([mask, own], 1)
    if ids.shape[1]:
        places = positions(mask)[:, -ids.shape[1] :]
        grown = cache.growing() if isinstance(cache, ReplayedCache) else cache
        base.hidden(ids, attention_mask=padding(mask), position_ids=places, cache=cache)
        cache = grown
    return cache, repeat_runs(runs, mask, cache=cache if mask.shape[1] else None)


def _common_begins(prefixes: Sequence[tuple[int, ...]]) -> list[int]:
    """How many tokens of each are read once with its kindred neighbours; as many of one without, to keep rows even."""
    families = [[prefixes[i] for i in run] for run in kindred_runs(prefixes)]
    alone = min((shared_length(family) for family in families if len(family) > 1), default=0)
    begins: list[int] = []
    for family in families:
        begin = shared_length(family) if len(family) > 1 else min(alone, max(len(family[0]) - 1, 0))
        begins += [begin] * len(family)
    return begins


def repeat_runs(runs: Sequence[range], rows: Tensor, cache: DynamicCache | None = None) -> Tensor:
    """One row a run -> one row a member of it, in `rows` and, in place, in `cache`."""
    if len(runs) == sum(map(len, runs)):
        return rows
    if isinstance(cache, ReplayedCache):
        cache.runs = runs
    elif cache is not None:
        for layer in cache.layers:
            _repeat_layer(runs, layer, rows.device)
    return _repeated(runs, rows)


def _repeat_layer(runs: Sequence[range], layer: Any, device: torch.device) -> None:
    if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
        layer.keys, layer.values = _repeated(runs, layer.keys), _repeated(runs, layer.values)
    else:
        members = torch.tensor([i for i, run in enumerate(runs) for _ in run], device=device)
        layer.reorder_cache(members)


def _repeated(runs: Sequence[range], rows: Tensor) -> Tensor:
    """One row a member; unlike that of an index, its gradient is summed up fast on a CPU."""
    return torch.cat([row.expand(len(run), *row.shape[1:]) for run, row in zip(runs, rows.split(1), strict=True)])


def left_padded(sequences: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids [rows, longest] that end together, and their mask."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        if sequence:
            ids[row, -len(sequence) :] = torch.tensor(sequence)
            mask[row, -len(sequence) :] = 1
    return ids.to(device), mask.to(device)


def padding(mask: Tensor) -> Tensor | None:
    """The mask as a model is given it: None where nothing is padding, for which there are faster kernels."""
    return None if bool(mask.all()) else mask


def positions(mask: Tensor) -> Tensor:
    """Of every token [rows, T], counted without padding."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def kindred_runs(sequences: Sequence[tuple[int, ...]]) -> Iterator[range]:
    """Index ranges of neighbours that share at least half of what the shorter of each two is; empty ones stay alone."""
    start = 0
    for index in range(1, len(sequences) + 1):
        pair = sequences[index - 1 : index + 1]
        if index == len(sequences) or not all(pair) or 2 * shared_length(pair) < min(map(len, pair)):
            yield range(start, index)
            start = index


def equal_runs(keys: Sequence[Hashable]) -> Iterator[range]:
    """Index ranges of equal neighbours."""
    start = 0
    for index in range(1, len(keys) + 1):
        if index == len(keys) or keys[index] != keys[start]:
            yield range(start, index)
            start = index
