"""Students: who is trained, over which bases, how they are scored and kept; what they learn by, a subclass says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from opcod.attempts import Attempt, Key, attempt, prompt_within
from opcod.chat import Chat
from opcod.checkpoint import KEY, has_rounds_of, pack, recount, unpack
from opcod.counts import check_counts
from opcod.data.datamodule import QuestionData
from opcod.data.loaders import StepBatch
from opcod.data.questions import Question
from opcod.data.splits import contents, refuse_trained_on
from opcod.evaluation import Answers, ScoreBoard, Scores, Table, averages, flatten
from opcod.exchange import check_alike, hand_over
from opcod.memory import give_back_freed_memory
from opcod.models import BaseModel, load_base
from opcod.optimization import Optimization, UpdateGuard
from opcod.peers import Lora, Peer, Role, SharedBase
from opcod.prompts import student_messages
from opcod.ranks import Ranks
from opcod.records import Clock, Figure, StepRecord, figures_of, over_ranks, paced, warn_if_dead
from opcod.rollout import Sampling, seed_of
from opcod.rounds import precision_faults, refuse, round_faults
from opcod.specialists import adapter_folder

_HELD_OUT = {"fit": ("validation", "development"), "validate": ("validation",), "test": ("development",)}
"""Stage -> the splits out of the training questions that are scored in it."""
_STEPS_BETWEEN_TIDYING = 4  # freed memory that is given back has to be fetched again: 4 % of a step


@dataclass(frozen=True)
class Student:
    """A student as a run begins.

    Args:
        name: An identifier, e.g. `physicist`; metrics and exports carry it.
        domain: The domain it is stronger in.
        adapter: Its specialist's adapter: a shipped one's name or a folder; without one it is the bare base.
        base: A base model of its own; by default the students share `base`.
    """

    name: str
    domain: str
    adapter: str | None = None
    base: BaseModel | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"the student's name {self.name!r} is no identifier: use letters, digits and _")


class Students(L.LightningModule, ABC):
    """Students, trained in rounds on the questions of all their domains.

    An epoch is a round: a phase of K training batches with each student as tutee in turn, then validation; a student
    alone has two phases. `trainer.global_step` counts the updates of all students; `round`, `phase` and `phase_step`
    are logged by name.

    Args:
        students: Two students or more, or one, with different names.
        base: The base model they share.
        lora: Shape of their adapters.
        optimization: Of each student's adapter.
        evaluation_samples: k, responses a question when students are scored.
        evaluation: How these are sampled.
        prompt_limit: Longest student's prompt, in tokens; a longer question is refused.
        checkpoint_activations: Recompute activations in the backward pass; a little slower, much less memory.
        seed: Of every draw.
    """

    def __init__(
        self,
        students: list[Student],
        base: BaseModel = BaseModel(),
        lora: Lora = Lora(),
        optimization: Optimization = Optimization(),
        evaluation_samples: int = 16,
        evaluation: Sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=4096),
        prompt_limit: int = 2048,
        checkpoint_activations: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not students or len({s.name for s in students}) < len(students):
            raise ValueError(f"expected students with different names, got {[s.name for s in students] or 'none'}")
        check_counts(evaluation_samples=evaluation_samples)
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold adapters, not the base
        self.students = students
        self.base = base
        self.lora = lora
        self.optimization = optimization
        self.evaluation_samples = evaluation_samples
        self.evaluation = evaluation
        self.prompt_limit = prompt_limit
        self.checkpoint_activations = checkpoint_activations
        self.seed = seed
        self.bases = nn.ModuleList()
        self.peers: list[Peer] = []
        self.chats: dict[str, Chat] = {}
        self.guards = {s.name: UpdateGuard() for s in students}
        self.score_table: Table | None = None
        self.scored_rounds: int | None = None
        self.tested: tuple[Table, Answers] | None = None
        self.record: StepRecord | None = None
        self.records: list[StepRecord] = []
        self.everyone = self.ranks = Ranks()
        self.trained_on: set[str] = set()
        """The contents of all training questions, of this run and of those that it goes on from; see `splits`."""
        self._apart = False
        self._fits = False  # whether a trainer is about to train them
        self._held_out: list[Question] = []  # which a trainer is about to score them on

    @property
    def phases(self) -> int:
        """Phases of a round."""
        return max(len(self.students), 2)

    @property
    def scores(self) -> Scores | None:
        """The scores of the last validation."""
        return None if self.score_table is None else averages(self.score_table)

    def configure_model(self) -> None:
        """Load each base once, onto its device, and lay the peers' adapters over it."""
        if self.peers:
            return
        loaded: dict[BaseModel, SharedBase] = {}
        for student in self.students:
            spec = student.base or self.base
            if spec not in loaded:
                loaded[spec] = SharedBase(
                    load_base(spec, self.device),
                    self.lora,
                    checkpoint_activations=self.checkpoint_activations,
                )
                self.bases.append(loaded[spec])
            shared = loaded[spec]
            peer = Peer(student.name, student.domain, shared)
            source = None if student.adapter is None else adapter_folder(student.adapter)
            peer.create(seed=seed_of((self.seed, "adapter", student.name)), source=source)
            self.peers.append(peer)
            self.chats[student.name] = Chat(shared.loaded.tokenizer, shared.loaded.end_tokens)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer and schedule a student, over its own adapter alone."""
        optimizers = [self.optimization.optimizer(peer.parameters()) for peer in self.peers]
        # Not `trainer.estimated_stepping_batches`: it builds the loader before a checkpoint's state can reach it, and
        # a run resumed within a round would begin that round anew.
        data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
        steps = self.phases * data.steps * (self.trainer.max_epochs or 0) // len(self.peers)
        schedulers = [self.optimization.scheduler(o, steps) for o in optimizers]
        return optimizers, schedulers

    def setup(self, stage: str) -> None:
        """Check what rounds need of data and trainer."""
        self._fits = stage == "fit"
        self.everyone = self.ranks = Ranks.of(self.trainer)
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, QuestionData):
            raise ValueError("students take their questions from a `QuestionData` datamodule")
        data.phases, data.phase = self.phases, None
        faults = precision_faults(self.trainer)
        if stage == "fit":
            faults += round_faults(self.trainer, self.phases * data.steps, len(data.val_dataloader()))
        refuse(faults)
        assert data.splits is not None
        self._held_out = [q for name in _HELD_OUT.get(stage, ()) for q in getattr(data.splits, name)]
        if stage == "fit":
            self.trained_on |= contents(data.splits.train)
        unknown = [s.domain for s in self.students if s.domain not in data.domains]
        if unknown and stage in ("fit", "validate"):
            raise ValueError(f"unknown domain {', '.join(unknown)}: the questions are of {', '.join(data.domains)}")
        names = [s.name for s in self.students]
        self.board = ScoreBoard(names, data.domains, self.evaluation_samples)
        self.test_board = ScoreBoard(names, data.domains, self.evaluation_samples)

    def on_fit_start(self) -> None:
        """See that all processes train the same students on the same questions."""
        data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
        assert data.splits is not None
        check_alike(self.everyone, self.peers, data.splits)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Questions are text: nothing to transfer."""
        return batch

    def on_train_start(self) -> None:
        """The optimization is this run's, whatever a checkpoint was made with."""
        for optimizer, schedule in zip(self._optimizers(), self._schedulers(), strict=True):
            self.optimization.take_over(optimizer, schedule)

    def on_train_epoch_start(self) -> None:
        """A round begins, and its students' scores are known."""
        if self.scored_rounds != self.current_epoch:  # before the first round; or resumed before a validation
            assert self.trainer.val_dataloaders is not None
            self._answer_all(self.trainer.val_dataloaders, self.board, "evaluation")
            table = self.board.compute()
            self.board.reset()
            self._take_scores(table, self.current_epoch)
            self._log_now(self.score_figures(table, self.current_epoch), self.current_epoch, 0)

    def on_train_batch_end(self, outputs: Any, batch: StepBatch, batch_idx: int) -> None:
        """A step is over, or a round."""
        if batch_idx + 1 == self.trainer.num_training_batches:
            self.share_students()
        if (batch_idx + 1) % _STEPS_BETWEEN_TIDYING == 0:
            give_back_freed_memory()

    def share_students(self) -> None:
        """Where ranks train different students, give all of them what each student has become."""
        if self._apart:
            self._apart = False
            optimizers = [optimizer.optimizer for optimizer in self._optimizers()]
            guards = [self.guards[peer.name] for peer in self.peers]
            hand_over(self.everyone, self.ranks.size, self.peers, optimizers, self._schedulers(), guards)

    def tutee(self, batch: StepBatch) -> Peer:
        """Who learns from a batch."""
        return self.peers[batch.phase % len(self.peers)]

    @abstractmethod
    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One step of the tutee's, which ends in `update` and `keep`."""

    def roll_out(self, tutee: Peer, batch: StepBatch, *, samples: int, sampling: Sampling) -> list[list[Attempt]]:
        """The tutee samples responses to each question of this rank's share of a batch; each is graded."""
        with tutee.sampling("student"):
            return attempt(
                tutee.base,
                self.chats[tutee.name],
                self.ranks.share(batch.questions),
                lambda question: self.student_prompt(tutee, question),
                samples=samples,
                sampling=sampling,
                key=key_of(batch, self.seed, "rollout", tutee.name),
            )

    def update(self, tutee: Peer, loss: float | None) -> tuple[bool, float]:
        """Update the tutee's adapter by the gradient that lies in it, on every rank by the sum of all.

        Args:
            tutee: Who learns.
            loss: This rank's share of the loss of which it is the gradient; None where no rank had anything to learn
                from.

        Returns:
            Whether it was updated, and the gradient's norm before clipping.
        """
        index = self.peers.index(tutee)
        optimizer, schedule = self._optimizers()[index], self._schedulers()[index]
        updated, norm = False, 0.0
        if loss is not None:
            (loss,) = self.ranks.total(loss)  # first: those that have less to do wait here, where it costs nothing
            self.ranks.add_gradients(tutee.parameters())
            updated, norm = self.guards[tutee.name].admits(tutee.parameters(), loss, self.optimization.clip)
            if updated:
                optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        self._apart = self.ranks.size < self.everyone.size  # here, since a callback may save before this module's hooks
        return updated, norm

    def keep(self, record: StepRecord, clock: Clock, norm: float, figures: Mapping[str, Figure]) -> None:
        """Keep the record of a step, log its figures, and warn where it could not teach anything.

        `record` has this rank's share of the step; `records` has it too, and the heads of those of other phases that
        are gone through at the same time.

        Args:
            record: Of this rank's share of the step; it is given the figures of all of it.
            clock: What the step took.
            norm: The gradient's norm before clipping.
            figures: What the method has of its own, as far as it is this rank's.
        """
        skipped = self.guards[record.tutee].skipped
        mine = figures_of(record, norm=norm, skipped=skipped) | dict(figures) | clock.figures
        told = self.everyone.gather((record.head(), mine))
        self.record = record
        self.records = []
        for phase in sorted({head.batch.phase for head, _ in told}):
            of_phase = [(head, figures) for head, figures in told if head.batch.phase == phase]
            kept = record if phase == record.batch.phase else of_phase[0][0]
            kept.figures = paced(over_ranks([figures for _, figures in of_phase]))
            self.records.append(kept)
            place = phase * self._steps + kept.batch.step
            every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
            if every and (place + 1) % every == 0:
                self._log_now(kept.figures, kept.batch.round, place)
            if self.everyone.leads:
                warn_if_dead(kept)

    @property
    def _steps(self) -> int:
        """K, steps a phase."""
        data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
        return data.steps

    def _log_now(self, figures: dict[str, float], rounds: int, place: int) -> None:
        """Log figures of a step, counted from the beginning of its round.

        Not by `log`, which keeps what comes before a round's first step until its end, repeats what was logged of
        one tutee at every step of the next, and counts the steps of one phase alone where all are gone through at once.
        """
        for logger in self.trainer.loggers:
            logger.log_metrics(figures, step=rounds * self.phases * self._steps + place)
            logger.save()

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _schedulers(self) -> list[Any]:
        schedulers = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers]

    def student_prompt(self, peer: Peer, question: Question) -> tuple[int, ...]:
        """Token ids of a question as a student is asked it.

        Raises:
            PromptTooLongError: If it is longer than `prompt_limit`.
        """
        return prompt_within(self.chats[peer.name], question, student_messages(question), self.prompt_limit)

    def validation_step(self, batch: list[Question], batch_idx: int) -> None:
        """All students answer a batch of the gate's questions."""
        self._answer(batch, self.board, "evaluation")

    def on_validation_epoch_end(self) -> None:
        """The scores after a round, for the next round's gate."""
        if self.trainer.sanity_checking:
            self.board.reset()
            return
        fitting = self.trainer.state.fn == "fit"
        table = self.board.compute()
        self.board.reset()
        if fitting:
            rounds = self.current_epoch + 1
            self._take_scores(table, rounds)
            # Lightning also validates where it is told to stop within a round, which a run that goes on does over.
            over = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            figures = self.score_figures(table, rounds) | (self.round_figures() if over else {})
            self.log_dict(figures, batch_size=1, logger=False)  # for callbacks that monitor them
            if over:
                self._log_now(figures, self.current_epoch, self.phases * self._steps - 1)
        else:
            self.log_dict(flatten(table, "validation"), batch_size=1)

    def test_step(self, batch: list[Question], batch_idx: int) -> None:
        """All students answer a batch of test questions."""
        self._answer(batch, self.test_board, "test")

    def on_test_epoch_end(self) -> None:
        """The scores of the questions that are reported; they stay in `tested`."""
        data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
        self.tested = self.test_board.compute(), self.test_board.answers()
        self.log_dict(flatten(self.tested[0], data.scored), batch_size=1)
        self.test_board.reset()

    def predict_step(self, batch: list[Question], batch_idx: int) -> list[dict[str, Any]]:
        """Each student's sampled answers to a batch of questions, one row a response."""
        return [
            {
                "student": peer.name,
                "question": a.question.id,
                "domain": a.question.domain,
                "sample": a.sample,
                "response": a.text,
                "answer": a.grade.choice,
                "correct": a.grade.correct if a.question.keyed else None,
            }
            for peer in self.peers
            for group in self.sampled(peer, batch, "predict")
            for a in group
        ]

    def score_test(self, batches: Iterable[list[Question]]) -> tuple[Table, Answers]:
        """Every student's figures on test questions, apart from Lightning's own loops, and what they sum up."""
        self._answer_all(batches, self.test_board, "test")
        scored = self.test_board.compute(), self.test_board.answers()
        self.test_board.reset()
        return scored

    def _answer_all(self, batches: Iterable[list[Question]], board: ScoreBoard, purpose: str) -> None:
        board.reset()
        for batch in batches:
            self._answer(batch, board, purpose)

    def _answer(self, batch: list[Question], board: ScoreBoard, purpose: str) -> None:
        for peer in self.peers:
            board.update(peer.name, self.sampled(peer, batch, purpose))
        give_back_freed_memory()

    def sampled(
        self,
        peer: Peer,
        questions: Sequence[Question],
        purpose: str,
        *,
        samples: int | None = None,
        role: Role = "student",
    ) -> list[list[Attempt]]:
        """A student's attempts as it is evaluated; the draws are the same every time, so scores compare in pairs."""
        with peer.sampling(role):
            return attempt(
                peer.base,
                self.chats[peer.name],
                questions,
                lambda question: self.student_prompt(peer, question),
                samples=samples or self.evaluation_samples,
                sampling=self.evaluation,
                key=(self.seed, purpose, peer.name),
            )

    def _take_scores(self, table: Table, rounds: int) -> None:
        self.score_table, self.scored_rounds = table, rounds

    def score_figures(self, table: Table, rounds: int) -> dict[str, float]:
        """What is logged of the scores after so many rounds."""
        return flatten(table, "validation") | {"rounds": float(rounds)}

    def round_figures(self) -> dict[str, float]:
        """What is logged of a round beside the scores after it; called once a round."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep adapters and scores, and name the bases instead of holding them."""
        checkpoint["state_dict"] = {}
        models = {s.name: s.base or self.base for s in self.students}
        checkpoint[KEY] = pack(self.peers, lora=self.lora, models=models) | {
            "score_table": self.score_table,
            "scored_rounds": self.scored_rounds,
            "guards": {name: (guard.skipped, guard.in_a_row) for name, guard in self.guards.items()},
            "trained_on": sorted(self.trained_on),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` kept.

        Raises:
            ModelError: If it is no checkpoint of these students, or of another base, or of the middle of a round that
                is gone on with otherwise than it was begun.
            QuestionError: If questions that they are to be scored on were training questions.
        """
        self.configure_model()
        kept: dict[str, Any] = checkpoint.get(KEY, {})
        unpack(kept, self.peers)
        before = set(kept.get("trained_on") or ())  # older checkpoints do not tell
        refuse_trained_on(self._held_out, before)
        self.trained_on |= before
        if self._fits:
            data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
            batches = len(data.train_dataloader())
            if not has_rounds_of(checkpoint, batches):
                recount(checkpoint, batches)
        self.score_table, self.scored_rounds = kept["score_table"], kept["scored_rounds"]
        for name, (skipped, in_a_row) in kept["guards"].items():
            self.guards[name].skipped, self.guards[name].in_a_row = skipped, in_a_row


def key_of(batch: StepBatch, seed: int, *who: str) -> Key:
    """The key of a step's draws, to which question and sample are added."""
    return (seed, *who, batch.round, batch.phase, batch.step)
