"""Specialist: supervised fine-tuning of one student on worked solutions, mostly of one domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from opcod.attempts import attempt, prompt_within
from opcod.chat import Chat
from opcod.checkpoint import check_base, check_scale, has_rounds_of, recount
from opcod.counts import check_counts
from opcod.data.lesson_data import LessonData
from opcod.data.lessons import Lesson
from opcod.data.questions import Question
from opcod.evaluation import ScoreBoard, flatten
from opcod.losses import hidden_log_probs
from opcod.models import BaseModel, ModelError, load_base
from opcod.optimization import Optimization, UpdateGuard
from opcod.peers import Lora, SharedBase, read_adapter
from opcod.prompts import student_messages
from opcod.ranks import Ranks
from opcod.rollout import Sampling, seed_of
from opcod.rounds import precision_faults, refuse
from opcod.scoring import Scored, over_micro_batches, response_hidden, response_tokens
from opcod.solving import Solved, Solving, solve
from opcod.specialists import adapter_folder

STUDENT = "specialist"
_OTHER_LESSONS = "which has other steps now: give as many lessons and `data.batch_size` as they were"


class Specialist(L.LightningModule):
    """One student, taught lessons: prompts and the responses to them.

    The loss is the mean negative log-likelihood over all response tokens of a step (section 1, The students at
    the start). Supported: 4-bit or plain bases, warm starts from another adapter, micro-batches sized by tokens, and
    several processes that share the lessons of a step.

    Args:
        base: The base model.
        lora: Shape of the adapter.
        adapter: Start from this adapter: a shipped specialist's name or a folder; fresh by default.
        optimization: Learning rate and its schedule.
        micro_batch_tokens: Most tokens, padding included, in one forward and backward pass.
        checkpoint_activations: Recompute activations in the backward pass; slower, much less memory.
        samples: k, responses a question when it is scored.
        evaluation: How these are sampled.
        solving: How worked solutions are found (`opcod solve`).
        prompt_limit: Longest prompt, in tokens.
        seed: Of the fresh adapter and of evaluation.
    """

    def __init__(
        self,
        base: BaseModel = BaseModel(),
        lora: Lora = Lora(),
        adapter: str | None = None,
        optimization: Optimization = Optimization(lr=2e-4, schedule="cosine", warmup=0.1),
        micro_batch_tokens: int = 4096,
        checkpoint_activations: bool = False,
        samples: int = 4,
        evaluation: Sampling = Sampling(temperature=0.6, top_p=0.95),
        solving: Solving = Solving(),
        prompt_limit: int = 2048,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_counts(micro_batch_tokens=micro_batch_tokens, samples=samples, prompt_limit=prompt_limit)
        self.automatic_optimization = False
        self.base = base
        self.lora = lora
        self.adapter = adapter
        self.optimization = optimization
        self.micro_batch_tokens = micro_batch_tokens
        self.checkpoint_activations = checkpoint_activations
        self.samples = samples
        self.evaluation = evaluation
        self.solving = solving
        self.prompt_limit = prompt_limit
        self.seed = seed
        self.guard = UpdateGuard()
        self.ranks = Ranks()
        self.model: SharedBase | None = None
        self._fits = False  # whether a trainer is about to teach it

    def setup(self, stage: str) -> None:
        """Learn of the other processes, and check what adapters need of the trainer."""
        self._fits = stage == "fit"
        self.ranks = Ranks.of(self.trainer)
        refuse(precision_faults(self.trainer))

    def configure_model(self) -> None:
        """Load the base, once, onto the device it will run on."""
        if self.model is not None:
            return
        loaded = load_base(self.base, self.device)
        self.chat = Chat(loaded.tokenizer, loaded.end_tokens)
        self.model = SharedBase(loaded, self.lora, checkpoint_activations=self.checkpoint_activations)
        self.model.add_adapter(STUDENT, seed_of((self.seed, "adapter", STUDENT)))
        if self.adapter is not None:
            self.model.load_state(STUDENT, read_adapter(adapter_folder(self.adapter), self.lora))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over the adapter alone."""
        assert self.model is not None
        optimizer = self.optimization.optimizer(self.model.parameters_of(STUDENT))
        return [optimizer], [self.optimization.scheduler(optimizer, self._steps())]

    def _steps(self) -> int:
        """Of the whole run.

        Not `trainer.estimated_stepping_batches`: it builds the loader before a checkpoint's state can reach it.
        """
        batches, limit = len(self.trainer.datamodule.train_dataloader()), self.trainer.limit_train_batches  # type: ignore[attr-defined]
        epoch = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        return epoch * (self.trainer.max_epochs or 0)

    def on_fit_start(self) -> None:
        """Make the scores' metrics for the data's domains."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, LessonData)
        self.board = ScoreBoard([STUDENT], data.source.domains, self.samples).to(self.device)

    def on_train_start(self) -> None:
        """The optimization is this run's, whatever a checkpoint was made with."""
        self.optimization.take_over(self.optimizers(), self.lr_schedulers())

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lessons and questions are text: nothing to transfer."""
        return batch

    def training_step(self, batch: list[Lesson], batch_idx: int) -> None:
        """One update on a batch of lessons."""
        assert self.model is not None
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        sequences = [sequence_of(lesson, self.chat) for lesson in self.ranks.share(batch)]
        (tokens,) = self.ranks.total(sum(len(s.response) for s in sequences))
        mine = imitate(self.model, STUDENT, sequences, self.micro_batch_tokens, self.manual_backward, tokens)
        (loss,) = self.ranks.total(mine)
        parameters = self.model.parameters_of(STUDENT)
        self.ranks.add_gradients(parameters)
        admitted, norm = self.guard.admits(parameters, loss, self.optimization.clip)
        if admitted:
            optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        self.log_dict(
            {"loss": loss, "gradient_norm": norm, "tokens": float(tokens)}, prog_bar=True, batch_size=len(batch)
        )
        self.log("skipped_updates", float(self.guard.skipped), batch_size=len(batch))

    def validation_step(self, batch: list[Question], batch_idx: int) -> None:
        """Answer a batch of questions."""
        assert self.model is not None
        with self.model.sampling(STUDENT):
            answered = attempt(
                self.model,
                self.chat,
                batch,
                lambda question: prompt_within(self.chat, question, student_messages(question), self.prompt_limit),
                samples=self.samples,
                sampling=self.evaluation,
                key=(self.seed, "validation", STUDENT),
            )
        self.board.update(STUDENT, answered)

    def on_validation_epoch_end(self) -> None:
        """Log the scores on all domains."""
        self.log_dict(flatten(self.board.compute(), "validation"), batch_size=1)
        self.board.reset()

    def predict_step(self, batch: list[Question], batch_idx: int) -> list[Solved]:
        """Find worked solutions to a batch of questions."""
        assert self.model is not None
        key = (self.seed, "solve", STUDENT)
        with self.model.sampling(STUDENT):
            return solve(self.model, self.chat, batch, self.solving, prompt_limit=self.prompt_limit, key=key)

    def state(self) -> dict[str, Tensor]:
        """The adapter's tensors under peft's names, on the CPU."""
        assert self.model is not None
        return {k: v.detach().cpu().clone() for k, v in self.model.state_of(STUDENT).items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter alone with its shape, the base's identity, and what was skipped."""
        assert self.model is not None
        checkpoint["state_dict"] = {}
        guard = (self.guard.skipped, self.guard.in_a_row)
        checkpoint[STUDENT] = {
            "adapter": self.state(),
            "lora": asdict(self.lora),
            "base": self.model.loaded.identity,
            "guard": guard,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` kept.

        Raises:
            ModelError: If it is no checkpoint of a specialist, or of another base, or its adapter is scaled otherwise,
                or it is of the middle of an epoch that has other steps now.
        """
        if STUDENT not in checkpoint:
            raise ModelError("the checkpoint holds no specialist: resume with one that `opcod specialise` wrote")
        self.configure_model()
        assert self.model is not None
        self.strict_loading = False
        check_base("the specialist", checkpoint[STUDENT]["base"], self.model.loaded.identity)
        check_scale("the specialist", checkpoint[STUDENT]["lora"], self.model.lora)
        self.model.load_state(STUDENT, checkpoint[STUDENT]["adapter"])
        if self._fits:
            batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]
            if not has_rounds_of(checkpoint, batches):
                recount(checkpoint, batches, _OTHER_LESSONS)
        self.guard.skipped, self.guard.in_a_row = checkpoint[STUDENT]["guard"]


def sequence_of(lesson: Lesson, chat: Chat) -> Scored:
    """A lesson as token ids: what stands there already, and what is to be learned."""
    return Scored((*chat.prompt(lesson.messages), *chat.tokenize(lesson.begun)), chat.response(lesson.response))


def imitate(
    base: SharedBase,
    adapter: str,
    sequences: Sequence[Scored],
    micro_batch_tokens: int,
    backward: Callable[[Tensor], None],
    tokens: float | None = None,
) -> float:
    """Accumulate the gradient of the mean negative log-likelihood over all response tokens, whatever the micro-batches.

    Args:
        base: The model.
        adapter: Which learns.
        sequences: Prompts and the responses to be learned, of this rank.
        micro_batch_tokens: Most tokens, padding included, in one forward and backward pass.
        backward: Called with each micro-batch's share of the loss.
        tokens: Of all responses of the step; by default of these.

    Returns:
        The loss, in nats a token; of more ranks this one's share of it.
    """
    total = sum(len(s.response) for s in sequences) if tokens is None else tokens

    def micro_batch(rows: list[int]) -> float:
        """Its share of the loss."""
        micro = [sequences[i] for i in rows]
        with base.using(adapter, train=True):
            hidden, tokens = response_hidden(base, micro), response_tokens(micro, base.device)
            log_probs = hidden_log_probs(hidden, tokens, base.narrow_head)
            share = -log_probs.sum() / total
            backward(share)
        return float(share.detach())

    return sum(over_micro_batches(sequences, micro_batch_tokens, base.parameters_of(adapter), micro_batch))
