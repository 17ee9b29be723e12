"""A run that does not fit is refused before it begins, with the largest settings that do."""

import json
import re
import warnings
from dataclasses import replace

import pytest
import torch

from opcod import cli, commands, students
from opcod.callbacks import size_check
from opcod.devices import GIB, Device, free_on
from opcod.fits import LENGTHS, Needs, largest
from opcod.plan import plan
from opcod.simulation import Speed
from tiny import build_folder, run_config

DEVICE = Device("a small machine", "cpu", 8 * GIB, Speed(1.0, 1.0, 0.0), measured=True, before=0.0, gaps=1.0)


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory):
    """More layers than are looked at."""
    return build_folder(tmp_path_factory.mktemp("deep") / "base", layers=7)


def parsed(folder, tmp_path, *arguments):
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(run_config(folder)))
    return commands.CoDistil(["-c", str(config), *arguments], run=False)


# ---- the largest that fits


@pytest.mark.parametrize(
    ("of", "room", "expected"),
    [
        (lambda n: 3 * n + 7, 100, 31),
        (lambda n: n * n, 100, 10),
        (lambda n: 5.0 if n < 40 else 50.0, 10, 39),
        (lambda n: n, 1, 1),
        (lambda n: n, 0.5, 0),
    ],
)
def test_the_largest_number_that_fits_by_hand(of, room, expected):
    assert largest(100, of(100), of, room, slack=0.0) == expected


def test_a_few_tries_are_enough_where_some_room_may_be_left():
    tries = []

    def of(n):
        tries.append(n)
        return n**1.2

    found = largest(10**6, of(10**6), of, 5000.0, slack=0.02)
    assert 0.98 * 5000 <= found**1.2 <= 5000
    assert len(tries) < 20


# ---- against the plan


@pytest.mark.parametrize(
    ("method", "quantization"),
    [("CoDistillation", "none"), ("CoDistillation", "nf4"), ("Grpo", "none"), ("FineTuning", "none")],
)
def test_few_layers_tell_the_memory_of_the_whole_model(deep_folder, tmp_path, method, quantization):
    settings = [f"--model={method}", f"--model.base.quantization={quantization}"]
    run = parsed(deep_folder, tmp_path, *settings)
    device = replace(DEVICE, kind="cuda")
    needs = Needs(run.model, run.datamodule, device)
    whole = plan(run.model, run.datamodule, rounds=2, device=device)
    assert needs.standing == pytest.approx(sum(whole.standing.values()))
    planned = {p.name: p.memory for p in whole.parts} | {"scoring": whole.scored[0].memory}
    assert list(planned) == needs.parts
    for part, memory in planned.items():
        assert needs.memory(part, run.model) == pytest.approx(needs.standing + memory, rel=0.1)


def test_two_bases_stand_in_memory_side_by_side(deep_folder, tiny_folder, tmp_path):
    other = {"model": str(tiny_folder), "quantization": "none", "dtype": "float32"}
    pair = [{"name": "a", "domain": "physics"}, {"name": "b", "domain": "physics", "base": other}]
    run = parsed(deep_folder, tmp_path, f"--model.students={json.dumps(pair)}")
    whole = plan(run.model, run.datamodule, rounds=2, device=DEVICE)
    needs = Needs(run.model, run.datamodule, DEVICE)
    assert needs.standing == pytest.approx(sum(whole.standing.values()))
    turned = parsed(deep_folder, tmp_path, f"--model.students={json.dumps(pair[::-1])}")
    for part in needs.parts:
        swapped = Needs(turned.model, turned.datamodule, DEVICE).memory(part, turned.model)
        assert needs.memory(part, run.model) == pytest.approx(swapped)


# ---- said before the run


@pytest.fixture
def fit(tiny_folder, tmp_path, monkeypatch):
    """`opcod fit` on a machine with so many bytes free; it ends where it would load a model."""

    class BegunError(Exception):
        """The run would begin now."""

    def loads(*_):
        raise BegunError

    monkeypatch.setattr(students, "load_base", loads)
    monkeypatch.chdir(tmp_path)

    def run(memory, *arguments):
        monkeypatch.setattr(size_check, "free_on", lambda _: replace(DEVICE, memory=memory))
        (tmp_path / "run.yaml").write_text(json.dumps(run_config(tiny_folder)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises((BegunError, SystemExit)) as ended:
                cli.main(["fit", "-c", "run.yaml", *arguments])
        return ended.type is BegunError, [str(w.message) for w in caught if "fits" in str(w.message)]

    return run


def most(text, setting):
    found = re.search(rf"model\.{setting} is \d+, at most (\d+) fits", text)
    assert found, text
    return int(found[1])


ROOM = 25e6  # bytes; a run as it is in `run_config` takes up to 20 million
SILENT = "--model.gate.strategy=never"
MANY = "--data.batch_size=32"
SMALL, FEW = "--model.matching.micro_batch_tokens=64", "--model.rollout.batch_size=16"
LARGE = {
    "rollout.batch_size": [SILENT, MANY, SMALL, "--model.rollout.max_new_tokens=400"],
    "feedback.batch_size": [MANY, SMALL, FEW],
    "matching.micro_batch_tokens": [SILENT, MANY, FEW],
    "evaluation.batch_size": ["--data.evaluation_batch_size=64", "--model.evaluation.max_new_tokens=100"],
}


@pytest.mark.parametrize("setting", list(LARGE))
def test_what_cannot_fit_is_refused_and_what_it_says_fits(fit, capsys, setting):
    begun, _ = fit(ROOM, *LARGE[setting])
    said = capsys.readouterr().err
    assert not begun
    assert "of 0.0 that are free on a small machine" in said
    value = most(said, setting)
    begun, _ = fit(ROOM, *LARGE[setting], f"--model.{setting}={value}")
    assert begun
    begun, warned = fit(ROOM, *LARGE[setting], f"--model.{setting}={int(1.1 * value) + 1}")
    assert warned or not begun


def test_where_not_even_one_at_a_time_fits_lengths_do(fit, capsys):
    long = [SILENT, "--data.batch_size=1", "--model.rollout.max_new_tokens=1800"]
    begun, _ = fit(ROOM, *long)
    said = capsys.readouterr().err
    assert not begun
    assert "with model.matching.micro_batch_tokens at 1, model.rollout.max_new_tokens is 1800" in said
    value = most(said, "rollout.max_new_tokens")
    shorter = [f"--model.rollout.max_new_tokens={value}", "--model.matching.micro_batch_tokens=1"]
    assert fit(ROOM, *long, *shorter)[0]


def test_what_may_just_not_fit_is_a_warning(fit, tiny_folder, tmp_path):
    run = parsed(tiny_folder, tmp_path)
    needs = Needs(run.model, run.datamodule, DEVICE)
    worst = max(needs.memory(part, run.model) for part in needs.parts)
    assert fit(1.01 * worst) == (True, [])
    begun, said = fit(worst / 1.1)
    assert begun
    assert "the run takes about" in said[0]


def test_models_that_do_not_fit_by_themselves(fit, capsys):
    begun, _ = fit(1000.0)
    assert not begun
    assert "before the first step: quantise the base model" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["rollout", "feedback", "scoring"])
def test_sequences_beyond_the_models_positions(fit, part):
    setting = LENGTHS[part][0]
    begun, said = fit(64 * GIB, f"--model.{setting}=3000")
    assert begun
    assert all("more than the model was made for" in text for text in said)
    value = min(most(text, setting) for text in said)
    assert fit(64 * GIB, f"--model.{setting}={value}") == (True, [])
    assert fit(64 * GIB, f"--model.{setting}={value + 1}")[1]


def test_without_the_callback_it_is_tried(fit):
    assert fit(1000.0, "--trainer.callbacks=[]") == (True, [])


def test_nobody_asks_where_memory_is_not_known(fit):
    assert fit(64 * GIB) == (True, [])
    assert free_on(torch.device("meta")) is None
    here = free_on(torch.device("cpu"))
    assert here is not None
    assert 0 < here.before < here.memory
