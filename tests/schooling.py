"""A model of less than a million parameters, taught from scratch to read a kind of question a domain half well.

    python tests/schooling.py FOLDER

writes one of three domains with its three specialists, for `configs/reproduce-tiny.yaml`; minutes on two cores.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import get_linear_schedule_with_warmup

from opcod.chat import Chat
from opcod.codistillation import CoDistillation
from opcod.contexts import ContextSettings
from opcod.data.datamodule import QuestionData
from opcod.data.lesson_data import LessonData
from opcod.data.lessons import Lesson, LessonMix, solve, tutor
from opcod.data.science import WorkedQuestion
from opcod.data.sources import GeneratedScience
from opcod.evaluation import Table
from opcod.export import write_adapter
from opcod.feedback import judge
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.peers import Lora
from opcod.prompts import teacher_messages
from opcod.rollout import Sampling
from opcod.specialist import Specialist, sequence_of
from opcod.students import Student
from tiny import build_folder, load_tiny

DOMAINS = ["physics", "materials"]
FAMILIES = {"physics": ["net_force"], "chemistry": ["equilibrium_shift"], "materials": ["heat_treatment"]}
MISTAKEN = 0.7
"""Share of the solutions it is taught that are typical mistakes."""
LORA = Lora(rank=8, alpha=16)
MIX = LessonMix(context=0.2, tutor=0.2)


def source(domains: list[str]) -> GeneratedScience:
    """Some domains with a family of questions each, in words."""
    return GeneratedScience(domains, levels=[1], train=100, families=FAMILIES)


def all_lessons(domains: list[str], seed: int) -> list[Lesson]:
    """Lessons of all domains; the same questions come again with their options in another order.

    To solve is taught half well: some of the solutions are typical mistakes. What is shown is always right.
    """
    made = []
    for domain in domains:
        for repeat in range(8):
            for worked in _worked(domain, 8 * seed + repeat):
                rng = random.Random(f"{seed} {worked.question.id}")
                tried = rng.choice(worked.wrong) if rng.random() < MISTAKEN else worked.right
                feedback = judge(rng.choice((worked.right, tried)).feedback, worked.question, anchored=True).text
                shown = [(worked.right.response, None), (worked.right.response, feedback), (None, feedback)]
                made.append(solve(replace(worked.question, solution=tried.response)))
                made.append(tutor(worked, rng, home=domain, peers=domains))
                made += [
                    Lesson(teacher_messages(worked.question, s, f), worked.right.response, domain, "context")
                    for s, f in shown
                ]
    return made


def _worked(domain: str, seed: int) -> list[WorkedQuestion]:
    return source([domain]).worked(domain, 100, seed=seed)


def school(
    folder: Path,
    domains: list[str],
    *,
    seed: int,
    steps: int = 300,
    batch: int = 16,
    taught: Sequence[Lesson] | None = None,
) -> Path:
    """Write a model that was trained from scratch on lessons, by default those of all domains, to `folder`.

    Muon for the layers' matrices: with AdamW alone, twice the steps did not do to copy what it is shown.
    """
    taught = taught or all_lessons(domains, seed)
    texts = [m["content"] for x in taught for m in x.messages] + [x.response for x in taught]
    shape = {"hidden": 128, "layers": 3, "heads": 4, "kv_heads": 4, "intermediate": 384, "vocab": 600, "spread": 0.06}
    build_folder(folder, **shape, seed=seed, texts=texts, phrases=_recurring(texts))
    loaded = load_tiny(folder)
    chat = Chat(loaded.tokenizer, loaded.end_tokens)
    model = loaded.model.train().requires_grad_(True)
    parts = [sequence_of(lesson, chat) for lesson in taught]
    sequences = [torch.tensor(x.prompt + x.response) for x in parts]  # it learns to read questions, too
    matrices = {n: p for n, p in model.named_parameters() if n.startswith("model.layers") and p.ndim == 2}
    others = [p for n, p in model.named_parameters() if n not in matrices]
    optimizers = [
        torch.optim.Muon(matrices.values(), lr=0.02, weight_decay=0.01),
        torch.optim.AdamW(others, lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98)),
    ]
    schedules = [get_linear_schedule_with_warmup(optimizer, steps // 15, steps) for optimizer in optimizers]
    rng = random.Random(seed)
    for _ in range(steps):
        rows = rng.sample(sequences, batch)
        ids = pad_sequence(rows, batch_first=True)
        targets = pad_sequence(rows, batch_first=True, padding_value=-100)
        present = targets[:, 1:] != -100
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][present]
        F.cross_entropy(model.lm_head(hidden), targets[:, 1:][present]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def _recurring(texts: Sequence[str]) -> list[str]:
    """The tags, the options, and the sentences that many texts hold: one token each, so that prompts are short."""
    counted = Counter(sentence for text in texts for sentence in dict.fromkeys(re.split(r"(?<=[.:?,]) |\n", text)))
    tags = [f"<{slash}{tag}>" for tag in ("reasoning", "answer", "concept") for slash in ("", "/")]
    options = {option for text in texts for option in re.findall(r"^[A-Z]\. (.+)$", text, re.MULTILINE)}
    sentences = [s for s, n in counted.items() if n > len(texts) / 50 and len(s.split()) > 4 and "<" not in s]
    return tags + sorted(options) + sentences


def specialist(
    base: Path,
    folder: Path,
    domains: list[str],
    *,
    home: str,
    seed: int,
    lessons: int = 100,
    epochs: int = 1,
    mix: LessonMix = MIX,
) -> Path:
    """Teach an adapter over `base` its home domain, and write it to `folder`."""
    data = LessonData(
        source(domains), home, domains, home_lessons=lessons, other_lessons=0, mix=mix, validation=4, seed=seed
    )
    return teach(base, folder, data, epochs=epochs)


def teach(base: Path, folder: Path, data: LessonData, *, epochs: int) -> Path:
    """Teach an adapter over `base` some lessons, as `opcod specialise` does, and write it to `folder`."""
    module = Specialist(
        base=_base(base),
        lora=LORA,
        optimization=Optimization(lr=2e-3, schedule="cosine", warmup=0.1),
        samples=1,
        evaluation=_evaluation(),
        seed=data.seed,
    )
    _trainer(epochs=epochs, limit_val_batches=0).fit(module, datamodule=data)
    write_adapter(folder, module.state(), LORA, base=str(base))
    return folder


def codistil(
    base: Path, adapters: dict[str, Path], *, seed: int, lr: float, rounds: int = 2, steps: int = 8
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
        optimization=Optimization(lr=lr, warmup=2),
        evaluation_samples=8,
        evaluation=_evaluation(),
        seed=seed,
    )
    data = QuestionData(
        source(DOMAINS), batch_size=8, steps=steps, validation=12, test=24, evaluation_batch_size=32, seed=seed
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
        table, _ = module.score_test(trainer.datamodule.test_dataloader())
        return table


def _base(folder: Path) -> BaseModel:
    return BaseModel(str(folder), quantization="none", dtype="float32")


def _evaluation() -> Sampling:
    return Sampling(temperature=1.0, max_new_tokens=90, batch_size=256)


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


if __name__ == "__main__":
    folder, everything = Path(sys.argv[1]), list(FAMILIES)
    base = school(folder / "base", everything, seed=0, steps=1000)
    reading = LessonMix(context=0.5, tutor=0.2)  # with less of it they forget at home how to use what they are shown
    for domain in everything:
        specialist(base, folder / domain, everything, home=domain, seed=0, lessons=60, epochs=4, mix=reading)
