"""Rows that share what they begin with are sampled as if each had a copy: the plain path is the reference."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PretrainedConfig, Qwen3Config
from transformers.cache_utils import DynamicLayer

from opcod.decoding import SPARE, WHOLE, Groups, GrowingLayer, SharedCache, SharedLayer
from opcod.models import LoadedBase
from opcod.peers import SharedBase
from opcod.rollout import PREFIXES, Request, Rows, Sampling, prefill, sample
from test_rollout import MANY_ENDS, assert_same
from tiny import LORA, random_ids, stir

SHAPE = {
    "vocab_size": 600,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}
FAMILIES = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE),
    # every second layer sees no more than its last 8 tokens
    "gemma3": lambda: Gemma3TextConfig(
        **SHAPE, sliding_window=8, layer_types=["sliding_attention", "full_attention"] * 2
    ),
}


def base_of(config: PretrainedConfig, attention: str, device: str = "cpu") -> SharedBase:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    base = SharedBase(LoadedBase(model.to(device).eval().requires_grad_(False), None, torch.float32, {}), LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)
    return base


def question(number, samples, lengths=None):
    """Requests of `samples` responses to a question; with lengths of what follows it, prompts that begin with it."""
    start = random_ids(11 + 3 * number, seed=number)
    if lengths is None:
        return [Request(start, (0, number, j)) for j in range(samples)]
    ends = [random_ids(length, seed=50 + length) for length in lengths]
    return [Request((*start, *end), (0, number, j), len(start)) for j, end in enumerate(ends)]


def kindred(number, lengths):
    """Requests as `question` makes them, of questions that begin alike themselves, by most of what they are."""
    start = (*random_ids(20, seed=90), *random_ids(3 + 2 * number, seed=number))
    ends = [random_ids(length, seed=50 + length) for length in lengths]
    return [Request((*start, *end), (0, number, j), len(start)) for j, end in enumerate(ends)]


GROUPS = {
    "feedback on kindred questions": kindred(1, [4, 9, 1]) + kindred(2, [2, 7]),
    "groups of one size": question(1, 4) + question(2, 4),
    "groups of different sizes": question(1, 1) + question(2, 5) + question(3, 2),
    "feedback": question(1, 3, [4, 9, 1]) + question(2, 3, [2, 2, 7]),
    "feedback beside a stranger": question(1, 3, [4, 9, 1]) + question(2, 1),
}


@pytest.mark.parametrize("attention", ["opcod_grouped", "opcod_causal", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("asked", GROUPS.values(), ids=GROUPS)
def test_the_same_tokens_are_sampled_as_from_a_copy_a_row(family, attention, asked):
    base = base_of(FAMILIES[family](), attention)

    def respond(share, requests):
        with base.using("ann"):
            settings = Sampling(max_new_tokens=SPARE + 6, share_prefixes=share)  # beyond what is allocated at once
            return sample(base, requests, settings, MANY_ENDS[::6])

    plain, shared = respond(False, [replace(r, shared=0) for r in asked]), respond(True, asked)
    assert len({len(r.tokens) for r in plain}) > 1, "rows leave at different times"
    assert_same(shared, plain)
    assert base.loaded.model.config._attn_implementation == attention, "as it was"


QUEUES = {
    "groups": [r for number in range(1, 7) for r in question(number, 4)],
    "groups of many sizes": [r for number in range(1, 9) for r in question(number, 1 + 3 * number % 5)],
    "one group": question(1, 20),
    "prompts of their own": [r for number in range(1, 13) for r in question(number, 1)],
    "feedback": [r for n in range(1, 6) for r in question(n, 4, [4, 9 + n, 1, 2 * n])] + question(7, 4),
}


@pytest.fixture
def joined(monkeypatch):
    """The shared caches that others joined: how many rows they had, how many came, and what there is room for then."""
    found = []
    join = SharedCache.join

    def watched(self, other, most):
        rows = len(self.mask), len(other.mask)
        join(self, other, most)
        found.append((*rows, self.at, self.room, self.groups.count))

    monkeypatch.setattr(SharedCache, "join", watched)
    return found


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("asked", QUEUES.values(), ids=QUEUES)
@pytest.mark.parametrize("batch_size", [2, 7, 8])
def test_rows_that_take_the_places_of_others_are_sampled_as_in_one_batch(family, asked, batch_size, joined):
    base = base_of(FAMILIES[family](), "sdpa")

    def respond(**settings):
        with base.using("ann"):
            return sample(base, asked, Sampling(max_new_tokens=SPARE + 6, **settings), MANY_ENDS[::6])

    plain = respond(share_prefixes=False)
    assert not joined
    assert_same(respond(batch_size=batch_size), plain)
    assert not joined, "batch follows batch"
    assert_same(respond(batch_size=batch_size, fill_places=True), plain)
    assert joined
    longest = max(len(r.prompt) - r.shared for r in asked if r.shared) if any(r.shared for r in asked) else 0
    for before, new, at, room, prefixes in joined:
        assert before + new <= batch_size
        assert at < longest + SPARE + 6, "what nobody sees any more is dropped"
        assert room <= longest + 2 * SPARE + WHOLE
        assert prefixes <= PREFIXES * batch_size


def test_no_more_prefixes_are_kept_than_planned_with(joined):
    base = base_of(FAMILIES["llama"](), "sdpa")
    asked = QUEUES["groups"][:16] + [r for number in range(7, 19) for r in question(number, 1)]
    with base.using("ann"):
        found = sample(base, asked, Sampling(max_new_tokens=SPARE, batch_size=16, fill_places=True), MANY_ENDS[::6])
        together = sample(base, asked, Sampling(max_new_tokens=SPARE), MANY_ENDS[::6])
    assert_same(found, together)
    assert max(prefixes for *_, prefixes in joined) == 4 * PREFIXES, "a batch begins with four"


def test_responses_to_one_prompt_begin_together():
    base = base_of(FAMILIES["llama"](), "sdpa")
    rows = Rows(base, QUEUES["groups"], Sampling(max_new_tokens=8, batch_size=18), ())
    with base.using("ann"), torch.no_grad():
        rows.fill()
    assert len(rows.cache.mask) == 16, "of the fifth group there would be two"
    rows = Rows(base, QUEUES["one group"], Sampling(max_new_tokens=8, batch_size=18), ())
    with base.using("ann"), torch.no_grad():
        rows.fill()
    assert len(rows.cache.mask) == 16, "four parts of four"


def test_places_where_rows_keep_copies_are_given_batch_by_batch(joined):
    base = base_of(FAMILIES["gemma3"](), "sdpa")
    asked = QUEUES["groups"]
    with base.using("ann"):
        batches = sample(base, asked, Sampling(max_new_tokens=20, batch_size=8, fill_places=True), MANY_ENDS[::6])
        together = sample(base, asked, Sampling(max_new_tokens=20, share_prefixes=False), MANY_ENDS[::6])
    assert_same(batches, together)
    assert not joined


def test_what_is_shared_is_kept_once():
    base = base_of(FAMILIES["llama"](), "sdpa")
    asked = question(1, 4) + question(2, 4)
    with base.using("ann"):
        cache, mask, hidden = prefill(base, asked, share=True)
    assert isinstance(cache, SharedCache)
    length = max(len(r.prompt) for r in asked)
    assert [tuple(layer.prefix[0].shape) for layer in cache.layers] == [(2, 2, length, 12)] * 4
    assert mask.shape == (8, length)
    assert hidden.shape == (8, 48)
    cache.reorder_cache(torch.tensor([4, 5, 7]))
    assert [tuple(layer.prefix[0].shape) for layer in cache.layers] == [(1, 2, length, 12)] * 4, "nobody is left of one"


def test_rows_stand_under_one_another_and_come_back():
    rows = torch.arange(6).view(6, 1, 1, 1) + torch.zeros(6, 2, 3, 1)
    full, uneven = Groups([0, 0, 1, 1, 2, 2], rows.device), Groups([0, 1, 1, 1, 2, 2], rows.device)
    assert full.stack(rows).shape == (3, 2, 6, 1)
    assert full.stack(rows)[1, 0, :, 0].tolist() == [2, 2, 2, 3, 3, 3]
    assert uneven.stack(rows).shape == (3, 2, 9, 1)
    assert uneven.stack(rows)[1, 1, :, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for groups in (full, uneven):
        assert torch.equal(groups.unstack(groups.stack(rows)), rows)


@pytest.mark.parametrize("begun", [0, 7])
def test_a_shared_layer_holds_what_a_plain_one_does_behind_its_prefix(begun):
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(2, 1, 2, 5, 4, generator=generator)
    own = torch.randn(2, 3, 2, begun, 4, generator=generator)
    place = torch.tensor([begun])
    layer, plain = SharedLayer((prefix[0], prefix[1]), (own[0], own[1]), place), DynamicLayer()
    plain.update(own[0], own[1])
    for count in range(begun, begun + 4):
        layer.reserve(begun + (2 if count < begun + 2 else 5))
        new = torch.randn(2, 3, 2, 1, 4, generator=generator)
        expected = plain.update(new[0], new[1])
        for ours, theirs in zip(layer.update(new[0], new[1]), expected, strict=True):
            assert layer.get_mask_sizes(1) == (5 + ours.shape[2], 0)
            assert torch.equal(ours[:, :, : theirs.shape[2]], theirs)
            assert not ours[:, :, theirs.shape[2] :].any()
        assert layer.get_seq_length() == 5 + plain.get_seq_length()
        place += 1


def test_a_growing_cache_layer_holds_what_a_plain_one_does():
    generator = torch.Generator().manual_seed(0)
    growing, plain = GrowingLayer(), DynamicLayer()

    def step(batch, count):
        keys, values = torch.randn(2, batch, 2, count, 4, generator=generator)
        for ours, theirs in zip(growing.update(keys, values), plain.update(keys, values), strict=True):
            assert torch.equal(ours, theirs)
        assert growing.get_seq_length() == plain.get_seq_length()

    step(2, 5)
    for layer in (growing, plain):
        layer.reorder_cache(torch.tensor([0, 0, 1, 1]))
    for _ in range(100):  # beyond what is allocated at once
        step(4, 1)
    for layer in (growing, plain):
        layer.reorder_cache(torch.tensor([3, 0]))
    step(2, 3)
    for _ in range(SPARE + 1):
        step(2, 1)
    step(2, 200)
