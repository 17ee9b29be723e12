"""Of any file that is given as a checkpoint or an adapter: it is one of ours, or a `ModelError`; nothing in it runs."""

import copy
import io
import json
import pickle
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from opcod.candidates import find_candidate
from opcod.checkpoint import KEY, pack, read_checkpoint, unpack
from opcod.models import BaseModel, ModelError
from opcod.peers import Lora, Peer, SharedBase, read_adapter
from tiny import build_folder, load_tiny

LORA = Lora(rank=1, alpha=2, target_modules=["q_proj", "v_proj"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(torch.zeros(2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = build_folder(tmp_path_factory.mktemp("smallest") / "model", hidden=8, layers=1, heads=2, intermediate=8)
    one = Peer("a", "physics", SharedBase(load_tiny(folder), LORA))
    one.create(seed=0, source=None)
    return one


def kept_of(peer):
    return copy.deepcopy(pack([peer], lora=LORA, models={"a": BaseModel()}))


def read(path, peer):
    """All that reads a checkpoint before anything is computed with it."""
    kept = read_checkpoint(path)
    candidate = find_candidate(str(path), ["physics"], BaseModel())
    assert [student.name for student in candidate.students] == ["a"]
    unpack(kept, [peer])


def places(kept, path=()):
    yield path
    if isinstance(kept, dict):
        for name, value in kept.items():
            yield from places(value, (*path, name))


@pytest.mark.parametrize("name", ["rank", "alpha"])
def test_a_shape_that_none_can_have_is_refused(tmp_path, peer, name):
    kept = kept_of(peer)
    kept["lora"][name] = 0
    torch.save({KEY: kept}, tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match="its lora are not as opcod writes them"):
        read(tmp_path / "x.ckpt", peer)


@pytest.mark.parametrize("told", [7, [["a"]]])
def test_training_questions_that_are_none_are_refused(tmp_path, peer, told):
    torch.save({KEY: kept_of(peer) | {"trained_on": told}}, tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match="its trained_on are not as opcod writes them"):
        read(tmp_path / "x.ckpt", peer)


@given(st.data())
def test_whatever_stands_in_a_checkpoint_it_is_read_or_refused(tmp_path, peer, data):
    kept = {KEY: kept_of(peer)}
    *way, last = data.draw(st.sampled_from([place for place in places(kept) if place]))
    inner = kept
    for name in way:
        inner = inner[name]
    if data.draw(st.booleans()):
        del inner[last]
    else:
        inner[last] = data.draw(PLAIN)
    torch.save(kept, tmp_path / "last.ckpt")
    with suppress(ModelError):
        read(tmp_path / "last.ckpt", peer)


@given(st.data())
def test_a_file_with_other_bytes_is_read_or_refused(tmp_path, peer, data):
    whole = io.BytesIO()
    torch.save({KEY: kept_of(peer)}, whole)
    content = bytearray(whole.getvalue()[: data.draw(st.sampled_from([-1, -100, 1000, 10, None]))])
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "last.ckpt").write_bytes(content)
    with suppress(ModelError):
        read(tmp_path / "last.ckpt", peer)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_checkpoint(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(ModelError):
        read_checkpoint(tmp_path / "last.ckpt")


class Command:
    """Would write a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("where", ["all of it", "our part", "a tensor's place", "another part"])
def test_nothing_in_a_checkpoint_runs(tmp_path, peer, protocol, where):
    command = Command(tmp_path / "ran")
    kept = kept_of(peer)
    if where == "a tensor's place":
        kept["peers"]["a"]["student"] = {"weight": command}
    held = {"all of it": command, "our part": {KEY: command}, "another part": {KEY: kept, "callbacks": command}}
    for name, save in {"zip": torch.save, "plain": pickle.dump}.items():
        with (tmp_path / f"{name}.ckpt").open("wb") as file:
            settings = {"pickle_protocol": protocol} if save is torch.save else {"protocol": protocol}
            save(held.get(where, {KEY: kept}), file, **settings)
        with pytest.raises(ModelError, match=r"could run code|no checkpoint"):
            read(tmp_path / f"{name}.ckpt", peer)
    assert not (tmp_path / "ran").exists()


ADAPTER = {"r": 1, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": "bundled"}


@given(
    st.dictionaries(
        st.sampled_from([*ADAPTER, "use_dora", "rank_pattern", "x"]),
        PLAIN.filter(lambda value: not torch.is_tensor(value)),
    ),
    st.integers(0, 4),
)
def test_an_adapter_of_any_description_is_read_or_refused(tmp_path, peer, changes, cut):
    (tmp_path / "adapter_config.json").write_text(json.dumps(ADAPTER | changes, default=str))
    save_file(peer.state()["student"], tmp_path / "adapter_model.safetensors")
    if cut:
        content = (tmp_path / "adapter_model.safetensors").read_bytes()
        (tmp_path / "adapter_model.safetensors").write_bytes(content[: len(content) * cut // 5])
    try:
        find_candidate(str(tmp_path), ["physics"], BaseModel())
        peer.base.load_state("a_student", read_adapter(tmp_path, LORA))
    except ModelError:
        return
    assert not cut


@given(st.binary(max_size=100))
def test_any_bytes_are_no_adapter(tmp_path, content):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "adapter_config.json").touch()
    with pytest.raises(ModelError):
        read_adapter(tmp_path, LORA)
