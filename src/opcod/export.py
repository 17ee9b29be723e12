"""Write a peer's adapter, or merged weights, in the form that plain transformers and peft load."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from opcod.models import BUNDLED, BUNDLED_ID, ModelError
from opcod.peers import ADAPTER_FILE, Lora, State


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make `folder` by `fill(scratch)`, whole or not at all; an older one is replaced.

    Raises:
        OSError: As `fill` raises it, for instance where the disk is full; nothing half-written stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(scratch)
        _let_read(scratch)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _let_read(folder: Path) -> None:
    """Let others read a folder and its files as any that is written here: safetensors lets nobody, nor does mkdtemp."""
    hidden = os.umask(0)
    os.umask(hidden)
    folder.chmod(0o777 & ~hidden)
    for path in folder.iterdir():
        path.chmod(0o666 & ~hidden)


def write_adapter(
    folder: Path, state: State, lora: Lora, *, base: str, dtype: torch.dtype = torch.float32, card: str | None = None
) -> None:
    """Write an adapter folder that `PeftModel.from_pretrained` loads.

    Args:
        folder: Where to.
        state: Tensors under peft's names.
        lora: Their shape.
        base: The base model's name; peft's config records the bundled one under its name on the hub.
        dtype: Numbers to store.
        card: A model card, written as README.md.
    """

    def fill(scratch: Path) -> None:
        config = dataclasses.replace(
            lora.config(), base_model_name_or_path=BUNDLED_ID if base == BUNDLED else base, inference_mode=True
        )
        config.save_pretrained(str(scratch))
        save_file(
            {k: v.detach().to("cpu", dtype).contiguous() for k, v in state.items()},
            scratch / ADAPTER_FILE,
            metadata={"format": "pt"},
        )
        if card is not None:
            (scratch / "README.md").write_text(card, encoding="utf-8")

    write_folder(folder, fill)


def check_output(folder: Path, *, marker: str) -> None:
    """Refuse to replace a folder that we did not write.

    Args:
        folder: To be written; an older one is replaced as a whole.
        marker: The file by which a folder of this kind is known.

    Raises:
        ModelError: If there is something else.
    """
    if not folder.exists():
        return
    ours = folder.is_dir() and (folder / marker).is_file() and all(p.is_file() for p in folder.iterdir())
    ours = ours and _is_by_opcod(folder / "README.md")
    if not (ours or (folder.is_dir() and not any(folder.iterdir()))):
        raise ModelError(f"{folder} exists and holds something else than an earlier {marker}: choose another folder")


def _is_by_opcod(card: Path) -> bool:
    """Whether it is a model card as `opcod export` and `opcod specialise` write it."""
    return card.is_file() and "by opcod" in card.read_text(encoding="utf-8", errors="replace")
