"""Keys and values of responses while they are sampled: what rows begin with is kept once, and there is room to grow.

Goes through transformers' own cache and attention interfaces, so that any causal language model decodes with it:
`SharedCache` hands a layer's own keys and values back as any cache does, and `attention.grouped_attention` fetches the
shared ones from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE = 64
"""Positions that are allocated at once."""
SPARE_ON_GPU = 256
"""The same where every allocation makes a step be captured anew."""
WHOLE = 32
"""Positions in all are a multiple of it: a CPU takes a softmax in bfloat16 over whole vectors twice as fast."""


def under_one_another(one: Tensor, other: Tensor, end: int, room: int, fill: float = 0.0) -> Tensor:
    """The rows of both [rows, heads, positions, D], with room for so many positions, what they hold ending at `end`."""
    rows = one.new_full((len(one) + len(other), one.shape[1], room, one.shape[3]), fill)
    rows[: len(one), :, end - one.shape[2] : end] = one
    rows[len(one) :, :, end - other.shape[2] : end] = other
    return rows


class GrowingLayer(DynamicLayer):
    """A cache layer with room to grow, so that a decoded token does not copy the whole past."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, heads, T, D]; returns views of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._room: tuple[Tensor, Tensor] | None = None
        old, new = self.get_seq_length(), key_states.shape[-2]
        batch, heads = key_states.shape[:2]
        if self._room is None or self._room[0].shape[0] != batch or self._room[0].shape[-2] < old + new:
            size = old + new + SPARE
            self._room = (
                key_states.new_empty(batch, heads, size, key_states.shape[-1]),
                value_states.new_empty(batch, heads, size, value_states.shape[-1]),
            )
            if self.keys is not None and self.values is not None and old:
                self._room[0][:, :, :old] = self.keys
                self._room[1][:, :, :old] = self.values
        self._room[0][:, :, old : old + new] = key_states
        self._room[1][:, :, old : old + new] = value_states
        self.keys = self._room[0][:, :, : old + new]
        self.values = self._room[1][:, :, : old + new]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Go on with the sequences at these indices, each as often as it is named."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._room = None


class Groups:
    """Which rows of a batch share a prefix.

    Args:
        of_row: The prefix of each row, counted from 0, in ascending order; every prefix has a row.
        device: Of the rows.
    """

    def __init__(self, of_row: Sequence[int], device: torch.device) -> None:
        self.of_row = list(of_row)
        sizes = list(Counter(self.of_row).values())
        self.count, self.size = len(sizes), max(sizes)
        self._slots: Tensor | None = None  # [count * size] the row in each place of a group, any row in an empty one
        if self.count * self.size > len(self.of_row):
            starts = [0, *accumulate(sizes)]
            places = [group * self.size + row - starts[group] for row, group in enumerate(self.of_row)]
            slots = torch.zeros(self.count * self.size, dtype=torch.long)
            slots[places] = torch.arange(len(places))
            self._places, self._slots = torch.tensor(places, device=device), slots.to(device)

    def stack(self, rows: Tensor) -> Tensor:
        """[rows, heads, M, D] -> [groups, heads, group size * M, D], a group's rows under one another."""
        if self._slots is not None:
            rows = rows[self._slots]
        _, heads, m, size = rows.shape
        return rows.view(self.count, self.size, heads, m, size).transpose(1, 2).reshape(self.count, heads, -1, size)

    def unstack(self, stacked: Tensor) -> Tensor:
        """The way back from `stack`."""
        _, heads, m, size = stacked.shape
        m //= self.size
        rows = stacked.view(self.count, heads, self.size, m, size).transpose(1, 2).reshape(-1, heads, m, size)
        return rows if self._slots is None else rows[self._places]


class SharedLayer(DynamicLayer):
    """Keys and values of the rows' own, behind a prefix that each group of rows shares.

    Args:
        prefix: Keys and values [groups, heads, P, D].
        own: Keys and values [rows, heads, S, D] of what each row goes on with; S may be 0.
        place: [1], where among their own the next token of all rows comes to stand; whoever decodes moves it on.
    """

    def __init__(self, prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], place: Tensor) -> None:
        super().__init__()
        self.prefix = prefix
        self.place = place
        self.lazy_initialization(*own)
        self.keys, self.values = own
        self.length = own[0].shape[2]

    def reserve(self, room: int) -> None:
        """Have room for so many positions of the rows' own."""
        assert self.keys is not None
        assert self.values is not None
        if (more := room - self.keys.shape[2]) > 0:
            self.keys, self.values = F.pad(self.keys, (0, 0, 0, more)), F.pad(self.values, (0, 0, 0, more))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the keys and values [rows, heads, 1, D] of the next token, for which there must be room.

        Returns:
            All of the rows' own [rows, heads, room, D], with room at the end that a mask has to leave out.
        """
        assert self.keys is not None
        assert self.values is not None
        self.length += 1
        self.keys.index_copy_(2, self.place, key_states)
        self.values.index_copy_(2, self.place, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Positions so far, the prefix's included; not of a captured step's tokens, which asks for no mask."""
        return self.prefix[0].shape[2] + self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of the mask of a token: the prefix and the room for the rows' own."""
        assert self.keys is not None
        return self.prefix[0].shape[2] + self.keys.shape[2], 0

    def select_prefixes(self, indices: Tensor) -> None:
        """Keep only these groups' prefixes."""
        keys, values = self.prefix
        self.prefix = keys[indices], values[indices]

    def join(self, other: SharedLayer, own: slice, shared: int, room: int) -> None:
        """Go on with the groups and rows of `other` behind these.

        Args:
            other: The same layer of another cache, with nothing but what is written.
            own: The positions of these rows' own that they go on with.
            shared: Positions of all prefixes from now on.
            room: Positions of the rows' own from now on.
        """
        assert self.keys is not None
        assert self.values is not None
        assert other.keys is not None
        assert other.values is not None
        self.length = max(own.stop - own.start, other.length)
        self.prefix = (
            under_one_another(self.prefix[0], other.prefix[0], shared, shared),
            under_one_another(self.prefix[1], other.prefix[1], shared, shared),
        )
        self.keys = under_one_another(self.keys[:, :, own], other.keys, self.length, room)
        self.values = under_one_another(self.values[:, :, own], other.values, self.length, room)


class SharedCache(DynamicCache):
    """A cache in which the rows of a group share the keys and values of their prefix.

    Layers of other kinds than `GrowingLayer`, such as those with a sliding window, keep a copy a row.

    `shared` are the positions of the prefix. `at` is where among the rows' own the next token goes, as `place` says on
    the device; whoever decodes moves both on. `mask` [rows, 1, 1, positions] is added to the scores, and None where
    some layers keep copies.

    Args:
        cache: What was read so far, one row a distinct prompt; given up for this one.
        mask: [rows, positions] of the rows to come, 0 where they have padding.
        length: P, the positions of it that are shared.
        groups: The rows of `cache` that share a prefix, group after group.
        runs: The rows to come that go on from each row of `cache`.
        dtype: Of the scores.
    """

    def __init__(
        self,
        cache: DynamicCache,
        mask: Tensor,
        length: int,
        groups: Sequence[Sequence[int]],
        runs: Sequence[Sequence[int]],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.device = mask.device
        self.spare = SPARE_ON_GPU if self.device.type == "cuda" else SPARE
        self.shared, self.room = length, mask.shape[1] - length
        self.at = self.room
        self.place = torch.full((1,), self.at, dtype=torch.long, device=self.device)
        self.groups = Groups([g for g, rows in enumerate(groups) for row in rows for _ in runs[row]], self.device)
        self._begins = [0] * len(mask)  # where each row begins, among the rows' own
        first = torch.tensor([rows[0] for rows in groups], device=self.device)
        members = torch.tensor([row for row, run in enumerate(runs) for _ in run], device=self.device)
        self.layers = cache.layers
        for index, layer in enumerate(self.layers):  # one by one, so that what was copied is let go
            if type(layer) is GrowingLayer:
                assert layer.keys is not None
                assert layer.values is not None
                keys, values = layer.keys, layer.values
                self.layers[index] = SharedLayer(
                    (keys[first, :, :length], values[first, :, :length]),
                    (keys[members, :, length:], values[members, :, length:]),
                    self.place,
                )
            else:
                layer.reorder_cache(members)  # type: ignore[arg-type]
        self.mask: Tensor | None = None
        if all(isinstance(layer, SharedLayer) for layer in self.layers):
            self._unseen = torch.finfo(dtype).min
            self.mask = torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, self._unseen)[:, None, None]

    def reserve(self, tokens: int, most: int) -> bool:
        """Have room for so many tokens more of every row, and for some that may follow, of at most so many.

        Returns:
            Whether room had to be made.
        """
        before, room = self.room, self._room_for(tokens, most)
        if room <= before:
            return False
        self.room = room
        for layer in self.layers:
            if isinstance(layer, SharedLayer):
                layer.reserve(room)
        if self.mask is not None:
            self.mask = F.pad(self.mask, (0, room - before), value=self._unseen)
        return True

    def _room_for(self, tokens: int, most: int) -> int:
        room = min(-(-(self.at + tokens) // self.spare) * self.spare, -(-(self.at + most) // SPARE) * SPARE)
        return room + -(self.shared + room) % WHOLE

    def show_next(self) -> None:
        """Let the next token of every row be seen; where all layers share."""
        assert self.mask is not None
        self.mask.index_fill_(3, self.place + self.shared, 0.0)

    def join(self, other: SharedCache, most: int) -> None:
        """Go on with the groups and rows of `other` behind these; where all layers share.

        What ends where the next token goes, does so still; where nobody is left of those who began first, their
        positions are dropped.

        Args:
            other: What was read of other prompts; given up for this one.
            most: Tokens that a row may still get.
        """
        assert self.mask is not None
        assert other.mask is not None
        shared, own = self.shared, slice(min(self._begins), self.at)
        self.shared, self.at = max(shared, other.shared), max(own.stop - own.start, other.at)
        self.room = self._room_for(1, most)
        for index, layer in enumerate(self.layers):
            new = other.layers[index]
            assert isinstance(layer, SharedLayer)
            assert isinstance(new, SharedLayer)
            layer.join(new, own, self.shared, self.room)
            other.layers[index] = DynamicLayer()  # one by one, so that what was copied is let go
        mine, theirs = (mask.transpose(2, 3) for mask in (self.mask, other.mask))
        prefixes = mine[:, :, :shared], theirs[:, :, : other.shared]
        owns = mine[:, :, shared:][:, :, own], theirs[:, :, other.shared :]
        parts = [
            under_one_another(*prefixes, self.shared, self.shared, self._unseen),
            under_one_another(*owns, self.at, self.room, self._unseen),
        ]
        self.mask = torch.cat(parts, 2).transpose(2, 3).contiguous()
        self.place.fill_(self.at)
        self.groups = Groups([*self.groups.of_row, *(self.groups.count + g for g in other.groups.of_row)], self.device)
        self._begins = [self.at - own.stop + begin for begin in self._begins]
        self._begins += [self.at - other.at + begin for begin in other._begins]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only the rows at these indices, in ascending order; prefixes that nobody is left of are dropped."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        rows = beam_idx.tolist()
        of_row = [self.groups.of_row[row] for row in rows]
        self._begins = [self._begins[row] for row in rows]
        if self.mask is not None:
            self.mask = self.mask[beam_idx]
        left = sorted(set(of_row))
        if len(left) < self.groups.count:
            for layer in self.layers:
                if isinstance(layer, SharedLayer):
                    layer.select_prefixes(torch.tensor(left, device=self.device))
        self.groups = Groups([left.index(group) for group in of_row], self.device)

    def prefix_of(self, layer: int) -> tuple[Groups, Tensor, Tensor] | None:
        """What rows share in a layer, if they do: which of them, and keys and values [groups, heads, P, D]."""
        found = self.layers[layer]
        return (self.groups, *found.prefix) if isinstance(found, SharedLayer) else None
