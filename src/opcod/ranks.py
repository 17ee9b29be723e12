"""Ranks: the processes of a run, what each of them works on, and what they tell each other.

Of the model nothing is exchanged but the gradient of the one adapter that learns; the rest is numbers and short texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import lightning as L
import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long ranks wait for each other's work; that each of them lives is seen to elsewhere (`processes.Lifeline`)."""


@dataclass(frozen=True)
class Ranks:
    """Processes that share the work of a step; by default this process alone.

    Args:
        rank: Which of them this process is.
        size: How many they are.
        talk: The group they tell each other numbers and texts by, through the processors' memory.
        sums: The group they add up gradients by, where the gradients lie.
        first: Which of all the run's processes is the first of them.
    """

    rank: int = 0
    size: int = 1
    talk: dist.ProcessGroup | None = None
    sums: dist.ProcessGroup | None = None
    first: int = 0

    @staticmethod
    def of(trainer: L.Trainer) -> Ranks:
        """All processes of a run.

        Raises:
            ValueError: If they are under a strategy that moves more than gradients, or do not know of each other.
        """
        from opcod.processes import AdapterStrategy, started_together

        if isinstance(trainer.strategy, AdapterStrategy):
            return trainer.strategy.ranks
        if trainer.world_size > 1:
            raise ValueError(
                f"{trainer.world_size} processes under {type(trainer.strategy).__name__}: set `trainer.strategy` to "
                "ddp; in Python give Trainer strategy=opcod.processes.AdapterStrategy()"
            )
        if (together := started_together()) > 1:
            raise ValueError(
                f"{together} processes were started, each of which would run by itself: set `trainer.strategy` to ddp, "
                "`trainer.devices` to the processes of a machine and `trainer.num_nodes` to the machines"
            )
        return Ranks()

    @staticmethod
    def refuse(trainer: L.Trainer, what: str) -> None:
        """Say that something is done by one process alone.

        Raises:
            ValueError: If there are several.
        """
        if trainer.world_size > 1:
            raise ValueError(f"{what} is done by one process: set `trainer.devices` and `trainer.num_nodes` to 1")

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Those of some items that this rank works on, perhaps none."""
        return list(items[self.rank :: self.size])

    def gather(self, value: T) -> list[T]:
        """Every rank's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.talk)
        return values

    def total(self, *values: float) -> list[float]:
        """The sums of each value over all ranks."""
        return [sum(column) for column in zip(*self.gather(values), strict=True)]

    def check_alike(self, **values: object) -> None:
        """See that all ranks have the same.

        Raises:
            ValueError: Names what differs, and where.
        """
        told = self.gather({name: repr(value) for name, value in values.items()})
        for rank, theirs in enumerate(told):
            if others := [name for name in values if theirs[name] != told[0][name]]:
                raise ValueError(
                    f"rank {rank} has other {' and '.join(others)} than rank 0: give every machine the same files"
                )

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make the gradient of every parameter the sum over all ranks, bit for bit the same on each: one all-reduce.

        Args:
            parameters: Of one adapter; on a rank that had nothing to learn from they have no gradient.
        """
        if self.size == 1:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters])
        dist.all_reduce(flat, group=self.sums)
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype)

    def split(self, parts: int) -> tuple[int, Ranks]:
        """Cut the ranks into equal parts of neighbours; all of them call it.

        Returns:
            The part this rank belongs to, counted from 0, and its ranks.
        """
        size = self.size // parts
        members = [list(range(part * size, (part + 1) * size)) for part in range(parts)]
        talks = [dist.new_group(m, backend="gloo", timeout=PATIENCE) for m in members]
        sums = [dist.new_group(m, timeout=PATIENCE) for m in members]
        mine = self.rank // size
        return mine, Ranks(self.rank % size, size, talks[mine], sums[mine], members[mine][0])

    def from_rank(self, rank: int, value: T) -> T:
        """The value that one of the ranks has."""
        values = [value]
        dist.broadcast_object_list(values, src=self.first + rank, group=self.talk)
        return values[0]
