"""The largest logits of a row are found as `topk` finds them."""

import pytest
import torch

from opcod.logits import top


@pytest.mark.parametrize(("vocabulary", "k"), [(49152, 100), (4096, 7), (4100, 7), (4096, 1), (64, 30), (64, 64)])
def test_the_largest_are_those_of_topk(vocabulary, k):
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[1, 50:] = -torch.inf
    logits[2] = logits[2].sort().values
    found = top(logits, k)
    assert found.shape == (3, k)
    assert all(len(set(row.tolist())) == k for row in found)
    expected = logits.topk(k, dim=-1)
    assert torch.equal(logits.gather(-1, found).sort(-1, descending=True).values, expected.values)
    assert set(found[0].tolist()) == set(expected.indices[0].tolist())


def test_of_equal_ones_any_are_taken_once():
    logits = torch.randint(0, 3, (2, 4096), generator=torch.Generator().manual_seed(0)).float()
    found = top(logits, 50)
    assert all(len(set(row.tolist())) == 50 for row in found)
    assert bool((logits.gather(-1, found) == 2).all())
