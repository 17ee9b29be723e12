"""Updates that are not finite, planted for real: what is skipped, what stays, what is counted, and how the run ends."""

import copy
import json
import math
import re

import lightning as L
import pytest
import torch
import yaml

from opcod import cli
from opcod.callbacks import RoundCheckpoint
from opcod.data.lesson_data import LessonData
from opcod.data.lessons import LessonMix
from opcod.data.sources import GeneratedScience
from opcod.finetuning import FineTuning
from opcod.models import BaseModel, ModelError
from opcod.optimization import DivergedError, Optimization, UpdateGuard
from opcod.specialist import Specialist
from test_codistillation import ANN, BEN, SHORT, assert_same, fit, module_of, shared_settings
from test_grpo import grpo
from tiny import LORA, run_config

STEPS = 6  # of each student; the first phase is ann's


class Plant(L.Callback):
    """Spoils the given steps' arithmetic, and notes after each step which of adapters and optimizers it changed.

    Where there are rollouts, the numbers are spoiled after them: otherwise they end the run before there is a loss.
    """

    def __init__(self, steps, spoil, *, after_rollout=False):
        self.steps, self.spoil, self.after_rollout = steps, spoil, after_rollout
        self.changed, self.skipped, self.logged = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = state_of(trainer, pl_module)
        self.mend = None
        if batch_idx in self.steps:
            if self.after_rollout:
                plain = type(pl_module).roll_out

                def roll_out(*given, **named):
                    groups = plain(pl_module, *given, **named)
                    self.mend = self.spoil(pl_module)
                    return groups

                pl_module.roll_out = roll_out
            else:
                self.mend = self.spoil(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.__dict__.pop("roll_out", None)
        if self.mend:
            self.mend()
        after = state_of(trainer, pl_module)
        self.changed.append({name for name, value in after.items() if not same(value, self.before[name])})
        record = getattr(pl_module, "record", None)
        if record is not None:
            self.logged.append(record.figures)


def state_of(trainer, module):
    """A copy of all parameters and of each optimizer's state."""
    optimizers = {f"optimizer {i}": copy.deepcopy(o.state_dict()["state"]) for i, o in enumerate(trainer.optimizers)}
    return {n: p.detach().clone() for n, p in module.named_parameters()} | optimizers


def same(one, other):
    try:
        assert_same(one, other)
    except AssertionError:
        return False
    return True


def spoiler(adapter, value, *, hidden=False):
    """Writes `value` into one number of an adapter; returns what writes the old numbers back.

    `hidden` behind a zero, so that the forward pass is as it was, and only the gradient overflows.
    """

    def spoil(module):
        found = {n: p for n, p in module.named_parameters() if f".{adapter}." in n and ".0.self_attn.v_proj." in n}
        b = next(p for n, p in found.items() if "lora_B" in n)
        a = next(p for n, p in found.items() if "lora_A" in n)
        old = (a.detach().clone(), b.detach().clone())
        with torch.no_grad():
            if hidden:
                a[0] = 0.0
            b[:, 0] = value

        def mend():
            with torch.no_grad():
                a.copy_(old[0])
                b.copy_(old[1])

        return mend

    return spoil


def codistillation(folder, **settings):
    return module_of(folder, **settings)


def finetuning(folder, **settings):
    return FineTuning([ANN, BEN], **(shared_settings(folder) | settings))


CASES = {
    "nan in the self-teacher": (codistillation, spoiler("ann_teacher", math.nan), False),
    "nan in the student": (codistillation, spoiler("ann_student", math.nan), True),
    "overflow in the student": (codistillation, spoiler("ann_student", 3e38), True),
    "overflow in the gradient": (codistillation, spoiler("ann_student", 1e38, hidden=True), True),
    "grpo, nan": (grpo, spoiler("ann_student", math.nan), True),
    "grpo, overflow in the gradient": (grpo, spoiler("ann_student", 1e38, hidden=True), True),
    "finetuning, nan": (finetuning, spoiler("ann_student", math.nan), False),
    "finetuning, overflow": (finetuning, spoiler("ann_student", 3e38), False),
}


@pytest.fixture
def contrast(monkeypatch):
    """A random model is never right: this gives GRPO something to learn."""
    monkeypatch.setattr("opcod.grpo.group_advantages", lambda rewards: torch.tensor([[0.5, -0.5]] * len(rewards)))


@pytest.mark.parametrize("case", CASES)
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(case, tiny_folder, tmp_path, contrast):
    make, spoil, after_rollout = CASES[case]
    plant = Plant({1}, spoil, after_rollout=after_rollout)
    with pytest.warns(UserWarning, match="not finite, so the update is skipped"):
        module = fit(make(tiny_folder), tmp_path, plant, steps=3)
    assert [bool(changed) for changed in plant.changed] == [True, False, True, True, True, True]
    assert [f["train/ann/skipped_updates"] for f in plant.logged[:3]] == [0, 1, 1]
    assert not all(math.isfinite(plant.logged[1][f"train/ann/{name}"]) for name in ("loss", "gradient_norm"))
    if "gradient" in case:
        assert math.isfinite(plant.logged[1]["train/ann/loss"])
    assert (module.guards["ann"].skipped, module.guards["ben"].skipped) == (1, 0)
    assert module.guards["ann"].in_a_row == 0
    assert [schedule.last_epoch for schedule in module.lr_schedulers()] == [3, 3], "a schedule goes by steps"


def test_bfloat16_overflows_are_skipped_as_well(tiny_folder, tmp_path):
    base = BaseModel(str(tiny_folder), quantization="none", dtype="bfloat16")
    plant = Plant({1}, spoiler("ann_student", 3e38), after_rollout=True)
    module = fit(module_of(tiny_folder, base=base), tmp_path, plant, steps=2)
    assert [bool(changed) for changed in plant.changed] == [True, False, True, True]
    assert module.guards["ann"].skipped == 1


def test_a_few_in_a_row_end_the_run_also_over_a_stop_and_name_the_remedy(tiny_folder, tmp_path):
    spoil = spoiler("ann_teacher", math.nan)
    checkpoints = RoundCheckpoint(every_n_steps=1, keep=99)
    with pytest.raises(DivergedError, match=r"3 updates in a row were not finite .* lower the learning rate"):
        fit(module_of(tiny_folder), tmp_path / "run", checkpoints, Plant({1, 2, 3}, spoil), steps=STEPS)
    second = tmp_path / "run/checkpoints/round=0-step=03.ckpt"
    assert torch.load(second, weights_only=True)["opcod"]["guards"]["ann"] == (2, 2)
    plant = Plant({3}, spoil)
    with pytest.raises(DivergedError, match="3 updates in a row"):
        fit(module_of(tiny_folder), tmp_path / "again", plant, steps=STEPS, ckpt_path=second)
    assert plant.changed == []
    mended = fit(module_of(tiny_folder), tmp_path / "mended", steps=STEPS, ckpt_path=second)
    assert (mended.guards["ann"].skipped, mended.guards["ann"].in_a_row) == (2, 0)


# ---- the specialist, which has a loop of its own


def specialise(folder, root, *callbacks, ckpt_path=None, lr=1e-2, schedule="constant", lessons=8, epochs=1):
    source = GeneratedScience(["physics", "chemistry"], levels=[1], train=20)
    data = LessonData(
        source,
        "physics",
        ["physics", "chemistry"],
        home_lessons=lessons,
        other_lessons=0,
        mix=LessonMix(context=0, tutor=0),
        batch_size=2,
        validation=1,
    )
    optimization = Optimization(lr=lr, schedule=schedule, warmup=0)
    module = Specialist(shared_settings(folder)["base"], LORA, optimization=optimization, evaluation=SHORT)
    trainer = L.Trainer(
        max_epochs=epochs,
        limit_val_batches=0,
        callbacks=list(callbacks),
        default_root_dir=root,
        logger=L.pytorch.loggers.CSVLogger(root, name="", version=""),
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(c, RoundCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


def test_a_specialist_skips_counts_and_goes_on_alike(tiny_folder, tmp_path):
    spoil = spoiler("specialist", math.nan)
    plant = Plant({1}, spoil)
    checkpoints = RoundCheckpoint(every_n_steps=1, keep=99)
    module = specialise(tiny_folder, tmp_path, checkpoints, plant)
    assert [bool(changed) for changed in plant.changed] == [True, False, True, True]
    assert module.guard.skipped == 1
    logged = (tmp_path / "metrics.csv").read_text().splitlines()
    column = logged[0].split(",").index("skipped_updates")
    assert [float(line.split(",")[column]) for line in logged[1:]] == [0, 1, 1, 1]
    last = torch.load(tmp_path / "checkpoints/round=0-step=3.ckpt", weights_only=True)
    assert last["specialist"]["guard"] == (1, 0)
    resumed = specialise(tiny_folder, tmp_path / "on", ckpt_path=tmp_path / "checkpoints/round=0-step=3.ckpt")
    assert resumed.guard.skipped == 1
    assert_same(resumed.state(), module.state())


def test_a_specialists_schedule_ends_with_its_last_step_whether_or_not_one_was_skipped(tiny_folder, tmp_path):
    seen = Rates()
    specialise(tiny_folder, tmp_path, Plant({1}, spoiler("specialist", math.nan)), seen, lr=0.5, schedule="cosine")
    assert [rate for ((rate, _),) in seen.rates] == pytest.approx(
        [0.25 * (1 + math.cos(math.pi * step / 4)) for step in (1, 2, 3, 4)], abs=1e-9
    )


class Places(L.Callback):
    """Which steps are made, as (epoch, step)."""

    def __init__(self):
        self.made = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.made.append((trainer.current_epoch, batch_idx))


@pytest.mark.parametrize("lessons", [4, 12])
def test_a_specialist_that_goes_on_with_other_lessons_has_them_from_the_next_epoch_on(lessons, tiny_folder, tmp_path):
    specialise(tiny_folder, tmp_path, RoundCheckpoint(every_n_steps=3))
    places, end = Places(), tmp_path / "checkpoints" / "round=1.ckpt"
    specialise(tiny_folder, tmp_path / "on", places, ckpt_path=end, lessons=lessons, epochs=2)
    assert places.made == [(1, step) for step in range(lessons // 2)]
    halfway = tmp_path / "checkpoints" / "round=0-step=3.ckpt"
    with pytest.raises(ModelError, match=r"the middle of a round, which has other steps now: give as many lessons and"):
        specialise(tiny_folder, tmp_path / "halfway", ckpt_path=halfway, lessons=lessons)


def test_a_specialist_that_diverges_ends(tiny_folder, tmp_path):
    with pytest.raises(DivergedError, match="3 updates in a row"):
        specialise(tiny_folder, tmp_path, Plant({0, 1, 2}, spoiler("specialist", math.nan)))


# ---- numbers that are none in a rollout


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("role", ["ann_student", "ben_tutor"])
def test_a_rollout_from_no_numbers_ends_the_run_at_its_first_token(role, value, tiny_folder, tmp_path):
    with pytest.raises(DivergedError, match="at token 1 of a response are not finite"):
        fit(module_of(tiny_folder), tmp_path, Plant({0}, spoiler(role, value)))


# ---- as a user meets it


def command(folder, method, lr):
    """The arguments of a run that saves every step, at this learning rate."""
    config = run_config(folder.parent / "tiny")
    if method == "FineTuning":
        for name in ("samples", "anchored", "rollout", "feedback", "gate"):
            del config["model"][name]
    config["model"] = {"class_path": method, "init_args": config["model"] | {"optimization": {"lr": lr, "warmup": 0}}}
    config["data"]["steps"] = STEPS
    path = folder / f"{lr}.yaml"
    path.write_text(yaml.safe_dump(config))
    saving = json.dumps({"class_path": "opcod.callbacks.RoundCheckpoint", "init_args": {"every_n_steps": 1, "keep": 9}})
    plain = [f"--trainer.logger.init_args.save_dir={folder}", "--data.test=2", "--quiet"]
    return ["fit", "-c", str(path), f"--trainer.callbacks=[{saving}, CleanStop]", *plain]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("FineTuning", r"3 updates in a row were not finite \(loss nan, .*: lower the learning rate"),
        ("CoDistillation", "probabilities at token 1 of a response are not finite.* with a lower learning rate"),
    ],
)
def test_a_run_that_diverges_says_what_to_do_and_how_to_go_on(method, said, tmp_path, tiny_folder, capsys):
    (tmp_path / "tiny").symlink_to(tiny_folder)
    runs = tmp_path / "runs"
    runs.mkdir()
    with pytest.raises(SystemExit) as ended:
        cli.main(command(runs, method, 1e30))
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert re.search(f"opcod: error: .*{said}", told)
    assert "Traceback" not in told
    assert re.search(r"To go on:\nopcod fit -c \S+ --ckpt_path \S+last.ckpt", told)


# ---- the remedy: what a checkpoint was made with does not come back


class Rates(L.Callback):
    """Learning rates and weight decay after every step."""

    def __init__(self):
        self.rates = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self.rates.append([(group["lr"], group["weight_decay"]) for group in groups])


def test_a_resumed_run_takes_the_learning_rate_of_its_own_settings(tiny_folder, tmp_path):
    fit(module_of(tiny_folder), tmp_path / "begin", RoundCheckpoint(every_n_steps=1, keep=9))
    mild, seen = Optimization(lr=1e-3, weight_decay=0.5, warmup=0), Rates()
    saved = tmp_path / "begin/checkpoints/round=0-step=1.ckpt"
    fit(module_of(tiny_folder, optimization=mild), tmp_path, seen, ckpt_path=saved)
    assert seen.rates == [[(1e-3, 0.5)] * 2] * 3
    seen = Rates()
    resumed = specialise(tiny_folder, tmp_path / "one", RoundCheckpoint(every_n_steps=1, keep=9))
    resumed = specialise(
        tiny_folder, tmp_path / "two", seen, ckpt_path=tmp_path / "one/checkpoints/round=0-step=1.ckpt", lr=1e-4
    )
    assert resumed.optimization.lr == 1e-4
    assert seen.rates == [[(1e-4, 0.01)]] * 3


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_with_the_same_settings_a_schedule_goes_on_bit_for_bit(schedule):
    settings = Optimization(lr=3e-4, schedule=schedule, warmup=5)

    def made():
        optimizer = settings.optimizer([torch.nn.Parameter(torch.zeros(1))])
        return optimizer, settings.scheduler(optimizer, 12)

    def rates(optimizer, scheduler, steps):
        found = []
        for _ in range(steps):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    whole, (optimizer, scheduler) = rates(*made(), 12), made()
    first = rates(optimizer, scheduler, 7)
    again, after = made()
    again.load_state_dict(optimizer.state_dict())
    after.load_state_dict(scheduler.state_dict())
    settings.take_over(again, after)
    assert again.param_groups[0]["lr"] == first[-1]
    assert first + rates(again, after, 5) == whole


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({"warmup": 0}, [1, 1, 1, 1, 1]),
        ({"warmup": 4}, [0, 1 / 4, 2 / 4, 3 / 4, 1]),
        ({"warmup": 0.3}, [0, 1 / 2, 1, 1, 1]),  # of five steps two, rounded up
        ({"warmup": 1, "schedule": "cosine"}, [0, 1, *((1 + math.cos(math.pi * n / 4)) / 2 for n in (1, 2, 3))]),
    ],
    ids=str,
)
def test_learning_rates_by_hand(settings, shares):
    optimization = Optimization(lr=0.5, **settings)
    optimizer = optimization.optimizer([torch.nn.Parameter(torch.zeros(1))])
    schedule, rates = optimization.scheduler(optimizer, 5), []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * share for share in shares])


@pytest.mark.parametrize(("clip", "gradient"), [(0.0, [3.0, 4.0]), (10.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_a_gradient_is_clipped_by_its_norm_and_not_at_all_by_0(clip, gradient):
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert UpdateGuard().admits([weight], 1.0, clip) == (True, 5.0)
    assert weight.grad.tolist() == pytest.approx(gradient, rel=1e-5)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_skipped_whatever_its_gradient(loss):
    weight, guard = torch.nn.Parameter(torch.zeros(1)), UpdateGuard()
    weight.grad = torch.ones(1)
    assert guard.admits([weight], loss, 1.0) == (False, 1.0)
    assert guard.skipped == 1


def test_impossible_settings_are_refused_all_at_once():
    with pytest.raises(ValueError, match="optimization") as error:
        Optimization(lr=math.inf, warmup=-1, weight_decay=math.nan)
    assert str(error.value) == (
        "optimization: lr is inf, expected a finite number of at least 0; warmup is -1, expected a finite number of at "
        "least 0; weight_decay is nan, expected a finite number of at least 0"
    )
