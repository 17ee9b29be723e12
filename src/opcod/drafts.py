"""Responses while they are written, side by side and token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from opcod.drawing import choose, drawn

_BY_ROW = ("uniforms", "step", "chosen", "tokens", "log_probs", "entropies", "length", "finished")


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


class Drafts:
    """What was drawn for each row so far.

    Drawing changes tensors that stay as they are and asks nothing of them, so that a GPU can repeat it. A row that has
    ended goes on being drawn for; what is past its limit falls into one last place that is never read.

    Args:
        uniforms: [rows, limit] a number in [0, 1) for every token.
        device: Of the model.
    """

    def __init__(self, uniforms: Tensor, device: torch.device) -> None:
        rows, self.limit = uniforms.shape
        places = self.limit + 1
        self.uniforms = F.pad(uniforms, (0, 1)).to(device)  # [rows, places]
        self.step = torch.zeros(rows, 1, dtype=torch.long, device=device)  # tokens so far
        self.chosen = torch.zeros(rows, dtype=torch.long, device=device)  # the last token
        self.tokens = torch.zeros(rows, places, dtype=torch.long, device=device)
        self.log_probs, self.entropies = torch.zeros(2, rows, places, device=device)
        self.length = torch.full((rows,), self.limit, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)

    @property
    def going(self) -> Tensor:
        """[rows] whether a row has not ended, neither by itself nor by its length."""
        return ~self.finished & (self.step[:, 0] < self.limit)

    def draw(self, logits: Tensor, temperature: float, top_p: float, ends: Tensor) -> None:
        """Draw the next token of every row from logits [rows, V]; `ends` are tokens that end a response."""
        at = self.step.clamp(max=self.limit)
        chosen = choose(logits, self.uniforms.gather(1, at)[:, 0], temperature, top_p)
        for kept, new in zip((self.log_probs, self.entropies), drawn(logits, chosen), strict=True):
            kept.scatter_(1, at, new[:, None])
        self.tokens.scatter_(1, at, chosen[:, None])
        self.chosen.copy_(chosen)
        ended = (chosen[:, None] == ends).any(1) & self.going
        self.step.add_(1)
        self.length.copy_(torch.where(ended, self.step[:, 0], self.length))
        self.finished.logical_or_(ended)

    def first_without_number(self) -> int | None:
        """The first place, counted from 1, at which a response's log-probability is not finite."""
        places = torch.arange(self.limit, device=self.length.device)
        wrong = ~self.log_probs[:, :-1].isfinite() & (places < self.length[:, None])
        return int(places[wrong.any(0)][0]) + 1 if bool(wrong.any()) else None

    def responses(self, rows: Sequence[int]) -> list[Response]:
        """Those of these rows, which have ended."""
        kept = (self.tokens, self.log_probs, self.entropies, self.length, self.finished)
        columns = zip(*(t[list(rows)].cpu() for t in kept), strict=True)
        return [
            Response(tokens[:n].clone(), log_probs[:n].clone(), bool(finished), float(entropies[:n].mean()))
            for tokens, log_probs, entropies, n, finished in columns
        ]

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows at these indices alone."""
        for name in _BY_ROW:
            setattr(self, name, getattr(self, name)[rows])

    def add(self, others: Drafts) -> None:
        """Go on with the rows of `others` behind these."""
        for name in _BY_ROW:
            setattr(self, name, torch.cat([getattr(self, name), getattr(others, name)]))
