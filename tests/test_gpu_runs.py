"""What is measured on a GPU, gone through on a CPU with a tiny shape."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import compare, gpu_runs, limits, on_gpu, places, recorded, shapes
from benchmarks.fixed_work import FixedWork
from benchmarks.gpu_runs import Run

import opcod.rollout
from opcod.decoding import SharedCache
from opcod.models import BaseModel, load_base

LITTLE = ["--questions=1", "--samples=2", "--length=6", "--feedback=4", "--steps=1", "--groups"]
LENGTHS = ["--prompt=50", "--response=40", "--feedback=30", "--samples=3"]


@pytest.fixture
def measured(tiny_folder, tmp_path, monkeypatch):
    """Has a module measure the tiny shape: the line it adds, and what it told on the way."""

    def measure(module, *options):
        output = tmp_path / "gpu.jsonl"
        given = ["--shape=tiny", f"--tokenizer={tiny_folder}", f"--folder={tmp_path}", f"--output={output}", *options]
        monkeypatch.setattr(sys, "argv", ["measure", *given])
        module.main()
        return recorded.lines(output)[-1], recorded.lines(tmp_path / "gpu.steps.jsonl")

    return measure


def test_steps_are_told_as_they_come(measured):
    found, told = measured(on_gpu, *LITTLE)
    assert [list(line)[-1] for line in told] == ["ceilings", "step", "step"]
    assert found["steps"] == [line["step"] for line in told[1:]]
    assert {"shape": "tiny", "length": 6}.items() <= found["options"].items()
    assert all(line["options"] == found["options"] for line in told)
    assert found["out_of_memory"] == 0


def test_want_of_memory_is_counted(measured, monkeypatch):
    go_through, tries = opcod.rollout._go_through, []

    def short_of_memory_once(rows):
        tries.append(rows)
        if len(tries) == 1:
            raise torch.OutOfMemoryError
        go_through(rows)

    monkeypatch.setattr(opcod.rollout, "_go_through", short_of_memory_once)
    found, _ = measured(on_gpu, *LITTLE, "--most=1")
    assert found["out_of_memory"] == 1
    assert len(found["steps"]) == 1


def test_what_fails_leaves_what_it_had(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(opcod.rollout, "_go_through", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measured(on_gpu, *LITTLE)
    assert list(recorded.lines(tmp_path / "gpu.steps.jsonl")[0]) == ["options", "ceilings"]
    assert recorded.lines(tmp_path / "gpu.jsonl")[0]["error"] == "ZeroDivisionError: division by zero"


def test_places_are_filled_or_not_for_the_same_responses(measured, monkeypatch):
    join, joined = SharedCache.join, []
    monkeypatch.setattr(SharedCache, "join", lambda *given: joined.append(join(*given)))
    few = ["--questions=16", "--samples=4", "--batch_size=8", "--prompt=10", "--mean=6", "--limit=24", "--turns=1"]
    found, told = measured(places, *few, "--quantization=none", "--dtype=float32")
    assert len(joined) > 4
    assert found["agreed"] == {"responses": 1.0, "lengths": 1.0}
    assert found["filled"]["tokens"] == found["batch by batch"]["tokens"]
    assert found["filled"]["mean_length"] == pytest.approx(6 * (1 - (5 / 6) ** 24), rel=0.3), "of a geometric one, cut"
    assert found["filled"]["deviation"] > 3
    assert [list(line)[1] for line in told] == ["filled", "batch by batch", "times_as_fast"]


def test_matching_is_measured_with_prompts_shared_and_apart(measured, monkeypatch):
    match, seen = limits.match, []

    def spied(tutee, contexts, settings, backward):
        seen.append((settings.share_prefixes, len(contexts), len(contexts[-1].prompt)))
        return match(tutee, contexts, settings, backward)

    monkeypatch.setattr(limits, "match", spied)
    found, told = measured(limits, *LENGTHS, *gpu_runs.MATCH)
    warm, whole = 3 * limits.TOKENS, 50 + 40 + 30
    assert seen == [(share, 3, length) for share in (True, False) for length in (warm, whole)]
    assert [list(line)[1] for line in told] == ["match", "match_apart"]
    assert all(found[part]["context_tokens"] == whole and found[part]["seconds"] > 0 for part in gpu_runs.MATCH[1:])


def test_what_decides_comes_first():
    assert [run.name for run in gpu_runs.RUNS] == [
        "tests",
        "SmolLM2-135M places",
        "Qwen3-8B places",
        "Qwen3-8B nf4",
        "Qwen3-8B match, 1,024",
        "Qwen3-8B match, 4,096",
        "Qwen3-8B nf4 in 24 GB",
        "Qwen3-8B nf4 packed",
        "SmolLM2-135M nf4 packed",
        "SmolLM2-135M nf4",
        "SmolLM2-135M bf16",
        "Qwen3-8B bf16",
        "Qwen3-0.6B nf4",
        "Qwen3-0.6B bf16",
        "TRL",
        "Qwen3-8B limits",
    ]


class ReachedError(Exception):
    """The command line was understood."""


@pytest.mark.parametrize("run", gpu_runs.RUNS[1:], ids=lambda run: run.name)
def test_options_of_runs_are_understood(run, tmp_path, tiny_folder, monkeypatch):
    def stop(*given):
        raise ReachedError

    for module, name in ((on_gpu, "model_at_hand"), (limits, "model_at_hand"), (compare, "measure")):
        monkeypatch.setattr(module, name, stop)
    monkeypatch.setitem(shapes.SHAPES, gpu_runs.SMALL_MODEL, shapes.SHAPES["tiny"])
    monkeypatch.setattr(sys, "argv", ["x", *gpu_runs.given_to(run.module, tmp_path, tiny_folder, tmp_path)])
    sys.argv += run.options
    with pytest.raises(ReachedError):
        importlib.import_module(run.module).main()


def test_trl_is_given_a_model_on_a_fresh_machine(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, gpu_runs.SMALL_MODEL, shapes.SHAPES["tiny"])
    *_, model = gpu_runs.given_to("benchmarks.compare", tmp_path, tiny_folder, tmp_path)
    assert load_base(BaseModel(model.removeprefix("--model="), quantization="none")).model.config.hidden_size == 64


@pytest.fixture
def go_through(tiny_folder, tmp_path, monkeypatch):
    """Goes through some runs, and tells the states that are recorded."""
    monkeypatch.setattr(FixedWork, "cpu", FixedWork.cpu)

    def go_through(runs, *options):
        monkeypatch.setattr(gpu_runs, "RUNS", runs)
        given = [f"--tokenizer={tiny_folder}", f"--models={tmp_path}", f"--output={tmp_path / 'out'}", *options]
        monkeypatch.setattr(sys, "argv", ["gpu_runs", *given])
        gpu_runs.main()
        return [(line["name"], line["state"]) for line in recorded.lines(tmp_path / "out" / "runs.jsonl")]

    return go_through


def test_runs_of_a_tiny_shape(go_through, tmp_path, capfd):
    runs = [
        Run("version", 60, "pytest", ("--version",), alone=True),
        gpu_runs.shape("steps", 60, "tiny", "none", LITTLE),
        Run("no such module", 60, "benchmarks.nothing", ()),
        gpu_runs.shape("no such option", 60, "tiny", "none", ["--nothing"]),
        gpu_runs.shape("matching", 60, "tiny", "none", [*LENGTHS, *gpu_runs.MATCH], module="limits"),
    ]
    states = go_through(runs)
    assert states[1::2] == [(r.name, "failed" if r.name.startswith("no") else "done") for r in runs]
    assert [line["options"]["shape"] for line in recorded.lines(tmp_path / "out" / "gpu.jsonl")] == ["tiny", "tiny"]
    for shown in (capfd.readouterr().out, (tmp_path / "out" / "alone.log").read_text()):
        assert f"pytest {pytest.__version__}" in shown


def test_what_is_done_is_left_out_and_what_was_begun_in_vain_comes_last(go_through, tmp_path, monkeypatch):
    one, two, three = (Run(name, 5, "x", ()) for name in ("one", "two", "three"))
    monkeypatch.setattr(gpu_runs, "work", lambda run, *given: 1 / 0 if run is one and not again else None)
    again = False
    for run in (one, two):
        recorded.add(tmp_path / "out" / "runs.jsonl", run.named | {"state": "begun"})  # and the process was ended
    assert go_through([one, two], "--only=one")[2:] == [("one", "begun"), ("one", "failed")]
    again = True
    assert [name for name, state in go_through([one, two, three])[4:] if state == "begun"] == ["three", "two", "one"]
    assert len(go_through([one, two, three])) == 10, "all is done"
    assert go_through([replace(one, options=("--other",)), two, three])[10:] == [("one", "begun"), ("one", "done")]


def test_a_run_for_which_no_time_is_left_is_not_begun(go_through, monkeypatch):
    monkeypatch.setattr(gpu_runs, "work", lambda *given: None)
    states = go_through([Run("long", 1000, "x", ()), Run("short", 1, "x", ())], "--seconds=500")
    assert states == [("short", "begun"), ("short", "done")]


def test_a_run_that_hangs_ends_the_process_and_shows_where(tmp_path, monkeypatch):
    (tmp_path / "hanging.py").write_text("import time\ndef main():\n    time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    hang = "from benchmarks import gpu_runs; gpu_runs.here('hanging', [], 0.5)"
    ended = subprocess.run([sys.executable, "-c", hang], capture_output=True, text=True, timeout=50)
    assert ended.returncode == 1
    assert "hanging.py" in ended.stderr
