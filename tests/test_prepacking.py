import pytest
import torch
from torch import nn

from opcod.prepacking import can_prepack, prepacked


def linear(dtype=torch.bfloat16, bias=False):
    torch.manual_seed(0)
    return nn.Linear(48, 80, bias=bias, dtype=dtype).requires_grad_(False)


native = pytest.mark.skipif(not can_prepack(linear().weight), reason="this CPU does not multiply bfloat16 natively")


@native
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (32, 48), (5, 300, 48)])
def test_the_products_are_the_layers_own(shape, bias):
    layer = linear(bias=bias)
    states = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    plain = layer(states)
    with prepacked([layer]):
        assert "forward" in vars(layer)
        ours = layer(states)
        from_float = layer(states.float())  # as autocast would have it
    torch.testing.assert_close(ours, plain, rtol=1e-2, atol=1e-2)
    assert torch.equal(from_float, ours)


@native
def test_it_multiplies_by_the_weights_as_they_are_now_and_puts_the_layer_back():
    layer, states = linear(), torch.ones(2, 48, dtype=torch.bfloat16)
    original = layer.weight.data
    layer.weight.data = 2 * original
    with prepacked([layer]):
        layer.weight.data = original
        doubled = layer(states)
    torch.testing.assert_close(doubled, 2 * layer(states), rtol=1e-2, atol=1e-2)
    with pytest.raises(KeyboardInterrupt), prepacked([layer]):
        raise KeyboardInterrupt
    assert "forward" not in vars(layer)


def test_other_numbers_and_other_layers_are_left_as_they_are():
    class Special(nn.Linear):
        pass

    layers = [linear(torch.float32), Special(4, 4, dtype=torch.bfloat16)]
    with prepacked(layers):
        assert not any("forward" in vars(layer) for layer in layers)
