"""Runs over a tiny model by one process or several: the same run, its samples replayed, and what came of it.

As a program this is one rank of several: `python ranks_run.py RUNS RESULTS`, with the environment `several` gives it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import torch

import opcod.attempts
import opcod.tutoring
from opcod import rollout
from opcod.callbacks import OutcomeTable, RoundCheckpoint, SampleTable
from opcod.chat import Chat
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.drafts import Response
from opcod.finetuning import FineTuning
from opcod.gate import Gate
from opcod.grpo import Grpo
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.processes import AdapterStrategy
from opcod.rollout import Sampling, seed_of
from opcod.students import Student
from tiny import LORA

SHORT = Sampling(max_new_tokens=6)
METHODS = {"codistil": CoDistillation, "grpo": Grpo, "finetuning": FineTuning}


def module_of(method, folder, **settings):
    """Two students over the model in `folder`."""
    students = [Student("ann", "physics"), Student("ben", "chemistry")]
    plain = {
        "base": BaseModel(str(folder), quantization="none", dtype="float32"),
        "lora": LORA,
        "evaluation": SHORT,
        "evaluation_samples": 2,
        "optimization": Optimization(lr=1e-2, warmup=0),
    }
    sampled = {"samples": 2, "rollout": SHORT}
    own = {
        "codistil": {**sampled, "feedback": SHORT, "anchored": False, "gate": Gate()},
        "grpo": sampled,
        "finetuning": {},
    }
    return METHODS[method](students, **{**plain, **own[method], **settings})


def data_of(batch_size=3):
    """Three questions a step, so that of four processes one has none; and three to validate by."""
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
    return QuestionData(source, batch_size=batch_size, steps=2, validation=2, test=3, evaluation_batch_size=2)


class Samples:
    """Stands in for `sample`: keeps what was sampled, or gives again what was kept; and knows what was asked for.

    A random model is never right, so some of what is kept are right answers, ben's fewer.
    """

    def __init__(self, kept, answers):
        self.kept, self.answers, self.recording = kept, answers, not kept
        self.asked = []

    def __call__(self, base, requests, sampling, ends):
        self.asked += [request.key for request in requests]
        if self.recording:
            sampled = rollout.sample(base, requests, sampling, ends)
            chat = Chat(base.loaded.tokenizer, base.loaded.end_tokens)
            for request, response in zip(requests, sampled, strict=True):
                seldom = {"ann": 2, "ben": 3}[request.key[2]] if request.key[1] != "feedback" else None
                right = seldom is not None and seed_of(request.key) % seldom == 0
                self.kept[request.key] = self.right(chat, request) if right else response
        return [self.kept[request.key] for request in requests]

    def right(self, chat, request):
        tokens = torch.tensor(chat.response(f"<answer>{self.answers[request.key[-2]]}</answer>"))
        return Response(tokens, torch.full((len(tokens),), -2.0), True, entropy=1 + len(tokens) / 7)


class Watch(L.Callback):
    """The tutee's adapters and the record's figures after every step, and the gate's scores after every round."""

    def __init__(self):
        self.states, self.figures, self.scores = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.figures.append(pl_module.record.figures)
        self.states.append([p.detach().clone() for peer in pl_module.peers for p in peer.parameters()])
        self.scores.append(pl_module.score_table)


def run(run, size=1):
    """One run, in this process; its description is plain values.

    Args:
        run: `method`, `model` (its folder), `folder`; perhaps `settings` of the module, `rounds`, `ckpt_path`,
            `kept` (file of samples, which is written where it is not there), `every_n_steps`.
        size: Processes in all.
    """
    module, data = module_of(run["method"], run["model"], **run.get("settings", {})), data_of()
    data.setup("fit")
    data.setup("test")
    answers = {q.id: q.answer for part in ("train", "validation", "test") for q in getattr(data.splits, part)}
    path = Path(run["kept"]) if "kept" in run else None
    samples = Samples(torch.load(path, weights_only=False) if path and path.exists() else {}, answers)
    if path:
        opcod.attempts.sample = opcod.tutoring.sample = samples
    watch = Watch()
    folder = Path(run["folder"])
    trainer = L.Trainer(
        max_epochs=run.get("rounds", 1),
        callbacks=[
            watch,
            SampleTable(),
            OutcomeTable(),
            RoundCheckpoint(every_n_steps=run.get("every_n_steps"), keep=99),
        ],
        default_root_dir=folder,
        num_sanity_val_steps=0,
        logger=L.pytorch.loggers.CSVLogger(folder, name="", version=""),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        devices=size,
        strategy=AdapterStrategy() if size > 1 else "auto",
    )
    try:
        trainer.fit(module, data, ckpt_path=run.get("ckpt_path"), weights_only=True)
    finally:
        opcod.attempts.sample = opcod.tutoring.sample = rollout.sample
    if path and samples.recording:
        torch.save(samples.kept, path)
    kept = {}
    module.on_save_checkpoint(kept)
    groups = [group for ranks in (module.everyone, module.ranks) for group in (ranks.talk, ranks.sums) if group]
    return {
        "patience": [group._get_backend(torch.device("cpu")).options._timeout for group in groups],
        "states": watch.states,
        "figures": watch.figures,
        "scores": watch.scores,
        "asked": samples.asked,
        "final": kept["opcod"],
    }


def several(size, runs, folder, port, **environment):
    """Runs by several processes, each run after the other; what each rank has of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "runs.json").write_text(json.dumps(runs))
    processes = [start(size, rank, folder, port, **environment) for rank in range(size)]
    told = [process.communicate(timeout=500) for process in processes]
    for process, (out, err) in zip(processes, told, strict=True):
        assert process.returncode == 0, out + err
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]
    return [[of_rank[i] for of_rank in ranks] for i in range(len(runs))], told


def start(size, rank, folder, port, **environment):
    """One rank."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    of_rank = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }
    command = [sys.executable, str(here), str(size), str(folder)]
    return subprocess.Popen(command, env=os.environ | of_rank | environment, text=True, stdout=-1, stderr=-1)


def main(size, folder):
    """One rank of several."""
    torch.set_num_threads(1)
    runs = json.loads((folder / "runs.json").read_text())
    results = [run(one, size) for one in runs]
    torch.save(results, folder / f"{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
