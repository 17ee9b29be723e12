"""CoDistillation: two peers tutor each other, On-Policy Co-Distillation (arXiv 2606.14368, Algorithm 1).

Only conducts: what each step computes stands in the rooms it is imported from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from opcod.attempts import Attempt, Key, attempt, check_length
from opcod.chat import Chat
from opcod.checkpoint import KEY, pack, unpack
from opcod.contexts import ContextSettings, build_contexts
from opcod.data.datamodule import QuestionData, StepBatch
from opcod.data.questions import Question
from opcod.evaluation import ScoreBoard, Scores, Table, averages, flatten
from opcod.feedback import Feedback, judge
from opcod.gate import Gate, cognizance_gaps
from opcod.matching import Match, Matching, match
from opcod.metrics import FeedbackOutcomes
from opcod.models import BaseModel, load_base
from opcod.optimization import Optimization, UpdateGuard
from opcod.peers import Lora, Peer, SharedBase
from opcod.prompts import student_messages
from opcod.records import Clock, StepRecord, figures_of, warn_if_dead
from opcod.rollout import Sampling, seed_of
from opcod.specialists import adapter_folder
from opcod.tutoring import write_feedback


@dataclass(frozen=True)
class Student:
    """One of the two students at the start.

    Args:
        name: An identifier, e.g. `physicist`; metrics and exports carry it.
        domain: The domain it is stronger in.
        adapter: Its specialist's adapter: a shipped one's name or a folder; without one it is the bare base.
        base: A base model of its own; by default the pair shares `base`.
    """

    name: str
    domain: str
    adapter: str | None = None
    base: BaseModel | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"the student's name {self.name!r} is no identifier: use letters, digits and _")


class CoDistillation(L.LightningModule):
    """Two students learn both domains by tutoring each other.

    An epoch is a round: K training batches with the first student as tutee, K with the second, then validation,
    whose scores open or close the gate of the next round. `trainer.global_step` counts the updates of both
    students; `round`, `phase` and `step` are logged by name. With one student this is SDPO: the same step alone,
    without feedback.

    Args:
        students: Two students (one for SDPO) with different names.
        base: The base model they share.
        lora: Shape of their adapters.
        samples: n, responses to each question of a step.
        rollout: How they are sampled.
        feedback: How the tutor's feedback is sampled.
        gate: When a tutor speaks.
        anchored: Ask for a concept, sanitize and anchor feedback; without, all of it is kept (ablation).
        tutor: The tutor of both phases is frozen at the `round_start` (Algorithm 1); or `latest` freezes it at
            the start of each phase (the paper's appendix).
        context: What the self-teacher is shown.
        matching: The loss between student and self-teacher.
        optimization: Of each student's adapter.
        evaluation_samples: k, responses a question when students are scored.
        evaluation: How these are sampled.
        prompt_limit: Longest student's prompt, in tokens; a longer question is refused.
        checkpoint_activations: Recompute activations in the backward pass; slower, much less memory.
        seed: Of every draw.
    """

    def __init__(
        self,
        students: list[Student],
        base: BaseModel = BaseModel(),
        lora: Lora = Lora(),
        samples: int = 8,
        rollout: Sampling = Sampling(max_new_tokens=4096),
        feedback: Sampling = Sampling(max_new_tokens=1024),
        gate: Gate = Gate(),
        anchored: bool = True,
        tutor: Literal["round_start", "latest"] = "round_start",
        context: ContextSettings = ContextSettings(),
        matching: Matching = Matching(),
        optimization: Optimization = Optimization(),
        evaluation_samples: int = 16,
        evaluation: Sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=4096),
        prompt_limit: int = 2048,
        checkpoint_activations: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(students) not in (1, 2) or len({s.name for s in students}) < len(students):
            raise ValueError(
                f"expected two students with different names (one for SDPO), got {[s.name for s in students]}"
            )
        if samples < 1 or evaluation_samples < 1:
            raise ValueError(
                f"samples n = {samples} and evaluation_samples k = {evaluation_samples}: expected at least 1 each"
            )
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold adapters, not the base
        self.students = students
        self.base = base
        self.lora = lora
        self.samples = samples
        self.rollout = rollout
        self.feedback = feedback
        self.gate = gate
        self.anchored = anchored
        self.tutor = tutor
        self.context = context
        self.matching = matching
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
        self.outcomes = nn.ModuleDict({s.name: FeedbackOutcomes() for s in students})
        self.score_table: Table | None = None
        self.scored_rounds: int | None = None
        self.record: StepRecord | None = None

    @property
    def scores(self) -> Scores | None:
        """The validation scores that this round's gate reads."""
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
        steps = 2 * data.steps * (self.trainer.max_epochs or 0) // len(self.peers)
        schedulers = [self.optimization.scheduler(o, steps) for o in optimizers]
        return optimizers, schedulers

    def setup(self, stage: str) -> None:
        """Check what the method needs of data and trainer."""
        if self.trainer.world_size > 1:
            raise ValueError(
                f"{self.trainer.world_size} processes: co-distillation runs in one so far; set `trainer.devices` to 1"
            )
        if stage == "fit" and self.trainer.check_val_every_n_epoch != 1:
            raise ValueError("the gate needs a validation after every round: set check_val_every_n_epoch to 1")
        if stage == "fit" and (self.trainer.max_epochs or 0) < 1:
            raise ValueError(f"trainer.max_epochs is {self.trainer.max_epochs}: set it to R, the number of rounds")
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, QuestionData):
            raise ValueError("co-distillation takes its questions from a `QuestionData` datamodule")
        if unknown := [s.domain for s in self.students if s.domain not in data.domains]:
            raise ValueError(f"unknown domain {', '.join(unknown)}: the questions are of {', '.join(data.domains)}")
        names = [s.name for s in self.students]
        self.board = ScoreBoard(names, data.domains, self.evaluation_samples)
        self.test_board = ScoreBoard(names, data.domains, self.evaluation_samples)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Questions are text: nothing to transfer."""
        return batch

    def on_train_epoch_start(self) -> None:
        """A round begins: its scores are known, and both tutors are frozen."""
        if self.scored_rounds != self.current_epoch:  # before the first round; or resumed before a validation
            assert self.trainer.val_dataloaders is not None
            scored = self._score(self.trainer.val_dataloaders, self.board, "evaluation")
            self._take_scores(scored, self.current_epoch)
        for peer in self.peers:
            peer.copy("student", "tutor")

    def _roles(self, batch: StepBatch) -> tuple[Peer, Peer | None]:
        """Tutee and tutor of a phase."""
        tutee = self.peers[batch.phase % len(self.peers)]
        tutor = self.peers[1 - batch.phase] if len(self.peers) == 2 else None
        if batch.step == 0 and tutor is not None and self.tutor == "latest":
            tutor.copy("student", "tutor")
        return tutee, tutor

    def spoken(self, tutor: Peer | None) -> frozenset[str]:
        """The domains on whose questions the tutor gives feedback this round."""
        if tutor is None or (scores := self.scores) is None:
            return frozenset()
        return self.gate.decide(scores)[tutor.name]

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One step: rollout, grade, feedback, context, match, update."""
        tutee, tutor = self._roles(batch)
        spoken = self.spoken(tutor)
        clock = Clock()
        with clock.of("rollout"):
            groups = self._roll_out(tutee, batch)
        with clock.of("feedback"):
            feedbacks = self.give_feedback(tutee, tutor, groups, spoken, key_of(batch, self.seed, "feedback"))
        with clock.of("match"):
            contexts = build_contexts(groups, feedbacks, self.chats[tutee.name], self.context)
            matched = match(tutee, contexts, self.matching, self.manual_backward) if contexts else None
        with clock.of("update"):
            norm = self._update(tutee, matched)
        record = StepRecord(batch, tutee.name, tutor.name if tutor else "", spoken, groups, feedbacks, contexts)
        clock.count("rollout", sum(len(a.response.tokens) for a in record.attempts))
        clock.count("feedback", sum(f.tokens for f in record.asked_feedbacks()))
        clock.count("match", matched.tokens if matched else 0)
        skipped = self.guards[tutee.name].skipped
        record.figures = figures_of(record, matched, norm=norm, skipped=skipped) | clock.figures
        self.record = record
        if spoken:
            self.outcomes[record.tutor].update([f.outcome for f in record.asked_feedbacks()])  # type: ignore[operator]
        self.log_dict(record.figures, batch_size=len(batch.questions))
        warn_if_dead(record)

    def _roll_out(self, tutee: Peer, batch: StepBatch) -> list[list[Attempt]]:
        """Steps 1 and 2: the tutee samples n responses to each question; each is graded."""
        with tutee.sampling("student"):
            return attempt(
                tutee.base,
                self.chats[tutee.name],
                batch.questions,
                lambda question: self.student_prompt(tutee, question),
                samples=self.samples,
                sampling=self.rollout,
                key=key_of(batch, self.seed, "rollout", tutee.name),
            )

    def give_feedback(
        self,
        tutee: Peer,
        tutor: Peer | None,
        groups: Sequence[Sequence[Attempt]],
        spoken: frozenset[str],
        key: Key,
    ) -> list[list[Feedback]]:
        """Step 3: the tutor, where it may speak, writes one feedback on every response, right or wrong."""
        asked = [a for group in groups for a in group if a.question.domain in spoken]
        written: dict[int, Feedback] = {}
        if tutor is not None and asked:
            feedbacks = write_feedback(
                tutor,
                tutee,
                asked,
                chat=self.chats[tutor.name],
                sampling=self.feedback,
                anchored=self.anchored,
                key=key,
            )
            written = {id(a): f for a, f in zip(asked, feedbacks, strict=True)}
        return [[written.get(id(a)) or judge(None, a.question, anchored=self.anchored) for a in g] for g in groups]

    def _update(self, tutee: Peer, matched: Match | None) -> float:
        """Step 6: update the tutee's adapter, then move its self-teacher. Returns the gradient's norm."""
        index = self.peers.index(tutee)
        optimizer, schedule = self._optimizers()[index], self._schedulers()[index]
        norm = 0.0
        if matched is not None:
            admitted, norm = self.guards[tutee.name].admits(tutee.parameters(), matched.loss, self.optimization.clip)
            if admitted:
                optimizer.step()
                tutee.update_teacher(self.matching.teacher_rate)
        optimizer.zero_grad()
        schedule.step()
        return norm

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
        prompt = self.chats[peer.name].prompt(student_messages(question))
        check_length(question, prompt, self.prompt_limit)
        return prompt

    def validation_step(self, batch: list[Question], batch_idx: int) -> None:
        """Both students answer a batch of the gate's questions."""
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
            self._take_scores(table, self.current_epoch + 1)
        else:
            self.log_dict(flatten(table, "validation"), batch_size=1)

    def test_step(self, batch: list[Question], batch_idx: int) -> None:
        """Both students answer a batch of test questions."""
        self._answer(batch, self.test_board, "test")

    def on_test_epoch_end(self) -> None:
        """The test scores."""
        self.log_dict(flatten(self.test_board.compute(), "test"), batch_size=1)
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
                "correct": a.grade.correct,
            }
            for peer in self.peers
            for group in self.sampled(peer, batch, "predict")
            for a in group
        ]

    def score_test(self, batches: Iterable[list[Question]]) -> Table:
        """Every student's figures on test questions, apart from Lightning's own loops."""
        return self._score(batches, self.test_board, "test")

    def _score(self, batches: Iterable[list[Question]], board: ScoreBoard, purpose: str) -> Table:
        board.reset()
        for batch in batches:
            self._answer(batch, board, purpose)
        table = board.compute()
        board.reset()
        return table

    def _answer(self, batch: list[Question], board: ScoreBoard, purpose: str) -> None:
        for peer in self.peers:
            board.update(peer.name, self.sampled(peer, batch, purpose))

    def sampled(
        self, peer: Peer, questions: Sequence[Question], purpose: str, *, samples: int | None = None
    ) -> list[list[Attempt]]:
        """A student's attempts as it is evaluated; the draws are the same every time, so scores compare in pairs."""
        with peer.sampling("student"):
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
        """Keep the scores for the gate, and log them with the gaps and what the gate makes of them."""
        self.score_table, self.scored_rounds = table, rounds
        figures, scores = flatten(table, "validation"), averages(table)
        decided = self.gate.decide(scores)
        for student, gap in cognizance_gaps(scores).items():
            figures[f"gate/{student}/gap"] = gap
            figures[f"gate/{student}/domains"] = float(len(decided[student]))
        self.log_dict(figures, batch_size=1)

    def on_train_epoch_end(self) -> None:
        """The outcomes of the round's feedback, by tutor."""
        for name, metric in self.outcomes.items():
            assert isinstance(metric, FeedbackOutcomes)
            if metric.update_called:
                counted = {f"feedback/{name}/{k}": v.float() for k, v in metric.compute().items()}
                self.log_dict(counted, batch_size=1)
                metric.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep adapters and the gate's state, and name the bases instead of holding them."""
        checkpoint["state_dict"] = {}
        models = {s.name: s.base or self.base for s in self.students}
        checkpoint[KEY] = pack(self.peers, lora=self.lora, models=models) | {
            "score_table": self.score_table,
            "scored_rounds": self.scored_rounds,
            "guards": {name: (guard.skipped, guard.in_a_row) for name, guard in self.guards.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` kept.

        Raises:
            ModelError: If it is no checkpoint of these students, or of another base.
        """
        self.configure_model()
        kept: dict[str, Any] = checkpoint.get(KEY, {})
        unpack(kept, self.peers)
        self.score_table, self.scored_rounds = kept["score_table"], kept["scored_rounds"]
        for name, (skipped, in_a_row) in kept["guards"].items():
            self.guards[name].skipped, self.guards[name].in_a_row = skipped, in_a_row


def key_of(batch: StepBatch, seed: int, *who: str) -> Key:
    """The key of a step's draws, to which question and sample are added."""
    return (seed, *who, batch.round, batch.phase, batch.step)
