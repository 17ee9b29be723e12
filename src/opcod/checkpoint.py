"""What a checkpoint of a co-distillation holds: adapters and training state, and the names of the bases under them.

Nothing in a checkpoint is unpickled but tensors and plain values.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from opcod.models import BaseModel, ModelError
from opcod.peers import Lora, Peer, State

KEY = "opcod"
"""Where our part stands in Lightning's checkpoint."""


def pack(peers: Sequence[Peer], *, lora: Lora, models: Mapping[str, BaseModel]) -> dict[str, Any]:
    """The adapters of all peers in all roles, on the CPU, and what they lie over.

    Args:
        peers: The students.
        lora: Shape of the adapters.
        models: Student -> its base model, as it was asked for.
    """
    return {
        "lora": asdict(lora),
        "models": {name: asdict(model) for name, model in models.items()},
        "domains": {p.name: p.domain for p in peers},
        "bases": {p.name: p.base.loaded.identity for p in peers},
        "peers": {p.name: {role: {k: v.cpu() for k, v in s.items()} for role, s in p.state().items()} for p in peers},
    }


def unpack(kept: Mapping[str, Any], peers: Sequence[Peer]) -> None:
    """Restore the adapters that `pack` kept.

    Raises:
        ModelError: If they are of other students, or of another base.
    """
    names = [p.name for p in peers]
    if not kept or sorted(kept["peers"]) != sorted(names):
        raise ModelError(
            f"the checkpoint holds the students {sorted(kept['peers']) if kept else 'of another program'}, "
            f"the run has {names}: resume with the config the run was started with"
        )
    for peer in peers:
        check_base(peer.name, kept["bases"][peer.name], peer.base.loaded.identity)
        peer.load_state(kept["peers"][peer.name])


def recount(checkpoint: dict[str, Any], batches: int) -> None:
    """Let a run go on whose rounds have another number of batches, as its phases are run at the same time, or no more.

    Args:
        checkpoint: Lightning's, of the end of a round.
        batches: Of a round, from now on.

    Raises:
        ModelError: If it is of the middle of a round.
    """
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    if not progress["is_last_batch"]:
        raise ModelError(
            "the checkpoint is of the middle of a round, whose phases were run at the same time where now they are to "
            "be run one after the other, or the other way round: set `model.parallel_phases` as it was, or resume from "
            "the end of a round"
        )
    progress["current"] = dict.fromkeys(progress["current"], batches)
    for loader in loop["state_dict"]["combined_loader"]:
        loader["next"] = batches


def check_base(name: str, theirs: Mapping[str, str], mine: Mapping[str, str]) -> None:
    """Refuse the adapters of `name` over another base model than the one they were trained over.

    Args:
        name: The student's.
        theirs: Identity of the base that a checkpoint names.
        mine: Identity of the run's.

    Raises:
        ModelError: If they differ.
    """
    if mine != theirs:
        raise ModelError(
            f"the checkpoint of {name} was made over the base {theirs}, the run has {mine}: resume with "
            "the same base model, revision and quantization"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `CoDistillation` keeps in a checkpoint; tensors stay on disk until they are used.

    Raises:
        ModelError: If there is none, or the file holds anything but tensors and plain values.
    """
    checkpoint = load_checkpoint(path)
    kept = checkpoint.get(KEY)
    if not isinstance(kept, dict) or not {"peers", "lora", "models"} <= kept.keys():
        raise ModelError(f"{path} is no checkpoint of a co-distillation: give one that `opcod fit` wrote")
    return kept


def roles_of(kept: Mapping[str, Any], student: str, path: str) -> dict[str, State]:
    """The adapters of one student in what `read_checkpoint` read from `path`.

    Raises:
        ModelError: If it holds no such student.
    """
    if student not in kept["peers"]:
        raise ModelError(f"the checkpoint {path} has no student {student!r}: it has {', '.join(sorted(kept['peers']))}")
    roles: dict[str, State] = kept["peers"][student]
    return roles


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of Lightning's, nothing in it unpickled but tensors and plain values.

    Raises:
        ModelError: If there is none.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}: give the path of a file that `opcod fit` wrote, *.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was not loaded: it holds more than tensors and plain values, which could run code, or is no "
            "checkpoint at all. Give a file that `opcod` wrote."
        ) from error
    except (RuntimeError, ValueError, EOFError) as error:
        raise ModelError(f"{path} is no checkpoint, or a broken one: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise ModelError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
