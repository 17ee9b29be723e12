"""Ctrl-C and SIGTERM: a run stops where it can be gone on with, and says how."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from opcod.callbacks.checkpoints import RoundCheckpoint, run_folder
from opcod.halving import is_out_of_memory
from opcod.processes import AdapterStrategy, Lifeline
from opcod.ranks import Ranks
from opcod.stopping import GivenUp, Interrupted, ask_to_give_up, look_up


class CleanStop(Callback):
    """Lets a step, or the validation after a round, end at Ctrl-C; has it saved, and says what resumes the run.

    A second Ctrl-C stops at once, and so does the first where nothing is being learned. At SIGTERM, by which schedulers
    announce the end, there may be less time than a step takes: the step, or the validation, is given up where its
    computation looks up next (`opcod.stopping`), and what the step before it came to is saved. The same is saved where
    the memory is full. Several processes stop together, so they end their step even then.

    Args:
        command: What resumes a run, before its config and checkpoint.
    """

    def __init__(self, command: str = "opcod fit") -> None:
        self.command = command
        self.asked: int | None = None  # by which signal, of this process
        self._agreed: int | None = None  # of any
        self._active = False
        self._learning = ""  # what there is to end: from a first step on there is always something to save
        self._before: dict[int, Any] = {}
        self._trainer: L.Trainer | None = None
        self._goes_on = False  # whether it could be gone on from the checkpoint that was given

    @property
    def stopping(self) -> bool:
        """Whether all processes are about to stop."""
        return self._agreed is not None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen; only a process's main thread can."""
        self.asked = self._agreed = None
        self._learning, self._trainer, self._goes_on = "", trainer, False
        if threading.current_thread() is threading.main_thread():
            self._active = True
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Several processes stop by agreement; Lightning's handler would make them wait for each other in its midst."""
        self._goes_on = True
        if self._active and trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._hear)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step begins, unless the run was to stop and is saved."""
        look_up()
        if not any(checkpoint.due for checkpoint in _checkpoints(trainer)):
            self._stop_if_agreed()
        self._learning = "step"
        if (lifeline := _lifeline(trainer)) is not None:
            lifeline.to_resume = self._resumption(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a round's last step comes its validation, without whose scores it cannot be gone on with."""
        self._agree(trainer)
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._learning = "validation"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before a round is saved."""
        if self._learning:
            self._agree(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """All that is learned is saved."""
        self._learning = ""
        self._agree(trainer)
        self._stop_if_agreed()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what a step that was given up was begun with, and say what resumes the run, whatever ended it."""
        given_up = isinstance(exception, GivenUp | SIGTERMException) or is_out_of_memory(exception)
        if given_up and trainer.world_size == 1:  # to save, processes wait for each other
            for checkpoint in _checkpoints(trainer):
                checkpoint.save_last_step(trainer)
        self._silence()
        if isinstance(exception, SIGTERMException):
            exception.code = 128 + signal.SIGTERM  # Lightning leaves it at success
        if trainer.state.fn == "fit" and trainer.is_global_zero and (told := self._resumption(trainer)):
            print(told, file=sys.stderr)
            if (lifeline := _lifeline(trainer)) is not None:
                lifeline.to_resume = ""

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen no more."""
        self._silence()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._active:  # Lightning puts this handler back when it has cleaned up after an error
            before = self._before.get(number)
            if callable(before):
                before(number, frame)
            return
        alone = self._trainer is not None and self._trainer.world_size == 1  # SIGTERM may come twice, to a group too
        urgent = number == signal.SIGTERM and alone
        if not self._learning or (self.asked is not None and number == signal.SIGINT):
            raise Interrupted(number)
        if urgent:
            ask_to_give_up(number)
        if self.asked is None:
            self._announce(urgent)
        self.asked = number

    def _announce(self, urgent: bool) -> None:
        assert self._trainer is not None
        told = f"Stopping after this {self._learning}; Ctrl-C again stops at once."
        if urgent:
            told = f"Giving up this {self._learning}, to save what was learned before it."
        with suppress(RuntimeError):  # the signal came while something was being printed
            self._trainer.print(told)

    def _agree(self, trainer: L.Trainer) -> None:
        """After a step, and a round: whoever was asked, all stop, and save first."""
        asked = [number for number in Ranks.of(trainer).gather(self.asked) if number is not None]
        if asked and self._agreed is None:
            self._agreed = asked[0]
            if self.asked is None:
                trainer.print(f"Stopping after this {self._learning or 'run'}, as another process was asked to.")
            for checkpoint in _checkpoints(trainer):
                checkpoint.due = True

    def _stop_if_agreed(self) -> None:
        if self._agreed is not None:
            raise Interrupted(self._agreed)

    def _silence(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._active, self._trainer = False, None
        ask_to_give_up(None)

    def _resumption(self, trainer: L.Trainer) -> str:
        saved = [checkpoint.last for checkpoint in _checkpoints(trainer) if checkpoint.last]
        last = saved[0] if saved else trainer.ckpt_path if self._goes_on else None
        if last is None:
            return ""
        config = run_folder(trainer) / "config.yaml"
        if not config.is_file():
            return f"The last checkpoint is {last}."
        return f"To go on:\n{shlex.join([*shlex.split(self.command), '-c', str(config), '--ckpt_path', str(last)])}"


def _lifeline(trainer: L.Trainer) -> Lifeline | None:
    return trainer.strategy.lifeline if isinstance(trainer.strategy, AdapterStrategy) else None


def _checkpoints(trainer: L.Trainer) -> list[RoundCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, RoundCheckpoint)]
