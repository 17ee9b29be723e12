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


@pytest.fixture
def packed(tiny_folder):
    base = SharedBase(load_tiny(tiny_folder, quantization="nf4", packed="while_learning"), LORA)
    base.add_adapter("one", 0)
    stir(base, "one", 0)
    return base


def test_packed_weights_are_unpacked_to_sample_where_that_is_asked_for(packed, tiny_folder):
    by_kind = {"packed": packed}
    for kind in ("yes", "no"):
        by_kind[kind] = SharedBase(load_tiny(tiny_folder, quantization="nf4", packed=kind), LORA)
        by_kind[kind].add_adapter("one", 0)
        stir(by_kind[kind], "one", 0)
    found = {}
    for kind, base in by_kind.items():
        with base.sampling("one"):
            found[kind] = base.hidden(IDS)
    assert torch.equal(found["packed"], found["no"]), "the same sums W + B A"
    torch.testing.assert_close(found["packed"], found["yes"], rtol=1e-4, atol=1e-4)
    assert not torch.equal(found["packed"], found["yes"])


def test_unpacked_weights_are_let_go_and_the_packed_ones_learn(packed):
    linear = packed.loaded.model.base_model.layers[0].mlp.down_proj.get_base_layer()
    kept = linear.weight.data.clone()
    with packed.using("one"):
        before = packed.hidden(IDS)
    with packed.sampling("one"):
        assert "forward" in vars(linear)
    assert "forward" not in vars(linear)
    assert torch.equal(linear.weight.data, kept)
    with packed.using("one"):
        assert torch.equal(packed.hidden(IDS), before)
    with packed.using("one", train=True):
        packed.hidden(IDS).sum().backward()
    assert all(p.grad is not None for p in packed.parameters_of("one"))
