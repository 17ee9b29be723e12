"""A run that does not fit is refused before it begins, with the largest settings that do."""

import json
import re
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch

from opcod import cli, commands, fits, lesson_commands, specialist, students
from opcod.callbacks import size_check
from opcod.data.jsonl import write_questions
from opcod.devices import GIB, Device, free_on
from opcod.fits import LENGTHS, SLACK, SpecialistNeeds, StudentNeeds, largest
from opcod.lesson_plan import plan_solve, plan_specialise
from opcod.plan import plan
from opcod.simulation import Speed, UnplannedError
from tiny import LORA, build_folder, run_config

DEVICE = Device("a small machine", "cpu", 8 * GIB, Speed(1.0, 1.0, 0.0), measured=True, before=0.0, gaps=1.0)


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory):
    """More layers than are looked at."""
    return build_folder(tmp_path_factory.mktemp("deep") / "base", layers=7)


LESSONS = ("specialise", "solve")
COMMANDS = ("fit", "validate", "test", "predict", "evaluate", *LESSONS)


def config_of(command, folder):
    """A short run, as a config file has it."""
    if command not in LESSONS:
        return run_config(folder)
    short = {"max_new_tokens": 4}
    return {
        "model": {
            "base": {"model": str(folder), "quantization": "none", "dtype": "float32"},
            "lora": {"rank": LORA.rank, "alpha": LORA.alpha},
            "samples": 2,
            "evaluation": short,
            "solving": {"samples": 2, "sampling": short},
        },
        "data": {
            "source": {"class_path": "GeneratedScience", "init_args": {"domains": ["physics"], "train": 50}},
            "home": "physics",
            "peers": ["physics"],
            "home_lessons": 40,
            "batch_size": 8,
            "validation": 20,
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }


def arguments_of(command, folder, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(config_of(command, folder)))
    output = [f"--output={tmp_path / 'out'}"] if command in LESSONS else []
    return ["-c", str(config), *output]


def parsed(folder, tmp_path, *arguments):
    return commands.CoDistil([*arguments_of("fit", folder, tmp_path), *arguments], run=False)


def taught(command, folder, tmp_path, *arguments):
    kind = lesson_commands.Solve if command == "solve" else lesson_commands.Specialise
    return kind([*arguments_of(command, folder, tmp_path), *arguments])


def needs_of(run, stage="fit", device=DEVICE):
    run.datamodule.setup(stage)
    kind = SpecialistNeeds if isinstance(run.model, specialist.Specialist) else StudentNeeds
    return kind(run.model, run.datamodule, device, stage)


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
    needs = needs_of(run, device=device)
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
    needs = needs_of(run)
    assert needs.standing == pytest.approx(sum(whole.standing.values()))
    turned = parsed(deep_folder, tmp_path, f"--model.students={json.dumps(pair[::-1])}")
    for part in needs.parts:
        swapped = needs_of(turned).memory(part, turned.model)
        assert needs.memory(part, run.model) == pytest.approx(swapped)


def test_scoring_alone_holds_adapters_and_no_optimizers(deep_folder, tmp_path):
    """As the plan of a run whose steps have as many questions as are scored side by side; these fill a batch."""
    many = ["--data.batch_size=16", "--data.validation=12", "--data.test=12", "--model.evaluation_samples=4"]
    run = parsed(deep_folder, tmp_path, *many)
    whole = plan(run.model, run.datamodule, rounds=2, device=DEVICE)
    held = {name: size for name, size in whole.standing.items() if name != "gradients and optimizers"}
    assert len(held) < len(whole.standing)
    for stage in ("validate", "test", "predict"):
        needs = needs_of(run, stage)
        assert needs.standing == pytest.approx(sum(held.values()))
        assert needs.parts == ["scoring"]
        assert needs.memory("scoring", run.model) == pytest.approx(needs.standing + whole.scored[0].memory, rel=0.1)


def test_few_questions_are_no_more_side_by_side_than_they_are(tiny_folder, tmp_path):
    def scored(count):
        run = parsed(tiny_folder, tmp_path, f"--data.test={count}", "--model.evaluation_samples=4")
        return needs_of(run, "test").memory("scoring", run.model)

    assert scored(1) < scored(4) < scored(8) == pytest.approx(scored(12), rel=0.1)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_few_layers_tell_what_a_specialist_takes(deep_folder, tmp_path, quantization):
    run = taught("specialise", deep_folder, tmp_path, f"--model.base.quantization={quantization}")
    device = replace(DEVICE, kind="cuda")
    needs = needs_of(run, device=device)
    whole = plan_specialise(run.model, run.datamodule, epochs=1, device=device)
    assert needs.standing == pytest.approx(sum(whole.standing.values()))
    planned = {"imitate": whole.parts[0].memory, "scoring": whole.scored[0].memory}
    assert list(planned) == needs.parts
    for part, memory in planned.items():
        assert needs.memory(part, run.model) == pytest.approx(needs.standing + memory, rel=0.1)


@pytest.mark.parametrize(("key", "part"), [("unsolved", "keyed"), ("always", "keyed"), ("never", "alone")])
def test_few_layers_tell_what_solving_takes(deep_folder, tmp_path, key, part):
    run = taught("solve", deep_folder, tmp_path, f"--model.solving.key={key}")
    needs = needs_of(run, "predict")
    whole = plan_solve(run.model, run.datamodule, device=DEVICE)
    assert needs.standing == pytest.approx(sum(whole.standing.values()))
    assert needs.parts == [part]
    planned = max(p.memory for p in whole.parts)
    assert needs.memory(part, run.model) == pytest.approx(needs.standing + planned, rel=0.1)


def test_what_has_nothing_to_do_takes_what_stands(tiny_folder, tmp_path):
    run = taught("solve", tiny_folder, tmp_path)
    run.datamodule.setup("predict")
    write_questions(tmp_path / "out", [replace(q, solution="mine") for q in run.datamodule.unsolved])
    assert needs_of(run, "predict").parts == []


# ---- said before the run


@pytest.fixture
def begin(tiny_folder, tmp_path, monkeypatch):
    """A command on a machine with so many bytes free; it ends where it would load a model."""

    class BegunError(Exception):
        """The run would begin now."""

    def loads(*_):
        raise BegunError

    for module in (students, specialist):
        monkeypatch.setattr(module, "load_base", loads)
    monkeypatch.chdir(tmp_path)

    def run(command, memory, *arguments):
        monkeypatch.setattr(size_check, "free_on", lambda _: replace(DEVICE, memory=memory))
        asked = [str(tiny_folder)] if command == "evaluate" else []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises((BegunError, SystemExit)) as ended:
                cli.main([command, *asked, *arguments_of(command, tiny_folder, tmp_path), *arguments])
        if ended.type is SystemExit:
            assert ended.value.code == 1
        return ended.type is BegunError, [str(w.message) for w in caught if "fits" in str(w.message)]

    return run


@pytest.fixture
def fit(begin):
    return partial(begin, "fit")


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


ROWS = ["--model.evaluation_samples=16", "--model.evaluation.max_new_tokens=100"]


@pytest.mark.parametrize("command", ["validate", "test", "predict", "evaluate"])
def test_scoring_alone_that_cannot_fit_is_refused(begin, capsys, command):
    begun, _ = begin(command, 4e6, *ROWS)
    said = capsys.readouterr().err
    assert not begun
    assert "- scoring takes 0.0: model.evaluation.batch_size is 64, at most" in said
    value = most(said, "evaluation.batch_size")
    assert begin(command, 4e6, *ROWS, f"--model.evaluation.batch_size={value}") == (True, [])
    begun, warned = begin(command, 4e6, *ROWS, f"--model.evaluation.batch_size={2 * value}")
    assert warned or not begun


def planned(command, folder, tmp_path, part, *options):
    """Bytes that a part takes, by `opcod plan`, with those that are there all the time."""
    run = taught(command, folder, tmp_path, *options)
    if command == "solve":
        found = plan_solve(run.model, run.datamodule, device=DEVICE)
    else:
        found = plan_specialise(run.model, run.datamodule, epochs=1, device=DEVICE)
    (memory,) = (p.memory for p in (*found.parts, *found.scored) if p.name == part)
    return sum(found.standing.values()) + memory


LONG = "--model.evaluation.max_new_tokens=100"
MANY_SOLUTIONS = ["--model.solving.samples=8", "--model.solving.sampling.max_new_tokens=100"]
SHORT_LESSONS = ["--model.micro_batch_tokens=1", "--data.mix.context=0", "--data.mix.tutor=0"]
TAUGHT = [
    ("specialise", "imitate", "imitation", "micro_batch_tokens", 2500, []),
    ("specialise", "validation", "scoring", "evaluation.batch_size", 40, ["--model.samples=8", LONG, *SHORT_LESSONS]),
    ("solve", "keyed", "solving", "solving.sampling.batch_size", 20, MANY_SOLUTIONS),
    ("solve", "alone", "solving", "solving.sampling.batch_size", 20, [*MANY_SOLUTIONS, "--model.solving.key=never"]),
]


@pytest.mark.parametrize(("command", "part", "name", "setting", "enough", "options"), TAUGHT)
def test_what_lessons_and_solving_may_take_is_what_is_planned(
    begin, tiny_folder, tmp_path, capsys, command, part, name, setting, enough, options
):
    def at(value):
        return planned(command, tiny_folder, tmp_path, part, *options, f"--model.{setting}={value}")

    room = 1.01 * at(enough)
    begun, _ = begin(command, room, *options)
    said = capsys.readouterr().err
    assert not begun
    assert re.search(rf"- {name} takes \S+: model\.{setting} is", said)
    value = most(said, setting)
    assert at(value) <= room
    assert at(value + 1) > room or at(value) > (1 - SLACK) * room
    assert begin(command, room, *options, f"--model.{setting}={value}") == (True, [])


@pytest.mark.parametrize(
    ("command", "part", "alone", "options"),
    [
        ("validate", "scoring", "evaluation.batch_size", []),
        ("solve", "keyed", "solving.sampling.batch_size", []),
    ],
)
def test_where_not_even_one_row_fits_its_length_does(begin, capsys, command, part, alone, options):
    (setting,) = LENGTHS[part]
    long = [*options, f"--model.{setting}=30000"]
    begun, _ = begin(command, 6e6, *long)
    said = capsys.readouterr().err
    assert not begun
    assert f"with model.{alone} at 1, model.{setting} is 30000" in said
    shorter = [f"--model.{setting}={most(said, setting)}", f"--model.{alone}=1"]
    begun, warned = begin(command, 6e6, *long, *shorter)
    assert begun
    assert not any("the run takes" in text for text in warned)


def test_what_may_just_not_fit_is_a_warning(fit, tiny_folder, tmp_path):
    run = parsed(tiny_folder, tmp_path)
    needs = needs_of(run)
    worst = max(needs.memory(part, run.model) for part in needs.parts)
    assert fit(1.01 * worst) == (True, [])
    begun, said = fit(worst / 1.1)
    assert begun
    assert "the run takes about" in said[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_models_that_do_not_fit_by_themselves(begin, capsys, command):
    begun, _ = begin(command, 1000.0)
    assert not begun
    assert "before the first step: quantise the base model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "part"),
    [
        *(("fit", part) for part in ("rollout", "feedback", "scoring")),
        ("predict", "scoring"),
        ("specialise", "scoring"),
        ("solve", "keyed"),
    ],
)
def test_sequences_beyond_the_models_positions(begin, command, part):
    setting = LENGTHS[part][0]
    begun, said = begin(command, 64 * GIB, f"--model.{setting}=3000")
    assert begun
    assert all("more than the model was made for" in text for text in said)
    value = min(most(text, setting) for text in said)
    assert begin(command, 64 * GIB, f"--model.{setting}={value}") == (True, [])
    assert begin(command, 64 * GIB, f"--model.{setting}={value + 1}")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_callback_it_is_tried(begin, command):
    begun, said = begin(command, 1000.0, "--trainer.callbacks=[]")
    assert begun
    assert all(line.startswith("trainer.callbacks leaves out SizeCheck") for line in said)


def test_what_is_evaluated_is_compared_where_the_config_says_so(begin):
    assert begin("evaluate", 1000.0, "--trainer.callbacks=CleanStop") == (True, [])
    assert begin("evaluate", 1000.0, "--trainer.callbacks=SizeCheck") == (False, [])
    assert begin("evaluate", 1000.0, "--trainer.callbacks+=CleanStop") == (False, [])


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_said_where_it_fits_or_the_base_is_not_found(begin, command):
    assert begin(command, 64 * GIB) == (True, [])
    if command != "evaluate":
        assert begin(command, 1000.0, "--model.base.model=./nowhere") == (True, [])


def test_a_model_that_cannot_be_planned_is_tried(begin, monkeypatch):
    def fail(*_):
        raise UnplannedError("what Model takes cannot be planned")

    monkeypatch.setattr(fits, "simulated_peers", fail)
    begun, (said,) = begin("predict", 1000.0)
    assert begun
    assert said == "nobody knows whether the run fits: what Model takes cannot be planned"


def test_what_is_evaluated_later_has_the_room_of_what_was_before(tiny_folder, tmp_path, monkeypatch, capsys):
    """What the first one took is not given back to the system, yet it is there for the second."""
    left = [GIB, 1000.0]
    monkeypatch.setattr(size_check, "free_on", lambda _: replace(DEVICE, memory=left.pop(0)))
    run = arguments_of("evaluate", tiny_folder, tmp_path)
    cli.main(["evaluate", str(tiny_folder), str(tiny_folder), *run, "--data.test=1"])
    assert "avg@1" in capsys.readouterr().out
    assert left == [1000.0]


def test_memory_of_this_machine_and_of_one_that_is_not_known():
    assert free_on(torch.device("meta")) is None
    here = free_on(torch.device("cpu"))
    assert here is not None
    assert 0 < here.before < here.memory
