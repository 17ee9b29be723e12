"""What a checkpoint of a co-distillation holds: adapters and training state, and the names of the bases under them.

Nothing in a checkpoint is unpickled but tensors and plain values. Its file is a zip archive, in which every record has
a checksum; torch writes these but does not look at them, so they are looked at here before anything is loaded.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import ArgumentParser
from lightning.fabric.plugins import TorchCheckpointIO

from opcod.models import BaseModel, LoadedBase, ModelError, first_line
from opcod.peers import Lora, Peer, Role, State

KEY = "opcod"
"""Where our part stands in Lightning's checkpoint."""

LAST = "last.ckpt"
"""The newest checkpoint of a folder, under a second name."""

_OTHER_STEPS = (
    "which has other steps now, or whose phases are now run at the same time or no more: set `data.steps` and "
    "`model.parallel_phases` as they were"
)


def pack(peers: Sequence[Peer], *, lora: Lora, models: Mapping[str, BaseModel]) -> dict[str, Any]:
    """The adapters of all peers in all roles, on the CPU, and what they lie over.

    Args:
        peers: The students.
        lora: Shape of the adapters.
        models: Student -> its base model, as it was asked for; kept with the commit it was loaded at.
    """
    return {
        "lora": asdict(lora),
        "models": {p.name: asdict(_pinned(models[p.name], p.base.loaded)) for p in peers},
        "domains": {p.name: p.domain for p in peers},
        "bases": {p.name: p.base.loaded.identity for p in peers},
        "peers": {p.name: {role: {k: v.cpu() for k, v in s.items()} for role, s in p.state().items()} for p in peers},
    }


def _pinned(model: BaseModel, loaded: LoadedBase) -> BaseModel:
    """A base model at the commit that was loaded, where it came from the hub."""
    return replace(model, revision=loaded.identity["revision"] or model.revision)


def unpack(kept: Mapping[str, Any], peers: Sequence[Peer]) -> None:
    """Restore the adapters that `pack` kept.

    Raises:
        ModelError: If they are of other students, or of these in another order, by which their optimizers are kept; of
            another base, or scaled otherwise.
    """
    names = [p.name for p in peers]
    if kept and (part := _misshapen(kept)):
        raise ModelError(f"the checkpoint's {part} are not as opcod writes them: give a file that `opcod fit` wrote")
    if not kept or list(kept["peers"]) != names:
        raise ModelError(
            f"the checkpoint holds the students {list(kept['peers']) if kept else 'of another program'}, "
            f"the run has {names}: resume with the config the run was started with"
        )
    for peer in peers:
        check_base(peer.name, kept["bases"][peer.name], peer.base.loaded.identity)
        check_scale(peer.name, kept["lora"], peer.base.lora)
        peer.load_state(kept["peers"][peer.name])


def freeze_tutors(peers: Sequence[Peer], checkpoint: str | None) -> None:
    """Make each peer's tutor the student of `checkpoint`, or the peer's own student as it is.

    Raises:
        ModelError: If the checkpoint holds other students, is of another base, or its adapters are scaled otherwise.
    """
    if checkpoint is None:
        for peer in peers:
            peer.copy("student", "tutor")
        return
    kept = read_checkpoint(Path(checkpoint))
    for peer in peers:
        roles = roles_of(kept, peer.name, checkpoint)
        check_base(peer.name, kept["bases"][peer.name], peer.base.loaded.identity)
        check_scale(peer.name, kept["lora"], peer.base.lora)
        peer.base.load_state(peer.adapter("tutor"), roles["student"])


def recount(checkpoint: dict[str, Any], batches: int, otherwise: str = _OTHER_STEPS) -> None:
    """Let a run go on whose rounds are of other batches: of more or fewer steps, or of phases run at the same time.

    Args:
        checkpoint: Lightning's, of the end of a round.
        batches: Of a round, from now on.
        otherwise: What is not as it was where it is of the middle of a round, and the remedy.

    Raises:
        ModelError: If it is of the middle of a round.
    """
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    if not progress["is_last_batch"]:
        raise ModelError(f"the checkpoint is of the middle of a round, {otherwise}, or resume from the end of a round")
    progress["current"] = dict.fromkeys(progress["current"], batches)
    for loader in loop["state_dict"]["combined_loader"]:
        loader["next"] = batches


def has_rounds_of(checkpoint: Mapping[str, Any], batches: int) -> bool:
    """Whether the rounds of the run that a checkpoint of Lightning's is of had so many batches, if any was begun."""
    loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
    return all(loader["batches"] == batches for loader in loaders)


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


def check_scale(name: str, theirs: Mapping[str, Any], mine: Lora) -> None:
    """Refuse the adapters of `name` under another scale than alpha / rank of when they were trained.

    Args:
        name: The student's.
        theirs: Shape of its adapters that a checkpoint names.
        mine: The run's.

    Raises:
        ModelError: If rank or alpha differ.
    """
    made = Lora(**theirs)
    if (made.rank, made.alpha) != (mine.rank, mine.alpha):
        raise ModelError(
            f"the checkpoint of {name} was made with rank {made.rank} and alpha {made.alpha}, the run asks for rank "
            f"{mine.rank} and alpha {mine.alpha}: set `lora` to the checkpoint's values"
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
    if part := _misshapen(kept):
        raise ModelError(f"{path}: its {part} are not as opcod writes them: give a checkpoint that `opcod fit` wrote")
    return kept


def _misshapen(kept: Mapping[str, Any]) -> str | None:
    """The part that is not what `pack` makes, if any: a file may hold plain values in any arrangement."""
    fits: dict[str, Callable[[Any], bool]] = {
        "lora": lambda lora: _made_of(Lora, lora),
        "models": lambda models: _all(models, lambda model: _made_of(BaseModel, model)),
        "domains": lambda domains: _all(domains, _is_text),
        "bases": lambda bases: _all(bases, lambda identity: _all(identity, _is_text)),
        "peers": lambda peers: _all(peers, lambda roles: _all(roles, lambda state: _all(state, torch.is_tensor))),
        "trained_on": lambda kept: kept is None or (isinstance(kept, list) and all(map(_is_text, kept))),
    }
    if part := next((part for part, fit in fits.items() if not fit(kept.get(part))), None):
        return part
    peers = kept["peers"]
    if any(not name.isidentifier() or roles.keys() != set(get_args(Role)) for name, roles in peers.items()):
        return "peers"
    return next((part for part in ("models", "domains", "bases") if kept[part].keys() != peers.keys()), None)


def _all(values: Any, fit: Callable[[Any], bool]) -> bool:
    """Whether it is values by name, all of which fit."""
    return isinstance(values, dict) and all(isinstance(name, str) and fit(value) for name, value in values.items())


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _made_of(settings: type, values: Any) -> bool:
    """Whether a dataclass of settings takes these values, each as it is."""
    if not _all(values, lambda value: isinstance(value, str | int | list | None)):
        return False
    try:
        taken = _parser_of(settings).parse_object(values).as_dict()
        settings(**taken)
    except (ArgumentError, ValueError, TypeError):
        return False
    return all(taken[name] == value for name, value in values.items())


@cache
def _parser_of(settings: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(settings)
    return parser


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
        ModelError: If there is none, or it is damaged.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}: give the path of a file that `opcod fit` wrote, *.ckpt")
    check_whole(path)
    if not _is_archive(path):
        raise ModelError(f"{path} is no checkpoint, or a broken one: give a file that `opcod` wrote, *.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was not loaded: it holds more than tensors and plain values, which could run code, or is no "
            "checkpoint at all. Give a file that `opcod` wrote."
        ) from error
    except Exception as error:  # what is no pickle, or half of one, is told in a dozen ways
        raise ModelError(f"{path} is no checkpoint, or a broken one: {first_line(error)}") from error
    if not isinstance(checkpoint, dict):
        raise ModelError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def whole_checkpoint(path: Path) -> Path:
    """The checkpoint to resume from: `path`, or where it cannot be read the one before it, and that is said.

    Where there is no `last.ckpt`, since the run was killed before its first one had this name, it is the newest.

    Raises:
        ModelError: If there is none, or none is whole.
    """
    try:
        load_checkpoint(path)
    except ModelError as error:
        before = next(_whole_before(path), None) if path.is_file() or path.name == LAST else None
        if before is None:
            raise
        warnings.warn(f"the run goes on from {before}: {error}", stacklevel=2)
        return before
    return path


def check_whole(path: Path) -> None:
    """Compare the content of a checkpoint's file with its checksums.

    Raises:
        ModelError: If they differ. It names the checkpoint before it, if that is whole.
    """
    if damage := _damage_in(path):
        before = next(_whole_before(path), None)
        remedy = f"take the one before it, {before}" if before else "and there is no whole one before it"
        raise ModelError(f"the checkpoint {path} is damaged ({damage}): {remedy}")


def _damage_in(path: Path) -> str | None:
    """What does not fit the checksums, if anything; a file of another kind has none."""
    if not _is_archive(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # a broken archive is told in a dozen ways
        return first_line(error)
    return record and f"{record} does not have its checksum"


def _whole_before(path: Path) -> Iterator[Path]:
    """The whole checkpoints in the same folder that were written before this one, the newest first."""
    written = {other: other.stat().st_mtime_ns for other in path.parent.glob("*.ckpt") if other != path}
    own = path.stat().st_mtime_ns if path.is_file() else max(written.values(), default=0)
    for other in sorted(written, key=written.__getitem__, reverse=True):
        if written[other] <= own and _is_whole(other):
            yield other


def _is_whole(path: Path) -> bool:
    return _is_archive(path) and _damage_in(path) is None


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint where it is to be, and reads none that is damaged.

    Lightning's own writes it to the system's temporary folder first, which may be smaller, and another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the disk is full.
        """
        content = io.BytesIO()  # torch tells a full disk by an error of its own
        torch.save(checkpoint, content)
        Path(path).write_bytes(content.getbuffer())

    def load_checkpoint(self, path: str | Path, *given: Any, **settings: Any) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            ModelError: If it is damaged.
        """
        if Path(path).is_file():
            check_whole(Path(path))
        return super().load_checkpoint(path, *given, **settings)
