"""Checkpoints of a run: whole or not there, and with the scores that the next round's gate reads."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L
import psutil
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from torch.optim import Optimizer

from opcod.checkpoint import LAST, WholeCheckpointIO
from opcod.counts import check_counts
from opcod.processes import AdapterStrategy
from opcod.students import Students


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written."""


class RoundCheckpoint(Checkpoint):
    """Saves a checkpoint after every round's validation, so that it holds the scores of that round.

    A name says how far the run was: `round=3.ckpt` after three rounds, `round=2-step=07.ckpt` after two rounds
    and seven steps of the third, whichever its phase; after the last of them the round's validation is still to come.
    `last.ckpt` is the newest of them. For a `Specialist` a round is an epoch.

    A checkpoint is on the disk before it has its name, and the one before stays until then, so there is always a whole
    one. A step or a validation that is given up can be left behind: `save_last_step` saves what was before it. A run
    that is told to stop within a round, by `max_time`, `max_steps` or another callback, leaves one of its last step.

    Args:
        folder: Where to; by default `checkpoints` in the run's log folder.
        every_n_steps: Save within a round as well, after every so many of its steps.
        keep: How many of the newest checkpoints stay.
    """

    def __init__(self, folder: str | None = None, every_n_steps: int | None = None, keep: int = 2) -> None:
        check_counts(keep=keep, every_n_steps=every_n_steps)
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.saved: list[str] = []  # names, oldest first; nothing else in the folder is ever removed
        self.due = False  # save after the step at hand, whichever it is
        self.last: Path | None = None  # the newest that was saved in this process
        self._unsaved_round = False
        self._unsaved_step: tuple[str, dict[str, Any]] | None = None  # its name, and the loops as they stood after it
        self._loops: dict[str, Any] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """See to how checkpoints are written and read, and remove what processes that were killed left half written."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpointIO()
        if stage == "fit":
            resumed = [Path(trainer.ckpt_path).parent] if trainer.ckpt_path else []
            folders = [self._folder(trainer), *resumed]  # Lightning has all ranks ask for it together
            if trainer.is_global_zero:
                for folder in folders:
                    remove_unfinished(folder)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """From here on the state is no longer that of the step before."""
        self._unsaved_step = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within a round, but not at its end: a run resumed there would skip the round's validation."""
        steps, done = trainer.num_training_batches, batch_idx + 1
        if done >= steps:
            self._unsaved_round = True
            return
        self._unsaved_step = self._name_of(trainer, done), trainer.fit_loop.state_dict()
        if self.due or trainer.should_stop or (self.every_n_steps is not None and done % self.every_n_steps == 0):
            self.save_last_step(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the step at which the run had made all that it was to make."""
        self.save_last_step(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A round's last step can be saved, with its validation as one that is to be done over."""
        if self._is_round_over(trainer):
            loops = trainer.fit_loop.state_dict()
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # so Lightning keeps its first batch
            loops["epoch_loop.val_loop.batch_progress"] = {"total": begun, "current": begun, "is_last_batch": False}
            self._unsaved_step = self._name_of(trainer, int(trainer.num_training_batches)), loops

    def save_last_step(self, trainer: L.Trainer) -> None:
        """Save the state in which the last step left the run, whatever was begun and given up since; but once."""
        if self._unsaved_step is not None:
            name, self._loops = self._unsaved_step
            try:
                self._save(trainer, name)
            finally:
                self._loops = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the loops stand where the last step left them."""
        if self._loops is not None:
            checkpoint["loops"]["fit_loop"] = self._loops

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after the round's validation."""
        self._save_round(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after a round that had no validation."""
        self._save_round(trainer)

    def _save_round(self, trainer: L.Trainer) -> None:
        if self._is_round_over(trainer):
            self._unsaved_round = False
            self._save(trainer, f"round={trainer.current_epoch + 1}.ckpt")

    def _is_round_over(self, trainer: L.Trainer) -> bool:
        """Not in a sanity check, halfway through a round, or where `validate` reads a round that waits for its own."""
        return self._unsaved_round and trainer.state.fn == "fit"

    def _save(self, trainer: L.Trainer, name: str) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = self._folder(trainer)
        before = self.saved
        self.saved = [*(n for n in before if n != name), name]  # the checkpoint counts itself
        if isinstance(trainer.lightning_module, Students):
            trainer.lightning_module.share_students()
        if trainer.is_global_zero:
            try:
                self._write(trainer, folder, name)
            except OSError as error:
                self.saved = before
                raise CheckpointError(_explained(folder, name, error)) from error
        else:
            trainer.save_checkpoint(folder / name, weights_only=False)  # writes nothing, but rank 0 waits for all
        self.saved = self.saved[-self.keep :]
        self.due, self.last, self._unsaved_step = False, folder / LAST, None

    def _folder(self, trainer: L.Trainer) -> Path:
        return Path(self.folder or run_folder(trainer) / "checkpoints")

    def _name_of(self, trainer: L.Trainer, done: int) -> str:
        """Of a checkpoint after so many steps of the round."""
        return f"round={trainer.current_epoch}-step={done:0{len(str(trainer.num_training_batches))}}.ckpt"

    def _write(self, trainer: L.Trainer, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / name) as unfinished:
            trainer.save_checkpoint(unfinished, weights_only=False)
        with whole(folder / LAST) as unfinished:
            _link(folder / name, unfinished)
        for old in self.saved[: -self.keep]:
            (folder / old).unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """The checkpoints that are there, and whether this one waits for a validation."""
        return {"saved": self.saved, "unsaved_round": self._unsaved_round}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoints that were there."""
        self.saved = list(state_dict["saved"])
        self._unsaved_round = state_dict["unsaved_round"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to in place of `path`, which it becomes when the block ends; on an error it is removed.

    The content is on the disk before it has its name. Whether the name is too, some file systems do not let one ask.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield unfinished
        _sync(unfinished, os.O_RDWR)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    with suppress(OSError):
        _sync(path.parent, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove what `whole` left half written where its process was killed."""
    for unfinished in folder.glob(".*.part"):
        process = unfinished.name.split(".")[-2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        unfinished.write_text(text, "utf-8")


def jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """A line of JSON a row; half a surrogate pair, which UTF-8 has no code for, becomes the escape that JSON has."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return lines.encode(errors="backslashreplace").decode()


def check_writable(path: Path) -> None:
    """That a file can be written at `path`, whose folder is made if it is not there.

    Raises:
        OSError: If it cannot.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(jsonl(rows))


def run_folder(trainer: L.Trainer) -> Path:
    """Where the files of a run go."""
    if isinstance(trainer.strategy, AdapterStrategy) and trainer.strategy.folder is not None:
        return trainer.strategy.folder  # Lightning would ask rank 0 for it, every time, and wait for all to ask
    return Path(trainer.log_dir or trainer.default_root_dir)


def _link(source: Path, target: Path) -> None:
    """A second name, which takes no room, or a copy where the file system has no links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _explained(folder: Path, name: str, error: OSError) -> str:
    last = folder / LAST
    remedy = f"resume with `--ckpt_path {last}`, which is whole" if last.is_file() else "start again"
    return (
        f"the checkpoint {folder / name} could not be written: {error.strerror or error}. Make room, or give "
        f"RoundCheckpoint another `folder`, then {remedy}"
    )
