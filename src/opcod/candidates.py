"""Who is to answer: the students of a checkpoint, an adapter over its base, or a model as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opcod.checkpoint import read_checkpoint, unpack
from opcod.codistillation import CoDistillation
from opcod.models import BUNDLED, BUNDLED_ID, BaseModel, ModelError
from opcod.peers import Lora, uncomputed
from opcod.specialists import adapter_folder, shipped
from opcod.students import Student

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Candidate:
    """Students who are asked together, and where they come from.

    Args:
        source: As the user named it.
        students: Each over a base of its own.
        lora: Shape of their adapters.
        checkpoint: File that holds their adapters; without one the students name theirs, or have none.
    """

    source: str
    students: tuple[Student, ...]
    lora: Lora
    checkpoint: Path | None = None


def find_candidate(source: str, domains: Sequence[str], base: BaseModel) -> Candidate:
    """What stands behind a name.

    Args:
        source: A checkpoint of `opcod fit` (a file), an adapter (a shipped specialist's name or a folder), or a model
            (`bundled`, a hub id, a folder or a GGUF file).
        domains: Of the questions; who is no specialist of any counts as one of the first.
        base: The settings in which bases are loaded. A checkpoint has its own. An adapter over SmolLM2-135M-Instruct is
            taken over the bundled copy, unless these name the hub's.

    Raises:
        ModelError: If a file is no checkpoint, or an adapter's description cannot be read.
    """
    path = Path(source).expanduser()
    if path.suffix == ".ckpt" or (path.is_file() and path.suffix != ".gguf"):
        kept = read_checkpoint(path)
        students = tuple(
            Student(name, kept["domains"][name], base=BaseModel(**model)) for name, model in kept["models"].items()
        )
        return Candidate(source, students, Lora(**kept["lora"]), path)
    name = re.sub(r"\W", "_", path.name) or "model"
    name = name if name.isidentifier() else f"model_{name}"
    if source in shipped() or (path / ADAPTER_CONFIG).is_file():
        model, lora = _described(adapter_folder(source))
        model = BUNDLED if model == BUNDLED_ID != base.model else model
        domain = path.name if path.name in domains else domains[0]
        return Candidate(source, (Student(name, domain, source, replace(base, model=model)),), lora)
    return Candidate(source, (Student(name, domains[0], base=replace(base, model=source)),), Lora())


def _described(folder: Path) -> tuple[str, Lora]:
    """The base model and the shape of an adapter that peft wrote."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
        base, targets = config["base_model_name_or_path"], config["target_modules"]
        lora = Lora(config["r"], config["lora_alpha"], targets if isinstance(targets, str) else sorted(targets))
        if unknown := uncomputed(config):
            raise ValueError(f"{', '.join(unknown)} is set, which opcod does not compute")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{folder / ADAPTER_CONFIG} does not describe a plain LoRA adapter: {error}") from error
    return base, lora


def together(candidates: Sequence[Candidate]) -> Candidate:
    """Several candidates as one.

    Raises:
        ModelError: If two have one name, or they cannot be loaded into one module.
    """
    if len(candidates) == 1:
        return candidates[0]
    students = tuple(student for candidate in candidates for student in candidate.students)
    names = ", ".join(candidate.source for candidate in candidates)
    if len({s.name for s in students}) < len(students):
        raise ModelError(f"{names} are the students {', '.join(s.name for s in students)}: name different ones")
    if any(candidate.checkpoint for candidate in candidates):
        raise ModelError(f"{names}: a checkpoint is asked by itself; `opcod export` writes its students as adapters")
    shapes = [c.lora for c in candidates if any(s.adapter for s in c.students)]
    if len(set(map(str, shapes))) > 1:
        raise ModelError(f"{names} have adapters of different shapes: {', '.join(map(str, shapes))}")
    return Candidate(names, students, (shapes or [Lora()])[0])


def module_of(candidate: Candidate, **asked: Any) -> CoDistillation:
    """A module of the candidate's students.

    Args:
        candidate: Who.
        **asked: How they are asked, as `Students` takes it.
    """
    return CoDistillation(list(candidate.students), lora=candidate.lora, **asked)


def load(module: CoDistillation, candidate: Candidate) -> None:
    """Load the bases onto the module's device, and the candidate's adapters."""
    module.configure_model()
    if candidate.checkpoint is not None:
        unpack(read_checkpoint(candidate.checkpoint), module.peers)
