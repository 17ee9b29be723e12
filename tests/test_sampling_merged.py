"""While it samples, an adapter is added to the weights; the plain path is the reference."""

import pytest
import torch

from opcod.peers import SharedBase
from tiny import LORA, load_tiny, stir

IDS = torch.arange(40)[None] + 5


@pytest.fixture
def base(tiny_folder):
    base = SharedBase(load_tiny(tiny_folder), LORA)
    for seed, name in enumerate(("one", "two")):
        base.add_adapter(name, seed)
        stir(base, name, seed)
    return base


def test_merged_weights_compute_what_the_adapter_does(base):
    with base.using("one"):
        plain = base.hidden(IDS)
    with base.sampling("one"):
        merged = base.hidden(IDS)
    with base.using("two"):
        other = base.hidden(IDS)
    torch.testing.assert_close(merged, plain, rtol=1e-4, atol=1e-4)
    assert (other - plain).abs().max() > 1e-2


def test_sampling_puts_every_parameter_back_bit_for_bit(base):
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    with pytest.raises(KeyboardInterrupt), base.sampling("one"):
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())
    assert not any(p.requires_grad for p in base.parameters())
    with base.using("one", train=True):
        base.hidden(IDS).sum().backward()
    assert all(p.grad is not None for p in base.parameters_of("one"))
    assert all(p.grad is None for p in base.parameters_of("two"))
