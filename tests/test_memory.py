"""Where memory runs out in the middle, a step is done again in smaller parts, and comes to the same."""

import pytest
import torch
from torch import nn

from opcod.halving import halved_where_full, is_out_of_memory
from opcod.matching import Matching
from opcod.peers import SharedBase
from opcod.rollout import Rows
from test_matching import assert_equal, matched, peer
from test_prefixes import CONTEXTS
from test_rollout import PROMPTS, assert_same, requests, respond
from tiny import LORA, stir


@pytest.fixture
def scarce(monkeypatch):
    """Call with a number: a pass over more tokens fails from now on, as if the memory had run out."""

    def limit(tokens, error=torch.OutOfMemoryError):
        hidden = SharedBase.hidden

        def reads(self, ids, **settings):
            if ids.numel() > tokens:
                raise error("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return hidden(self, ids, **settings)

        monkeypatch.setattr(SharedBase, "hidden", reads)

    return limit


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_step_that_runs_out_of_memory_comes_to_the_same_with_half_the_micro_batch(tiny_base, scarce, error):
    tutee = peer(tiny_base)
    settings = Matching(micro_batch_tokens=400, share_prefixes=False)
    plain, expected, _ = matched(tutee, CONTEXTS, settings)
    scarce(250, error)
    with pytest.warns(UserWarning, match="out of memory with micro_batch_tokens at 400: this is done again with 200"):
        again, gradients, _ = matched(tutee, CONTEXTS, settings)
    assert again.loss == pytest.approx(plain.loss, rel=1e-5)
    assert again.divergence == pytest.approx(plain.divergence, rel=1e-5)
    assert_equal(gradients, expected)


def test_the_second_failure_is_not_hidden(tiny_base, scarce):
    scarce(50)
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(torch.OutOfMemoryError):
        matched(peer(tiny_base), CONTEXTS, Matching(micro_batch_tokens=400, share_prefixes=False))


def test_responses_are_the_same_in_smaller_batches(tiny_base, scarce):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)
    plain = respond(base, requests())
    scarce(30 * len(PROMPTS) // 2)  # the longest prompt has 30 tokens
    with pytest.warns(UserWarning, match="out of memory with batch_size at 6: this is done again with 3"):
        assert_same(respond(base, requests()), plain)


def test_responses_that_were_given_out_are_not_sampled_again(tiny_base, monkeypatch):
    base = SharedBase(tiny_base, LORA)
    base.add_adapter("ann", seed=1)
    stir(base, "ann", seed=2)
    asked = requests(PROMPTS * 4)
    plain = respond(base, asked)
    drawn, fill = [], Rows.fill

    def runs_out(self):
        if not drawn and len(self.responses) > 4:
            drawn.extend(self.responses.values())
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fill(self)

    monkeypatch.setattr(Rows, "fill", runs_out)
    with pytest.warns(UserWarning, match="batch_size at 8: this is done again with 4"):
        again = respond(base, asked, batch_size=8, fill_places=True)
    assert_same(again, plain)
    assert drawn
    assert all(any(kept is response for response in again) for kept in drawn)


def test_gradients_begin_again_from_what_they_were():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 5.0)

    def work(size):
        weight.grad.add_(1.0)
        if size > 4:
            raise torch.OutOfMemoryError
        return size

    with pytest.warns(UserWarning, match="size at 8"):
        assert halved_where_full(work, 8, setting="size", parameters=[weight]) == 4
    assert weight.grad.tolist() == [6.0, 6.0]


def test_other_errors_and_what_cannot_be_halved_are_raised_at_once():
    def fails(size):
        calls.append(size)
        raise error

    for error, size in ((RuntimeError("shapes differ"), 8), (torch.OutOfMemoryError(), 1)):
        calls = []
        with pytest.raises(type(error)):
            halved_where_full(fails, size, setting="size")
        assert calls == [size]
    assert not is_out_of_memory(RuntimeError("shapes differ"))
