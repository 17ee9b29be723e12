"""Adapted linear layers compute what peft computes, which is the reference."""

from collections import OrderedDict

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from opcod.low_rank import fuse_low_rank
from opcod.peers import SharedBase
from tiny import LORA, load_tiny, stir

IDS = torch.arange(40)[None] + 5


def adapted(dtype, bias, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(linear=nn.Linear(24, 40, bias=bias, dtype=dtype)))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["linear"], init_lora_weights=False, **settings)
    return get_peft_model(model, config, adapter_name="ann").base_model.model.linear


def outcome(layer, dtype):
    states = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    parameters = [layer.lora_A["ann"].weight, layer.lora_B["ann"].weight]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = layer(states)
    gradients = torch.autograd.grad(out.float().square().sum(), [states, *parameters])
    return out, *gradients


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_value_and_gradients_are_pefts(dtype, tolerance, bias):
    layer = adapted(dtype, bias)
    layer.cast_input_dtype_enabled = dtype == torch.float32
    plain = outcome(layer, dtype)
    fuse_low_rank(layer)
    assert "forward" in vars(layer)
    for ours, theirs in zip(outcome(layer, dtype), plain, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def test_gradients_are_those_of_finite_differences():
    layer = adapted(torch.float64, True)
    for weights in (layer.lora_A, layer.lora_B):
        weights.double()
    fuse_low_rank(layer)
    states = torch.randn(5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (states,))


def test_what_else_peft_can_do_is_left_to_it():
    layer = adapted(torch.float32, False)
    states = torch.ones(2, 24)
    plain = layer(states)
    fuse_low_rank(layer)
    layer.enable_adapters(False)
    assert torch.equal(layer(states), layer.get_base_layer()(states))
    layer.enable_adapters(True)
    layer.merge()
    torch.testing.assert_close(layer(states), plain, rtol=1e-5, atol=1e-5)
    layer.unmerge()
    with_variant = adapted(torch.float32, False, use_dora=True)
    expected = with_variant(states)
    fuse_low_rank(with_variant)
    assert torch.equal(with_variant(states), expected)


@pytest.mark.parametrize("settings", [{}, {"quantization": "nf4", "packed": "yes"}], ids=["plain", "packed"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_base_can_do_without(settings, recompute, tiny_folder):
    outcomes = []
    for fuse in (True, False):
        base = SharedBase(load_tiny(tiny_folder, **settings), LORA, fuse=fuse, checkpoint_activations=recompute)
        base.add_adapter("ann", seed=1)
        stir(base, "ann", seed=2)
        fused = [m for m in base.peft.modules() if isinstance(m, BaseTunerLayer) and "forward" in vars(m)]
        assert bool(fused) == fuse
        with base.using("ann"):
            alone = base.hidden(IDS)
        with base.using("ann", train=True):
            hidden = base.hidden(IDS)
            hidden.sin().sum().backward()  # a normalised vector's squares sum up to the same, with no gradient
        torch.testing.assert_close(alone, hidden, rtol=1e-5, atol=1e-5)
        outcomes.append((hidden.detach(), [p.grad for p in base.parameters_of("ann")]))
    torch.testing.assert_close(outcomes[0][0], outcomes[1][0], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*(gradients for _, gradients in outcomes), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
