"""What comes from outside runs no code and writes nowhere but in the run's folder, and no secret is written down."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from commands_shown import ROOT
from opcod import cli, commands
from opcod.data.jsonl import write_questions
from opcod.data.questions import Question, QuestionError
from opcod.masking import masked, masked_settings
from opcod.models import BaseModel, ModelError, load_base
from opcod.students import Student
from tiny import build_folder, run_config

SOURCES = sorted((ROOT / "src").rglob("*.py"))
FORBIDDEN = re.compile(
    r"eval|exec|compile|__import__|os\.(system|popen)|(pickle|dill|marshal)\.\w*loads?"
    r"|yaml\.(load|load_all|unsafe_load|full_load)|(np|numpy|pd|pandas)\.(load|read_pickle)"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src/opcod")))
def test_the_code_neither_unpickles_nor_evaluates_nor_fetches_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert not FORBIDDEN.fullmatch(name), name
        assert given.get("shell", "False") == "False"
        assert given.get("trust_remote_code", "False") == "False"
        if name == "torch.load" or (name.endswith((".fit", ".validate", ".test")) and "ckpt_path" in given):
            assert given["weights_only"] == "True", ast.unparse(call)
        if name.endswith((".from_pretrained", "load_dataset")) and "gguf_file" not in given:
            assert "revision" in given, ast.unparse(call)
        if re.fullmatch(r"Auto(Config|Tokenizer)\.from_pretrained", name) and "gguf_file" not in given:
            assert given["trust_remote_code"] == "False", ast.unparse(call)


def unsafe(folder):
    """The model with its weights pickled, as old ones come."""
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def with_code(folder):
    """The model with code of its own, which leaves a mark where it is run."""
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "own.Own")
    config["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("spoil", [unsafe, with_code])
def test_a_model_with_pickled_weights_or_code_of_its_own_is_refused(spoil, tmp_path):
    folder = build_folder(tmp_path / "model")
    load_base(BaseModel(str(folder), quantization="none"))
    spoil(folder)
    with pytest.raises(ModelError, match="cannot load the base model"):
        load_base(BaseModel(str(folder), quantization="none"))
    assert not (folder / "ran").exists()


COMMIT = "0123456789abcdef0123456789abcdef01234567"
IN_A_CACHE = """
import json, sys
from opcod.checkpoint import pack
from opcod.models import BaseModel, load_base
from opcod.peers import Lora, Peer, SharedBase
for revision in (None, "main", sys.argv[1]):
    asked, lora = BaseModel("someone/tiny", revision=revision, quantization="none"), Lora(rank=1, alpha=2)
    peer = Peer("a", "physics", SharedBase(load_base(asked), lora))
    peer.create(seed=0, source=None)
    kept = pack([peer], lora=lora, models={"a": asked})
    print(json.dumps([kept["models"]["a"]["revision"], kept["bases"]["a"]["revision"], kept["bases"]["a"]["files"]]))
"""


def test_a_checkpoint_keeps_the_commit_of_a_model_of_the_hub(tmp_path):
    """A cache as the hub's client fills it, so that no network is asked."""
    cache = tmp_path / "hub/models--someone--tiny"
    build_folder(cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", IN_A_CACHE, COMMIT], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [[COMMIT] * 3] * 3


def questions(domains):
    """Questions whose ids and families would be paths."""
    return [
        Question(f"../../id-{domain}-{n}", domain, f"What is {n} + {n} in {domain}?", (), str(2 * n), family="/../f")
        for domain in domains
        for n in range(1, 9)
    ]


@pytest.fixture
def hostile(tiny_folder, tmp_path):
    """A run's folder with its config, deep enough for what lies around it to be watched."""
    run = tmp_path / "around/deep/run"
    run.mkdir(parents=True)
    domains = ["..", "u.s. ..\\physics"]
    config = run_config(tiny_folder)
    for name in ("train", "test"):
        asked = [q for q in questions(domains) if (int(q.answer) % 4 == 0) == (name == "test")]
        write_questions(tmp_path / f"{name}.jsonl", asked)
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    config["data"] |= {"source": {"class_path": "JsonQuestions", "init_args": {"domains": domains, **files}}}
    config["data"] |= {"batch_size": 1, "steps": 1, "validation": 1}
    config["model"]["students"] = [{"name": n, "domain": d} for n, d in zip("ab", domains, strict=True)]
    loggers = ["CSVLogger", "TensorBoardLogger"]
    config["trainer"] |= {
        "max_epochs": 1,
        "default_root_dir": str(run),
        "logger": [{"class_path": name, "init_args": {"save_dir": str(run), "name": name}} for name in loggers],
    }
    address = "https://somebody:planted-in-an-address@example.org/x"
    config["trainer"]["logger"][1]["dict_kwargs"] = {"comment": address}  # which it does not use
    (run / "given.yaml").write_text(yaml.safe_dump(config))
    return run


PLANTED = {"HF_TOKEN": "hf_planted0123456789", "WANDB_API_KEY": "planted0123456789abcd", "MY_PASSWORD": "planted-word"}


def test_a_run_writes_in_its_folder_and_no_secret(hostile, monkeypatch, capsys, tmp_path):
    run = hostile
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(run)
    before = {p for p in tmp_path.rglob("*") if run not in p.parents}
    for command in ("fit", "test", "predict"):
        cli.main([command, "-c", "given.yaml"])
    cli.main(["report", str(run / "CSVLogger/version_0")])
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    said = "".join(capsys.readouterr())
    assert {p for p in tmp_path.rglob("*") if run not in p.parents} == before
    written = [p for p in run.rglob("*") if p.is_file() and p.name != "given.yaml"]
    assert {"config.yaml", "report.html", "predictions.jsonl", "last.ckpt", "metrics.csv"} <= {p.name for p in written}
    for secret in (*PLANTED.values(), "planted-in-an-address"):
        assert secret not in said
        assert not [p for p in written if secret.encode() in p.read_bytes()], secret
    assert "https://***@example.org/x" in (run / "CSVLogger/version_0/config.yaml").read_text()


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", "..", "a\\b", "", "a\0"])
def test_a_student_is_named_by_no_path(name):
    with pytest.raises(ValueError, match="is no identifier"):
        Student(name, "physics")


@pytest.mark.parametrize("domain", ["../../physics", "/tmp/physics", "/"])
def test_a_domain_is_no_path(domain):
    with pytest.raises(QuestionError, match="holds a /"):
        Question("q", domain, "How many?", (), "1")


def test_a_saved_config_without_secrets_is_what_was_given(tiny_folder, tmp_path):
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(run_config(tiny_folder)))
    run = commands.CoDistil(["-c", str(tmp_path / "given.yaml")], run=False)
    callback = next(c for c in run.trainer.callbacks if isinstance(c, commands.SaveConfig))
    said = run.parser.dump(callback.config)
    callback.setup(run.trainer, run.model, "fit")
    assert run.parser.dump(callback.config) == said
    shutil.rmtree(run.trainer.log_dir, ignore_errors=True)


def test_a_message_and_a_traceback_hold_no_secret(monkeypatch, capsys):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    asked = ["check-data", str(ROOT / "configs/example/train.jsonl"), f"--revision={PLANTED['HF_TOKEN']}"]
    asked.append("--model=https://somebody:planted-in-an-address@example.org/model")
    with pytest.raises(SystemExit):
        cli.main(asked)
    message = capsys.readouterr().err
    with pytest.raises(ModelError) as caught:
        cli.main([*asked, "--traceback"])
    sys.excepthook(caught.type, caught.value, caught.tb)
    with_traceback = capsys.readouterr().err
    for said in (message, with_traceback):
        assert "https://***@example.org" in said
        assert "planted" not in said
    assert ("Traceback" in message, "Traceback" in with_traceback) == (False, True)


def test_masking_takes_what_is_secret_and_leaves_what_is_not(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("HF_TOKENIZER", "hf_9876543210")
    said = "at ftp://a:b@c/d?e=@f, hf_0123456789 and hf_9876543210"
    assert masked(said) == "at ftp://***@c/d?e=@f, *** and hf_9876543210"
    assert masked("mail a@b.org or see https://a.org/@b") == "mail a@b.org or see https://a.org/@b"
    given = {"api_key": "x", "max_new_tokens": 4, "end_token": None, "inner": [{"password": "y", "name": "z"}]}
    assert masked_settings(given) == given | {"api_key": "***", "inner": [{"password": "***", "name": "z"}]}
