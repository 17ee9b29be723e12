"""What ranks that train students tell each other of them, but for gradients: that they begin alike, and end alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch.optim import Optimizer

from opcod.data.sources import Splits
from opcod.optimization import UpdateGuard
from opcod.peers import Peer
from opcod.ranks import Ranks


def check_alike(ranks: Ranks, peers: Sequence[Peer], splits: Splits) -> None:
    """See that all ranks train the same students on the same questions.

    Raises:
        ValueError: Names what differs, and where.
    """
    if ranks.size == 1:
        return
    adapters = hashlib.sha256()
    for peer in peers:
        for parameter in peer.parameters():
            adapters.update(parameter.detach().cpu().numpy().tobytes())
    ranks.check_alike(
        bases=[peer.base.loaded.identity["files"] for peer in peers],
        adapters=adapters.hexdigest(),
        questions=hashlib.sha256(repr(splits).encode()).hexdigest(),
    )


def hand_over(
    ranks: Ranks,
    share: int,
    peers: Sequence[Peer],
    optimizers: Sequence[Optimizer],
    schedules: Sequence[Any],
    guards: Sequence[UpdateGuard],
) -> None:
    """Give all ranks what each student has become on those that train it: adapters, optimizer, schedule and guard.

    Args:
        ranks: All of them.
        share: How many train each student, the first so many the first.
        peers: The students.
        optimizers: Of each.
        schedules: Of each.
        guards: Of each.
    """
    for i, (peer, optimizer, schedule, guard) in enumerate(zip(peers, optimizers, schedules, guards, strict=True)):
        mine = (peer.state(), optimizer.state_dict(), schedule.state_dict(), guard.skipped, guard.in_a_row)
        theirs = ranks.from_rank(i * share, move_data_to_device(mine, torch.device("cpu")))
        if ranks.rank // share != i:
            adapters, optimizing, scheduling, guard.skipped, guard.in_a_row = theirs
            peer.load_state(adapters)
            optimizer.load_state_dict(optimizing)
            schedule.load_state_dict(scheduling)
