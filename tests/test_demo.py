"""The demo, and on its run what the README says a run is good for; minutes long, with the default model."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands_shown import ROOT, in_makefile, in_readme
from opcod.models import bundled_folder

pytestmark = pytest.mark.slow

DEMO = next(command for command in in_makefile() if command[0] == "fit")
ON_A_RUN = [command for command in in_readme() if any("runs/version_0" in argument for argument in command)]


def opcod(command, folder, typed=""):
    """What the command prints, run in `folder`, where the configs are as in the repository's root."""
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [Path(sys.executable).with_name("opcod"), *command],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        input=typed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, opcod(DEMO, folder)


@pytest.fixture(scope="module")
def outcome(demo):
    folder, _ = demo
    return json.loads((folder / "runs/version_0/outcome.json").read_text())


def test_the_demo_ends_in_a_table_of_plausible_scores(demo, outcome):
    _, printed = demo
    cells = [(s, d, end) for end in ("initial", "final") for s in outcome[end] for d in outcome[end][s]]
    assert len(cells) == 8
    for student, domain, end in cells:
        figures = outcome[end][student][domain]
        assert 0.25 < figures["avg"] <= 1, (student, domain, end)
        assert figures["format"] > 0.9
        assert math.isfinite(figures["stderr"])
        assert f"{100 * figures['avg']:.1f}" in printed
    assert ("The improvement is mutual" in printed) == outcome["mutual"]


def test_the_demo_makes_the_pair_better(outcome):
    mean = {end: sum(d["avg"] for s in outcome[end].values() for d in s.values()) / 4 for end in ("initial", "final")}
    assert mean["final"] > mean["initial"] + 0.02


def test_the_demo_shows_what_the_students_told_each_other(demo):
    folder, _ = demo
    samples = [json.loads(line) for line in (folder / "runs/version_0/samples.jsonl").read_text().splitlines()]
    assert {sample["tutee"] for sample in samples} == {"materials_scientist", "physicist"}
    assert any(sample["outcome"] == "match" for sample in samples)


@pytest.mark.parametrize("command", ON_A_RUN, ids=" ".join)
def test_what_the_readme_does_with_a_run(demo, command):
    folder, _ = demo
    assert opcod(command, folder, typed="What force gives 2 kg an acceleration of 3 m/s2? | 5 N | 6 N | 1 N\n")


def test_plain_transformers_and_peft_load_an_exported_student(demo):
    folder, _ = demo
    adapter, merged = folder / "plain", folder / "plain-merged"
    export = ["export", "--checkpoint", "runs/version_0/checkpoints/last.ckpt", "--student", "physicist"]
    opcod([*export, "--output", str(adapter)], folder)
    opcod([*export, "--output", str(merged), "--merged"], folder)
    base = AutoModelForCausalLM.from_pretrained(bundled_folder(), dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(merged)("The density of iron is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        bare = base(ids).logits
        adapted = PeftModel.from_pretrained(base, adapter)(ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    assert (adapted - bare).abs().max() > 1
    assert (adapted - whole).abs().mean() < (adapted - bare).abs().mean(), "merged into 4-bit weights, so not equal"
