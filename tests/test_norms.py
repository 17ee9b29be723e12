"""Norms have transformers' own values, and the gradients of its own backward pass, which is the reference."""

import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from opcod.norms import fuse_norm
from opcod.peers import SharedBase
from test_decoding import FAMILIES, base_of
from tiny import LORA, load_tiny, stir

NORMS = [LlamaRMSNorm, Qwen3RMSNorm, Gemma3RMSNorm]


def norm_of(kind, dtype, size=24):
    norm = kind(size, eps=1e-3)
    norm.weight.data = torch.linspace(-0.5, 2, size)
    return norm.to(dtype).requires_grad_(False)


def outcome(norm, dtype):
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(3, 7, 24, generator=generator).to(dtype).requires_grad_()
    out = norm(states)
    (gradient,) = torch.autograd.grad(out, states, torch.randn(3, 7, 24, generator=generator).to(out.dtype))
    return out, gradient


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_values_are_equal_and_gradients_close(kind, dtype, tolerance):
    norm = norm_of(kind, dtype)
    value, gradient = outcome(norm, dtype)
    fuse_norm(norm)
    assert "forward" in vars(norm)
    ours = outcome(norm, dtype)
    assert "RmsNorm" in ours[0].grad_fn.name()
    assert torch.equal(ours[0], value)
    assert ours[1].dtype == gradient.dtype
    torch.testing.assert_close(ours[1], gradient, rtol=tolerance, atol=tolerance * gradient.abs().max().item())


@pytest.mark.parametrize("kind", NORMS)
def test_no_graph_is_made_where_nothing_is_to_be_differentiated(kind):
    norm = norm_of(kind, torch.float32)
    fuse_norm(norm)
    assert norm(torch.ones(2, 24)).grad_fn is None
    with torch.no_grad():
        assert norm(torch.ones(2, 24, requires_grad=True)).grad_fn is None


def test_a_weight_that_learns_is_left_to_torch():
    norm = norm_of(LlamaRMSNorm, torch.float32).requires_grad_()
    fuse_norm(norm)
    norm(torch.ones(2, 24, requires_grad=True)).sum().backward()
    assert norm.weight.grad is not None


class CentredRMSNorm(LlamaRMSNorm):
    def forward(self, hidden_states):
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


def test_norms_of_other_kinds_are_left_as_they_are():
    for norm in (nn.LayerNorm(24), CentredRMSNorm(24), nn.Linear(24, 24)):
        fuse_norm(norm)
        assert "forward" not in vars(norm)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_norms_of_a_family_are_found(family):
    base = base_of(FAMILIES[family](), "eager")
    norms = [m for m in base.peft.modules() if type(m).__name__.endswith("RMSNorm")]
    assert norms
    assert all("forward" in vars(norm) for norm in norms)


def test_a_base_can_do_without(tiny_folder):
    ids, gradients = torch.arange(40)[None] + 5, []
    for fuse in (True, False):
        base = SharedBase(load_tiny(tiny_folder), LORA, fuse=fuse)
        base.add_adapter("ann", seed=1)
        stir(base, "ann", seed=2)
        assert fuse == any("forward" in vars(m) for m in base.peft.modules() if type(m).__name__.endswith("RMSNorm"))
        with base.using("ann", train=True):
            base.hidden(ids).sin().sum().backward()
        gradients.append([p.grad for p in base.parameters_of("ann")])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
