"""The notebooks are valid, and each runs: at a tiny size by replacing the one cell that holds all settings."""

import ast
import json

import matplotlib
import pytest
import torch
import yaml
from matplotlib import pyplot as plt

from commands_shown import ROOT
from opcod.commands import CoDistil
from tiny import run_config

NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
ALL = pytest.mark.parametrize("name", NOTEBOOKS)


def cells(name):
    return json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]


def code(name):
    return ["".join(cell["source"]) for cell in cells(name) if cell["cell_type"] == "code"]


def run(name, monkeypatch, **settings):
    """Run a notebook with other settings.

    Returns:
        Its variables, and how many pictures it showed.
    """
    matplotlib.use("agg")
    shown = []

    def show():
        shown.extend(plt.get_fignums())
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    first, *rest = code(name)
    namespace = {"__name__": "__main__"}
    exec(first, namespace)
    assert settings.keys() <= namespace.keys(), "a setting that the notebook does not have"
    namespace |= settings
    with matplotlib.rc_context():
        for number, cell in enumerate(rest, 1):
            exec(compile(cell, f"{name}[{number}]", "exec"), namespace)
    return namespace, len(shown)


@pytest.fixture
def tiny_config(tiny_folder, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(run_config(tiny_folder)), encoding="utf-8")
    return path


@ALL
def test_a_notebook_is_valid_and_carries_no_output(name):
    notebook = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@ALL
def test_the_code_of_a_notebook_compiles(name):
    for number, cell in enumerate(code(name)):
        compile(cell, f"{name}[{number}]", "exec")


@ALL
def test_the_first_cell_of_code_and_no_other_holds_the_settings(name):
    first, *rest = (cell for cell in cells(name) if cell["cell_type"] == "code")
    assert first["metadata"].get("tags") == ["parameters"]
    assert not any(cell["metadata"].get("tags") for cell in rest)
    for node in ast.parse("".join(first["source"])).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)


@ALL
def test_a_notebook_begins_with_what_it_shows_and_how_long_that_takes(name):
    title, *said = cells(name)[0]["source"]
    assert cells(name)[0]["cell_type"] == "markdown"
    assert title.startswith("# ")
    assert any(word in "".join(said).lower() for word in ("minutes", "seconds"))


def test_inside_one_step_takes_the_step_apart(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step, pictures = run("inside_one_step", monkeypatch, CONFIGS=[str(tiny_config)], OPTIONS=[], SHOWN=4)
    assert pictures == 5
    assert len(step["contexts"]) == 4, "without anchoring the tutor's feedback on every response is kept"
    # What is taken apart is what a run computes.
    place = next(i for i, context in enumerate(step["contexts"]) if context is step["context"])
    torch.testing.assert_close(step["per_token"], step["matched"].per_token[place].cpu(), rtol=1e-4, atol=1e-6)
    assert sum(step["squares"].values()) ** 0.5 == pytest.approx(step["norm"], rel=1e-4)
    # By definition of the average: teacher - student shrinks to (1 - rate) of what it was.
    assert step["averaged_distance"] == pytest.approx(0.95 * step["updated_distance"], rel=1e-4)


def test_inside_one_step_shows_a_divergence_that_goes_down(tiny_config, tmp_path, monkeypatch):
    """A step of AdamW's against the gradient lowers its loss if it is short enough, whatever the numbers are.

    At rollout the importance weights are 1, so the gradient is that of the mean divergence.
    """
    monkeypatch.chdir(tmp_path)
    options = ["--model.optimization.lr=1e-4", "--model.optimization.weight_decay=0", "--model.matching.top_k=100000"]
    step, _ = run("inside_one_step", monkeypatch, CONFIGS=[str(tiny_config)], OPTIONS=options)
    assert step["before"].mean() > 0
    assert step["after_update"].mean() < step["before"].mean()


@pytest.mark.slow
def test_quickstart_ends_in_a_page(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names, _ = run("quickstart", monkeypatch, CONFIGS=[str(tiny_config)], OPTIONS=["--trainer.max_epochs=1"])
    page = tmp_path / "runs" / "version_0" / "report.html"
    assert page.is_file()
    assert capsys.readouterr().out.splitlines()[-1].endswith("version_0/report.html")
    assert len(names["keep"].records) == 4
    assert names["given"]


@pytest.mark.slow
def test_own_domains_go_from_questions_to_answers(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    students = [{"name": "electrician", "domain": "electronics"}, {"name": "cook", "domain": "cooking"}]
    short = [f"--model.{part}.max_new_tokens=4" for part in ("rollout", "feedback", "evaluation")]
    names, _ = run(
        "own_domains",
        monkeypatch,
        BASE=str(tiny_folder),
        STUDENTS=[student | {"adapter": None} for student in students],
        TRAIN=6,
        VALIDATION=2,
        TEST=2,
        OPTIONS=[
            "--model.base.quantization=none",
            "--model.anchored=false",
            "--model.samples=2",
            "--data.steps=1",
            "--data.batch_size=2",
            "--trainer.max_epochs=1",
            "--trainer.accelerator=cpu",
            *short,
        ],
    )
    assert (names["newest"] / "report.html").is_file()
    assert (names["adapter"] / "adapter_config.json").is_file()
    asked = [json.loads(line) for line in (names["answers"] / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert {(row["student"], row["question"]) for row in asked} == {("electrician", "one"), ("electrician", "two")}


@pytest.mark.slow
def test_reading_a_run_finds_the_newest_that_has_ended(tiny_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CoDistil(["fit", f"-c={tiny_config}"])
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    names, pictures = run("reading_a_run", monkeypatch)
    assert names["run"].folder.resolve() == tmp_path / "runs" / "version_0"
    assert len(names["run"].steps) == 8
    assert pictures == 2
    assert max(max(row["divergence"]) for row in names["told"]) == max(names["row"]["divergence"])


@pytest.mark.slow
def test_quickstart_runs_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("quickstart", monkeypatch)
