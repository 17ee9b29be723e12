"""CoDistillation: peers tutor each other, On-Policy Co-Distillation (arXiv 2606.14368, Algorithm 1).

Only conducts: what each step computes stands in the rooms it is imported from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from opcod.attempts import Attempt, Key
from opcod.checkpoint import KEY, recount
from opcod.contexts import ContextSettings, build_contexts
from opcod.counts import check_counts
from opcod.data.datamodule import QuestionData
from opcod.data.loaders import StepBatch
from opcod.evaluation import Table, averages
from opcod.feedback import Feedback, Outcome, judge
from opcod.gate import Gate, cognizance_gaps
from opcod.matching import Matching, Size, match
from opcod.metrics import FeedbackOutcomes
from opcod.peers import Peer
from opcod.records import Clock, StepRecord, distillation_figures
from opcod.rollout import Sampling
from opcod.students import Student, Students, key_of
from opcod.tutoring import write_feedback


class CoDistillation(Students):
    """Students learn each other's domains by tutoring each other.

    The scores of the validation after a round open or close the gate of the next. With one student this is SDPO: the
    same step alone, without feedback.

    Args:
        students: Two students or more (one for SDPO) with different names.
        samples: n, responses to each question of a step.
        rollout: How they are sampled.
        feedback: How the tutor's feedback is sampled.
        gate: When a tutor speaks; it goes by the students' scores.
        anchored: Ask for a concept, sanitize and anchor feedback; without, all of it is kept (ablation).
        tutor: The tutors of all phases are frozen at the `round_start` (Algorithm 1); or `latest` freezes them at
            the start of each phase (the paper's appendix); or they stay as they were at the `start` of the run, which
            makes each phase one-way distillation (baseline).
        tutored_by: Of more than one peer that may tutor, the `nearest` does, the one with the smallest gap; or `all`
            in turn, a step each, the nearest first.
        context: What the self-teacher is shown.
        matching: The loss between student and self-teacher.
        parallel_phases: Go through the phases of a round at the same time, each by its share of the processes; with the
            same result, as long as tutors are frozen before the round.
        **training: What `Students` takes.
    """

    def __init__(
        self,
        students: list[Student],
        samples: int = 8,
        rollout: Sampling = Sampling(max_new_tokens=4096),
        feedback: Sampling = Sampling(max_new_tokens=1024),
        gate: Gate = Gate(),
        anchored: bool = True,
        tutor: Literal["round_start", "latest", "start"] = "round_start",
        tutored_by: Literal["nearest", "all"] = "nearest",
        context: ContextSettings = ContextSettings(),
        matching: Matching = Matching(),
        parallel_phases: bool = False,
        **training: Any,
    ) -> None:
        super().__init__(students, **training)
        check_counts(samples=samples)
        self.samples = samples
        self.rollout = rollout
        self.feedback = feedback
        self.gate = gate
        self.anchored = anchored
        self.tutor = tutor
        self.tutored_by = tutored_by
        self.context = context
        self.matching = matching
        self.parallel_phases = parallel_phases
        if parallel_phases and (tutor == "latest" or len(students) < 2):
            why = "tutor is latest, so that a phase waits for the one before" if len(students) > 1 else "one student"
            raise ValueError(f"parallel_phases is true, but {why}: set it to false, or tutor to round_start")
        # Every rank counts those of all ranks, so that a checkpoint holds them whichever rank writes it.
        # In the order of the students: not every name of theirs may be a key of a `ModuleDict`.
        self.outcomes = nn.ModuleList(FeedbackOutcomes(sync_on_compute=False) for _ in students)

    def setup(self, stage: str) -> None:
        """Check what `Students` does, and give each phase its ranks.

        Raises:
            ValueError: If there are no equal shares of them.
        """
        super().setup(stage)
        if not self._fits or not self.parallel_phases:
            return
        if self.everyone.size % len(self.students):
            phases = len(self.students)
            raise ValueError(
                f"parallel_phases is true, but {self.everyone.size} processes are no equal shares for {phases} phases: "
                f"set `trainer.devices` and `trainer.num_nodes` for a multiple of {phases}, or it to false"
            )
        phase, self.ranks = self.everyone.split(len(self.students))
        self.trainer.datamodule.phase = phase  # type: ignore[attr-defined]

    def on_train_epoch_start(self) -> None:
        """A round begins: its scores are known, and all tutors are frozen."""
        super().on_train_epoch_start()
        if self.tutor != "start":  # peers are created, and restored, with their tutors
            for peer in self.peers:
                peer.copy("student", "tutor")

    def _tutor_of(self, tutee: Peer, batch: StepBatch) -> tuple[Peer | None, frozenset[str]]:
        """The tutor of a step, none of a student alone, and the domains on whose questions it gives feedback."""
        peers = {peer.name: peer for peer in self.peers if peer is not tutee}
        if batch.step == 0 and self.tutor == "latest":
            for peer in peers.values():
                peer.copy("student", "tutor")
        if not peers:
            return None, frozenset()
        assert self.scores is not None
        ranked = self.gate.tutors(tutee.name, self.scores)
        may = [name for name, domains in ranked.items() if domains] or list(ranked)[:1]
        name = may[batch.step % len(may) if self.tutored_by == "all" else 0]
        return peers[name], ranked[name]

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One step: rollout, grade, feedback, context, match, update."""
        tutee = self.tutee(batch)
        tutor, spoken = self._tutor_of(tutee, batch)
        clock = Clock()
        with clock.of("rollout"):
            groups = self.roll_out(tutee, batch, samples=self.samples, sampling=self.rollout)
        with clock.of("feedback"):
            feedbacks = self.give_feedback(tutee, tutor, groups, spoken, key_of(batch, self.seed, "feedback"))
        with clock.of("match"):
            contexts, cut = build_contexts(groups, feedbacks, self.chats[tutee.name], self.context)
            size = Size(*self.ranks.total(len(contexts), sum(len(c.attempt.response.tokens) for c in contexts)))
            matched = match(tutee, contexts, self.matching, self.manual_backward, size) if size.responses else None
        with clock.of("update"):
            updated, norm = self.update(tutee, matched.loss if matched else None)
            if updated:
                tutee.update_teacher(self.matching.teacher_rate)
        record = StepRecord(batch, tutee.name, tutor.name if tutor else "", spoken, groups, feedbacks, contexts)
        clock.count("rollout", sum(len(a.response.tokens) for a in record.attempts))
        clock.count("feedback", sum(f.tokens for f in record.asked_feedbacks()))
        clock.count("match", matched.tokens if matched else 0)
        record.divergences = matched.per_token if matched else []
        for name, outcomes in self.everyone.gather((record.tutor, [f.outcome for f in record.asked_feedbacks()])):
            if outcomes:
                self._outcomes_of(name).update(outcomes)
        self.keep(record, clock, norm, distillation_figures(record, matched, cut))

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

    def score_figures(self, table: Table, rounds: int) -> dict[str, float]:
        """The scores that the gate reads, with the gaps and what it makes of them."""
        scores = averages(table)
        decided = self.gate.decide(scores)
        figures = super().score_figures(table, rounds)
        for student, gap in cognizance_gaps(scores).items():
            figures[f"gate/{student}/gap"] = gap
            figures[f"gate/{student}/domains"] = float(len(decided[student]))
        return figures

    def round_figures(self) -> dict[str, float]:
        """The outcomes of the round's feedback, by tutor."""
        figures: dict[str, float] = {}
        for name, metric in self._counted():
            figures |= {f"feedback/{name}/{kind}": float(value) for kind, value in metric.compute().items()}
            metric.reset()
        return figures

    def _counted(self) -> list[tuple[str, FeedbackOutcomes]]:
        """The tutors that spoke since the last validation."""
        by_name = [(s.name, self._outcomes_of(s.name)) for s in self.students]
        return [(name, metric) for name, metric in by_name if metric.update_called]

    def _outcomes_of(self, tutor: str) -> FeedbackOutcomes:
        metric = self.outcomes[[s.name for s in self.students].index(tutor)]
        assert isinstance(metric, FeedbackOutcomes)
        return metric

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what `Students` does, and the outcomes of a round that is not over."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[KEY]["parallel_phases"] = self.parallel_phases
        checkpoint[KEY]["outcomes"] = {name: metric.counts.tolist() for name, metric in self._counted()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` kept; see `Students`.

        Raises:
            ModelError: See there.
        """
        super().on_load_checkpoint(checkpoint)
        if self._fits and checkpoint[KEY].get("parallel_phases", False) != self.parallel_phases:
            data: QuestionData = self.trainer.datamodule  # type: ignore[attr-defined]
            recount(checkpoint, len(data.train_dataloader()))
        for name, counts in checkpoint[KEY].get("outcomes", {}).items():  # none in one of another method
            told = [outcome for outcome, count in zip(Outcome, counts, strict=True) for _ in range(count)]
            self._outcomes_of(name).update(told)
