"""The command line: what it offers, and what it says to a mistake."""

import errno
import io
import json
import pickle
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
import yaml
from lightning import Trainer
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from commands_shown import ROOT
from opcod import cli, commands
from opcod.data.jsonl import write_questions
from opcod.data.questions import Question
from opcod.peers import Peer, SharedBase
from tiny import LORA, load_tiny, run_config, stir

PAIR = ["-c", "configs/base.yaml", "-c", "configs/pair-physics-chemistry.yaml", "-c", "configs/size-demo.yaml"]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; returns its status and what it said."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(a) for a in arguments])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.count("error:") == 1
        return stopped.value.code, said

    return run


@pytest.fixture
def shown(capsys):
    """Run a command that prints and ends well; returns what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(arguments))
        assert stopped.value.code in (0, None)
        return capsys.readouterr().out

    return run


# ---- what there is


def test_help_lists_all_commands(shown):
    printed = shown("--help")
    for name, purpose in cli.COMMANDS.items():
        assert f"  {name}" in printed
        assert purpose.split()[0] in printed
    assert "0 done, 1 failed, 2 wrong command line, 130 interrupted" in " ".join(printed.split())


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_from_docstrings(command, shown):
    expected = {
        "plan": "Tokens that a response is expected to take",
        "solve": "what it holds is not solved again",
        "specialise": "Lessons in its own domain",
        "export": "The student's name",
        "diagnose": "Checkpoint of the students who give feedback",
        "reproduce": "Folder of all its runs and of the CSV files",
        "figures": "Folder of the pictures",
        "report": "The page; by default report.html",
        "init": "which are run in DIR",
        "doctor": "and the command that mends it",
        "completion": "to complete opcod's commands and options",
        "check-data": "first what students are trained on",
        "chat": "the others still give feedback",
        "evaluate": "a shipped specialist's name or a folder",
    }
    assert expected.get(command, "on which the gate's scores are measured") in " ".join(
        shown(command, "--help").split()
    )


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("CoDistillation", "Two students or more (one for SDPO)"),
        ("Grpo", "n, responses to each question of a step; the group"),
        ("FineTuning", "they do not meet"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "diagnose"])
def test_every_method_has_help_from_docstrings(command, method, said, shown):
    printed = " ".join(shown(command, "--model.help", method).split())
    assert said in printed
    assert "Longest student's prompt, in tokens" in printed


def test_the_module_runs_as_a_program():
    ran = subprocess.run([sys.executable, "-m", "opcod.cli", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("opcod 0.")


# ---- what a run is made of


class Built(commands.CoDistil):
    """A command that is built, and not run."""

    def _run_subcommand(self, subcommand):
        self.arguments = self._prepare_subcommand_kwargs(subcommand)


def built(*arguments):
    return commands.CoDistil([*PAIR, *arguments], run=False)


def test_one_seed_reaches_data_and_model():
    run = built("--seed_everything=7")
    assert (run.datamodule.seed, run.model.seed) == (7, 7)
    assert built().model.seed == 0


def test_callbacks_are_replaced_or_extended():
    defaults = {"RoundCheckpoint", "SampleTable", "RoundProgress", "OutcomeTable", "PredictionWriter"}
    assert defaults <= {type(c).__name__ for c in built().trainer.callbacks}
    extended = {type(c).__name__ for c in built("--trainer.callbacks+=LearningRateMonitor").trainer.callbacks}
    assert defaults | {"LearningRateMonitor"} <= extended
    replaced = {type(c).__name__ for c in built("--trainer.callbacks=LearningRateMonitor").trainer.callbacks}
    assert "LearningRateMonitor" in replaced
    assert not defaults & replaced


def test_a_list_without_the_callbacks_that_look_after_a_run_says_what_is_lost(monkeypatch):
    monkeypatch.setattr(commands.CoDistil, "_run_subcommand", lambda self, subcommand: None)

    def told(*arguments):
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            commands.CoDistil([*arguments])
        return [str(w.message) for w in given if "trainer.callbacks" in str(w.message)]

    lacking = "--trainer.callbacks=[LearningRateMonitor, opcod.callbacks.SizeCheck]"
    [line] = told("fit", *PAIR, lacking)
    assert line.startswith(
        "trainer.callbacks leaves out RoundCheckpoint, CleanStop, so no checkpoint holds the scores of its round, "
        "Ctrl-C saves nothing: name them as well, or write `callbacks+`"
    )
    assert told("fit", *PAIR) == told("fit", *PAIR, "--trainer.callbacks+=LearningRateMonitor") == []
    assert told("test", *PAIR, lacking) == []


def test_a_printed_config_is_read_back(shown, tmp_path):
    printed = shown("fit", *PAIR, "--model.gate.tau=0.3", "--seed_everything=5", "--print_config")
    path = tmp_path / "config.yaml"
    path.write_text(printed, encoding="utf-8")
    again = Built(["fit", "-c", str(path)])
    assert (again.model.gate.tau, again.model.seed, again.model.samples) == (0.3, 5, 4)
    assert yaml.safe_load(printed)["data"]["source"]["class_path"] == "opcod.data.sources.GeneratedScience"


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "plan", "diagnose"])
def test_every_run_prints_a_config_that_it_accepts(command, shown, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(shown(command, *PAIR, "--model.samples=3", "--print_config"), encoding="utf-8")
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]["samples"] == 3
    assert shown(command, "-c", str(path), "--print_config") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["solve", "specialise"])
def test_every_lesson_prints_a_config_that_it_accepts(command, shown, tmp_path):
    path = tmp_path / "config.yaml"
    arguments = ["-c=configs/specialist.yaml", "--data.home=physics", "--output=out"]
    path.write_text(shown(command, *arguments, "--print_config"), encoding="utf-8")
    assert shown(command, "-c", str(path), "--print_config") == path.read_text(encoding="utf-8")


def test_a_checkpoint_does_not_override_the_command_line(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"hyper_parameters": {"samples": 99}, "opcod": {}}, path)
    run = Built(["test", *PAIR, "--model.samples=3", "--ckpt_path", str(path)])
    assert run.model.samples == 3
    assert run.arguments["weights_only"] is True
    assert run.arguments["ckpt_path"] == str(path)


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "required: COMMAND"),
        (["fit"], "required"),
        (["fit", *PAIR, "--modle.samples=3"], "modle"),
        (["fit", *PAIR, "--model.samples=many"], "model.samples: Expected a <class 'int'>. Got value: many"),
        (["fit", *PAIR, "--model.gate.strategy=sometimes"], "model.gate.strategy: Expected"),
        (["fit", *PAIR, "--model.nosuch=1"], "model: Option 'nosuch' is not accepted"),
        (["fit", *PAIR, "--model=Nothing"], "Nothing"),
        (["fit", *PAIR, "--weights_only=false"], "weights_only"),
        (["fit", *PAIR, "--model.seed=3", "--model.samples=0"], '"model.seed" must be given via "seed_everything"'),
        (["fit", *PAIR, "--data.seed=3"], '"data.seed" must be given via "seed_everything"'),
        (["fit", *PAIR, "--data.source=Nowhere"], "Nowhere"),
        (["fit", "-c", "configs/nowhere.yaml"], "nowhere.yaml"),
        (["export", "--student", "physicist"], "required"),
        (["specialise", "-c", "configs/specialist.yaml"], "output"),
    ],
)
def test_a_wrong_command_line_ends_with_status_2(arguments, said, refused):
    status, message = refused(*arguments)
    assert status == 2
    assert said in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data.source.domains=[physics,alchemy]"], "alchemy"),
        (["--data.source.domains=[biology]"], "unknown domain physics, chemistry"),
        (["--model.gate.tau=-1"], "tau -1.0"),
        (["--model.samples=0"], "samples is 0"),
        (["--data.steps=0"], "steps is 0"),
        (["--data.validation=0"], "validation is 0"),
        (["--model.rollout.max_new_tokens=0"], "max_new_tokens is 0"),
        (["--model.optimization.lr=-1"], "lr is -1.0"),
        (['--model.students=[{name: "a b", domain: physics}]'], "'a b' is no identifier"),
        (["--model.students=[{name: a, domain: physics}, {name: a, domain: chemistry}]"], "different names"),
        (["--ckpt_path=nowhere.ckpt"], "no checkpoint nowhere.ckpt"),
        (["--trainer.gradient_clip_val=1"], "clip"),
        (["--trainer.accelerator=abacus"], "invalid accelerator name: `accelerator='abacus'`"),
        (["--trainer.strategy=luck"], "invalid strategy name: `strategy='luck'`"),
        (["--trainer.barebones=true"], "barebones"),
        (["--model.lora.rank=0"], "lora: rank is 0, expected at least 1"),
        (["--trainer.callbacks+=SampleTable", "--trainer.callbacks.per_step=0"], "per_step is 0"),
    ],
)
def test_a_wrong_setting_ends_with_status_1(arguments, said, refused, tmp_path):
    status, message = refused("fit", *PAIR, f"--trainer.logger.init_args.save_dir={tmp_path}", *arguments)
    assert status == 1
    assert message.count("opcod: error: ") == 1
    assert said in message
    assert "Namespace(" not in message, "all of the settings, for what is wrong with one of them"


def with_base(model, tmp_path):
    students = "[{name: a, domain: physics, adapter: null}, {name: b, domain: chemistry, adapter: null}]"
    return [
        "fit",
        *PAIR,
        f"--model.base.model={model}",
        "--model.base.quantization=none",
        f"--model.students={students}",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}",
        "--data.source.train=40",
        "--trainer.accelerator=cpu",
    ]


def test_a_folder_that_is_no_model_is_refused(refused, tmp_path):
    status, message = refused(*with_base(tmp_path, tmp_path))
    assert status == 1
    assert "has no config.json" in message


def test_a_base_without_a_chat_template_is_refused(refused, tiny_folder, tmp_path):
    bare = tmp_path / "bare"
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(bare)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(bare)
    status, message = refused(*with_base(bare, tmp_path))
    assert status == 1
    assert "no chat template" in message


def test_a_prompt_beyond_the_limit_is_refused(refused, tiny_folder, tmp_path):
    status, message = refused(*with_base(tiny_folder, tmp_path), "--model.prompt_limit=5")
    assert status == 1
    assert "raise `prompt_limit`" in message


def test_a_checkpoint_of_another_base_is_refused(refused, checkpoint, tiny_folder, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    kept = content["opcod"]
    for part in ("peers", "models", "domains"):
        kept[part] = dict.fromkeys("ab", kept[part]["physicist"])
    kept["bases"] = {name: kept["bases"]["physicist"] | {"files": "another"} for name in "ab"}
    torch.save(content | {"pytorch-lightning_version": "2.6.6"}, checkpoint)
    arguments = [*with_base(tiny_folder, tmp_path)[1:], f"--ckpt_path={checkpoint}"]
    status, message = refused("test", *arguments)
    assert status == 1
    assert "over the base" in message
    assert "another" in message


def json_run(tmp_path, train, domains=("physics", "chemistry")):
    test = [Question(f"t{d}", d, f"Which {d}?", ("one", "two"), "A") for d in domains]
    write_questions(tmp_path / "test.jsonl", test)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
    files = {"domains": list(domains), "train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}
    source = json.dumps({"class_path": "JsonQuestions", "init_args": files})
    return ["fit", *PAIR, f"--data.source={source}", f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}"]


def row(**changes):
    return {"id": "1", "domain": "physics", "question": "Why?", "options": ["x", "y"], "answer": "A"} | changes


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(question=" ")], "train.jsonl:1: question: is empty"),
        ([row(options=["x"])], "holds 1, expected 2 to 26"),
        ([row(answer="C")], "key 'C' is not among the labels A, B"),
        ([row(), row(question="How?")], "train.jsonl:2: id: '1' is already used in line 1"),
        ([row(domain="alchemy")], "'alchemy' is unknown"),
        ([row(id=str(n), question=f"Why {n}?") for n in range(40)], "chemistry"),
    ],
)
def test_a_bad_file_is_refused_with_its_lines(rows, said, refused, tmp_path):
    status, message = refused(*json_run(tmp_path, rows))
    assert status == 1
    assert said in message
    assert not list(tmp_path.glob("runs/*")), "an empty folder, which takes a run's number"


def test_what_the_output_has_no_code_for_is_written_as_an_escape(monkeypatch, tmp_path):
    row = {"id": "a", "domain": "größe", "question": "水?", "answer": 3}
    (tmp_path / "q.jsonl").write_text(json.dumps(row), "utf-8")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    cli.main(["check-data", str(tmp_path / "q.jsonl"), "--validation=0"])
    out.flush()
    assert rb"gr\xf6\xdfe" in out.buffer.getvalue()


def test_input_that_was_begun_to_be_read_is_no_obstacle(monkeypatch, capsys):
    begun = io.TextIOWrapper(io.BytesIO(b"one\ntwo\n"), "utf-8")
    begun.readline()
    monkeypatch.setattr(sys, "stdin", begun)
    cli.main(["completion", "bash"])
    assert "opcod" in capsys.readouterr().out


def test_a_full_disk_is_said_in_words():
    assert "disk is full (here)" in (cli.explain(OSError(errno.ENOSPC, "No space left on device", "here")) or "")
    for error in (
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ):
        assert "the memory is full: lower" in (cli.explain(error) or "")


def test_a_mistake_of_the_program_keeps_its_traceback(monkeypatch):
    def broken(*_):
        raise ValueError("ours")

    monkeypatch.setattr(commands, "CoDistil", broken)
    with pytest.raises(ValueError, match="ours"):
        cli.main(["fit"])


@pytest.mark.parametrize("command", ["fit", "export"])
def test_an_interrupt_ends_with_status_130_and_one_line(command, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command])
    assert stopped.value.code == 130
    assert capsys.readouterr() == ("", "opcod: interrupted\n")


def test_a_traceback_is_shown_on_demand():
    with pytest.raises(ValueError, match="tau"):
        cli.main(["fit", *PAIR, "--model.gate.tau=-1", "--traceback"])


# ---- export


@pytest.fixture
def student(tiny_folder):
    """A peer with a student and a self-teacher of their own."""
    peer = Peer("physicist", "physics", SharedBase(load_tiny(tiny_folder), LORA))
    peer.create(seed=0, source=None)
    stir(peer.base, peer.adapter("student"), seed=1)
    stir(peer.base, peer.adapter("teacher"), seed=2)
    return peer


@pytest.fixture
def checkpoint(student, tiny_folder, tmp_path):
    """A checkpoint with one student, as `CoDistillation.on_save_checkpoint` lays it out."""
    kept = {
        "bases": {student.name: student.base.loaded.identity},
        "models": {student.name: {"model": str(tiny_folder), "quantization": "none"}},
        "domains": {student.name: student.domain},
        "lora": {"rank": LORA.rank, "alpha": LORA.alpha, "target_modules": LORA.target_modules},
        "peers": {student.name: student.state()},
    }
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "opcod": kept}, path)
    return path


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 20)[None]).logits


def export(checkpoint, folder, *options, name="physicist"):
    return ["export", f"--checkpoint={checkpoint}", f"--student={name}", f"--output={folder}", *options]


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_an_exported_adapter_is_loaded_by_plain_peft(role, student, checkpoint, tiny_folder, tmp_path):
    cli.main(export(checkpoint, tmp_path / "out", f"--role={role}"))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path / "out")
    with student.using(role):
        ours = logits(student.base.loaded.model)
    assert torch.allclose(logits(plain), ours, atol=1e-5)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_merged_weights_are_loaded_by_plain_transformers(student, checkpoint, tmp_path):
    cli.main(export(checkpoint, tmp_path / "out", "--merged"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with student.using("student"):
        ours = logits(student.base.loaded.model)
    assert torch.allclose(logits(plain), ours, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is not None


@pytest.mark.parametrize("options", [(), ("--merged",)], ids=["adapter", "merged"])
def test_who_may_read_any_file_may_read_an_exported_one(options, checkpoint, tmp_path):
    (tmp_path / "any").touch()
    (tmp_path / "folder").mkdir()
    cli.main(export(checkpoint, tmp_path / "out", *options))
    written = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert written == dict.fromkeys(written, (tmp_path / "any").stat().st_mode)
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_an_adapter_can_be_stored_in_fewer_bits(checkpoint, tmp_path):
    cli.main(export(checkpoint, tmp_path / "out", "--dtype=bfloat16"))
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}


def test_an_unknown_student_is_refused_with_the_known_ones(checkpoint, refused, tmp_path):
    status, message = refused(*export(checkpoint, tmp_path / "out", name="poet"))
    assert status == 1
    assert "no student 'poet': it has physicist" in message
    assert not (tmp_path / "out").exists()


class Payload:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))])
@pytest.mark.parametrize("command", ["export", "test"])
def test_nothing_in_a_checkpoint_is_run(write, command, refused, tmp_path):
    path, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    write({"opcod": Payload(trace)}, path)
    trace.unlink(missing_ok=True)
    arguments = export(path, tmp_path / "out") if command == "export" else ["test", *PAIR, f"--ckpt_path={path}"]
    status, message = refused(*arguments)
    assert status == 1
    assert str(path) in message
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_checkpoint_is_refused(content, refused, tmp_path):
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    status, message = refused(*export(path, tmp_path / "out"))
    assert status == 1
    assert str(path) in message
    assert "mmap" not in message


def test_a_checkpoint_of_another_program_is_refused(refused, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    status, message = refused(*export(tmp_path / "other.ckpt", tmp_path / "out"))
    assert status == 1
    assert "no checkpoint of a co-distillation" in message


def test_an_earlier_export_is_replaced_and_anything_else_is_not(checkpoint, refused, tmp_path):
    cli.main(export(checkpoint, tmp_path / "out"))
    cli.main(export(checkpoint, tmp_path / "out"))
    for name, marker in (("mine", "thesis.tex"), ("of another program", "adapter_config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / marker).write_text("years of work", encoding="utf-8")
        (tmp_path / name / "README.md").write_text("# Mine", encoding="utf-8")
        status, message = refused(*export(checkpoint, tmp_path / name))
        assert status == 1
        assert "choose another folder" in message
        assert (tmp_path / name / marker).read_text(encoding="utf-8") == "years of work"


def test_specialise_refuses_a_foreign_folder_before_it_trains(refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    status, message = refused("specialise", "-c", "configs/specialist.yaml", "--output", tmp_path)
    assert status == 1
    assert "choose another folder" in message


# ---- the tiny model through the whole command


def specialising(tiny_folder, tmp_path, *options):
    return [
        "specialise",
        "-c=configs/specialist.yaml",
        f"--model.base.model={tiny_folder}",
        "--model.base.quantization=none",
        "--model.evaluation.max_new_tokens=4",
        "--model.samples=1",
        "--data.home_lessons=4",
        "--data.other_lessons=2",
        "--data.batch_size=4",
        "--data.validation=2",
        "--data.source.train=8",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--quiet",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}",
        *options,
    ]


def test_specialise_writes_an_adapter_with_its_card(tiny_folder, tmp_path, capsys):
    output = ["--trainer.callbacks=[]", f"--output={tmp_path / 'physics'}", "--dtype=bfloat16"]
    cli.main(specialising(tiny_folder, tmp_path, *output))
    stored = load_file(tmp_path / "physics" / "adapter_model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.bfloat16}
    card = (tmp_path / "physics" / "README.md").read_text(encoding="utf-8")
    assert "opcod specialise -c=configs/specialist.yaml" in card
    assert "- seed: 0" in card
    assert "| chemistry | 0.0 | 0.0 |" in card
    assert str(tmp_path / "physics") in capsys.readouterr().out


@pytest.mark.parametrize("stop", ["round=0-step=1.ckpt", "round=1.ckpt", "round=1-step=1.ckpt"])
def test_specialise_goes_on_where_it_stopped(stop, tiny_folder, tmp_path):
    every = json.dumps([{"class_path": "RoundCheckpoint", "init_args": {"every_n_steps": 1, "keep": 9}}])
    more = "--data.home_lessons=8"
    cli.main(
        specialising(tiny_folder, tmp_path, more, f"--trainer.callbacks={every}", f"--output={tmp_path / 'whole'}")
    )
    kept = tmp_path / "runs" / "specialise" / "version_0" / "checkpoints"
    rest = specialising(tiny_folder, tmp_path, more, f"--output={tmp_path / 'rest'}")
    cli.main([*rest, f"--ckpt_path={kept / stop}"])
    one, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "rest"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    at_stop = torch.load(kept / stop, weights_only=True)["specialist"]["adapter"]
    assert not all(torch.equal(one[name], tensor) for name, tensor in at_stop.items()), "the rest taught nothing"


def test_specialise_refuses_a_checkpoint_of_another_base_or_program(tiny_folder, tmp_path, refused, checkpoint):
    cli.main(specialising(tiny_folder, tmp_path, "--trainer.max_epochs=1", f"--output={tmp_path / 'physics'}"))
    own = tmp_path / "runs" / "specialise" / "version_0" / "checkpoints" / "last.ckpt"
    stopped = shutil.copyfile(own, own.with_name("stopped.ckpt"))
    content = torch.load(own, weights_only=True)
    content["specialist"]["base"] |= {"files": "another"}
    torch.save(content, own)
    again = specialising(tiny_folder, tmp_path, f"--output={tmp_path / 'again'}")
    status, message = refused(*again, f"--ckpt_path={own}")
    assert status == 1
    assert "the specialist was made over the base" in message
    status, message = refused(*again, f"--ckpt_path={stopped}", "--model.lora.alpha=32")
    assert status == 1
    assert "the specialist was made with rank 8 and alpha 16, the run asks for rank 8 and alpha 32" in message
    foreign = torch.load(checkpoint, weights_only=True) | {"pytorch-lightning_version": "2.6.6"}
    torch.save(foreign, checkpoint)
    status, message = refused(*again, f"--ckpt_path={checkpoint}")
    assert status == 1
    assert "holds no specialist" in message
    assert not (tmp_path / "again").exists()


def test_predict_writes_a_row_for_every_response_and_keeps_none(tiny_folder, tmp_path, monkeypatch):
    kept, predict = [], Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda *given, **named: kept.append(predict(*given, **named)))
    arguments = with_base(tiny_folder, tmp_path)[1:]
    cli.main(
        [
            "predict",
            *arguments,
            "--trainer.callbacks=opcod.callbacks.predictions.PredictionWriter",
            "--trainer.enable_progress_bar=false",
            "--model.evaluation_samples=3",
            "--model.evaluation.max_new_tokens=4",
            "--data.test=2",
        ]
    )
    rows = (tmp_path / "runs" / "version_0" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    read = [json.loads(row) for row in rows]
    assert len(read) == 2 * 2 * 2 * 3  # students, domains, questions, samples
    assert {(row["student"], row["domain"]) for row in read} == {(s, d) for s in "ab" for d in ("physics", "chemistry")}
    assert (tmp_path / "runs" / "version_0" / "config.yaml").is_file()
    assert kept == [None]


def test_a_command_that_trains_nobody_leaves_the_run_whose_folder_is_named_as_it_was(tiny_folder, tmp_path):
    config = run_config(tiny_folder)
    config["trainer"] |= {"max_epochs": 1, "logger": {"class_path": "opcod.run_log.RunLog"}}
    config["trainer"]["logger"]["init_args"] = {"save_dir": str(tmp_path), "name": "", "version": "mine"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    cli.main(["fit", "-c", str(tmp_path / "run.yaml"), "--quiet"])
    kept = tmp_path / "mine/config.yaml"
    before, rows = kept.read_text(), (tmp_path / "mine/metrics.csv").read_text().count("\n")
    for command in ("validate", "test", "diagnose", "predict"):
        cli.main([command, "-c", str(kept), "--ckpt_path", str(tmp_path / "mine/checkpoints/last.ckpt")])
    assert kept.read_text() == before
    assert (tmp_path / "mine/metrics.csv").read_text().count("\n") == rows + 3


def test_the_list_of_commands_does_not_wait_for_torch():
    code = "import sys, opcod.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
