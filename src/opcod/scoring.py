"""Feed given responses to a model: the hidden states from which each of their tokens is predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from opcod.halving import halved_where_full
from opcod.peers import SharedBase
from opcod.prefixes import equal_runs, kindred_runs, padding, positions, read_prefixes
from opcod.stopping import look_up

T = TypeVar("T")

_AHEAD = 2
"""Times the tokens of a micro-batch that are read at once where nothing is kept of them."""


class Scored(NamedTuple):
    """A prompt with the response to be scored, as token ids.

    Args:
        prompt: What the response answers.
        response: Each of its tokens is scored.
        shared: Tokens that the prompt begins with as its neighbours do (`prefixes.shared_length`); they are read once.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    shared: int = 0

    @property
    def own(self) -> int:
        """Tokens that are read beside the shared ones; nothing is predicted from the last one of all."""
        return len(self.prompt) + len(self.response) - 1 - self.shared

    @property
    def prefix(self) -> tuple[int, ...]:
        """The shared tokens."""
        return self.prompt[: self.shared]


def response_hidden(base: SharedBase, sequences: Sequence[Scored]) -> Tensor:
    """Hidden states at the positions that predict the responses' tokens.

    Args:
        base: The model; call inside `SharedBase.using`.
        sequences: Prompts and responses. They are padded on the right, which causal attention never sees.

    Returns:
        [N, H] for the N response tokens of all sequences, one response after the other.
    """
    ids = torch.zeros(len(sequences), max(s.own for s in sequences), dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    for row, sequence in enumerate(sequences):
        ids[row, : sequence.own] = torch.tensor(sequence.prompt[sequence.shared :] + sequence.response[:-1])
        rows += [row] * len(sequence.response)
        columns += range(sequence.own - len(sequence.response), sequence.own)
    hidden = _read(base, ids.to(base.device), [s.prefix for s in sequences])
    return hidden[torch.tensor(rows, device=base.device), torch.tensor(columns, device=base.device)]


def _read(base: SharedBase, ids: Tensor, prefixes: Sequence[tuple[int, ...]]) -> Tensor:
    """Hidden states [rows, T, H] of `ids` [rows, T] behind their prefixes."""
    if not any(prefixes):
        return base.hidden(ids)
    cache, mask = read_prefixes(base, prefixes)
    mask = torch.cat([mask, torch.ones_like(ids)], 1)
    places = positions(mask)[:, -ids.shape[1] :]
    return base.hidden(ids, attention_mask=padding(mask), position_ids=places, cache=cache)


def response_tokens(sequences: Sequence[Scored], device: torch.device) -> Tensor:
    """The responses' tokens [N], in the order of `response_hidden`."""
    return torch.tensor([t for s in sequences for t in s.response], device=device)


def over_micro_batches(
    sequences: Sequence[Scored],
    max_tokens: int,
    parameters: Sequence[nn.Parameter],
    work: Callable[[list[int]], T],
    ahead: Callable[[list[int]], None] | None = None,
) -> list[T]:
    """What `work` makes of each micro-batch; where memory runs out, of smaller ones (`halving.halved_where_full`).

    Args:
        sequences: All of a step.
        max_tokens: See `token_batches`; the setting `micro_batch_tokens`.
        parameters: Whose gradients `work` adds to.
        work: Takes indices into `sequences`.
        ahead: Called with all indices of the micro-batches that follow, of twice the tokens in all until memory runs
            out; for passes that keep nothing.
    """

    def over(tokens: int) -> list[T]:
        """In micro-batches of so many."""
        at_once = _AHEAD if ahead is not None and tokens == max_tokens else 1
        done = []
        for several in token_batches(sequences, at_once * tokens):
            look_up()
            if ahead is not None:
                ahead(several)
            for rows in token_batches([sequences[i] for i in several], tokens):
                look_up()
                done.append(work([several[i] for i in rows]))
        return done

    return halved_where_full(over, max_tokens, setting="micro_batch_tokens", parameters=parameters)


def token_batches(sequences: Sequence[Scored], max_tokens: int) -> list[list[int]]:
    """Cut sequences into micro-batches of at most `max_tokens` padded tokens, longest first.

    Neighbours that share a prefix stay together, as far as they fit, and so do those whose prefixes are kindred; but
    where they fill half a micro-batch, not beside others whose prefixes are longer or shorter, as padding keeps a GPU
    from its fastest attention. A sequence longer than that makes a micro-batch of its own.

    Returns:
        Indices into `sequences`, each exactly once.
    """
    batches: list[list[list[int]]] = []
    families = [list(run) for run in equal_runs([s.prefix or i for i, s in enumerate(sequences)])]
    kindred = kindred_runs([sequences[family[0]].prefix for family in families])
    kin = [[part for i in run for part in _fitting(sequences, families[i], max_tokens)] for run in kindred]
    for part in chain.from_iterable(
        sorted(kin, key=lambda parts: (-max(sequences[i].own for p in parts for i in p), parts))
    ):
        if batches and _go_together(sequences, [*batches[-1], part], max_tokens):
            batches[-1].append(part)
        else:
            batches.append([part])
    return [[i for part in batch for i in part] for batch in batches]


def _fitting(sequences: Sequence[Scored], family: list[int], max_tokens: int) -> Iterator[list[int]]:
    """A family that shares a prefix, in parts that fit."""
    longest = max(sequences[i].own for i in family)
    size = max((max_tokens - sequences[family[0]].shared) // longest, 1)
    for start in range(0, len(family), size):
        yield family[start : start + size]


def _go_together(sequences: Sequence[Scored], parts: Sequence[Sequence[int]], max_tokens: int) -> bool:
    """Whether these parts fit one micro-batch, without padding of prefixes where one of them is large."""
    even = len({sequences[part[0]].shared for part in parts}) == 1
    largest = max(padded_tokens(sequences, [part]) for part in parts)
    return padded_tokens(sequences, parts) <= max_tokens and (even or 2 * largest <= max_tokens)


def padded_tokens(sequences: Sequence[Scored], parts: Sequence[Sequence[int]]) -> int:
    """Tokens that a micro-batch of these parts reads, padding included."""
    rows = [sequences[i] for part in parts for i in part]
    return len(parts) * max(s.shared for s in rows) + len(rows) * max(s.own for s in rows)
