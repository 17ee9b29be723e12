from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import opcod.attention
from opcod.attention import CAUSAL, GROUPED, causal_attention, grouped_attention

IDS = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))
LEFT_PADDED = torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [0] * 5 + [1] * 4])


def llama(attention, kv_heads):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        intermediate_size=48,
        vocab_size=50,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).eval()


def outcome(attention, kv_heads, mask, ids=IDS):
    """Logits of what is not padding, and the gradient of their squares' sum."""
    model = llama(attention, kv_heads)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
    logits.square().sum().backward()
    return logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("mask", [torch.ones_like(IDS), LEFT_PADDED], ids=["whole", "padded"])
def test_it_equals_sdpa_in_value_and_gradient(kv_heads, mask):
    for ours, theirs in zip(outcome(GROUPED, kv_heads, mask), outcome("sdpa", kv_heads, mask), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("length", [15, 16, 20, 31, 32, 33])
def test_it_equals_sdpa_whether_or_not_keys_fill_whole_vectors(length):
    ids = torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * length, [0] * 6 + [1] * (length - 6)])
    for ours, theirs in zip(*(outcome(name, 2, mask, ids) for name in (GROUPED, "sdpa")), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_decoding_with_a_cache_equals_one_pass():
    model = llama(GROUPED, 2)
    with torch.no_grad():
        whole = model(input_ids=IDS).logits
        past = model(input_ids=IDS[:, :5], use_cache=True).past_key_values
        for t in range(5, 9):
            step = model(input_ids=IDS[:, t : t + 1], past_key_values=past, use_cache=True).logits
            assert torch.allclose(step[:, 0], whole[:, t], atol=1e-5)


def test_it_is_softmax_attention():
    # By hand: scores 0 and ln 3 give weights 1/4 and 3/4, so the values 0 and 8 average to 6.
    key = torch.tensor([[[[0.0], [1.0]]]])
    out, _ = grouped_attention(None, torch.tensor([[[[3.0]]]]).log(), key, 8 * key, None, scaling=1.0)
    assert out.item() == pytest.approx(6.0)


def test_a_soft_cap_bends_the_scores():
    # Scores 0 and atanh(1/2) with a cap of 1: the second becomes 1/2; its weight is 1 / (1 + exp(-1/2)) = 0.62246.
    key = torch.tensor([[[[0.0], [1.0]]]])
    query = torch.tensor([[[[0.5]]]]).atanh()
    out, _ = grouped_attention(None, query, key, key, None, scaling=1.0, softcap=1.0)
    assert out.item() == pytest.approx(0.62246, abs=1e-5)


def test_sinks_take_weight_and_give_nothing():
    # Scores 0 and ln 3, and a sink of ln 4: weights 1/8 and 3/8, so the values 0 and 8 come to 3.
    key = torch.tensor([[[[0.0], [1.0]]]])
    query = torch.tensor([[[[3.0]]]]).log()
    out, _ = grouped_attention(None, query, key, 8 * key, None, scaling=1.0, s_aux=torch.tensor([4.0]).log())
    assert out.item() == pytest.approx(3.0)


def test_dropout_is_refused():
    one = torch.zeros(1, 1, 1, 1)
    with pytest.raises(ValueError, match="set the base model's `attention` to `sdpa`"):
        grouped_attention(None, one, one, one, None, dropout=0.1)


@pytest.fixture
def done(monkeypatch):
    """How often a mask was made, and how often a kernel was told that the queries are the last of the keys."""
    counts = Counter()

    def counted(name, call, *args, **settings):
        counts[name] += 1
        return call(*args, **settings)

    for name in ("sdpa_mask", "causal_lower_right"):
        monkeypatch.setattr(opcod.attention, name, partial(counted, name, getattr(opcod.attention, name)))
    return counts


def behind(attention, kv_heads, mask):
    """Logits of the last four tokens behind the first five, and the gradient that goes through both."""
    model = llama(attention, kv_heads)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    whole = bool(mask.all())
    first, cache = None if whole else mask[:, :5], DynamicCache(config=model.config)
    model(input_ids=IDS[:, :5], attention_mask=first, position_ids=places[:, :5], past_key_values=cache)
    rest = model(
        input_ids=IDS[:, 5:],
        attention_mask=None if whole else mask,
        position_ids=places[:, 5:],
        past_key_values=cache,
    )
    rest.logits.square().sum().backward()
    return rest.logits.detach(), model.model.layers[0].self_attn.k_proj.weight.grad


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("mask", [torch.ones_like(IDS), LEFT_PADDED], ids=["whole", "padded"])
def test_what_goes_on_from_keys_is_as_under_a_mask_and_needs_none(kv_heads, mask, done):
    for one, other in zip(behind(CAUSAL, kv_heads, mask), behind("sdpa", kv_heads, mask), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())
    assert done == ({"causal_lower_right": 2} if mask.all() else {"sdpa_mask": 2}), "a layer, or a pass"
    for one, other in zip(outcome(CAUSAL, kv_heads, mask), outcome("sdpa", kv_heads, mask), strict=True):
        assert torch.equal(one, other)


def test_windows_are_masked(done):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(**shape, intermediate_size=48, vocab_size=50, sliding_window=4, initializer_range=0.3)
    model = MistralForCausalLM(config).eval()
    found = {}
    for attention in ("sdpa", CAUSAL):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            cache = model(input_ids=IDS[:, :5], use_cache=True).past_key_values
            found[attention] = model(input_ids=IDS[:, 5:], past_key_values=cache).logits
    assert torch.allclose(found["sdpa"], found[CAUSAL], atol=1e-5)
    assert set(done) == {"sdpa_mask"}


def test_autocast_casts_what_needs_no_mask():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, n, 8, generator=generator) for n in (3, 7, 7))
    layer = SimpleNamespace(is_causal=True)
    mask = torch.ones(3, 7, dtype=torch.bool).tril(4)
    with torch.autocast("cpu", torch.bfloat16):
        masked = sdpa_attention_forward(layer, query, key.bfloat16(), value.bfloat16(), mask)[0]
        found = causal_attention(layer, query, key.bfloat16(), value.bfloat16(), None)[0]
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, masked)


@pytest.mark.parametrize("attend", [grouped_attention, causal_attention])
def test_a_model_that_chooses_its_keys_is_refused(attend):
    rows = torch.ones(1, 1, 2, 4)
    with pytest.raises(ValueError, match=r"sparse_indices.*`sdpa`"):
        attend(None, rows, rows, rows, None, sparse_indices=torch.zeros(1, 2, 1))
