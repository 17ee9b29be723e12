"""The module as a whole, over a tiny random model: who changes, who speaks, and that a resumed run is the same."""

import csv
import inspect
import json
import math
from dataclasses import replace

import lightning as L
import pytest
import torch
from typing_extensions import get_protocol_members

from opcod.callbacks import OutcomeTable, RoundCheckpoint, SampleTable
from opcod.callbacks.outcome import Testable, Validated
from opcod.callbacks.progress import InRounds, Tutoring
from opcod.callbacks.samples import Recording
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.jsonl import write_questions
from opcod.data.questions import Question, QuestionError
from opcod.data.sources import GeneratedScience, JsonQuestions
from opcod.evaluation import ScoreBoard
from opcod.feedback import Feedback, Outcome, tutor_messages
from opcod.finetuning import FineTuning
from opcod.gate import Gate
from opcod.grpo import Grpo
from opcod.matching import Matching
from opcod.models import BaseModel, ModelError
from opcod.optimization import Optimization
from opcod.rollout import Sampling
from opcod.students import Student
from test_rollout import watched_keys
from tiny import LORA, build_folder

ANN, BEN = Student("ann", "physics"), Student("ben", "chemistry")
SHORT = Sampling(max_new_tokens=6)
ROLES = ("student", "teacher", "tutor")


def shared_settings(folder):
    """What a module of any method takes, for short runs over the model in `folder`."""
    return {
        "base": BaseModel(str(folder), quantization="none", dtype="float32"),
        "lora": LORA,
        "evaluation": SHORT,
        "evaluation_samples": 1,
        "optimization": Optimization(lr=1e-2, warmup=0),
    }


def module_of(folder, students=(ANN, BEN), **settings):
    """Two students who always speak and all of whose feedback is kept, so that a random model learns something."""
    plain = {"samples": 2, "rollout": SHORT, "feedback": SHORT, "gate": Gate("always"), "anchored": False}
    return CoDistillation(list(students), **(shared_settings(folder) | plain | settings))


@pytest.mark.parametrize("protocol", [Testable, Validated, InRounds, Tutoring, Recording], ids=lambda p: p.__name__)
def test_callbacks_recognise_the_module_on_every_python(protocol, tiny_folder):
    """From 3.12 on `isinstance` does not find what `nn.Module` looks up in its own way, submodules for instance."""
    module = module_of(tiny_folder)
    assert isinstance(module, protocol)
    for name in get_protocol_members(protocol):
        inspect.getattr_static(module, name)


def fit(
    module, folder, *callbacks, rounds=1, steps=2, ckpt_path=None, seed=0, data=None, logger=False, sanity_checks=0
):
    """Run it, on two domains' questions unless it is given others; returns the module."""
    if data is None:
        source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
        data = QuestionData(source, batch_size=2, steps=steps, validation=2, test=2, seed=seed)
    trainer = L.Trainer(
        max_epochs=rounds,
        callbacks=list(callbacks),
        default_root_dir=folder,
        num_sanity_val_steps=sanity_checks,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(c, RoundCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


class Watch(L.Callback):
    """After every step: all parameters, and the step's record."""

    def __init__(self):
        self.states, self.records = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.states:
            self.states.append(parameters(pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(parameters(pl_module))
        self.records.append(pl_module.record)

    @property
    def changes(self):
        """For every step the peer's roles that it changed, and `base` if it changed anything else."""
        return [
            {owner(name) for name, value in after.items() if not torch.equal(before[name], value)}
            for before, after in zip(self.states, self.states[1:], strict=False)
        ]


def parameters(module):
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def owner(name):
    return next((f"{s}_{r}" for s in ("ann", "ben", "cal") for r in ROLES if f".{s}_{r}." in name), "base")


def final_state(module):
    """All that a checkpoint holds of the module, flattened."""
    kept = {}
    module.on_save_checkpoint(kept)
    return kept["opcod"]


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


# ---- what is logged


def rows_of(module, folder, **settings):
    """The rows that a run leaves."""
    fit(module, folder, logger=L.pytorch.loggers.CSVLogger(folder, name="", version=""), **settings)
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def logged(tiny_folder, tmp_path):
    """Those of a run of one round."""
    return rows_of(module_of(tiny_folder), tmp_path)


def test_the_first_scores_are_logged_before_the_first_step(logged):
    told = [(row["rounds"], row["phase_step"]) for row in logged if row["rounds"] or row["phase_step"]]
    assert told == [("0.0", ""), ("", "0.0"), ("", "1.0"), ("", "0.0"), ("", "1.0"), ("1.0", "")]
    assert all(row["validation/ann/physics/avg"] and row["gate/ann/gap"] for row in logged if row["rounds"])


def test_a_step_logs_its_own_tutee_alone(logged):
    steps = [row for row in logged if row["phase_step"]]
    assert [row["step"] for row in steps] == ["0", "1", "2", "3"]
    for row, tutee in zip(steps, ("ann", "ann", "ben", "ben"), strict=True):
        other = {"ann": "ben", "ben": "ann"}[tutee]
        assert row[f"train/{tutee}/accuracy"]
        assert not any(value for name, value in row.items() if name.startswith(f"train/{other}/"))


def test_feedback_is_counted_by_tutor_and_round(tiny_folder, tmp_path):
    rows = rows_of(module_of(tiny_folder), tmp_path, rounds=2)
    for name in ("ann", "ben"):
        told = [row[f"feedback/{name}/count/match"] for row in rows if row["rounds"]]
        assert told == ["", "8.0", "8.0"]  # two steps of two questions with two responses; none before the first


def test_the_gate_is_logged_with_its_gaps_and_on_how_many_domains_each_may_tutor(tiny_folder, tmp_path, monkeypatch):
    def answered(board):  # ann's gap is (0.8 - 0.4) / 0.8, ben's (0.8 - 0.6) / 0.8
        scores = {"ann": {"physics": 0.8, "chemistry": 0.4}, "ben": {"physics": 0.6, "chemistry": 0.8}}
        return {s: {d: {"avg": avg, "stderr": 0.0} for d, avg in by.items()} for s, by in scores.items()}

    monkeypatch.setattr(ScoreBoard, "compute", answered)
    first, *_ = rows_of(module_of(tiny_folder, gate=Gate("domain-selective", tau=0.3)), tmp_path, steps=1)
    logged = [(float(first[f"gate/{s}/gap"]), float(first[f"gate/{s}/domains"])) for s in ("ann", "ben")]
    assert logged == [(pytest.approx(0.5), 1), (pytest.approx(0.25), 2)]


def test_callbacks_watch_the_scores_after_each_round(tiny_folder, tmp_path):
    stopping = L.pytorch.callbacks.EarlyStopping(monitor="rounds", mode="min", patience=1)
    module = fit(module_of(tiny_folder), tmp_path, stopping, rounds=3, steps=1)
    assert float(stopping.best_score) == 1  # not the 0 of the scores before the first round
    assert module.scored_rounds == 2
    assert "validation/ann/physics/avg" in module.trainer.callback_metrics


def test_a_round_that_is_stopped_within_has_no_scores_in_the_log(tiny_folder, tmp_path):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.current_epoch == 1 and batch_idx == 1  # as `max_time` does

    log = L.pytorch.loggers.CSVLogger(tmp_path, name="", version="")
    module = fit(module_of(tiny_folder), tmp_path, Stop(), rounds=2, logger=log)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["rounds"] for row in csv.DictReader(file) if row["rounds"]] == ["0.0", "1.0"]
    assert module.scored_rounds == 2, "they were scored, for who asks how it ended"


# ---- who changes


def test_a_step_changes_the_tutees_student_and_self_teacher_alone(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path, watch)
    ann, ben = {"ann_student", "ann_teacher"}, {"ben_student", "ben_teacher"}
    assert watch.changes == [ann, ann, ben, ben]
    assert [(r.tutee, r.tutor) for r in watch.records] == [("ann", "ben")] * 2 + [("ben", "ann")] * 2


def test_all_phases_are_gone_through_with_data_that_a_run_of_parallel_phases_had(tiny_folder, tmp_path):
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
    data = QuestionData(source, batch_size=2, steps=1, validation=1, test=1)
    data.phase = 1  # as such a run leaves it
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path, watch, data=data)
    assert [record.tutee for record in watch.records] == ["ann", "ben"]


def test_the_self_teacher_moves_by_its_rate_towards_the_updated_student(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path, watch)
    before, after = watch.states[0], watch.states[1]
    for name in after:
        if owner(name) == "ann_teacher":
            student = after[name.replace("ann_teacher", "ann_student")]
            assert torch.allclose(after[name], 0.95 * before[name] + 0.05 * student, atol=1e-7)


def test_students_begin_with_draws_of_their_own(tiny_folder):
    module = module_of(tiny_folder)
    module.configure_model()
    a, b = ([p for n, p in module.named_parameters() if f".{s}_student.w" in n] for s in ("ann", "ben"))
    drawn = [not torch.equal(one, other) for one, other in zip(a, b, strict=True)]
    assert sum(drawn) == len(a) / 2  # the factors A; all B are zero


def test_a_student_alone_has_as_many_updates_in_its_schedule_as_steps(tiny_folder, tmp_path):
    """A cosine over R x 2 phases x K = 8 updates ends at nothing."""
    optimization = Optimization(lr=1e-2, schedule="cosine", warmup=0)
    module = module_of(tiny_folder, [ANN], gate=Gate("never"), optimization=optimization)
    rates = []

    class Rate(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            rates.append(pl_module.lr_schedulers().get_last_lr()[0])

    fit(module, tmp_path, Rate(), rounds=2)
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 8)) for step in range(1, 9)], abs=1e-9)


def test_who_asks_the_self_teacher_of_a_live_student_later_asks_the_student(tiny_folder, tmp_path):
    """As `opcod chat` and `opcod export` do, which know of the adapters alone."""
    module = fit(module_of(tiny_folder, matching=Matching(self_teacher="live")), tmp_path)
    for peer in module.peers:
        assert_same(peer.state()["teacher"], peer.state()["student"])


def test_without_a_learning_rate_nothing_changes(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, optimization=Optimization(lr=0.0)), tmp_path, watch)
    assert watch.changes == [set()] * 4


def test_an_update_that_is_not_finite_is_skipped_and_counted(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("opcod.optimization.nn.utils.clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    watch = Watch()
    module = fit(module_of(tiny_folder), tmp_path, watch)
    assert watch.changes == [set()] * 4
    assert {name: guard.skipped for name, guard in module.guards.items()} == {"ann": 2, "ben": 2}


def test_a_student_may_have_any_identifier_for_a_name(tiny_folder, tmp_path):
    named = [Student("keys", "physics"), Student("update", "chemistry")]
    module = fit(module_of(tiny_folder, named), tmp_path, RoundCheckpoint(every_n_steps=1, keep=99))
    kept = [torch.load(tmp_path / "checkpoints" / f"round=0-step={i}.ckpt", weights_only=True) for i in (1, 3)]
    assert [set(k["opcod"]["outcomes"]) for k in kept] == [{"update"}, {"keys", "update"}]
    assert module.record.tutee == "update"


# ---- what is drawn


@pytest.fixture
def keys(monkeypatch):
    """The keys of all draws."""
    return watched_keys(monkeypatch, "attempts", "tutoring")


def test_no_two_draws_of_the_training_share_a_key(tiny_folder, tmp_path, keys):
    """Both questions there are come at every step of both rounds."""
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=1)
    data = QuestionData(source, batch_size=2, steps=2, validation=2, test=2)
    fit(module_of(tiny_folder), tmp_path, data=data, rounds=2)
    for purpose in ("rollout", "feedback"):
        drawn = [key for key in keys if key[1] == purpose]
        assert len(drawn) == len(set(drawn)) == 2 * 2 * 2 * 2 * 2  # rounds, phases, steps, questions, samples


def test_a_student_is_scored_by_the_same_draws_every_time(tiny_folder, tmp_path, keys):
    fit(module_of(tiny_folder, seed=5), tmp_path, OutcomeTable(), rounds=2)
    assert {key[0] for key in keys} == {5}
    for purpose, times in (("evaluation", 3), ("test", 2)):
        drawn = [key for key in keys if key[1] == purpose]
        each = drawn[: len(drawn) // times]
        assert drawn == each * times
        assert len(set(each)) == 2 * 2 * 2  # students, domains, questions


def test_responses_and_feedback_are_sampled_by_their_own_settings(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, feedback=Sampling(max_new_tokens=3)), tmp_path, watch)
    lengths = {len(a.response.tokens) for r in watch.records for a in r.attempts}
    given = [f for r in watch.records for f in r.asked_feedbacks()]
    assert (max(lengths), max(f.tokens for f in given)) == (6, 3)
    assert all(f.finished == (f.tokens < 3) for f in given)


def test_a_look_at_the_validation_before_the_run_is_no_round(tiny_folder, tmp_path):
    told = []

    class Told(CoDistillation):
        def score_figures(self, table, rounds):
            told.append((rounds, table["ann"]["physics"]["count"]))
            return super().score_figures(table, rounds)

    module = module_of(tiny_folder)
    module.__class__ = Told
    fit(module, tmp_path, steps=1, sanity_checks=1)
    assert told == [(0, 2), (1, 2)]


# ---- who speaks


def test_each_feedback_is_on_its_response_and_on_the_domains_of_its_tutor(tiny_folder, tmp_path, monkeypatch):
    def said(tutor, tutee, attempts, **settings):
        raw = [f"{tutor.name} to {tutee.name}: {a.question.id} {a.sample}" for a in attempts]
        return [Feedback(text, text, Outcome.MATCH) for text in raw]

    scores = {"ann": {"physics": 0.8, "chemistry": 0.4}, "ben": {"physics": 0.4, "chemistry": 0.8}}
    monkeypatch.setattr("opcod.codistillation.write_feedback", said)
    monkeypatch.setattr("opcod.students.averages", lambda table: scores)
    watch = Watch()
    fit(module_of(tiny_folder, gate=Gate("domain-selective")), tmp_path, watch, steps=4)
    spoken = []
    for record in watch.records:
        home = {"ann": "physics", "ben": "chemistry"}[record.tutor]
        assert record.spoken == {home}
        for a, f in zip(record.attempts, [f for on_group in record.feedbacks for f in on_group], strict=True):
            spoken.append(a.question.domain == home)
            expected = f"{record.tutor} to {record.tutee}: {a.question.id} {a.sample}"
            assert f.raw == (expected if a.question.domain == home else None)
        assert len(record.asked_feedbacks()) == sum(a.question.domain == home for a in record.attempts)
        assert {c.feedback for c in record.contexts} == {f.raw for f in record.asked_feedbacks()}
    assert set(spoken) == {True, False}


def test_a_tutor_is_told_whose_specialist_is_whose(tiny_folder, tmp_path, monkeypatch):
    told = []

    def messages(question, response, *, tutor_domain, peer_domain, anchored):
        told.append((tutor_domain, peer_domain))
        return tutor_messages(question, response, tutor_domain=tutor_domain, peer_domain=peer_domain, anchored=anchored)

    monkeypatch.setattr("opcod.tutoring.tutor_messages", messages)
    fit(module_of(tiny_folder), tmp_path, steps=1)  # two phases of two questions with two responses
    assert told == [("chemistry", "physics")] * 4 + [("physics", "chemistry")] * 4


def test_a_silent_tutor_writes_nothing_and_costs_no_pass(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, gate=Gate("never")), tmp_path, watch)
    assert all(f.raw is None for r in watch.records for group in r.feedbacks for f in group)
    assert all(r.contexts == [] for r in watch.records)  # nor is there a right answer of a random model's
    assert watch.changes == [set()] * 4


def test_anchored_feedback_of_a_random_model_is_asked_for_and_dropped(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, anchored=True), tmp_path, watch)
    given = [f for r in watch.records for group in r.feedbacks for f in group]
    assert len(given) == 4 * 2 * 2  # steps, questions, samples
    assert all(f.raw is not None and f.text is None for f in given)
    assert {f.outcome for f in given} <= {Outcome.NO_CONCEPT_TAG, Outcome.FB_NONE}


def test_one_student_alone_is_sdpo(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder, [ANN], gate=Gate("never")), tmp_path, watch)
    assert [(r.tutee, r.tutor) for r in watch.records] == [("ann", "")] * 4


def test_peers_over_two_bases_and_tokenizers_tutor_each_other(tiny_folder, tmp_path):
    other = build_folder(tmp_path / "other", hidden=48, layers=1, vocab=500, seed=3)
    ben = Student("ben", "chemistry", base=BaseModel(str(other), quantization="none", dtype="float32"))
    watch = Watch()
    module = fit(module_of(tiny_folder, [ANN, ben]), tmp_path, watch)
    assert len(module.bases) == 2
    assert watch.changes == [{"ann_student", "ann_teacher"}] * 2 + [{"ben_student", "ben_teacher"}] * 2
    assert all(c.feedback for r in watch.records for c in r.contexts)


def test_a_shared_base_teaches_what_two_equal_bases_do(tiny_folder, tmp_path):
    shared = fit(module_of(tiny_folder), tmp_path / "one")
    twin = BaseModel(str(tiny_folder), revision="twin", quantization="none", dtype="float32")
    apart = fit(module_of(tiny_folder, [ANN, Student("ben", "chemistry", base=twin)]), tmp_path / "two")
    assert (len(shared.bases), len(apart.bases)) == (1, 2)
    assert_same(final_state(shared)["peers"], final_state(apart)["peers"])


# ---- a resumed run is the same run


@pytest.mark.parametrize("checkpoint", ["round=0-step=1.ckpt", "round=0-step=3.ckpt", "round=1.ckpt"])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(checkpoint, tiny_folder, tmp_path):
    def callbacks():
        return RoundCheckpoint(every_n_steps=1, keep=99), SampleTable(), OutcomeTable()

    whole = fit(module_of(tiny_folder), tmp_path / "whole", *callbacks(), rounds=2)
    # The run that dies leaves its folder behind: samples that were written after the checkpoint are written again.
    fit(module_of(tiny_folder), tmp_path / "died", *callbacks(), rounds=1)
    stopped = tmp_path / "died" / "checkpoints" / checkpoint
    resumed = fit(module_of(tiny_folder), tmp_path / "died", *callbacks(), rounds=2, ckpt_path=stopped)

    assert_same(final_state(resumed), final_state(whole))
    names = [sorted(p.name for p in (tmp_path / f / "checkpoints").iterdir()) for f in ("whole", "died")]
    assert names[0] == names[1]
    for name in names[0]:  # after every step, so that what stands in the middle of a round is compared as well
        saved = [torch.load(tmp_path / f / "checkpoints" / name, weights_only=True) for f in ("whole", "died")]
        for part in ("opcod", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert_same(saved[0][part], saved[1][part])
    rows = [(tmp_path / f / "samples.jsonl").read_text().splitlines() for f in ("whole", "died")]
    assert len(rows[0]) == 2 * 4 * 4  # rounds, steps, attempts of a step
    assert rows[0] == rows[1]
    outcomes = [json.loads((tmp_path / f / "outcome.json").read_text()) for f in ("whole", "died")]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("method", [CoDistillation, Grpo, FineTuning])
def test_a_checkpoint_is_loaded_without_a_trainer(method, tiny_folder, tmp_path):
    sampled = {"samples": 2, "rollout": SHORT} if method is not FineTuning else {}
    settings = {"students": [ANN, BEN], **shared_settings(tiny_folder), **sampled}
    module = fit(method(**settings), tmp_path, RoundCheckpoint())
    loaded = method.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", weights_only=True, **settings)
    assert_same(final_state(loaded), final_state(module))


def test_a_checkpoint_is_not_gone_on_with_under_another_scale(tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path, RoundCheckpoint())
    last = tmp_path / "checkpoints" / "last.ckpt"
    said = r"checkpoint of ann was made with rank 4 and alpha 8, the run asks for rank 4 and alpha 16: set `lora`"
    with pytest.raises(ModelError, match=said):
        fit(module_of(tiny_folder, lora=replace(LORA, alpha=16)), tmp_path, RoundCheckpoint(), rounds=2, ckpt_path=last)


def places(watch):
    return [(r.batch.round, r.batch.phase, r.batch.step) for r in watch.records]


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_that_goes_on_with_other_steps_has_them_from_the_next_round_on(steps, tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path, RoundCheckpoint(every_n_steps=3), rounds=1, steps=2)
    watch, end = Watch(), tmp_path / "checkpoints" / "round=1.ckpt"
    fit(module_of(tiny_folder), tmp_path / "on", watch, rounds=2, steps=steps, ckpt_path=end)
    assert places(watch) == [(1, phase, step) for phase in (0, 1) for step in range(steps)]
    halfway = tmp_path / "checkpoints" / "round=0-step=3.ckpt"
    with pytest.raises(ModelError, match=r"the middle of a round, which has other steps now, .* set `data.steps` and"):
        fit(module_of(tiny_folder), tmp_path / "halfway", rounds=2, steps=steps, ckpt_path=halfway)


def test_a_checkpoint_of_before_any_round_is_gone_on_with(tiny_folder, tmp_path):
    """As a script may save one after a validation by itself."""
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    trainer = L.Trainer(accelerator="cpu", **quiet)
    trainer.validate(module_of(tiny_folder), QuestionData(source, batch_size=2, validation=2, test=2), verbose=False)
    trainer.save_checkpoint(tmp_path / "begun.ckpt")
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path / "on", watch, steps=1, ckpt_path=tmp_path / "begun.ckpt")
    assert places(watch) == [(0, 0, 0), (0, 1, 0)]


def test_a_checkpoint_is_not_scored_on_what_its_run_was_trained_on(tiny_folder, tmp_path):
    """More questions held out of a file reach into those that were not held out before."""
    for name, count in {"train": 9, "test": 1}.items():
        ids = [(domain, f"{name} {domain} {i}") for domain in ("physics", "chemistry") for i in range(count)]
        write_questions(tmp_path / f"{name}.jsonl", [Question(id, domain, f"{id}?", (), "1") for domain, id in ids])
    source = JsonQuestions(["physics", "chemistry"], *(str(tmp_path / f"{name}.jsonl") for name in ("train", "test")))

    def data(validation, development=0):
        return QuestionData(source, batch_size=2, steps=1, validation=validation, development=development)

    fit(module_of(tiny_folder), tmp_path, RoundCheckpoint(), data=data(3, development=1))
    last = tmp_path / "checkpoints" / "last.ckpt"
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    trainer = L.Trainer(accelerator="cpu", **quiet)
    given = {"ckpt_path": last, "weights_only": True, "verbose": False}
    trainer.validate(module_of(tiny_folder), data(4), **given)
    said = "2 of 10 questions that are to be scored are training questions of the run that the checkpoint is of"
    with pytest.raises(QuestionError, match=said):
        trainer.validate(module_of(tiny_folder), data(5), **given)
    with pytest.raises(QuestionError, match=said):
        fit(module_of(tiny_folder), tmp_path / "on", rounds=2, ckpt_path=last, data=data(4, development=1))
    trainer.test(module_of(tiny_folder), data(5), **given)  # which has questions of its own


def test_students_are_not_gone_on_with_in_another_order(tiny_folder, tmp_path):
    """Their optimizers are kept by their places."""
    fit(module_of(tiny_folder), tmp_path, RoundCheckpoint())
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(ModelError, match=r"holds the students \['ann', 'ben'\], the run has \['ben', 'ann'\]: resume"):
        fit(module_of(tiny_folder, (BEN, ANN)), tmp_path / "other", rounds=2, ckpt_path=last)


@pytest.mark.parametrize(("draws", "questions"), [(1, 0), (0, 1)])
def test_another_seed_of_draws_or_questions_is_another_run(draws, questions, tiny_folder, tmp_path):
    one = fit(module_of(tiny_folder), tmp_path / "one")
    other = fit(module_of(tiny_folder, seed=draws), tmp_path / "other", seed=questions)
    some = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    states = [final_state(m)["peers"]["ann"]["student"][some] for m in (one, other)]
    assert not torch.equal(*states)


# ---- what a run leaves behind


def test_every_step_logs_its_figures(tiny_folder, tmp_path):
    watch = Watch()
    fit(module_of(tiny_folder), tmp_path, watch)
    figures = watch.records[0].figures
    assert (figures["round"], figures["phase"], figures["phase_step"]) == (0, 0, 0)
    assert figures["train/ann/distilled"] == 1
    assert figures["train/ann/feedback_kept"] == 1
    assert figures["train/ann/divergence"] > 0
    assert figures["train/ann/gradient_norm"] > 0
    assert {n for n in figures if n.startswith("seconds/")} == {
        f"seconds/{part}" for part in ("rollout", "feedback", "match", "update")
    }
    assert figures["tokens_per_second/feedback"] > 0


def test_the_first_and_last_validation_can_stand_for_the_test(tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path, OutcomeTable(test=False))
    assert json.loads((tmp_path / "outcome.json").read_text())["questions"] == "validation"


def test_only_test_questions_are_told_one_by_one(tiny_folder, tmp_path, monkeypatch):
    asked, answers = [], ScoreBoard.answers
    monkeypatch.setattr(ScoreBoard, "answers", lambda board: asked.append(board) or answers(board))
    module = fit(module_of(tiny_folder), tmp_path, OutcomeTable())
    assert [board is module.test_board for board in asked] == [True, True]  # before the first round, and after it


def test_a_dead_run_says_what_to_do(tiny_folder, tmp_path):
    with pytest.warns(UserWarning, match="take easier questions or more samples"):
        fit(module_of(tiny_folder), tmp_path, steps=1)
