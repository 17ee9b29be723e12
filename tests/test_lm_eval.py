"""An exported student is scored alike by lm-evaluation-harness, which shares no code with opcod's own scores."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from jinja2 import Template

from commands_shown import ROOT
from opcod import cli
from opcod.data.jsonl import write_questions
from opcod.data.science import generate
from opcod.models import bundled_folder
from opcod.prompts import student_messages
from opcod.specialists import adapter_folder

TASK = ROOT / "configs" / "lm-eval" / "opcod_choice.yaml"


def questions(count):
    drawn = [w.question for domain in ("physics", "chemistry") for w in generate(domain, count, seed=5, split="test")]
    return [question for question in drawn if question.kind == "choice"]


def test_the_task_asks_as_a_student_is_asked():
    task = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    for question in questions(3):
        system, user = student_messages(question)
        row = {"question": question.text, "options": question.options}
        assert task["description"] == system["content"]
        assert Template(task["doc_to_text"]).render(row) == user["content"]


@pytest.mark.slow
def test_both_find_the_same_answers_right(tmp_path):
    pytest.importorskip("lm_eval", reason="pip install lm_eval")
    asked = questions(8)
    write_questions(tmp_path / "asked.jsonl", asked)
    task = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    task["dataset_kwargs"]["data_files"]["test"] = str(tmp_path / "asked.jsonl")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "opcod_choice.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    cli.main(
        [
            "evaluate",
            "physics",
            f"--questions={tmp_path / 'asked.jsonl'}",
            f"--output={tmp_path / 'ours.json'}",
            "--model.base.quantization=none",
            "--model.base.dtype=float32",
            "--model.evaluation.temperature=0",
            "--model.evaluation.max_new_tokens=256",
            "--model.evaluation_samples=1",
        ]
    )
    (ours,) = json.loads((tmp_path / "ours.json").read_text(encoding="utf-8"))["models"]
    right = {name for by in ours["right"]["physics"].values() for name, share in by.items() if share == 1}
    arguments = f"pretrained={bundled_folder()},peft={adapter_folder('physics')},dtype=float32"
    command = [sys.executable, "-m", "lm_eval", "--model=hf", f"--model_args={arguments}", "--device=cpu"]
    command += [f"--include_path={tmp_path / 'tasks'}", "--tasks=opcod_choice", "--apply_chat_template"]
    command += ["--log_samples", f"--output_path={tmp_path / 'theirs'}", "--batch_size=8"]
    subprocess.run(command, check=True, env=os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")})
    (samples,) = (tmp_path / "theirs").rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    assert {row["doc"]["id"] for row in rows} == {q.id for q in asked}
    assert {row["doc"]["id"] for row in rows if row["exact_match"] == 1} == right
    assert 0 < len(right) < len(asked)
