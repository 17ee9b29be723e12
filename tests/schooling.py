"""A model of about a million parameters, taught from scratch to read a few kinds of question half well."""

import random
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F

from opcod.chat import Chat
from opcod.codistillation import CoDistillation, Student
from opcod.contexts import ContextSettings
from opcod.data.datamodule import LessonData, QuestionData
from opcod.data.lessons import LessonMix, lessons
from opcod.data.sources import GeneratedScience
from opcod.evaluation import Table
from opcod.export import write_adapter
from opcod.gate import Gate
from opcod.matching import Matching
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.peers import Lora
from opcod.rollout import Sampling
from opcod.specialist import Specialist
from tiny import build_folder, load_tiny

DOMAINS = ["physics", "materials"]
FAMILIES = {"physics": ["net_force"], "materials": ["doping_type", "bond_type"]}
LORA = Lora(rank=8, alpha=16)


def source() -> GeneratedScience:
    """Two domains of questions in words, which a tiny model can learn."""
    return GeneratedScience(DOMAINS, levels=[1], train=100, families=FAMILIES)


def school(folder: Path, *, seed: int, steps: int, batch: int = 16, lr: float = 3e-3) -> Path:
    """Write a model trained from scratch on lessons of both domains to `folder`."""
    build_folder(
        folder, hidden=128, layers=4, heads=4, kv_heads=2, intermediate=384, vocab=1200, spread=0.02, seed=seed
    )
    loaded = load_tiny(folder)
    chat = Chat(loaded.tokenizer, loaded.end_tokens)
    model = loaded.model.train().requires_grad_(True)
    pairs = []
    for domain in DOMAINS:
        worked = source().worked(domain, 100, seed=seed)
        for repeat in range(6):
            mix = LessonMix(context=0.3, tutor=0.2)
            made = lessons(worked, mix, home=domain, peers=DOMAINS, seed=100 * seed + repeat)
            pairs += [(chat.prompt(x.messages), chat.response(x.response)) for x in made]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    rng = random.Random(seed)
    for _ in range(steps):
        rows = rng.sample(pairs, batch)
        longest = max(len(p) + len(r) for p, r in rows)
        ids = torch.zeros(batch, longest, dtype=torch.long)
        targets = torch.full((batch, longest), -100)
        for i, (prompt, response) in enumerate(rows):
            ids[i, : len(prompt) + len(response)] = torch.tensor(prompt + response)
            targets[i, len(prompt) : len(prompt) + len(response)] = torch.tensor(response)
        logits = model(input_ids=ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    return folder


def specialist(base: Path, folder: Path, *, home: str, seed: int, lessons: int = 256, lr: float = 1e-3) -> Path:
    """Teach an adapter over `base` its home domain, as `opcod specialise` does, and write it to `folder`."""
    module = Specialist(
        base=_base(base),
        lora=LORA,
        optimization=Optimization(lr=lr, schedule="cosine", warmup=0.1),
        samples=1,
        evaluation=_evaluation(),
        seed=seed,
    )
    data = LessonData(source(), home, DOMAINS, home_lessons=100, other_lessons=0, validation=4, seed=seed)
    _trainer(epochs=max(1, lessons // 100), validate=False).fit(module, datamodule=data)
    write_adapter(folder, module.state(), LORA, base=str(base))
    return folder


def codistil(
    base: Path, adapters: dict[str, Path], *, seed: int, rounds: int, steps: int, lr: float
) -> tuple[Table, Table]:
    """A whole run of the method; returns the test scores before and after it."""
    students = [Student(f"{domain}_student", domain, str(adapters[domain])) for domain in DOMAINS]
    module = CoDistillation(
        students,
        base=_base(base),
        lora=LORA,
        samples=4,
        rollout=Sampling(max_new_tokens=90),
        feedback=Sampling(max_new_tokens=70),
        gate=Gate(),
        context=ContextSettings(limit=1024),
        matching=Matching(),
        optimization=Optimization(lr=lr, warmup=2),
        evaluation_samples=4,
        evaluation=_evaluation(),
        seed=seed,
    )
    data = QuestionData(source(), batch_size=8, steps=steps, validation=8, test=24, evaluation_batch_size=32, seed=seed)
    outcome = _Scores()
    _trainer(epochs=rounds, validate=True, callbacks=[outcome]).fit(module, datamodule=data)
    return outcome.before, outcome.after


class _Scores(L.Callback):
    """The test scores before and after training."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.before = self._score(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.after = self._score(trainer, pl_module)

    @staticmethod
    def _score(trainer: L.Trainer, module: L.LightningModule) -> Table:
        assert isinstance(module, CoDistillation)
        return module.score(trainer.datamodule.test_dataloader(), module.test_board)


def _base(folder: Path) -> BaseModel:
    return BaseModel(str(folder), quantization="none", dtype="float32")


def _evaluation() -> Sampling:
    return Sampling(temperature=0.6, top_p=0.95, max_new_tokens=90, batch_size=128)


def _trainer(*, epochs: int, validate: bool, callbacks: list[L.Callback] | None = None) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=callbacks,
    )
