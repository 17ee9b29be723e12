"""The benchmarks measure what they say: fixed work, by turns, as ratios."""

import json
import os
from statistics import median

import pytest
from benchmarks.compare import ROWS, Measured, figure_of, measure, worse
from benchmarks.curves import exponent
from benchmarks.planned import (
    LARGE,
    compared,
    longest_measured,
    measured,
    options_of,
    planned,
    step,
    steps_measured,
)
from benchmarks.workers import Worker

from commands_shown import ROOT


def test_a_steps_work_is_fixed(tiny_folder):
    options = ["--model", str(tiny_folder), "--dtype=float32", "--questions=2", "--samples=3", "--length=5"]
    with Worker("opcod_step", *options, "--feedback=4", threads=1) as worker:
        told = [worker.work() for _ in range(2)]
    for one in told:
        assert one["rollout_tokens"] == 2 * 3 * 5
        assert one["feedback_tokens"] == 2 * 3 * 4
        assert 0 < one["rollout"] + one["feedback"] + one["match"] + one["update"] <= one["seconds"]
        assert one["peak_gib"] > 0.1


def test_a_worker_that_fails_says_why():
    with (
        pytest.raises(RuntimeError, match="there is no folder"),
        Worker("rollouts", "opcod", "--model=./no", threads=1),
    ):
        pass


def test_a_worker_finds_what_its_driver_finds(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys\nprint('found', file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(RuntimeError, match="found"), Worker("nothing", threads=1):
        pass


def test_ratios_are_of_medians(monkeypatch):
    class Fake:
        """Tells 1, 2, 3, ... seconds; the other one, 10 times as many."""

        def __init__(self, module, *arguments, **settings):
            self.turns, self.factor = 0, 10 if module == "trl_step" else 1

        def work(self):
            self.turns += 1
            return {"seconds": float(self.factor * self.turns), "peak_gib": 1.0, "rollout_tokens": 10.0}

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

    monkeypatch.setattr("benchmarks.compare.Worker", Fake)
    said = []
    seconds, memory, *_ = measure([row for row in ROWS if row.trl], 3, 1, "python", said.append)
    assert seconds.ours == [2.0, 3.0, 4.0], "the first turn warms up"
    assert seconds.ratio == pytest.approx(0.1)
    assert memory.ratio == 1.0
    assert [line.endswith("| yes |") for line in said[:2]] == [True, False]


def test_a_figure_a_token_counts_what_was_sampled():
    told = {"seconds": 6.0, "rollout_tokens": 2.0, "feedback_tokens": 1.0}
    assert figure_of(told, "seconds") == 6
    assert figure_of(told, "seconds_a_token") == 2


def test_a_ratio_is_worse_only_beyond_the_tolerance():
    now = [Measured(name, [], [], ratio, 1.0) for name, ratio in (("a", 0.30), ("b", 0.24), ("new", 9.0))]
    assert worse(now, [{"name": "a", "ratio": 0.2}, {"name": "b", "ratio": 0.2}]) == ["a: 0.30, was 0.20"]


def test_the_readme_tells_the_step_that_was_measured_last():
    stored = json.loads((ROOT / "docs/results/performance/benchmarks.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in stored["rows"]}
    seconds, memory = (rows[f"step without feedback, {figure}, to TRL"] for figure in ("seconds", "peak memory"))
    told = [f"{median(seconds[who]):.1f} s, {median(memory[who]):.1f} GiB" for who in ("ours", "theirs")]
    assert f" | {' | '.join(told)} | " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_an_exponent_is_the_slope_of_the_logarithms():
    assert exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == pytest.approx(2.0)


def test_rollouts_are_planned_beside_what_was_measured():
    assert planned("tiny", "none", "no", "h100") > planned("tiny", "nf4", "yes", "h100") > 0
    known = measured()
    assert {case: rate.opcod > rate.generate for case, rate in known.items()} == dict.fromkeys(known, True)
    assert ("Qwen3-8B", "nf4", "yes") in known


def test_a_step_is_planned_as_its_worker_would_tell_of_it():
    given = ["--questions=2", "--samples=3", "--length=5"]
    told = step("tiny", options_of(*given, "--feedback=4"), "h100")
    assert (told["rollout_tokens"], told["feedback_tokens"]) == (2 * 3 * 5, 2 * 3 * 4)
    assert told["seconds"] == told["rollout"] + told["feedback"] + told["match"]
    assert 0.6 < told["peak_gib"] < 1.0, "the context, and next to nothing"
    untutored = step("tiny", options_of(*given), "h100")
    assert untutored["feedback"] == 0 < untutored["match"] <= told["match"]
    longer = step("tiny", options_of(*given), "h100", prompt=1000)
    assert longer["peak_gib"] > untutored["peak_gib"]


def test_rows_are_planned_by_the_workers_that_measure_them():
    (row,) = (row for row in ROWS if row.name.startswith("two peers, peak memory"))
    found = compared(row, "tiny", LARGE, "h100")
    ours, theirs = (step("tiny", options_of(*LARGE, *worker[1:]), "h100")["peak_gib"] for worker in row.pair)
    assert (found.ours, found.theirs, found.ratio) == ([ours], [theirs], ours / theirs)


def test_another_program_is_counted_by_what_it_launches(tiny_folder):
    def seconds(length):
        options = [f"--model={tiny_folder}", "--questions=1", "--samples=2", "--prompt=4", f"--length={length}"]
        with Worker("rollouts", "generate", *options, "--counted_for=h100", threads=1) as worker:
            first, second = worker.work(), worker.work()
        assert first == second, "it does not depend on the clock"
        assert 0.6 < first["peak_gib"] < 1.0
        return first["seconds"]

    few, more, most = map(seconds, (2, 4, 6))
    assert most - more == pytest.approx(more - few, rel=0.05), "every token launches the same"
    assert more - few > 2 * 100 * 20e-6, "two layers have more than a hundred operations"


def test_measured_steps_come_with_their_options_and_are_put_together_by_hand():
    shapes = [(shape, options.length, seen["seconds"]) for shape, options, seen in steps_measured()]
    assert ("Qwen3-8B", 1024, pytest.approx(84.169, abs=1e-3)) in shapes
    assert ("Qwen3-8B", 256, pytest.approx(18.768, abs=1e-3)) in shapes, "the first one warms up"
    longest = longest_measured()
    assert longest["match"] == pytest.approx(32 * 13.017, rel=1e-4), "a question's 8 responses take 13 s"
    assert longest["feedback"] == pytest.approx(8 * (9.248 + 1024 * (0.035414 + 0.037039) / 2), rel=1e-4)
    assert longest["rollout"] == pytest.approx(4 * (0.8009 + 4096 * (0.03559 + 0.059625) / 2), rel=1e-4)
