"""More than two peers, and peers of different families: whole runs over tiny random models."""

import csv
import json

import lightning as L
import pytest
import torch
from transformers import Gemma2Config, GPTNeoXConfig, Qwen2Config

import test_codistillation
from opcod.callbacks import OutcomeTable, RoundCheckpoint, SampleTable
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.diagnosis import diagnose, teacher_gaps
from opcod.gate import Gate
from opcod.models import BaseModel
from opcod.optimization import Optimization
from opcod.report.charts import logged
from opcod.report.figures import trajectories
from opcod.report.page import write_report
from opcod.report.runs import read_run
from opcod.students import Student
from test_codistillation import Watch, assert_same, final_state, module_of, owner
from test_rollout import watched_keys
from tiny import ZEPHYR, build_folder

DOMAINS = ["physics", "chemistry", "materials"]
TRIO = (Student("ann", "physics"), Student("ben", "chemistry"), Student("cal", "materials"))
EVERYONE = [s.name for s in TRIO]
# Of the best, 0.8 in each domain, ann lacks (0.2 + 0.2) / 0.8, ben (0.1 + 0.1) / 0.8 and cal 0.16 / 0.8.
SCORES = {"ann": (0.8, 0.6, 0.6), "ben": (0.7, 0.8, 0.7), "cal": (0.64, 0.8, 0.8)}
SWAPPED = {"ann": SCORES["cal"], "ben": SCORES["ben"], "cal": SCORES["ann"]}


def questions(students, *, steps=2):
    source = GeneratedScience([s.domain for s in students], levels=[1], train=20)
    return QuestionData(source, batch_size=1, steps=steps, validation=2, test=2)


def fit(module, folder, *callbacks, steps=2, **settings):
    """Run it on the questions of its students' domains; returns the module."""
    return test_codistillation.fit(module, folder, *callbacks, data=questions(module.students, steps=steps), **settings)


class Scored(L.Callback):
    """Gives the students these scores in each round, whatever they answered."""

    def __init__(self, *scores):
        self.scores = scores

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.score_table = {
            s: {d: {"avg": avg, "stderr": 0.0} for d, avg in zip(DOMAINS, by, strict=True)}
            for s, by in self.scores[batch.round].items()
        }


def test_a_third_phase_follows_the_two_of_a_pair_with_an_order_of_its_own():
    asked = questions(TRIO, steps=3)
    asked.setup("fit")
    pair, asked.phases = asked.train_dataloader(), 3
    trio = asked.train_dataloader()
    assert (len(pair), len(trio)) == (6, 9)
    assert [trio.at(1, place) for place in range(6)] == [pair.at(1, place) for place in range(6)]
    assert [(trio.at(1, place).phase, trio.at(1, place).step) for place in (6, 8)] == [(2, 0), (2, 2)]
    orders = [[trio.at(0, 3 * phase + step).questions[0].id for step in range(3)] for phase in range(3)]
    assert orders[2] not in orders[:2]


# ---- who is tutored by whom


def tutored(folder, output, *scores, steps=2, **settings):
    """Round by round: `TUTEE<TUTOR` of every step, with a question mark where nobody spoke."""
    watch = Watch()
    module = module_of(folder, TRIO, samples=1, optimization=Optimization(lr=0.0), **settings)
    fit(module, output, Scored(*scores), watch, rounds=len(scores), steps=steps)
    told = [f"{r.tutee}<{r.tutor}{'' if r.spoken else '?'}" for r in watch.records]
    each = len(TRIO) * steps
    return [" ".join(told[i : i + each]) for i in range(0, len(told), each)]


def test_the_nearest_cognizant_peer_tutors_a_whole_phase_and_another_one_when_scores_change(tiny_folder, tmp_path):
    assert tutored(tiny_folder, tmp_path, SCORES, SWAPPED, gate=Gate(tau=0.3)) == [
        "ann<cal ann<cal ben<cal ben<cal cal<ben cal<ben",
        "ann<ben ann<ben ben<ann ben<ann cal<ann cal<ann",
    ]


def test_all_cognizant_peers_tutor_in_turn_a_step_each_the_nearest_first(tiny_folder, tmp_path):
    assert tutored(tiny_folder, tmp_path, SCORES, steps=3, gate=Gate(tau=0.3), tutored_by="all") == [
        "ann<cal ann<ben ann<cal ben<cal ben<cal ben<cal cal<ben cal<ben cal<ben"
    ]


@pytest.mark.parametrize("tutored_by", ["nearest", "all"])
def test_where_no_peer_is_cognizant_nobody_speaks(tutored_by, tiny_folder, tmp_path):
    assert tutored(tiny_folder, tmp_path, SCORES, gate=Gate(tau=0.2), tutored_by=tutored_by) == [
        "ann<cal ann<cal ben<cal ben<cal cal<ben? cal<ben?"
    ]


def test_the_tutors_in_turn_draw_apart(tiny_folder, tmp_path):
    """What a tutor writes in a step is the same whether it is the only one or one of several."""

    def written(tutored_by):
        watch = Watch()
        module = module_of(tiny_folder, TRIO, samples=1, optimization=Optimization(lr=0.0), tutored_by=tutored_by)
        fit(module, tmp_path / tutored_by, Scored(SCORES), watch)
        return [(r.tutor, [f.raw for group in r.feedbacks for f in group]) for r in watch.records]

    nearest, all_ = written("nearest"), written("all")
    assert [one[0] == other[0] for one, other in zip(nearest, all_, strict=True)] == [True, False] * 3
    assert [one == other for one, other in zip(nearest, all_, strict=True)] == [True, False] * 3


# ---- who changes


def test_each_of_three_phases_changes_its_tutee_alone(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, TRIO), tmp_path, watch)
    assert watch.changes == [{f"{name}_student", f"{name}_teacher"} for name in EVERYONE for _ in range(2)]
    assert [(r.batch.phase, r.batch.step) for r in watch.records] == [(p, s) for p in range(3) for s in range(2)]
    assert all({q.domain for q in r.batch.questions} <= set(DOMAINS) for r in watch.records)


@pytest.mark.parametrize("tutor", ["round_start", "latest", "start"])
def test_tutors_are_frozen_when_their_setting_says(tutor, tiny_folder, tmp_path):
    """What every tutor is during ben's phase of the second round, after 5 of 6 steps a phase of its students."""
    watch = Watch()
    fit(module_of(tiny_folder, TRIO, tutor=tutor), tmp_path, watch, rounds=2, steps=1)
    frozen = {"round_start": {"ann": 3, "cal": 3}, "latest": {"ann": 4, "cal": 3}, "start": {"ann": 0, "cal": 0}}
    during = watch.states[5]  # states[n] is after n steps; the fifth is ben's
    for name, step in frozen[tutor].items():
        for parameter in (p for p in during if owner(p) == f"{name}_tutor"):
            student = parameter.replace(f"{name}_tutor", f"{name}_student")
            assert torch.equal(during[parameter], watch.states[step][student])
    moved = next(p for p in during if owner(p) == "ann_student" and "lora_B" in p)
    assert not torch.equal(watch.states[0][moved], watch.states[1][moved])
    assert not torch.equal(watch.states[3][moved], watch.states[4][moved])


def test_every_student_has_as_many_updates_in_its_schedule_as_phases(tiny_folder, tmp_path):
    """A cosine over R x K = 4 updates of each student ends at nothing."""
    optimization = Optimization(lr=1e-2, schedule="cosine", warmup=0)
    module = fit(module_of(tiny_folder, TRIO, optimization=optimization), tmp_path, rounds=2)
    assert [s.get_last_lr()[0] for s in module.lr_schedulers()] == pytest.approx([0.0] * 3, abs=1e-9)


# ---- resumed, looked at, reported


@pytest.mark.parametrize("checkpoint", ["round=0-step=3.ckpt", "round=0-step=5.ckpt", "round=1.ckpt"])
def test_a_resumed_run_of_three_ends_bit_for_bit_as_one_that_was_not_stopped(checkpoint, tiny_folder, tmp_path):
    def callbacks():
        return RoundCheckpoint(every_n_steps=1, keep=99), SampleTable(), OutcomeTable()

    settings = {"tutored_by": "all", "tutor": "latest"}
    whole = fit(module_of(tiny_folder, TRIO, **settings), tmp_path / "whole", *callbacks(), rounds=2)
    fit(module_of(tiny_folder, TRIO, **settings), tmp_path / "died", *callbacks(), rounds=1)
    stopped = tmp_path / "died" / "checkpoints" / checkpoint
    resumed = fit(
        module_of(tiny_folder, TRIO, **settings), tmp_path / "died", *callbacks(), rounds=2, ckpt_path=stopped
    )
    assert_same(final_state(resumed), final_state(whole))
    last = [torch.load(tmp_path / f / "checkpoints" / "last.ckpt", weights_only=True) for f in ("whole", "died")]
    for part in ("opcod", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert_same(last[0][part], last[1][part])
    rows = [(tmp_path / f / "samples.jsonl").read_text().splitlines() for f in ("whole", "died")]
    assert rows[0] == rows[1]
    assert {json.loads(row)["phase"] for row in rows[0]} == {0, 1, 2}
    outcomes = [json.loads((tmp_path / f / "outcome.json").read_text()) for f in ("whole", "died")]
    assert outcomes[0] == outcomes[1]


def test_a_run_of_three_is_logged_and_reported(tiny_folder, tmp_path):
    logger = L.pytorch.loggers.CSVLogger(tmp_path, name="", version="")
    fit(module_of(tiny_folder, TRIO), tmp_path, OutcomeTable(), SampleTable(), logger=logger)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        steps = [row for row in csv.DictReader(file) if row["phase_step"]]
    assert [(row["step"], row["phase"]) for row in steps] == [(str(i), f"{i // 2}.0") for i in range(6)]
    run = read_run(tmp_path)
    assert set(run.outcome.improved) == set(EVERYONE)
    figure = trajectories(logged([run], "round"))
    assert len(figure.axes) == 3 * 3  # every student in the plane of every two domains
    assert {(a.get_xlabel(), figure.axes[i // 3 * 3].get_ylabel()) for i, a in enumerate(figure.axes)} == {
        (f"{x}, avg@k, %", f"{y}, avg@k, %")
        for x, y in (("chemistry", "materials"), ("chemistry", "physics"), ("materials", "physics"))
    }
    page = write_report([tmp_path]).read_text()
    assert all(page.count(f'<th scope="row">{name}</th>') == 3 for name in EVERYONE)
    assert "Ways through the domains" in page


def test_three_students_are_diagnosed_in_all_six_directions(tiny_folder):
    module = module_of(tiny_folder, TRIO)
    module.configure_model()
    asked = questions(TRIO)
    asked.setup("validate")
    one_each = asked.splits.validation[::2]
    found = diagnose(module, one_each)
    assert [(d.tutee, d.tutor) for d in found] == [(a, b) for a in EVERYONE for b in EVERYONE if a != b]
    gaps = teacher_gaps(module, one_each, samples=2)
    assert set(gaps) == set(EVERYONE)
    assert all(gaps[name][domain]["f"].count == 2 for name in EVERYONE for domain in DOMAINS)


def test_no_two_draws_of_a_diagnosis_share_a_key(tiny_folder, monkeypatch):
    module = module_of(tiny_folder, TRIO)
    module.configure_model()
    asked = questions(TRIO)
    asked.setup("validate")
    keys = watched_keys(monkeypatch, "tutoring", "diagnosis")
    diagnose(module, asked.splits.validation[:1])
    teacher_gaps(module, asked.splits.validation[:1], samples=2)
    assert len(keys) == 6 * 2 * 8 + 3 * 3 * 2  # there is no s, so that each is asked with f and with nothing
    assert len(set(keys)) == len(keys)


# ---- different families


def neox(size):
    return GPTNeoXConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=96, **size)


def qwen(size):
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1}
    return Qwen2Config(hidden_size=32, num_hidden_layers=3, intermediate_size=80, **heads, **size)


def gemma(size):
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    return Gemma2Config(hidden_size=40, num_hidden_layers=2, intermediate_size=64, **heads, **size)


@pytest.mark.parametrize("family", [neox, qwen, gemma], ids=lambda f: f.__name__)
def test_peers_of_two_families_tokenizers_templates_and_sizes_tutor_each_other(family, tiny_folder, tmp_path):
    other = build_folder(tmp_path / "other", config=family, vocab=420, template=ZEPHYR, seed=3)
    ben = Student("ben", "chemistry", base=BaseModel(str(other), quantization="none", dtype="float32"))
    watch = Watch()
    module = fit(module_of(tiny_folder, [TRIO[0], ben]), tmp_path, watch)
    assert watch.changes == [{"ann_student", "ann_teacher"}] * 2 + [{"ben_student", "ben_teacher"}] * 2
    llama, stranger = (module.chats[name].tokenizer for name in ("ann", "ben"))
    assert len(llama) != len(stranger)
    for record in watch.records:
        chat = module.chats[record.tutee]
        for context in record.contexts:
            # f came as text: it stands in the context in the tutee's own tokens, of its own template.
            assert context.feedback
            assert context.feedback in chat.tokenizer.decode(list(context.prompt))
    assert "<|im_start|>" in llama.decode(list(watch.records[0].attempts[0].prompt))
    assert "<|user|>" in stranger.decode(list(watch.records[2].attempts[0].prompt))
