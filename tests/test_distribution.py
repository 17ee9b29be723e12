"""The wheel and the source distribution, and opcod as the wheel installs it, away from the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from commands_shown import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of both, built without a network from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("distribution")
    others = shutil.ignore_patterns(".git", ".venv", "runs", "adapters", "build", "dist", ".*_cache", "*.egg-info")
    shutil.copytree(ROOT, folder / "source", ignore=others)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def packed(built):
    """The wheel's files."""
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def away(built, tmp_path_factory):
    """Run the installed `opcod` in a folder of its own; this environment's other packages are lent to it."""
    environment, folder = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("away")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(install, env=settings, check=True)
    (own,) = environment.glob("lib/python*/site-packages")
    (own / "lent.pth").write_text("\n".join(p for p in sys.path if Path(p).name == "site-packages"), encoding="utf-8")

    def run(*arguments):
        command = [environment / "bin" / "opcod", *arguments]
        done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_every_module_and_data_file(packed):
    source = ROOT / "src"
    wanted = {str(p.relative_to(source)) for p in source.glob("opcod/**/*") if p.is_file() and p.suffix != ".pyc"}
    wanted |= {f"opcod/{p.relative_to(ROOT)}" for p in ROOT.glob("configs/**/*") if p.is_file()}
    held = {name for name in packed if not re.match(r"opcod-[\d.]+\.dist-info/", name)}
    assert held == wanted
    assert {"opcod/py.typed", "opcod/report/templates/report.html.j2", "opcod/configs/base.yaml"} <= held
    assert "opcod/specialists/physics/adapter_model.safetensors" in held


def test_the_wheel_holds_the_licence(packed):
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_source_distribution_can_be_tested(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    tests = {str(p.relative_to(ROOT)) for p in ROOT.glob("tests/**/*.py")}
    assert tests <= names
    assert {"configs/base.yaml", "configs/example/train.jsonl", "Makefile", "constraints.txt", "README.md"} <= names
    assert {"handbook/options.py", "mkdocs.yml", ".pre-commit-config.yaml"} <= names, "tests read these, too"
    assert not any("__pycache__" in name or name.startswith(("runs", ".venv")) for name in names)


def test_the_wheel_runs_away_from_the_checkout(away):
    assert away("--version").startswith("opcod 0.")
    examined = away("doctor")
    assert str(ROOT) not in re.search(r"ok +opcod .*", examined)[0]
    assert re.search(r"ok +the demo +takes about", examined)
    assert "A run of the default would work." in examined
    away("init", ".")
    stack = ["-c", "configs/base.yaml", "-c", "configs/pair-physics-chemistry.yaml", "-c", "configs/size-demo.yaml"]
    printed = yaml.safe_load(away("fit", *stack, "--print_config"))
    assert [s["name"] for s in printed["model"]["init_args"]["students"]] == ["physicist", "chemist"]
