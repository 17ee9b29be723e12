"""More than two peers, and peers of different families: whole runs over tiny random models."""

import lightning as L

from opcod.callbacks import RoundCheckpoint
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.gate import Gate
from opcod.students import Student
from test_codistillation import Watch, module_of

DOMAINS = ["physics", "chemistry", "materials"]
TRIO = (Student("ann", "physics"), Student("ben", "chemistry"), Student("cal", "materials"))


def fit(module, folder, *callbacks, rounds=1, steps=2, ckpt_path=None, logger=False):
    """Run it on the questions of its students' domains; returns the module."""
    source = GeneratedScience([s.domain for s in module.students], levels=[1], train=20)
    data = QuestionData(source, batch_size=1, steps=steps, validation=2, test=2)
    trainer = L.Trainer(
        max_epochs=rounds,
        callbacks=list(callbacks),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(c, RoundCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


class Scored(L.Callback):
    """Gives the students made-up scores before each round."""

    def __init__(self, *scores):
        self.scores = scores

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.score_table = {
            s: {d: {"avg": avg, "stderr": 0.0} for d, avg in zip(DOMAINS, by, strict=True)}
            for s, by in self.scores[batch.round].items()
        }


# Of 0.8 in each domain the best have, ann lacks 0.2 + 0.2 = 0.5 of it, ben 0.1 + 0.1 = 0.25 and cal 0.16 = 0.2.
SCORES = {"ann": (0.8, 0.6, 0.6), "ben": (0.7, 0.8, 0.7), "cal": (0.64, 0.8, 0.8)}


def who_tutored(folder, *, rounds=1, scores=(SCORES,), **settings):
    """Tutee and tutor of every step, with the number of domains on which that spoke."""
    watch = Watch()
    fit(module_of(folder[0], TRIO, **settings), folder[1], Scored(*scores), watch, rounds=rounds)
    return [(r.tutee, r.tutor, len(r.spoken)) for r in watch.records]


def test_smoke(tiny_folder, tmp_path):
    print(who_tutored((tiny_folder, tmp_path), gate=Gate(tau=0.3)))
