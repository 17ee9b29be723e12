"""A model of less than a million parameters, taught from scratch to read two kinds of question half well."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from opcod.chat import Chat
from opcod.codistillation import CoDistillation, Student
from opcod.contexts import ContextSettings
from opcod.data.datamodule import LessonData, QuestionData
from opcod.data.lessons import Lesson, LessonMix, lessons
from opcod.data.science import WorkedQuestion
from opcod.data.sources import GeneratedScience
from opcod.evaluation import Table
from opcod.export import write_adapter
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.peers import Lora
from opcod.prompts import teacher_messages
from opcod.rollout import Sampling
from opcod.specialist import Specialist, sequence_of
from tiny import build_folder, load_tiny

DOMAINS = ["physics", "materials"]
FAMILIES = {"physics": ["net_force"], "materials": ["bond_type"]}
LORA = Lora(rank=8, alpha=16)
MIX = LessonMix(context=0.2, tutor=0.2)


def source() -> GeneratedScience:
    """Two domains of questions in words, which a tiny model can learn."""
    return GeneratedScience(DOMAINS, levels=[1], train=100, families=FAMILIES)


def all_lessons(seed: int) -> list[Lesson]:
    """Lessons of both domains, each question several times: all kinds, and to do as a shown solution does."""
    made = []
    for domain in DOMAINS:
        worked = source().worked(domain, 100, seed=seed)
        for repeat in range(4):
            made += lessons(worked, MIX, home=domain, peers=DOMAINS, seed=4 * seed + repeat)
            made += [_follow(w) for w in worked]
    return made


def _follow(worked: WorkedQuestion) -> Lesson:
    solution = worked.right.response
    return Lesson(teacher_messages(worked.question, solution, None), solution, worked.question.domain, "context")


def school(folder: Path, *, seed: int, steps: int, batch: int = 16, lr: float = 3e-3) -> Path:
    """Write a model that was trained from scratch on lessons of both domains to `folder`."""
    taught = all_lessons(seed)
    texts = [m["content"] for x in taught for m in x.messages] + [x.begun + x.response for x in taught]
    shape = {"hidden": 128, "layers": 3, "heads": 4, "kv_heads": 4, "intermediate": 384, "vocab": 600, "spread": 0.02}
    build_folder(folder, **shape, seed=seed, texts=texts, phrases=_recurring(texts))
    loaded = load_tiny(folder)
    chat = Chat(loaded.tokenizer, loaded.end_tokens)
    model = loaded.model.train().requires_grad_(True)
    scored = [sequence_of(lesson, chat) for lesson in taught]
    sequences = [torch.tensor(s.prompt + s.response) for s in scored]  # it learns to read questions, too
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    rng = random.Random(seed)
    for _ in range(steps):
        rows = rng.sample(sequences, batch)
        ids = pad_sequence(rows, batch_first=True)
        targets = pad_sequence(rows, batch_first=True, padding_value=-100)
        present = targets[:, 1:] != -100
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][present]
        loss = F.cross_entropy(model.lm_head(hidden), targets[:, 1:][present])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
    return folder


def _recurring(texts: Sequence[str]) -> list[str]:
    """The sentences that many texts hold, and the tags: one token each, so that prompts are short."""
    counted = Counter(sentence for text in texts for sentence in dict.fromkeys(re.split(r"(?<=[.:?,]) |\n", text)))
    tags = [f"<{slash}{tag}>" for tag in ("reasoning", "answer", "concept") for slash in ("", "/")]
    return tags + [s for s, n in counted.items() if n > len(texts) / 50 and len(s.split()) > 4 and "<" not in s]


def specialist(base: Path, folder: Path, *, home: str, seed: int, epochs: int, lr: float = 2e-3) -> Path:
    """Teach an adapter over `base` its home domain, as `opcod specialise` does, and write it to `folder`."""
    module = Specialist(
        base=_base(base),
        lora=LORA,
        optimization=Optimization(lr=lr, schedule="cosine", warmup=0.1),
        samples=1,
        evaluation=_evaluation(),
        seed=seed,
    )
    data = LessonData(source(), home, DOMAINS, home_lessons=100, other_lessons=20, mix=MIX, validation=4, seed=seed)
    _trainer(epochs=epochs, limit_val_batches=0).fit(module, datamodule=data)
    write_adapter(folder, module.state(), LORA, base=str(base))
    return folder


def codistil(
    base: Path, adapters: dict[str, Path], *, seed: int, rounds: int, steps: int, lr: float, samples: int = 8
) -> tuple[Table, Table, list]:
    """A whole run of the method; returns the test scores before and after it, and the record of every step."""
    module = CoDistillation(
        [Student(f"{domain}_student", domain, str(adapters[domain])) for domain in DOMAINS],
        base=_base(base),
        lora=LORA,
        samples=4,
        rollout=Sampling(max_new_tokens=90),
        feedback=Sampling(max_new_tokens=90),
        context=ContextSettings(limit=512),
        optimization=Optimization(lr=lr, warmup=0),
        evaluation_samples=samples,
        evaluation=_evaluation(),
        seed=seed,
    )
    data = QuestionData(
        source(), batch_size=8, steps=steps, validation=12, test=24, evaluation_batch_size=32, seed=seed
    )
    watch = _Watch()
    _trainer(epochs=rounds, callbacks=[watch]).fit(module, datamodule=data)
    return watch.before, watch.after, watch.records


class _Watch(L.Callback):
    """The test scores before and after training, and all steps' records."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.records: list = []
        self.before = self._score(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        self.records.append(pl_module.record)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.after = self._score(trainer, pl_module)

    @staticmethod
    def _score(trainer: L.Trainer, module: L.LightningModule) -> Table:
        assert isinstance(module, CoDistillation)
        return module.score(trainer.datamodule.test_dataloader(), module.test_board)


def _base(folder: Path) -> BaseModel:
    return BaseModel(str(folder), quantization="none", dtype="float32")


def _evaluation() -> Sampling:
    return Sampling(temperature=0.6, top_p=0.95, max_new_tokens=90, batch_size=256)


def _trainer(*, epochs: int, **settings: object) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **settings,
    )
