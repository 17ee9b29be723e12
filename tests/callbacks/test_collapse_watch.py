"""What tells of a collapse, once for each cause; and that a run that is resumed goes on watching as it did."""

import csv
import math
import warnings

import lightning as L
import pytest

from commands_shown import ROOT
from opcod.callbacks import CollapseError, CollapseWatch, RoundCheckpoint
from opcod.callbacks.collapse_watch import WATCHED, Limits
from test_codistillation import assert_same, fit, module_of

HEALTHY = {
    "entropy": 0.4,
    "response_tokens": 80.0,
    "truncated": 0.0,
    "repetition": 0.1,
    "format": 1.0,
    "divergence": 0.01,
    "overlap": 0.8,
}


def step(**other):
    return {f"train/ann/{name}": value for name, value in (HEALTHY | other).items()}


def told(watch, *steps):
    """What is said after each step."""
    return [watch.observe("ann", figures) for figures in steps]


@pytest.mark.parametrize(
    ("ill", "beyond", "within", "said"),
    [
        ("entropy", 0.03, 0.05, "responses become all alike, the entropy of a token went from 0.4 to 0.03 nats"),
        ("entropy", 1.1, 0.9, "drifts to arbitrary tokens, the entropy of one went from 0.4 to 1.1 nats"),
        ("truncated", 0.21, 0.19, "responses run to their limit, the share cut off went from 0 to 0.21"),
        ("response_tokens", 47.0, 49.0, "responses shrink, their mean length went from 80 to 47 tokens"),
        ("repetition", 0.26, 0.24, "repeats itself, the share of repeated 4-grams went from 0.1 to 0.26"),
        ("format", 0.74, 0.76, "loses the format, the share of responses in it went from 1 to 0.74"),
        ("divergence", 0.031, 0.029, "leaves its self-teacher, the divergence a token went from 0.01 to 0.031 nats"),
        ("overlap", 0.64, 0.66, "and its self-teacher part, the overlap of likely tokens went from 0.8 to 0.64"),
    ],
)
def test_each_sign_is_told_beyond_its_limit_and_once(ill, beyond, within, said):
    fine = [step()] * 2
    assert told(CollapseWatch(), *fine, *[step(**{ill: within})] * 5) == [[]] * 7
    first, *rest = told(CollapseWatch(), *fine, *[step(**{ill: beyond})] * 5)[2:]
    assert len(first) == 1
    assert said in first[0]
    assert "ann" in first[0]
    assert "lower the learning rate, and go on from an earlier checkpoint" in first[0]
    assert rest == [[]] * 4


def test_means_over_the_beginning_and_the_window_count_by_hand():
    watch = CollapseWatch(beginning=2, window=2, limits=Limits(format=0.27))
    steps = [step(format=f) for f in (1.0, 0.8, 0.7, 0.6, 0.6)]  # began with 0.9; then 0.7, 0.65, and 0.6
    assert [len(signs) for signs in told(watch, *steps)] == [0, 0, 0, 0, 1]


def test_figures_that_a_method_has_not_and_that_are_no_numbers_show_nothing():
    bare = {name: value for name, value in step().items() if not name.endswith(("divergence", "overlap"))}
    assert told(CollapseWatch(), *[bare] * 3, *[bare | {"train/ann/entropy": math.nan}] * 4) == [[]] * 7
    assert told(CollapseWatch(), *[{}] * 9) == [[]] * 9


def test_a_step_without_a_divergence_does_not_hide_those_that_have_one():
    bare = {name: value for name, value in step().items() if not name.endswith("divergence")}
    assert [len(s) for s in told(CollapseWatch(), bare, step(), bare, step(divergence=1.0))] == [0, 0, 0, 1]


def test_students_are_watched_each_for_itself():
    watch = CollapseWatch()
    other = {name.replace("ann", "ben"): value for name, value in step(format=0.2).items()}
    for _ in range(6):
        assert watch.observe("ann", step()) == []
        assert watch.observe("ben", other) == [], "that is how it began"


@pytest.mark.parametrize("name", ["beginning", "window"])
def test_less_than_a_step_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        CollapseWatch(**{name: 0})


# ---- healthy runs raise no alarm

RECORDED = sorted((ROOT / "docs/results").glob("*/steps.csv"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.parent.name)
def test_no_recorded_run_raises_an_alarm(path):
    """Those of the default model, none of which collapsed."""
    steps = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            run_of = steps.setdefault((row["pair"], row["method"], row["seed"]), {})
            run_of.setdefault(int(row["step"]), {})[row["name"]] = float(row["value"])
    for by_step in steps.values():
        watch = CollapseWatch()
        for place in sorted(by_step):
            for student in {name.split("/")[1] for name in by_step[place] if name.startswith("train/")}:
                assert watch.observe(student, by_step[place]) == []


# ---- in a run


def alarmed(**settings):
    """A watch that finds something in any run."""
    return CollapseWatch(beginning=1, window=1, limits=Limits(shortening=2.0), **settings)


def test_a_run_warns_once_a_student(tiny_folder, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = fit(module_of(tiny_folder), tmp_path, alarmed(), steps=4)
    said = [str(w.message) for w in caught if "responses shrink" in str(w.message)]
    assert [s.split("'")[0] for s in said] == ["ann", "ben"]
    assert {f"train/ben/{name}" for name in WATCHED} <= module.record.figures.keys()


def test_a_run_stops_where_it_is_asked_to(tiny_folder, tmp_path):
    with pytest.raises(CollapseError, match="ann's responses shrink"):
        fit(module_of(tiny_folder), tmp_path, alarmed(stop=True), steps=4)


def test_a_resumed_run_goes_on_watching(tiny_folder, tmp_path):
    whole, first, second = CollapseWatch(beginning=3), CollapseWatch(beginning=3), CollapseWatch(beginning=3)
    fit(module_of(tiny_folder), tmp_path / "whole", whole, rounds=2)
    fit(module_of(tiny_folder), tmp_path / "part", first, RoundCheckpoint(every_n_steps=1, keep=9))
    saved = tmp_path / "part/checkpoints/round=0-step=3.ckpt"
    fit(module_of(tiny_folder), tmp_path / "part", second, rounds=2, ckpt_path=saved)
    assert_same(second.state_dict(), whole.state_dict())
    assert len(second.state_dict()["first"]["ann"]) == 3


def test_a_module_without_records_is_refused():
    with pytest.raises(ValueError, match="take CollapseWatch out"):
        CollapseWatch().on_train_batch_end(None, L.LightningModule(), None, None, 0)
