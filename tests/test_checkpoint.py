"""Checkpoints' files: that damage is recognised wherever it is, and what is taken instead."""

import os
import random
import shutil

import pytest
import torch

from opcod.checkpoint import WholeCheckpointIO, check_whole, load_checkpoint, whole_checkpoint
from opcod.models import ModelError

KEPT = {
    "opcod": {"scores": {"ann": {"physics": 0.5}}, "name": "ann", "rounds": 3},
    "adapter": {"a": torch.arange(12.0).view(3, 4), "b": torch.arange(300, dtype=torch.int32)},
}


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, of which `last.ckpt` is the newest under another name, as a run leaves them."""
    for rounds in (1, 2, 3):
        path = tmp_path / f"round={rounds}.ckpt"
        WholeCheckpointIO().save_checkpoint(KEPT | {"rounds": rounds}, path)
        os.utime(path, ns=(rounds, rounds))
    (tmp_path / "last.ckpt").hardlink_to(tmp_path / "round=3.ckpt")
    return tmp_path


def same(one, other):
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def damaged(content, place, rng):
    """With another bit, a hole, an end, or another piece in place of this one."""
    changed = bytearray(content)
    kind = place % 4
    if kind == 0:
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[place : place + 64] = bytes(len(changed[place : place + 64]))
    elif kind == 2:
        del changed[place:]
    else:
        changed[place : place + 4] = rng.randbytes(4)[: len(changed) - place]
    return bytes(changed)


def test_no_damage_anywhere_in_a_file_is_loaded(tmp_path):
    path, rng = tmp_path / "last.ckpt", random.Random(0)
    WholeCheckpointIO().save_checkpoint(KEPT, path)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 3):
        path.write_bytes(damaged(content, place, rng))
        try:
            assert same(load_checkpoint(path), KEPT), place  # padding, or zeros in place of zeros
        except ModelError:
            refused += 1
    assert refused > 0.2 * len(content)


def flip(path):
    """Change the last byte of the largest record."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(300, dtype=torch.int32).numpy().tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    return path


def test_the_one_before_is_taken_and_that_is_said(folder):
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    flip(folder / "last.ckpt")  # and with it round=3, which is the same file
    os.utime(folder / "last.ckpt", ns=(3, 3))
    assert times[folder / "round=2.ckpt"] == 2
    with pytest.warns(UserWarning, match=r"the run goes on from .*round=2.ckpt: .*last.ckpt is damaged") as told:
        assert whole_checkpoint(folder / "last.ckpt") == folder / "round=2.ckpt"
    assert "does not have its checksum" in str(told[0].message)


@pytest.mark.parametrize("content", [b"", bytes(5000), b"PK\x03\x04 and no more"])
def test_what_a_power_failure_leaves_of_a_file_is_no_checkpoint_either(folder, content):
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").write_bytes(content)
    with pytest.warns(UserWarning, match=r"the run goes on from .*round=3.ckpt"):
        assert whole_checkpoint(folder / "last.ckpt") == folder / "round=3.ckpt"


def test_a_newer_one_is_never_taken_for_the_one_before(folder):
    flip(folder / "round=1.ckpt")
    os.utime(folder / "round=1.ckpt", ns=(1, 1))
    with pytest.raises(ModelError, match=r"round=1.ckpt is damaged .*and there is no whole one before it"):
        whole_checkpoint(folder / "round=1.ckpt")


def test_where_none_is_whole_that_is_said(folder):
    for rounds in (1, 2, 3):
        flip(folder / f"round={rounds}.ckpt")
    with pytest.raises(ModelError, match="there is no whole one before it"):
        whole_checkpoint(folder / "last.ckpt")


def test_a_run_that_was_killed_before_its_first_checkpoint_was_the_last_one_goes_on_from_it(folder):
    (folder / "last.ckpt").unlink()
    with pytest.warns(UserWarning, match=r"the run goes on from .*round=3.ckpt: there is no checkpoint"):
        assert whole_checkpoint(folder / "last.ckpt") == folder / "round=3.ckpt"
    with pytest.raises(ModelError, match="there is no checkpoint"):  # a slip of the pen
        whole_checkpoint(folder / "round=9.ckpt")


def test_whoever_only_reads_one_is_told_of_the_one_before(folder):
    flip(folder / "last.ckpt")
    with pytest.raises(ModelError, match=r"last.ckpt is damaged \(.*\): take the one before it, .*round=2.ckpt"):
        load_checkpoint(folder / "last.ckpt")
    with pytest.raises(ModelError, match="is damaged"):  # Lightning's own way, of `trainer.fit(ckpt_path=...)`
        WholeCheckpointIO().load_checkpoint(folder / "last.ckpt", weights_only=True)


def test_checkpoints_of_before_have_checksums_too(folder, tmp_path):
    torch.save(KEPT, tmp_path / "old.ckpt")
    check_whole(tmp_path / "old.ckpt")
    shutil.copyfile(flip(tmp_path / "old.ckpt"), tmp_path / "older.ckpt")
    with pytest.raises(ModelError, match="is damaged"):
        check_whole(tmp_path / "older.ckpt")
