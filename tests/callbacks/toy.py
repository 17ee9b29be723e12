"""Two students of one number each, who go through rounds like language models do, with sums to do by hand.

The step at (round, phase, step) adds 100 * round + 10 * phase + step to the number of the phase's tutee.
"""

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from opcod.attempts import Attempt
from opcod.contexts import Context
from opcod.data.loaders import StepLoader
from opcod.data.questions import Question
from opcod.drafts import Response
from opcod.feedback import Feedback, Outcome
from opcod.gate import Gate
from opcod.grading import Grade
from opcod.ranks import Ranks
from opcod.records import StepRecord

NAMES = ("physicist", "chemist")
QUESTIONS = [
    Question(id=f"q{i}", domain=domain, text="What is it?", options=("this", "that"), answer="A")
    for i, domain in enumerate(["physics", "chemistry"])
]
SCORES = [  # before the first round, and after each
    {"physicist": {"physics": 0.6, "chemistry": 0.3}, "chemist": {"physics": 0.5, "chemistry": 0.6}},
    {"physicist": {"physics": 0.6, "chemistry": 0.5}, "chemist": {"physics": 0.5, "chemistry": 0.6}},
    {"physicist": {"physics": 0.7, "chemistry": 0.5}, "chemist": {"physics": 0.6, "chemistry": 0.6}},
    {"physicist": {"physics": 0.7, "chemistry": 0.6}, "chemist": {"physics": 0.6, "chemistry": 0.7}},
]


def table_of(scores, stderr=0.01):
    """As a ScoreBoard computes it."""
    return {s: {d: {"avg": avg, "stderr": stderr} for d, avg in by.items()} for s, by in scores.items()}


def attempt_of(question=QUESTIONS[0], sample=0, *, correct=False, text="Because."):
    """A response of two tokens."""
    response = Response(torch.tensor([1, 2]), torch.zeros(2), finished=True)
    return Attempt(question, sample, (1,), response, text, Grade(correct, True, "A" if correct else "B"))


def record_of(batch):
    """Two responses to each of two questions, of which the first alone is right; feedback on physics only."""
    groups = [[attempt_of(q, j, correct=q.id == "q0" and j == 0) for j in range(2)] for q in QUESTIONS]
    tutee, tutor = (NAMES[batch.phase], NAMES[1 - batch.phase])
    f = Feedback("<concept>it</concept> So.", "So.", Outcome.MATCH, "it")
    none = Feedback(None, None, Outcome.FB_NONE)
    contexts = [Context(a, (1,), None, "So.") for a in groups[0]]
    figures = {f"train/{tutee}/accuracy": 0.25, f"train/{tutee}/feedback_kept": 1.0, "seconds/rollout": 2.0}
    return StepRecord(batch, tutee, tutor, frozenset({"physics"}), groups, [[f, f], [none, none]], contexts, figures)


class ToyData(L.LightningDataModule):
    """K = 2 steps a phase."""

    def train_dataloader(self):
        return StepLoader(QUESTIONS, batch_size=2, steps=2, seed=0)

    def val_dataloader(self):
        return DataLoader(QUESTIONS, batch_size=1, collate_fn=list)

    test_dataloader = val_dataloader


class ToyRounds(L.LightningModule):
    """What the callbacks need of CoDistillation; `steps` and `validated` tell what was run."""

    phases = 2

    def __init__(self, die_after=None):
        super().__init__()
        self.automatic_optimization = False
        self.numbers = torch.nn.ParameterList([torch.zeros(()), torch.zeros(())])
        self.gate = Gate()
        self.scores = self.scored_rounds = self.record = self.score_table = None
        self.steps, self.validated, self.tested = [], [], 0
        self.chats = {}
        self.everyone, self.records = Ranks(), []
        self.die_after = die_after

    def configure_optimizers(self):
        return [torch.optim.SGD([number], lr=1.0) for number in self.numbers]

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def on_train_epoch_start(self):
        if self.scored_rounds != self.current_epoch:
            self.take_scores(self.current_epoch)

    def take_scores(self, rounds):
        self.validated.append(rounds)
        self.scores, self.scored_rounds = SCORES[rounds], rounds
        self.score_table = table_of(self.scores)

    def training_step(self, batch, batch_idx):
        place = (batch.round, batch.phase, batch.step)
        if place == self.die_after:
            raise KeyError("the run dies here")
        optimizer = self.optimizers()[batch.phase]
        self.manual_backward(-self.numbers[batch.phase] * (100 * batch.round + 10 * batch.phase + batch.step))
        optimizer.step()
        optimizer.zero_grad()
        self.steps.append(place)
        self.record = record_of(batch)
        self.records = [self.record]

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit":
            self.take_scores(self.current_epoch + 1)

    def test_step(self, batch, batch_idx):
        pass

    def score_test(self, batches):
        assert [q.id for batch in batches for q in batch] == ["q0", "q1"]
        self.tested += 1
        scores = SCORES[3] if self.scored_rounds else SCORES[0]
        return table_of(scores), {s: {d: {"q0": v} for d, v in of.items()} for s, of in scores.items()}

    def on_save_checkpoint(self, checkpoint):
        checkpoint["toy"] = {"scores": self.scores, "scored_rounds": self.scored_rounds}

    def on_load_checkpoint(self, checkpoint):
        self.scores, self.scored_rounds = checkpoint["toy"]["scores"], checkpoint["toy"]["scored_rounds"]


def trainer_of(folder, *callbacks: Callback, rounds=3, **others):
    """A small trainer on the CPU, whose files go to `folder`."""
    settings = {
        "enable_progress_bar": any(isinstance(c, L.pytorch.callbacks.ProgressBar) for c in callbacks),
        "enable_checkpointing": any(isinstance(c, L.pytorch.callbacks.Checkpoint) for c in callbacks),
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(
        accelerator="cpu",
        max_epochs=rounds,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_model_summary=False,
        **(settings | others),
    )


def run(folder, *callbacks, ckpt_path=None, module=None, **settings):
    """Fit, and return the module."""
    module = module or ToyRounds()
    trainer_of(folder, *callbacks, **settings).fit(module, ToyData(), ckpt_path=ckpt_path, weights_only=True)
    return module
