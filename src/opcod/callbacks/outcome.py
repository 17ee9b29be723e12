"""What a run came to: every student's scores before the first round and after the last, and what that amounts to."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.table import Table as RichTable

from opcod import pareto
from opcod.callbacks.checkpoints import run_folder, write_whole
from opcod.callbacks.clean_stop import CleanStop
from opcod.callbacks.progress import tell
from opcod.data.questions import Question
from opcod.evaluation import Answers, Table, averages, known, percent

NAME = "outcome.json"
ANSWERS = "answers.csv"


@runtime_checkable
class Testable(Protocol):
    """A module that scores its students outside of Lightning's loops."""

    def score_test(self, batches: Iterable[list[Question]]) -> tuple[Table, Answers]:
        """Every student's figures on these questions, and question by question."""


@runtime_checkable
class Validated(Protocol):
    """A module that keeps its students' last validation scores."""

    score_table: Table | None


@dataclass(frozen=True)
class RunOutcome:
    """The scores at both ends of a run.

    Args:
        questions: Of which set: `test`, `development` or `validation`.
        initial: Before the first round.
        final: After the last.
    """

    questions: str
    initial: Table
    final: Table

    @property
    def improved(self) -> dict[str, bool]:
        """For every student whether it is a Pareto improvement."""
        before, after = averages(self.initial), averages(self.final)
        return {student: pareto.improves(before[student], after[student]) for student in before}

    @property
    def mutual(self) -> bool | None:
        """Whether it is a mutual one; None for a student alone."""
        alone = len(self.initial) < 2
        return None if alone else pareto.mutual(averages(self.initial), averages(self.final))

    def difference(self, student: str, domain: str) -> tuple[float, float]:
        """Of avg@k, with its standard error as if both ends were drawn apart; nan where it is not known."""
        before, after = self.initial[student][domain], self.final[student][domain]
        return after["avg"] - before["avg"], math.hypot(before["stderr"], after["stderr"])


class OutcomeTable(Callback):
    """Prints initial and final scores when training has ended, and says plainly whether they improved.

    Writes both tables to `outcome.json` in the run's log folder as well, and every test question's share of right
    responses to `answers.csv`, for runs to be compared in pairs.

    Args:
        test: Score the test questions, or the development questions where the data has some, before the first round
            and after the last; otherwise the first and the last validation stand for it, which costs nothing, but
            the gate has read those.
    """

    def __init__(self, test: bool = True) -> None:
        self.test = test
        self.questions = "test" if test else "validation"
        self.initial: Table | None = None
        self.final: Table | None = None
        self.answers: dict[str, Answers] = {}
        self._resumed = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take note of which questions are scored, before a checkpoint's scores are offered."""
        if self.test:
            self.questions = getattr(trainer.datamodule, "scored", "test")  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin a run, perhaps one that was stopped."""
        self.final = None
        self._resumed = trainer.ckpt_path is not None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the students as they are at first; a resumed run remembers it."""
        if self.test and self._begins(trainer):
            self.initial = self._tested(trainer, pl_module, "initial", "before the first")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the first validation, which a module runs by itself as its first round begins."""
        if not self.test and self._begins(trainer):
            self.initial = self._validated(pl_module)

    def _begins(self, trainer: L.Trainer) -> bool:
        """Whether a run begins anew that comes to something."""
        return self.initial is None and not self._resumed and not _is_trial(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score them as they are now, on the device they were trained on, unless the run is being stopped."""
        stopped = any(isinstance(c, CleanStop) and c.stopping for c in trainer.callbacks)  # type: ignore[attr-defined]
        if self.initial is not None and not stopped and not _is_trial(trainer):
            self.final = self._scored_last(trainer, pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write both down and print the outcome.

        Not reached when the run ended by an error; reached when it was resumed with no round left, where no training
        ends. Then the students are scored here, on the device that Lightning has just taken them from.
        """
        if _is_trial(trainer):
            return
        if self.initial is None:
            if self._resumed:
                trainer.print("No outcome: the checkpoint that was resumed holds no initial scores to compare with.")
            return
        if self.final is None:
            pl_module.to(trainer.strategy.root_device)
            self.final = self._scored_last(trainer, pl_module)
            pl_module.cpu()
        if not trainer.is_global_zero:
            return
        outcome = RunOutcome(self.questions, self.initial, self.final)
        write_whole(run_folder(trainer) / NAME, outcome_json(outcome))
        if self.answers:
            write_whole(run_folder(trainer) / ANSWERS, answers_csv(self.answers))
        console = Console()
        console.print(outcome_table(outcome))
        folder = run_folder(trainer)
        told = f"The run is in {folder}: {shlex.join(['opcod', 'report', str(folder)])} makes a page of it."
        for line in (*outcome_lines(outcome), told):
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _scored_last(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Table:
        return self._tested(trainer, pl_module, "final", "after the last") if self.test else self._validated(pl_module)

    def _tested(self, trainer: L.Trainer, pl_module: L.LightningModule, end: str, when: str) -> Table:
        if not isinstance(pl_module, Testable):
            raise ValueError(f"{type(pl_module).__name__} has no test scores: take OutcomeTable out of the callbacks")
        tell(trainer, f"scoring the {self.questions} questions {when} round")
        batches = trainer.datamodule.test_dataloader()  # type: ignore[attr-defined]
        table, self.answers[end] = pl_module.score_test(batches)
        return table

    def _validated(self, pl_module: L.LightningModule) -> Table:
        if not isinstance(pl_module, Validated) or pl_module.score_table is None:
            raise ValueError(
                f"{type(pl_module).__name__} keeps no validation scores: set OutcomeTable's `test` to true"
            )
        return pl_module.score_table

    def state_dict(self) -> dict[str, Any]:
        """The initial scores."""
        return {"questions": self.questions, "initial": self.initial, "answers": self.answers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the initial scores, if they are of the same questions."""
        if state_dict["questions"] == self.questions:
            self.initial = state_dict["initial"]
            self.answers = state_dict["answers"]


def _is_trial(trainer: L.Trainer) -> bool:
    """Whether it is a `fast_dev_run`, which comes to nothing that scores could tell."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def outcome_table(outcome: RunOutcome) -> RichTable:
    """avg@k in per cent, each with its standard error."""
    title = f"avg@k on the {outcome.questions} questions, % ± standard error"
    table = RichTable("student", "domain", title=title, title_style="bold", title_justify="left")
    for column in ("initial", "final", "difference"):
        table.add_column(column, justify="right")
    for student, domains in outcome.initial.items():
        for i, (domain, before) in enumerate(domains.items()):
            after = outcome.final[student][domain]
            table.add_row(
                student if i == 0 else "",
                domain,
                percent(before["avg"], before["stderr"]),
                percent(after["avg"], after["stderr"]),
                percent(*outcome.difference(student, domain), sign="+"),
                end_section=i == len(domains) - 1,
            )
    return table


def outcome_lines(outcome: RunOutcome) -> list[str]:
    """In words: which student improved, whether both did, and how much of it may be noise."""
    lines = [_of_student(outcome, student, improved) for student, improved in outcome.improved.items()]
    having = [student for student, improved in outcome.improved.items() if improved]
    if outcome.mutual is not None:
        both = "both students" if len(outcome.improved) == 2 else "all students"
        who = f"only {', '.join(having)} improved" if having else "no student improved"
        lines.append(f"The improvement is mutual: {both} have it." if outcome.mutual else f"Not mutual: {who}.")
    differences = [outcome.difference(s, d) for s, domains in outcome.initial.items() for d in domains]
    clear = sum(abs(by) > 2 * error for by, error in differences)
    lines.append(
        f"{clear} of {len(differences)} differences are larger than two standard errors; what is within about two may "
        "well be noise."
    )
    return lines


def outcome_json(outcome: RunOutcome) -> str:
    """Both tables and what they amount to; a figure that is not known is null."""
    tables = {"initial": known(outcome.initial), "final": known(outcome.final)}
    verdict = {"pareto": outcome.improved, "mutual": outcome.mutual}
    return json.dumps({"questions": outcome.questions, **tables, **verdict}, indent=2, allow_nan=False) + "\n"


def answers_csv(answers: Mapping[str, Answers]) -> str:
    """One row a question, student and end of the run; `right` is the share of right responses."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(["end", "student", "domain", "question", "right"])
    for end, by_student in answers.items():
        for student, by_domain in by_student.items():
            for domain, shares in by_domain.items():
                writer.writerows([end, student, domain, question, share] for question, share in shares.items())
    return rows.getvalue()


def _of_student(outcome: RunOutcome, student: str, improved: bool) -> str:
    if improved:
        return f"{student}: a Pareto improvement; no domain is below its initial score, and at least one is above."
    differences = {d: outcome.difference(student, d) for d in outcome.initial[student]}
    fell = {d: -by < error for d, (by, error) in differences.items() if pareto.fell(0, by)}
    if not fell:
        return f"{student}: no Pareto improvement; no domain rose above its initial score."
    within = ", by less than the standard error" if all(fell.values()) else ""
    return f"{student}: no Pareto improvement; {', '.join(fell)} fell below the initial score{within}."
