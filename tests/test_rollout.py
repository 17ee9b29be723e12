import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoModelForCausalLM

from opcod.drawing import _invert, choose, drawn
from opcod.peers import SharedBase
from opcod.rollout import Request, Sampling, sample, seed_of, uniforms_of
from tiny import LORA, load_tiny, random_ids, stir

PROMPTS = [random_ids(length, seed=length) for length in (5, 17, 9, 30, 1, 12)]
MANY_ENDS = tuple(range(0, 600, 8))  # so that responses end after about eight tokens
LIMIT = 16


@pytest.fixture
def base(tiny_base):
    made = SharedBase(tiny_base, LORA)
    made.add_adapter("ann", seed=1)
    stir(made, "ann", seed=2)
    return made


def respond(base, requests, ends=MANY_ENDS, **settings):
    with base.using("ann"):
        return sample(base, requests, Sampling(**{"max_new_tokens": LIMIT} | settings), ends)


def requests(prompts=PROMPTS, seed=0):
    return [Request(prompt, (seed, "rollout", number)) for number, prompt in enumerate(prompts)]


def watched_keys(monkeypatch, *names):
    """The keys of all draws that these modules of opcod ask for from now on."""
    keys = []

    def spy(base, requests, *given):
        keys.extend(request.key for request in requests)
        return sample(base, requests, *given)

    for name in names:
        monkeypatch.setattr(f"opcod.{name}.sample", spy)
    return keys


def assert_same(one, other, atol=2e-5):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.tokens.tolist() == right.tokens.tolist()
        assert left.finished == right.finished
        torch.testing.assert_close(left.log_probs, right.log_probs, rtol=0, atol=atol)


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"temperature": 0.6, "top_p": 0.95}])
def test_prompts_of_all_lengths_are_answered_together_as_they_are_alone(base, settings):
    together = respond(base, requests(), **settings)
    alone = [respond(base, [request], **settings)[0] for request in requests()]
    assert len({len(r.tokens) for r in alone}) >= 3  # so that rows leave the batch at different times
    assert_same(together, alone)


def test_log_probabilities_are_those_of_a_plain_forward_pass_at_temperature_1(base):
    for settings in ({}, {"temperature": 0.6, "top_p": 0.8}):
        for request, response in zip(requests(), respond(base, requests(), **settings), strict=True):
            ids = torch.tensor([[*request.prompt, *response.tokens.tolist()]])
            with base.using("ann"):
                logits = base.loaded.model(ids).logits[0].double()
            start = len(request.prompt)
            expected = logits[start - 1 : -1].log_softmax(-1).gather(1, ids[0, start:, None])[:, 0]
            torch.testing.assert_close(response.log_probs.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.6, "top_p": 0.8}])
def test_entropy_is_the_mean_of_a_plain_forward_pass_at_temperature_1(base, settings):
    for request, response in zip(requests(), respond(base, requests(), **settings), strict=True):
        ids = torch.tensor([[*request.prompt, *response.tokens.tolist()]])
        with base.using("ann"):
            logits = base.loaded.model(ids).logits[0, len(request.prompt) - 1 : -1].double()
        expected = torch.distributions.Categorical(logits=logits).entropy().mean()
        assert response.entropy == pytest.approx(float(expected), abs=2e-5)


def test_entropy_is_as_exact_in_bfloat16(tiny_folder):
    base = SharedBase(load_tiny(tiny_folder, dtype="bfloat16"), LORA)
    logits = 3 * torch.randn(4, 5000, generator=torch.Generator().manual_seed(0))
    chosen = logits.argmax(-1)
    with base.using("bare"):  # what is multiplied here is rounded
        log_probs, entropy = drawn(logits, chosen)
    plain = torch.distributions.Categorical(logits=logits.double())
    torch.testing.assert_close(entropy.double(), plain.entropy(), rtol=0, atol=1e-5)
    torch.testing.assert_close(log_probs.double(), plain.log_prob(chosen), rtol=0, atol=1e-5)


def test_greedy_responses_are_those_of_transformers_generate(tiny_folder, tiny_base):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("ann", seed=1)  # not stirred: the base itself
    plain = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    ours = respond(base, requests(), temperature=0.0)
    for prompt, response in zip(PROMPTS, ours, strict=True):
        generated = plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=list(MANY_ENDS),
            pad_token_id=0,
        )
        assert response.tokens.tolist() == generated[0, len(prompt) :].tolist()


def test_nothing_is_asked_and_nothing_answered(base):
    assert respond(base, []) == []


def test_a_response_ends_with_its_first_end_token_or_at_its_limit(base):
    responses = respond(base, requests(PROMPTS * 4))
    for response in responses:
        tokens = response.tokens.tolist()
        ends = [token in MANY_ENDS for token in tokens]
        assert not any(ends[:-1])
        assert response.finished == ends[-1]
        assert len(tokens) == LIMIT or response.finished
        assert response.log_probs.shape == response.tokens.shape
    assert len({r.tokens[-1].item() for r in responses if r.finished}) > 3  # every end token ends a response
    assert {r.finished for r in responses} == {True, False}


def test_a_response_without_end_token_is_cut_at_its_limit(base):
    (response,) = respond(base, requests()[:1], ends=(), max_new_tokens=7)
    assert len(response.tokens) == 7
    assert not response.finished


def test_an_end_token_at_the_last_place_finishes_the_response(base):
    (long,) = respond(base, requests()[:1], ends=())
    last = long.tokens[0].item()
    (response,) = respond(base, requests()[:1], ends=(last,), max_new_tokens=1)
    assert response.tokens.tolist() == [last]
    assert response.finished


def test_a_response_depends_on_its_prompt_and_key_alone(base):
    asked = requests([p for p in PROMPTS for _ in range(2)])
    reference = respond(base, asked)
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0)).tolist()
    for batch_size in (1, 5):
        shuffled = respond(base, [asked[i] for i in order], batch_size=batch_size)
        assert_same([shuffled[order.index(i)] for i in range(len(asked))], reference)


def test_other_keys_give_other_responses(base):
    first = respond(base, requests([PROMPTS[0]] * 8, seed=0), ends=())
    second = respond(base, requests([PROMPTS[0]] * 8, seed=1), ends=())
    drawn = {tuple(r.tokens.tolist()) for r in first + second}
    assert len(drawn) == 16


def test_sampling_follows_the_active_adapter(base):
    base.add_adapter("bob", seed=4)
    asked = requests()
    with base.using("bob"):
        other = sample(base, asked, Sampling(temperature=0.0, max_new_tokens=10), ())
    ours = respond(base, asked, temperature=0.0, max_new_tokens=10, ends=())
    assert [r.tokens.tolist() for r in other] != [r.tokens.tolist() for r in ours]


def test_keys_have_seeds_of_their_own_that_never_change():
    keys = [(0, "rollout", "ann", 1, 2, 3, "q", 4), (0, "rollout", "ann", 1, 2, 34, "q", 4)]
    keys += [(0, "rollout", "ann", 12, 3, "q", 4), (0, "rollout", "ann", 1, "2", 3, "q", 4), (1,), ("1",)]
    assert len({seed_of(key) for key in keys}) == len(keys)
    # `printf '(1,)' | b2sum -l 64` says 3ae8332309760c2f
    assert seed_of((1,)) == 0x3AE8332309760C2F >> 1
    assert torch.equal(uniforms_of((1,), 20), uniforms_of((1,), 20))
    assert not torch.equal(uniforms_of((1,), 20), uniforms_of((2,), 20))


def test_uniform_numbers_are_uniform():
    numbers = torch.cat([uniforms_of((key,), 50) for key in range(400)]).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


def draws(logits, count, temperature=1.0, top_p=1.0, seed=0):
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return choose(logits.expand(count, -1), uniform, temperature, top_p)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_with_their_probabilities(temperature):
    logits = torch.tensor([0.0, 1.0, -1.0, 0.3, 2.0, -0.5])
    weights = np.exp(logits.double().numpy() / temperature)
    counts = torch.bincount(draws(logits, 50_000, temperature), minlength=6).numpy()
    assert stats.chisquare(counts, 50_000 * weights / weights.sum()).pvalue > 1e-3


def test_tokens_of_a_large_vocabulary_are_drawn_with_their_probabilities():
    logits = torch.randn(300, generator=torch.Generator().manual_seed(3))
    weights = np.exp(logits.double().numpy())
    counts = torch.bincount(draws(logits, 50_000), minlength=300).numpy()
    assert stats.chisquare(counts, 50_000 * weights / weights.sum()).pvalue > 1e-3


def test_temperature_0_takes_the_likeliest_token():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.9, 0.0]])
    assert choose(logits, torch.tensor([0.999, 0.999]), 0.0, 1.0).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.35, {2}), (0.45, {2, 0}), (0.65, {2, 0}), (0.75, {2, 0, 3}), (0.95, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_fewest_likeliest_tokens_that_hold_it(top_p, kept):
    logits = torch.tensor([0.3, 0.1, 0.4, 0.2]).log()
    counts = torch.bincount(draws(logits, 20_000, top_p=top_p), minlength=4).double()
    assert set(counts.nonzero()[:, 0].tolist()) == kept
    expected = torch.tensor([0.3, 0.1, 0.4, 0.2]).double() * torch.tensor([i in kept for i in range(4)])
    torch.testing.assert_close(counts / 20_000, expected / expected.sum(), rtol=0, atol=0.015)


def test_top_p_keeps_as_many_of_equally_likely_tokens_as_it_needs():
    logits = torch.tensor([0.3, 0.3, 0.3, 0.1]).log()
    drawn = set(draws(logits, 5_000, top_p=0.5).tolist())
    assert len(drawn) == 2
    assert drawn < {0, 1, 2}


def test_top_p_reaches_beyond_its_first_candidates_where_the_distribution_is_flat():
    weights = np.linspace(1.0, 2.0, 1000)
    probabilities = weights / weights.sum()
    order = np.argsort(-probabilities)
    kept = order[np.cumsum(probabilities[order]) - probabilities[order] < 0.6]
    assert len(kept) > 256
    logits = torch.tensor(weights).log().float().expand(20_000, -1)
    drawn = choose(logits, (torch.arange(20_000) + 0.5) / 20_000, 1.0, 0.6)
    assert set(drawn.tolist()) == set(kept.tolist())


def test_a_row_draws_the_same_whether_or_not_another_row_needs_the_whole_vocabulary():
    peaked = torch.linspace(0, 30, 1000)
    flat = torch.zeros(1000)
    uniform = torch.rand(200, generator=torch.Generator().manual_seed(0))
    alone = choose(peaked.expand(200, -1), uniform, 1.0, 0.95)
    beside = choose(torch.cat([peaked.expand(200, -1), flat[None]]), torch.cat([uniform, uniform[:1]]), 1.0, 0.95)
    assert torch.equal(alone, beside[:200])


@pytest.mark.parametrize("size", [3, 256, 300, 5000])
@pytest.mark.parametrize("top_p", [1.0, 0.9999999])
def test_extreme_uniforms_never_draw_an_impossible_token(size, top_p):
    logits = torch.randn(200, size, generator=torch.Generator().manual_seed(size))
    logits[:, 0] = logits[:, -1] = -torch.inf
    logits[:, size // 2 + 1 :] = -torch.inf
    for uniform in (0.0, 1 - 2**-24, 1e-30):
        drawn = choose(logits, torch.full((200,), uniform), 1.0, top_p)
        assert torch.isfinite(logits.gather(1, drawn[:, None])).all()


@pytest.mark.parametrize("size", [1, 7, 255, 256, 257, 1000])
def test_inversion_in_blocks_equals_a_plain_cumulative_sum(size):
    generator = torch.Generator().manual_seed(size)
    # whole numbers and dyadic fractions, which float32 adds and multiplies without rounding
    weights = torch.randint(0, 8, (500, size), generator=generator).float()
    weights[:, torch.randint(size, (1,), generator=generator)] += 1
    uniform = torch.randint(0, 512, (500,), generator=generator) / 512
    cumulative = np.cumsum(weights.double().numpy(), axis=1)
    targets = uniform.double().numpy() * cumulative[:, -1]
    expected = [np.searchsorted(c, t, side="right") for c, t in zip(cumulative, targets, strict=True)]
    assert _invert(weights, uniform).tolist() == expected


def test_inversion_is_right_to_rounding_for_any_weights():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(40, 49_152, generator=generator) ** 20
    uniform = torch.rand(40, generator=generator)
    index = _invert(weights, uniform).numpy()
    cumulative = np.cumsum(weights.double().numpy(), axis=1)
    cumulative /= cumulative[:, -1:]
    rows = np.arange(40)
    before = np.where(index > 0, cumulative[rows, index - 1], 0)
    assert (before <= uniform.numpy() + 1e-5).all()
    assert (cumulative[rows, index] >= uniform.numpy() - 1e-5).all()
    assert (weights.numpy()[rows, index] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1, expected at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0, expected above 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"max_new_tokens": 0, "batch_size": 0}, "max_new_tokens is 0.*batch_size is 0"),
    ],
)
def test_impossible_settings_are_refused_all_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)
