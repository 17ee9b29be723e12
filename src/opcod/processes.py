"""A run on several processes: how they are started, how they end together, and that none is left behind.

Lightning starts the processes of a machine (`trainer.devices`), or torchrun or SLURM do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout

from opcod.cli import TOLD
from opcod.ranks import PATIENCE, Ranks

BEAT = 1.0
"""Seconds between two signs of life."""
SILENCE = timedelta(seconds=40)
"""After which a rank that gives no sign of life counts as dead; one whose process ended is missed at the next beat."""
LOST = 1
"""Status of a process that ends because another one did."""


def started_together() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1


class Lifeline(threading.Thread):
    """Ends this process, with the reason, when another one of the run's ended or fell silent.

    Without it the others would go on until they next wait for the dead one, minutes later; and with NCCL for as long as
    its own timeout. It speaks through a group of its own, so that it neither waits for the run's exchanges nor comes
    between them. What was saved stays whole: checkpoints take their name when they are written.

    Args:
        ranks: All processes of the run.
        children: Those that this process started, the ranks after its own.
    """

    def __init__(self, ranks: Ranks, children: Sequence[subprocess.Popen[bytes]] = ()) -> None:
        super().__init__(daemon=True, name="opcod-lifeline")
        self.ranks = ranks
        self.children = children
        self.group = dist.new_group(backend="gloo", timeout=SILENCE)
        self.to_resume = ""  # what is said of it where the run ends here
        self._failure: str | None = None
        self._leaving = False
        self._over = threading.Event()

    def run(self) -> None:
        """Beat until all leave together."""
        while not self._over.is_set():
            states: list[Any] = [None] * self.ranks.size
            try:
                dist.monitored_barrier(self.group, SILENCE)
                dist.all_gather_object(states, (self._leaving, self._failure), group=self.group)
            except (RuntimeError, ValueError) as error:
                self._end(f"{self._missing(str(error))} died, or was silent for {SILENCE.seconds} s")
            failures = {rank: failure for rank, (_, failure) in enumerate(states) if failure is not None}
            if failures and self._failure is None:
                rank = min(failures)
                self._end(f"rank {rank} failed: {failures[rank]}" if self.ranks.leads else "")
            if failures or all(leaving for leaving, _ in states):
                self._over.set()
            time.sleep(BEAT)

    def _missing(self, error: str) -> str:
        """Which rank is, as far as it is known here: by what this process started, or by what torch says of it."""
        time.sleep(BEAT)  # for its end to be seen
        ended = [self.ranks.rank + i for i, child in enumerate(self.children, start=1) if child.poll() is not None]
        if ended:
            return f"rank {ended[0]}"
        if not self.ranks.leads:
            return "rank 0, or one that it missed,"
        found = re.search(r"Rank (\d+) failed to pass monitoredBarrier", error)
        return f"rank {found[1]}" if found else "another rank"

    def leave(self) -> None:
        """The run is over on this process; wait until it is on all."""
        self._leaving = True
        self._over.wait()

    def fail(self, error: BaseException) -> None:
        """This process ends by an error, which ends the others; or it was stopped, perhaps together with them."""
        if isinstance(error, SystemExit):
            self._leaving = True
            if self._over.wait(10 * BEAT):
                return
        stopped = isinstance(error, SystemExit | KeyboardInterrupt)
        self._failure = "it was stopped" if stopped else str(error).strip() or type(error).__name__
        self._over.wait()
        if not self.ranks.leads:
            error.add_note(TOLD)

    def _end(self, reason: str) -> NoReturn:
        if reason:
            told = "\n".join(filter(None, [f"opcod: error: {reason}; the run is ended", self.to_resume]))
            print(told, file=sys.stderr, flush=True)
        os._exit(LOST)


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's, whose processes end by the lifeline: its own observer kills them all, without a word or a save."""

    children: Sequence[subprocess.Popen[bytes]] = ()

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        self.children, self.procs = self.procs, []
        threading.Thread(target=self._see_them_begin, daemon=True).start()

    def _see_them_begin(self) -> None:
        """End this process where one that it started ended before there was a lifeline."""
        while not dist.is_initialized():
            for rank, child in enumerate(self.children, start=1):
                if status := child.poll():
                    print(f"opcod: error: rank {rank} ended at its start, with status {status}.", file=sys.stderr)
                    os._exit(LOST)
            time.sleep(BEAT)


class AdapterStrategy(DDPStrategy):
    """Processes that hold the whole model each, and of it exchange only what the module tells them to.

    The model is not wrapped in `DistributedDataParallel`, which would reduce at every backward pass, wait for
    parameters that take none, and send the frozen base to all processes at the start.

    Args:
        **settings: What Lightning's `DDPStrategy` takes.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.ranks = Ranks()
        self.lifeline: Lifeline | None = None
        self.folder: Path | None = None  # of the run, as rank 0 has it

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        if self._start_method == "popen":
            self._launcher = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)
        else:
            super()._configure_launcher()

    def setup_environment(self) -> None:
        """Join the other processes."""
        super().setup_environment()
        if self.world_size > 1:
            _set_pg_timeout(PATIENCE)  # only now: that all of them come is not waited for so long
            talk = dist.new_group(backend="gloo", timeout=PATIENCE)
            self.ranks = Ranks(self.global_rank, self.world_size, talk, dist.group.WORLD)
            children = self._launcher.children if isinstance(self._launcher, _Launcher) else ()
            self.lifeline = Lifeline(self.ranks, children)
            self.lifeline.start()

    def setup(self, trainer: L.Trainer) -> None:
        """Move the model to its device; nothing is sent, since every process loaded the same."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        self.model_to_device()
        super(DDPStrategy, self).setup(trainer)

    def _setup_model(self, model: nn.Module) -> nn.Module:  # type: ignore[override]
        """The model as it is, not wrapped."""
        return model

    def on_exception(self, exception: BaseException) -> None:
        """Tell the other processes."""
        if self.lifeline is not None:
            self.lifeline.fail(exception)

    def teardown(self) -> None:
        """Leave together with the others."""
        if self.lifeline is not None:
            self.lifeline.leave()
            self.lifeline = None
        super().teardown()
