"""The card of an exported student: what the hub reads, and what was done."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard

from opcod import cli
from opcod.callbacks import OutcomeTable, RoundCheckpoint
from opcod.models import BUNDLED, BaseModel
from opcod.report.student_card import license_of
from test_codistillation import fit, module_of


@pytest.fixture
def checkpoint(tiny_folder, tmp_path):
    """Of a whole run of one round, in a folder such as `opcod fit` leaves."""
    run = tmp_path / "run"
    fit(module_of(tiny_folder), run, RoundCheckpoint(), OutcomeTable(), steps=1)
    source = {"class_path": "opcod.data.sources.GeneratedScience", "init_args": {"domains": ["physics", "chemistry"]}}
    config = {
        "seed_everything": 7,
        "trainer": {"max_epochs": 1},
        "model": {"class_path": "opcod.codistillation.CoDistillation"},
        "data": {"source": source, "steps": 1, "batch_size": 2},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return run / "checkpoints" / "last.ckpt"


def exported(checkpoint, folder, *options):
    cli.main(["export", f"--checkpoint={checkpoint}", "--student=ann", f"--output={folder}", *options])
    return ModelCard.load(folder / "README.md")


def test_it_names_base_library_questions_and_scores_at_both_ends(checkpoint, tiny_folder, tmp_path):
    card = exported(checkpoint, tmp_path / "ann")
    assert card.data.to_dict() == {
        "base_model": str(tiny_folder),
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["opcod", "on-policy-co-distillation"],
    }
    for part in (
        "# ann",
        "A LoRA adapter (rank 4, alpha 8) of the student ann, trained beside ben.",
        "On-Policy Co-Distillation",
        "- rounds done: 1",
        "- questions: GeneratedScience (domains physics, chemistry)",
        "- 1 steps a phase, 2 questions a step",
        "- seed: 7",
        "that of the base model, which opcod did not find here",
    ):
        assert part in card.text
    final = json.loads((checkpoint.parent.parent / "outcome.json").read_text())["final"]["ann"]["physics"]["avg"]
    (row,) = (line for line in card.text.splitlines() if line.startswith("| physics |"))
    assert f"{100 * final:.1f}" in row.split("|")[3]


@pytest.mark.parametrize(
    ("model", "method", "trained"),
    [
        ({"init_args": {"gate": {"strategy": "never"}}}, "SDPO", "by itself"),
        ({"init_args": {"context": {"feedback": False}}}, "SDPO", "by itself"),
        (
            {"init_args": {"tutor": "start", "gate": {"strategy": "always"}}},
            "one-way distillation",
            "on the feedback of ben, as at the start of the run",
        ),
        ({"class_path": "opcod.grpo.Grpo"}, "Grpo", "by itself"),
        ({"init_args": {"tutor": "latest"}}, "On-Policy Co-Distillation", "beside ben"),
    ],
)
def test_it_says_what_the_student_learned_by_and_from_whom(checkpoint, tmp_path, model, method, trained):
    path = checkpoint.parent.parent / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"] |= model
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    card = exported(checkpoint, tmp_path / "ann")
    assert f"student ann, trained {trained}." in card.text
    assert f"- method: {method}" in card.text
    assert ("on-policy-co-distillation" in card.data.tags) == (method == "On-Policy Co-Distillation")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"init_args": {"matching": {"self_teacher": "live"}}}, "the student itself"),
        ({"init_args": {"matching": {"self_teacher": "frozen"}}}, "the student of the start"),
        ({"init_args": {"matching": {"self_teacher": "ema"}}}, "the average over its past"),
        ({"class_path": "opcod.grpo.Grpo"}, "the student of the start"),
    ],
)
def test_it_says_what_its_self_teacher_is(checkpoint, tmp_path, model, told):
    path = checkpoint.parent.parent / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"] |= model
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    assert f"(its self-teacher, {told})" in exported(checkpoint, tmp_path / "ann", "--role=teacher").text


def test_a_checkpoint_on_the_way_is_told_by_its_validation(checkpoint, tmp_path):
    config = checkpoint.parent.parent / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    assert "validation questions, which the gate has read" in exported(checkpoint, tmp_path / "ann").text


def test_a_checkpoint_alone_is_enough(checkpoint, tmp_path):
    alone = tmp_path / "elsewhere" / "some.ckpt"
    alone.parent.mkdir()
    checkpoint.rename(alone)
    card = exported(alone, tmp_path / "ann", "--license=mit", "--role=teacher")
    assert card.data.license == "mit"
    assert "(its self-teacher, the average over its past)" in card.text
    assert "questions:" not in card.text


def test_a_merged_model_is_of_transformers(checkpoint, tmp_path):
    card = exported(checkpoint, tmp_path / "ann", "--merged")
    assert card.data.library_name == "transformers"
    assert "Merged weights" in card.text
    assert "PeftModel" not in card.text


def test_a_licence_is_looked_up_where_it_can_be(tmp_path):
    assert license_of(BaseModel(BUNDLED)) == "apache-2.0"
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    assert license_of(BaseModel(str(tmp_path))) == "mit"
    for broken in ("no metadata", "---\nlicense: [\n---\n", "---\nlicense:\n- a\n---\n"):
        (tmp_path / "README.md").write_text(broken)
        assert license_of(BaseModel(str(tmp_path))) is None
    assert license_of(BaseModel("nobody/nothing")) is None
