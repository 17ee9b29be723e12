"""Settings of Lightning's Trainer under which a run would quietly be another one, and what to set instead."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.plugins import Precision


def refuse(faults: Sequence[str]) -> None:
    """Refuse a trainer with all that is wrong with it.

    Raises:
        ValueError: If anything is.
    """
    if faults:
        raise ValueError("; ".join(faults))


def precision_faults(trainer: L.Trainer) -> list[str]:
    """What adapters, their averages and their optimizers would be cast to, which are float32."""
    plugin = trainer.precision_plugin
    if type(plugin) is Precision:
        return []
    return [
        f"trainer.precision is {plugin.precision} ({type(plugin).__name__}): leave it at 32-true, and the plugins at "
        "Lightning's, as adapters are float32; the base model's numbers are model.base.dtype"
    ]


def round_faults(trainer: L.Trainer, steps: int, validation: int) -> list[str]:
    """What would cut a round or its validation short, or take them apart; a `fast_dev_run` is to cut them.

    `max_steps` and `max_time` are none of these: they end a run, which is saved where it stands and can go on.

    Args:
        trainer: Which is to fit.
        steps: Batches of a round.
        validation: Batches of a validation.
    """
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    interval = vars(trainer).get("val_check_interval", "a time")  # Lightning sets none where it is one
    overfit: float = trainer.overfit_batches  # type: ignore[attr-defined]
    train, scored = (1.0, 1.0) if overfit else (trainer.limit_train_batches, trainer.limit_val_batches)
    settings: list[tuple[str, object, bool, str]] = [
        ("max_epochs", epochs, (epochs or 0) >= 1, "set it to R, the number of rounds"),
        ("check_val_every_n_epoch", every, every == 1, "set it to 1, the scores after a round are the next one's"),
        ("val_check_interval", interval, _is_whole(interval), "set it to 1.0, the scores are those after a round"),
        ("overfit_batches", overfit, overfit == 0, "set it to 0, data.steps says how long a round is"),
        ("limit_train_batches", train, _has_all(train, steps), "set it to 1.0, data.steps says how long a round is"),
        (
            "limit_val_batches",
            scored,
            _has_all(scored, validation),
            "set it to 1.0, data.validation sets the questions",
        ),
    ]
    return [f"trainer.{name} is {given}: {remedy}" for name, given, fits, remedy in settings if not fits]


def _is_whole(share: object) -> bool:
    """Whether it is the share that is all; an integer counts batches."""
    return isinstance(share, float) and share == 1.0


def _has_all(limit: float, batches: int) -> bool:
    """Whether one of Lightning's limits, a share or a count, leaves out none of so many batches."""
    return _is_whole(limit) or (isinstance(limit, int) and limit >= batches)
