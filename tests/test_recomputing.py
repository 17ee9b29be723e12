"""Layers are computed again only within the block, and only those that transformers marks."""

import pytest
import torch
from torch import nn

from opcod.models import ModelError
from opcod.peers import SharedBase
from opcod.recomputing import recomputed
from tiny import LORA, load_tiny, stir


@pytest.fixture
def base(tiny_folder):
    base = SharedBase(load_tiny(tiny_folder), LORA, checkpoint_activations=True)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)
    return base


def passes(base, **settings):
    """How often the first layer was computed, forwards and backwards."""
    calls = []
    hook = base.loaded.model.base_model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    with base.using("ann", **settings):
        hidden = base.hidden(torch.arange(9)[None])
        if settings:
            hidden.sum().backward()
    hook.remove()
    return len(calls)


def test_layers_are_computed_again_where_something_is_learned(base):
    assert passes(base, train=True) == 2
    assert passes(base) == 1
    base.checkpoint_activations = False
    assert passes(base, train=True) == 1


def test_layers_are_left_as_they_were_even_after_an_error(base):
    layer = base.loaded.model.base_model.layers[1]
    other = vars(layer)["forward"] = type(layer).forward.__get__(layer)  # as one who had put something before
    with pytest.raises(KeyError), base.using("ann", train=True):
        raise KeyError
    assert vars(layer)["forward"] is other
    assert "forward" not in vars(base.loaded.model.base_model.layers[0])


def test_a_model_without_layers_to_compute_again_is_refused():
    said = "Linear cannot recompute activations: set `checkpoint_activations` to false"
    with pytest.raises(ModelError, match=said), recomputed(nn.Linear(2, 2)):
        pass
