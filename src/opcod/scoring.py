"""Feed given responses to a model: the hidden states from which each of their tokens is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from opcod.peers import SharedBase


class Scored(NamedTuple):
    """A prompt with the response to be scored, as token ids."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.prompt) + len(self.response)


def response_hidden(base: SharedBase, sequences: Sequence[Scored]) -> Tensor:
    """Hidden states at the positions that predict the responses' tokens, in one forward pass.

    Args:
        base: The model; call inside `SharedBase.using`.
        sequences: Prompts and responses. They are padded on the right, which causal attention never sees.

    Returns:
        [N, H] for the N response tokens of all sequences, one response after the other.
    """
    longest = max(s.length for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    rows: list[int] = []
    columns: list[int] = []
    for row, (prompt, response) in enumerate(sequences):
        ids[row, : len(prompt) + len(response)] = torch.tensor(prompt + response)
        rows += [row] * len(response)
        columns += range(len(prompt) - 1, len(prompt) + len(response) - 1)
    hidden = base.hidden(ids.to(base.device))
    return hidden[torch.tensor(rows, device=base.device), torch.tensor(columns, device=base.device)]


def response_tokens(sequences: Sequence[Scored], device: torch.device) -> Tensor:
    """The responses' tokens [N], in the order of `response_hidden`."""
    return torch.tensor([t for s in sequences for t in s.response], device=device)


def token_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cut sequences into micro-batches of at most `max_tokens` padded tokens, longest first.

    A sequence longer than that makes a micro-batch of its own.

    Returns:
        Indices into `lengths`, each exactly once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
