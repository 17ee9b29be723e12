"""A run as it goes: a live display in a terminal, and elsewhere one plain line per step and validation.

What is said here counts rounds, phases and steps from 1; what is logged counts them from 0.
"""

from __future__ import annotations

import math
import time
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from opcod.evaluation import Scores
from opcod.gate import Gate, cognizance_gaps
from opcod.records import StepRecord


@runtime_checkable
class InRounds(Protocol):
    """A module whose students are trained and scored in rounds."""

    scores: Scores | None
    records: list[StepRecord]
    phases: int


@runtime_checkable
class Tutoring(Protocol):
    """One whose students tutor each other as well."""

    gate: Gate


class Pace:
    """How long steps and validations took, and by that how long the rest will."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.validations: list[float] = []
        self._began = time.perf_counter()

    def begin(self) -> None:
        """A step or a validation begins."""
        self._began = time.perf_counter()

    def end(self, kind: list[float]) -> None:
        """It is over."""
        kind.append(time.perf_counter() - self._began)

    def left(self, steps: int, validations: int) -> float:
        """Seconds that so many steps and validations take at the mean pace so far."""
        return _mean(self.steps) * steps + _mean(self.validations) * validations


class RoundProgress(ProgressBar):
    """Shows round, phase and step, tutee and tutor, the gate's decision, training accuracy and validation scores.

    How long the training will still take goes by the steps and validations of this process so far.

    Of another module it shows what that logs for the progress bar.

    Args:
        plain: Plain lines instead of the live display; by default where the output is no terminal.
    """

    def __init__(self, plain: bool | None = None) -> None:
        super().__init__()
        self.plain = plain
        self.scored: list[tuple[str, Scores]] = []
        self.gate_lines: list[str] = []
        self.step_line = ""
        self.pace = Pace()
        self._enabled = True
        self._what, self._total = "", 1.0
        self._live: Live | None = None
        self._bar: Progress | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether it shows anything."""
        return self._enabled

    def enable(self) -> None:
        """Show it."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False
        self._stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the live display."""
        if self._live is None:
            print(*args, **kwargs, flush=True)
        else:
            self._live.console.print(*args, markup=False, highlight=False, soft_wrap=True)

    # Training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a run."""
        self.scored, self.gate_lines, self.step_line, self.pace = [], [], "", Pace()
        self._begin("training", self.total_train_batches)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a round."""
        if isinstance(pl_module, InRounds) and pl_module.scores is None:
            self._say("scoring the validation questions before the first round")
            self.pace.begin()
        self._begin(_round_of(trainer, pl_module), self.total_train_batches)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell the scores and the gate with which the round began."""
        if isinstance(pl_module, InRounds):
            if not self.scored and not self.pace.steps and pl_module.scores is not None:
                self.pace.end(self.pace.validations)
            self._show_gate(trainer, pl_module, rounds=trainer.current_epoch)
        self._advance(batch_idx)  # a resumed round does not begin at its first step
        self.pace.begin()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell what came of a step."""
        self.pace.end(self.pace.steps)
        steps = int(self.total_train_batches)
        if isinstance(pl_module, InRounds) and pl_module.records:
            phases, together = pl_module.phases, len(pl_module.records)
            told = [
                step_line(r, rounds=trainer.max_epochs, phases=phases, steps=math.ceil(steps * together / phases))
                for r in pl_module.records
            ]
            for line in told[:-1]:
                self._say(line, live=False)
            self.step_line = told[-1]
        else:
            figures = trainer.progress_bar_metrics
            told = [f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, int | float)]
            self.step_line = " · ".join([f"{_round_of(trainer, pl_module)} step {batch_idx + 1}/{steps}", *told])
        rounds = (trainer.max_epochs or 0) - trainer.current_epoch
        if left := duration(self.pace.left(rounds * steps - batch_idx - 1, rounds)):
            self.step_line += f" · {left} left"
        self._say(self.step_line, live=False)
        self._advance(batch_idx + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the display until the run is torn down; other callbacks may still score and print."""
        self._begin("finishing", None)

    # Evaluation

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a validation."""
        self.reset_dataloader_idx_tracker()
        self.has_dataloader_changed(0)
        self._begin("validation", self.total_val_batches_current_dataloader)
        self.pace.begin()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move on."""
        self._advance(batch_idx + 1, told=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell the scores after a round; those of `opcod validate` Lightning prints itself."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.pace.end(self.pace.validations)
        if isinstance(pl_module, InRounds) and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._show_gate(trainer, pl_module, rounds=trainer.current_epoch + 1)
        elif isinstance(pl_module, InRounds) and pl_module.scores is not None:  # the run stops
            self._show_scores(f"within {_round_of(trainer, pl_module)}", pl_module.scores)
        elif scores := _logged_scores(trainer):
            self._show_scores(_round_of(trainer, pl_module), scores)
        self._begin(_round_of(trainer, pl_module), self.total_train_batches)  # it may go on within an epoch

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a test."""
        self.reset_dataloader_idx_tracker()
        self.has_dataloader_changed(0)
        self._begin("test", self.total_test_batches_current_dataloader)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move on."""
        self._advance(batch_idx + 1, told=True)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a prediction."""
        self.reset_dataloader_idx_tracker()
        self.has_dataloader_changed(0)
        self._begin("prediction", self.total_predict_batches_current_dataloader)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move on."""
        self._advance(batch_idx + 1, told=True)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the terminal back, before others print their results."""
        self._stop()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the terminal back, for Lightning to print the figures."""
        self._stop()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._stop()

    # What is shown

    def _show_scores(self, when: str, scores: Scores) -> None:
        self.scored.append((when, scores))
        self._say(f"validation {when} · {scores_line(scores)}", live=False)

    def _show_gate(self, trainer: L.Trainer, module: InRounds, rounds: int) -> None:
        """The scores after so many rounds and what a gate makes of them, unless they are shown already."""
        when = f"after {rounds} of {trainer.max_epochs} rounds"
        if module.scores is None or any(shown == when for shown, _ in self.scored):
            return
        self._show_scores(when, module.scores)
        if isinstance(module, Tutoring) and len(module.scores) > 1:
            self.gate_lines = gate_lines(module.gate, module.scores)
            self._say("gate · " + "; ".join(self.gate_lines), live=False)

    def _begin(self, what: str, total: float | None) -> None:
        """A new bar, of `total` steps, or of who knows how many."""
        self._what, self._total = what, total or 1
        if not self._enabled:
            return
        if self._live is None and not self._is_plain():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._live = Live(console=Console(), get_renderable=self._display, refresh_per_second=4)
            self._live.start()
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(what, total=total)

    def _advance(self, done: int, *, told: bool = False) -> None:
        """So many are done; where it is `told`, plain lines say so at each tenth."""
        if self._bar is not None and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[-1], completed=done)
        if told and 10 * done // self._total > 10 * (done - 1) // self._total:
            self._say(f"{self._what} batch {done}/{self._total:.0f}", live=False)

    def _say(self, line: str, live: bool = True) -> None:
        """A line; with `live` above the live display as well."""
        if self._enabled and (live or self._live is None):
            self.print(line)

    def _display(self) -> Group:
        """The scores so far, the gate, the last step and the bar."""
        parts: list[Any] = []
        if self.scored:
            parts.append(_scores_table(self.scored))
        parts += [Text(line, style="cyan") for line in self.gate_lines]
        parts += [Text(self.step_line)] if self.step_line else []
        parts += [self._bar] if self._bar is not None else []
        return Group(*parts)

    def _is_plain(self) -> bool:
        return not Console().is_terminal if self.plain is None else self.plain

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
        self._live = self._bar = None


def step_line(record: StepRecord, *, rounds: int | None, phases: int, steps: int) -> str:
    """One step in a line.

    Args:
        record: The step.
        rounds: R, rounds in all.
        phases: Of a round.
        steps: K, steps a phase.
    """
    batch, figures, who = record.batch, record.figures, f"train/{record.tutee}"
    place = f"round {batch.round + 1}/{rounds} phase {batch.phase + 1}/{phases} step {batch.step + 1}/{steps}"
    parts = [place, f"{record.tutee} learns"]
    if record.tutor:
        spoken = f"tutors {', '.join(sorted(record.spoken))}" if record.spoken else "is silent"
        parts.append(f"{record.tutor} {spoken}")
    shares = {"right": "accuracy", "feedback kept": "feedback_kept", "distilled": "distilled"}
    parts += [
        f"{label} {100 * figures[f'{who}/{name}']:.0f} %"
        for label, name in shares.items()
        if f"{who}/{name}" in figures
    ]
    if f"{who}/loss" in figures:
        parts.append(f"loss {figures[f'{who}/loss']:.4g}")
    seconds = {name.split("/")[1]: value for name, value in figures.items() if name.startswith("seconds/")}
    tokens = sum(figures.get(f"tokens_per_second/{part}", 0) * spent for part, spent in seconds.items())
    if seconds:
        parts.append(f"{sum(seconds.values()):.1f} s")
    if tokens:
        parts.append(f"{tokens / sum(seconds.values()):.0f} tokens/s")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """In words, to the minute; nothing for less than one."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else ""


def scores_line(scores: Scores) -> str:
    """Every student's avg@k in a line."""
    return " · ".join(
        f"{student}: " + ", ".join(f"{domain} {100 * score:.1f} %" for domain, score in by_domain.items())
        for student, by_domain in scores.items()
    )


def gate_lines(gate: Gate, scores: Scores) -> list[str]:
    """For every student its gap, and whom the gate lets speak on what."""
    gaps, lines = cognizance_gaps(scores), []
    for student, domains in gate.decide(scores).items():
        does = f"tutors {', '.join(sorted(domains))}" if domains else "is silent"
        lines.append(f"{student} {does} (gap {gaps[student]:.2f})")
    return lines


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def tell(trainer: L.Trainer, line: str) -> None:
    """Print what a run is at, unless its progress is not to be shown."""
    bar = trainer.progress_bar_callback
    if not isinstance(bar, RoundProgress) or bar.is_enabled:
        trainer.print(line)


def _round_of(trainer: L.Trainer, pl_module: L.LightningModule) -> str:
    name = "round" if isinstance(pl_module, InRounds) else "epoch"
    return f"{name} {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _logged_scores(trainer: L.Trainer) -> Scores:
    """The avg@k among what was logged as `validation/<student>/<domain>/avg`."""
    scores: Scores = {}
    for name, value in trainer.callback_metrics.items():
        match name.split("/"):
            case ["validation", student, domain, "avg"]:
                scores.setdefault(student, {})[domain] = float(value)
    return scores


def _scores_table(scored: list[tuple[str, Scores]]) -> Table:
    """Validation scores so far: a column a student and domain, a row a validation."""
    cells = [(student, domain) for student, by_domain in scored[0][1].items() for domain in by_domain]
    table = Table("validation, avg@k in %", *(f"{student}\n{domain}" for student, domain in cells), box=None)
    for after, scores in scored:
        table.add_row(after, *(f"{100 * scores[student][domain]:.1f}" for student, domain in cells))
    return table
