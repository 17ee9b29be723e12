"""4-bit weights that are not packed go through the operations of plain ones, one for one, so that they take as long."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from opcod.peers import SharedBase
from opcod.rollout import Request, Sampling, sample
from opcod.scoring import Scored, response_hidden
from tiny import LORA, load_tiny, random_ids, stir

PROMPTS = [random_ids(length, seed=length) for length in (9, 9, 14)]


class Operations(TorchDispatchMode):
    """What is computed, each operation with the shapes and kinds of numbers that it takes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [(tuple(t.shape), t.dtype) for t in (*args, *(kwargs or {}).values()) if isinstance(t, torch.Tensor)]
        self.seen.append((str(func), tensors))
        return func(*args, **kwargs or {})


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Weights are laid out anew for a CPU alone."""
    monkeypatch.setattr("opcod.peers.prepacked", lambda _: contextlib.nullcontext())


def base_of(folder, **settings):
    base = SharedBase(load_tiny(folder, dtype="bfloat16", **settings), LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2, spread=0.02)
    return base


def sampled(base):
    """Of responses that are all as long as they may be."""
    with base.sampling("ann"), Operations() as operations:
        sample(base, [Request(p, (0, i)) for i, p in enumerate(PROMPTS)], Sampling(max_new_tokens=6), ends=())
    return operations.seen


def learned(base):
    """Of a pass forward and backward."""
    with base.using("ann", train=True), Operations() as operations:
        response_hidden(base, [Scored(p, random_ids(5, seed=1)) for p in PROMPTS]).sin().sum().backward()
    return operations.seen


@pytest.mark.parametrize(("work", "packed"), [(sampled, "no"), (sampled, "while_learning"), (learned, "no")])
def test_unpacked_weights_take_the_operations_of_plain_ones(tiny_folder, work, packed):
    plain, quantised = work(base_of(tiny_folder)), work(base_of(tiny_folder, quantization="nf4", packed=packed))
    assert len(plain) > 100
    assert quantised == plain


@pytest.mark.parametrize("work", [sampled, learned])
def test_packed_weights_take_others(tiny_folder, work):
    packed = work(base_of(tiny_folder, quantization="nf4", packed="yes"))
    assert packed != work(base_of(tiny_folder))
