"""`opcod evaluate`, and `opcod predict` on a file of questions: any candidate, the same questions, the same figures."""

import io
import json
import math

import pytest
import torch
from rich.console import Console

from commands_shown import ROOT
from opcod import cli
from opcod.callbacks import RoundCheckpoint
from opcod.candidates import find_candidate
from opcod.models import BUNDLED, BaseModel, ModelError
from opcod.peers import Lora
from opcod.report.evaluated import Evaluated, evaluation_table
from test_codistillation import fit, module_of

QUESTIONS = [
    {"id": "1", "domain": "physics", "question": "Which is longest?", "options": ["1 m", "2 m", "3 m"], "answer": "C"},
    {"id": "2", "domain": "cooking", "question": "What colour is salt?", "type": "text", "answer": "white"},
    {"id": "3", "domain": "cooking", "question": "How many legs has a hen?", "answer": 2},
]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def checkpoint(tiny_folder, tmp_path):
    """Of a round of ann and ben."""
    fit(module_of(tiny_folder), tmp_path / "run", RoundCheckpoint(), steps=1)
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def asked(tmp_path):
    """A file of questions."""

    def write(rows):
        path = tmp_path / "asked.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


SHORT = [
    "--model.base.quantization=none",
    "--model.base.dtype=float32",
    "--model.evaluation_samples=2",
    "--model.evaluation.max_new_tokens=6",
    "--trainer.accelerator=cpu",
]


def evaluated(models, questions, output, *options):
    cli.main(["evaluate", *map(str, models), f"--questions={questions}", f"--output={output}", *SHORT, *options])
    return json.loads(output.read_text(encoding="utf-8"))["models"]


def test_a_checkpoint_and_its_exported_adapters_score_the_same(checkpoint, tiny_folder, asked, tmp_path, capsys):
    folders = [tmp_path / name for name in ("ann", "ben")]
    for folder in folders:
        cli.main(["export", f"--checkpoint={checkpoint}", f"--student={folder.name}", f"--output={folder}"])
    rows = evaluated([checkpoint, *folders, tiny_folder], asked(QUESTIONS), tmp_path / "scores.json")
    assert [row["model"] for row in rows] == [str(m) for m in (checkpoint, *folders, tiny_folder)]
    both, ann, ben, base = (row["right"] for row in rows)
    assert both == ann | ben
    assert {student: {d: list(q) for d, q in by.items()} for student, by in base.items()} == {
        "tiny_llama": {"cooking": ["2", "3"], "physics": ["1"]}
    }
    assert rows[0]["scores"]["ann"]["cooking"]["count"] == 2
    assert rows[0]["scores"]["ann"]["physics"]["stderr"] is None
    said = capsys.readouterr().out
    assert "avg@2" in said
    assert "nan" not in said


def test_where_the_figures_cannot_be_written_nobody_is_scored(tiny_folder, asked, tmp_path, capsys):
    (tmp_path / "file").touch()
    for output, said in ((tmp_path, "is a folder: name a file"), (tmp_path / "file" / "scores.json", "file")):
        with pytest.raises(SystemExit) as stopped:
            evaluated([tiny_folder], asked(QUESTIONS), output)
        told = capsys.readouterr()
        assert stopped.value.code == 1
        assert said in told.err
        assert "avg@2" not in told.out


def test_the_table_has_a_row_for_each_student_and_domain():
    def figures(avg, stderr, majority, share, count):
        return {"avg": avg, "stderr": stderr, "maj@4": majority, "format": share, "count": count}

    pair = {"ann": {"x": figures(0.5, 0.05, 0.625, 0.9, 30), "y": figures(0.25, math.nan, 0.0, 1.0, 1)}}
    pair["ben"] = {"x": figures(0.125, 0.01, 0.2, 0.3, 4)}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(evaluation_table([Evaluated("runs/last.ckpt", pair, {})], "test", 4))
    text = console.export_text()
    assert "on the test questions, in %" in text
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines()]
    assert ["runs/last.ckpt: ann", "x", "50.0 ± 5.0", "62.5", "90.0", "30"] in rows
    assert ["y", "25.0", "0.0", "100.0", "1"] in rows
    assert ["runs/last.ckpt: ben", "x", "12.5 ± 1.0", "20.0", "30.0", "4"] in rows


def test_a_checkpoint_in_a_runs_config_is_not_read(tiny_folder, asked, tmp_path):
    assert evaluated([tiny_folder], asked(QUESTIONS), tmp_path / "scores.json", "--ckpt_path=gone.ckpt")


def test_a_sharper_model_scores_higher(tiny_folder, asked, tmp_path, monkeypatch):
    """The same command over a model that says the right thing: scores are read from what it answers."""
    import opcod.attempts as attempts

    answers = {"1": "<answer>C</answer>", "2": "<answer> White.</answer>", "3": "<answer>3</answer>"}
    grade = attempts.grade
    monkeypatch.setattr(attempts, "grade", lambda text, question: grade(answers[question.id], question))
    (row,) = evaluated([tiny_folder], asked(QUESTIONS), tmp_path / "scores.json")
    assert row["right"] == {"tiny_llama": {"cooking": {"2": 1.0, "3": 0.0}, "physics": {"1": 1.0}}}


def test_questions_without_a_key_are_predicted_and_not_scored(tiny_folder, asked, tmp_path, capsys):
    kinds = ("choice", "text", "expression")
    keyless = [
        {k: v for k, v in row.items() if k != "answer"} | {"type": t} for row, t in zip(QUESTIONS, kinds, strict=True)
    ]
    students = "[{name: a, domain: physics, adapter: null}, {name: b, domain: chemistry, adapter: null}]"
    pair = ["-c=configs/base.yaml", "-c=configs/pair-physics-chemistry.yaml", "-c=configs/size-demo.yaml"]
    run = [*pair, *SHORT, f"--model.base.model={tiny_folder}", f"--model.students={students}"]
    run.append(f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}")
    cli.main(["predict", *run, "--data.development=5", f"--questions={asked(keyless)}"])
    lines = (tmp_path / "runs" / "version_0" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(r["student"], r["question"], r["sample"]) for r in rows] == [
        (s, q, n) for s in "ab" for q in "123" for n in (0, 1)
    ]
    assert {r["correct"] for r in rows} == {None}
    with pytest.raises(SystemExit):
        cli.main(["test", *run, f"--questions={asked(keyless)}"])
    assert "no answer to score 1, 2, 3 by" in capsys.readouterr().err


# ---- who is meant


def test_what_a_name_stands_for(checkpoint, tiny_folder):
    base = BaseModel(quantization="none")
    of_run = find_candidate(str(checkpoint), ["x"], base)
    assert [(s.name, s.domain, s.adapter) for s in of_run.students] == [
        ("ann", "physics", None),
        ("ben", "chemistry", None),
    ]
    assert of_run.students[0].base == BaseModel(str(tiny_folder), quantization="none", dtype="float32")
    shipped = find_candidate("physics", ["chemistry", "physics"], base)
    assert [(s.name, s.domain, s.adapter) for s in shipped.students] == [("physics", "physics", "physics")]
    assert shipped.students[0].base == BaseModel(BUNDLED, quantization="none")
    assert shipped.lora == Lora(rank=4, alpha=8)
    over = find_candidate("physics", ["physics"], BaseModel("HuggingFaceTB/SmolLM2-135M-Instruct"))
    assert over.students[0].base.model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    hub = find_candidate("Qwen/Qwen3-0.6B", ["x"], base)
    assert [(s.name, s.domain, s.adapter, s.base.model) for s in hub.students] == [
        ("Qwen3_0_6B", "x", None, "Qwen/Qwen3-0.6B")
    ]
    assert find_candidate("some/4B", ["x"], base).students[0].name == "model_4B"


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"r": 4}',
        '{"base_model_name_or_path": "x", "r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_dora": true}',
        '{"base_model_name_or_path": "x", "r": 4, "lora_alpha": 8, "target_modules": "q", "rank_pattern": {"q": 2}}',
    ],
)
def test_an_adapter_that_is_none_is_refused(config, tmp_path):
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(ModelError, match="does not describe a plain LoRA adapter"):
        find_candidate(str(tmp_path), ["x"], BaseModel())


def test_a_checkpoint_that_is_not_there_is_not_looked_for_on_the_hub():
    with pytest.raises(ModelError, match=r"there is no checkpoint runs/nowhere.ckpt"):
        find_candidate("runs/nowhere.ckpt", ["x"], BaseModel())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"some": 1}, tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match="no checkpoint of a co-distillation"):
        find_candidate(str(tmp_path / "x.ckpt"), ["x"], BaseModel())
