"""The readers of checkpoints and adapters: any file is one of ours, or is refused as a `ModelError`."""

import dataclasses
import io
import sys
import tempfile
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from opcod.candidates import find_candidate
from opcod.checkpoint import KEY, pack, read_checkpoint, roles_of, unpack
from opcod.models import BaseModel, ModelError
from opcod.peers import Lora, Peer, SharedBase, read_adapter
from tiny import build_folder, load_tiny

LORA = Lora(rank=1, alpha=2, target_modules=["q_proj"])
IDENTITY = {"model": "tiny", "revision": "", "quantization": "none", "files": "0123456789abcdef"}


@cache
def peer() -> Peer:
    """One student over a model of one layer."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_tiny(build_folder(Path(folder, "tiny"), hidden=8, layers=1, heads=2, intermediate=8, vocab=300))
    one = Peer("a", "physics", SharedBase(dataclasses.replace(loaded, identity=IDENTITY), LORA))
    one.create(seed=0, source=None)
    return one


def checkpoint() -> bytes:
    """What such a student's run saves, less what is Lightning's own."""
    file = io.BytesIO()
    kept = {**pack([peer()], lora=LORA, models={"a": BaseModel()}), "score_table": None, "scored_rounds": None}
    torch.save({KEY: kept, "epoch": 1}, file)
    return file.getvalue()


WHOLE = checkpoint()  # made now, as it takes its time


def examine(data: bytes) -> None:
    """The first byte says what the rest is: a checkpoint's file, what is pickled in it, or an adapter's two files."""
    kind, content = data[:1], data[1:]
    with tempfile.TemporaryDirectory() as folder:
        if kind == b"a":
            _adapter(Path(folder), content)
        else:
            path = Path(folder, "last.ckpt")
            path.write_bytes(_with_pickled(content) if kind == b"p" else content)
            _checkpoint(path)


def _checkpoint(path: Path) -> None:
    with suppress(ModelError):
        kept = read_checkpoint(path)
        find_candidate(str(path), ["physics"], BaseModel())
        roles_of(kept, "a", str(path))
        unpack(kept, [peer()])


def _adapter(folder: Path, content: bytes) -> None:
    """A line of `adapter_config.json`, and its weights."""
    config, _, weights = content.partition(b"\n")
    (folder / "adapter_config.json").write_bytes(config)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    with suppress(ModelError):
        find_candidate(str(folder), ["physics"], BaseModel())
        peer().base.load_state("a_student", read_adapter(folder, LORA))


def _with_pickled(content: bytes) -> bytes:
    """The checkpoint with `content` in place of what is pickled in it, and checksums that fit."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE)) as whole, zipfile.ZipFile(file, "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, content if name.endswith("data.pkl") else whole.read(name))
    return file.getvalue()
