"""Every shipped config, in every composition that it, the README or the Makefile shows."""

import pytest
import yaml

from commands_shown import ROOT, in_config, in_makefile, in_readme
from opcod import commands, lesson_commands, plain_commands, plan_commands
from opcod.cli import COMMANDS
from opcod.codistillation import CoDistillation
from opcod.data.jsonl import read_questions
from opcod.data.sources import JsonQuestions
from opcod.finetuning import FineTuning
from opcod.grpo import Grpo
from opcod.specialist import Specialist
from opcod.students import Students

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SHOWN = [command for path in CONFIGS for command in in_config(path)] + in_makefile()


class Built(commands.CoDistil):
    """A command that is built, and not run."""

    def _run_subcommand(self, subcommand):
        pass


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_begins_with_a_command_that_uses_it(path):
    assert any(f"configs/{path.name}" in command for command in in_config(path))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_key_of_a_config_has_a_comment_where_it_first_stands(path):
    """A key that holds others is explained by them; one that is repeated in a list is explained once."""
    explained = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        content, _, comment = line.strip().removeprefix("- ").partition(" # ")
        key, _, value = content.partition(":")
        if content.startswith("#") or not value.strip() or key == "class_path":
            continue
        assert comment or key in explained, f"{path.name}:{number}: {key} is not explained"
        explained.add(key)


@pytest.mark.parametrize("command", SHOWN, ids=" ".join)
def test_a_shown_command_is_accepted(command, tmp_path):
    if any("wandb" in argument for argument in command):
        pytest.importorskip("wandb")
    if command[0] == "reproduce":
        grid, _, dry = plain_commands.grid_of([*command[1:], "--dry_run", "--seeds=[0]"])
        assert dry
        for cell in grid.cells(tmp_path):
            assert isinstance(Built(cell.command).model, Students), cell.name
    elif command[0] == "specialise":
        assert isinstance(lesson_commands.Specialise(command[1:]).model, Specialist)
    elif command[0] == "solve":
        assert isinstance(lesson_commands.Solve(command[1:]).model, Specialist)
    elif command[0] == "plan":
        assert isinstance(plan_commands.planned(command[1:]).model, Students | Specialist)
    else:
        assert isinstance(Built(command).model, Students)


@pytest.mark.parametrize(("config", "method"), [("grpo", Grpo), ("finetuning", FineTuning), ("sdpo", CoDistillation)])
def test_a_method_keeps_what_it_shares_with_co_distillation(config, method):
    """The same students, sampler, evaluation, questions and number of updates, whatever they learn by."""
    stack = ["-c=configs/base.yaml", "-c=configs/pair-materials-physics.yaml", "-c=configs/size-demo.yaml"]
    ours, theirs = Built(["fit", *stack]), Built(["fit", *stack, f"-c=configs/method-{config}.yaml"])
    assert type(theirs.model) is method
    shared = ["students", "base", "lora", "optimization", "evaluation_samples", "evaluation", "prompt_limit", "seed"]
    shared += ["samples", "rollout"] if method is not FineTuning else []
    for name in shared:
        assert getattr(theirs.model, name) == getattr(ours.model, name), name
    assert theirs.trainer.max_epochs == ours.trainer.max_epochs
    assert vars(theirs.datamodule.source) == vars(ours.datamodule.source)
    for name in ("batch_size", "steps", "validation", "test"):
        assert getattr(theirs.datamodule, name) == getattr(ours.datamodule, name)


def test_the_readme_shows_commands_that_exist():
    shown = in_readme()
    assert {command[0] for command in shown} == set(COMMANDS)
    for command in shown:
        if not any("runs/" in argument for argument in command) and command[0] in ("fit", "validate"):
            assert isinstance(Built(command).model, Students)


def test_configs_compose_in_order():
    size, twice = "configs/size-demo.yaml", "configs/size-cpu.yaml"
    base = ["fit", "-c", "configs/base.yaml", "-c", "configs/pair-physics-chemistry.yaml"]
    demo = Built([*base, "-c", twice, "-c", size])
    cpu = Built([*base, "-c", size, "-c", twice])
    assert (demo.model.samples, demo.datamodule.steps, demo.trainer.max_epochs) == (4, 7, 2)
    assert (cpu.model.samples, cpu.datamodule.steps, cpu.trainer.max_epochs) == (8, 12, 3)
    assert demo.model.rollout.temperature == cpu.model.rollout.temperature == 1.0


def test_the_pairs_differ_in_nothing_but_names():
    pairs = [yaml.safe_load(p.read_text(encoding="utf-8")) for p in CONFIGS if p.stem.startswith("pair-")]
    assert len(pairs) == 3
    for pair in pairs:
        domains = pair["data"]["source"]["init_args"].pop("domains")
        assert [s["domain"] for s in pair["model"].pop("students")] == domains
    assert pairs[0] == pairs[1] == pairs[2]


def test_the_example_questions_are_choices_and_numbers_in_both_domains_and_a_text():
    questions = read_questions("configs/example/train.jsonl") + read_questions("configs/example/test.jsonl")
    assert {(q.domain, q.kind) for q in questions} == {
        *((domain, kind) for domain in ("electronics", "nutrition") for kind in ("choice", "numeric")),
        ("nutrition", "text"),
    }
    assert {q.unit for q in questions} == {None, "kWh", "A"}


def test_the_example_questions_split():
    files = ("configs/example/train.jsonl", "configs/example/test.jsonl")
    splits = JsonQuestions(["electronics", "nutrition"], *files).splits(validation=2, test=None, seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [12, 4, 8]
