"""Figures of a step: what they count, by hand."""

import pytest

from opcod.records import deaths_of, repetition


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([], 0),
        ([1, 2, 3], 0),  # no 4-gram
        ([1, 2, 3, 4, 5], 0),
        ([7] * 13, 0.9),  # ten of a kind, nine of them again
        ([1, 2, 3, 4, 1, 2, 3, 4], 0.2),  # 1234 2341 3412 4123 1234
        ([1, 2, 1, 2, 1, 2, 1], 0.5),  # 1212 2121 1212 2121
    ],
)
def test_repetition_is_the_share_of_4_grams_that_stood_there_before(tokens, share):
    assert repetition(tokens) == pytest.approx(share)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_said(name, value):
    figures = {"train/ann/loss": 1.0, "train/ann/gradient_norm": 1.0} | {f"train/ann/{name}": value}
    [death] = deaths_of(figures, "ann")
    assert "not finite, so the update is skipped" in death


@pytest.mark.parametrize(("cut", "said"), [(0.0, "no response has a context"), (7.0, "raise `context.limit`")])
def test_a_step_without_contexts_says_whether_they_were_cut_away(cut, said):
    [death] = deaths_of({"train/ann/distilled": 0.0, "train/ann/context_cut": cut}, "ann")
    assert said in death
