"""Say before a run begins that it does not fit, and what would."""

from __future__ import annotations

import warnings

import lightning as L

from opcod.devices import GIB, Device, free_on
from opcod.fits import Excess, needs_of
from opcod.models import ModelError
from opcod.simulation import UnplannedError

PRECISION = 1.25
"""What is planned is within a quarter of what is measured."""


class SizeCheck(L.Callback):
    """Plans the memory of a run on its device, and its longest sequences, before any model is loaded.

    Of a run that trains, solves, or scores and nothing else. Warns where memory may not be enough, by the precision of
    a plan, or sequences may become longer than the model was made for. Without this callback a run is tried as it is.

    Raises:
        ValueError: If memory is not enough; it says for each part the largest setting that fits.
    """

    def __init__(self) -> None:
        self._free: Device | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare with what is free; or was before a trainer's first run, whose memory the next ones take over."""
        device = self._free = self._free or free_on(trainer.strategy.root_device)
        if device is None or (device.kind == "cpu" and not trainer.is_global_zero):
            return  # the processes of a machine share its memory
        room = (device.memory or 0.0) / (trainer.num_devices if device.kind == "cpu" else 1)
        try:
            needs = needs_of(pl_module, getattr(trainer, "datamodule", None), device, stage)
            if needs is None:
                return
            beyond = list(needs.beyond_positions())
            excesses = [] if needs.standing > room else list(needs.excesses(room))
        except UnplannedError as error:
            warnings.warn(f"nobody knows whether the run fits: {error}", stacklevel=2)
            return
        except ModelError:
            return  # it is said where the model is loaded
        for excess in beyond:
            warnings.warn(_beyond(excess), stacklevel=2)
        if needs.standing > room:
            raise ValueError(f"{_of(needs.standing, room, device)}, before the first step: quantise the base model")
        if excesses:
            worst = max(e.needed for e in excesses)
            lines = [_of(worst, room, device), *map(_scarce, excesses)]
            if worst > PRECISION * room:
                raise ValueError("\n".join([*lines, "without opcod.callbacks.SizeCheck it is tried as it is"]))
            warnings.warn("\n".join(lines), stacklevel=2)


def _of(needed: float, room: float, device: Device) -> str:
    return f"the run takes about {needed / GIB:.1f} GiB, of {room / GIB:.1f} that are free on {device.name}"


def _scarce(excess: Excess) -> str:
    return f"- {_part(excess)} takes {excess.needed / GIB:.1f}: {_remedy(excess)}"


def _beyond(excess: Excess) -> str:
    return (
        f"{_part(excess)} may take {excess.needed:,.0f} positions, more than the model was made for: {_remedy(excess)}"
    )


def _part(excess: Excess) -> str:
    names = {
        "match": "matching",
        "reinforce": "the policy gradient",
        "imitate": "imitation",
        "alone": "solving",
        "keyed": "solving",
    }
    return names.get(excess.part, excess.part)


def _remedy(excess: Excess) -> str:
    alone = f"with model.{excess.alone} at 1, " if excess.alone else ""
    fits = f"at most {excess.largest} fits" if excess.largest else "and not even 1 fits"
    return f"{alone}model.{excess.setting} is {excess.value}, {fits}"
