"""The benchmarks measure what they say: fixed work, by turns, as ratios."""

import json
import os
from statistics import median

import pytest
from benchmarks.compare import ROWS, Measured, figure_of, measure, worse
from benchmarks.curves import exponent
from benchmarks.planned import measured, planned
from benchmarks.workers import Worker

from commands_shown import ROOT
from opcod.devices import GPUS


def test_a_steps_work_is_fixed(tiny_folder):
    options = ["--model", str(tiny_folder), "--dtype=float32", "--questions=2", "--samples=3", "--length=5"]
    with Worker("opcod_step", *options, "--feedback=4", threads=1) as worker:
        told = [worker.work() for _ in range(2)]
    for step in told:
        assert step["rollout_tokens"] == 2 * 3 * 5
        assert step["feedback_tokens"] == 2 * 3 * 4
        assert 0 < step["rollout"] + step["feedback"] + step["match"] + step["update"] <= step["seconds"]
        assert step["peak_gib"] > 0.1


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
    assert planned("tiny", "none", "no", GPUS["h100"]) > planned("tiny", "nf4", "yes", GPUS["h100"]) > 0
    known = measured()
    assert {case: rate.opcod > rate.generate for case, rate in known.items()} == dict.fromkeys(known, True)
    assert ("Qwen3-8B", "nf4", "yes") in known
