"""Figures of a step: what they count, by hand."""

from dataclasses import replace

import pytest
import torch

from opcod.attempts import Attempt
from opcod.contexts import Context
from opcod.data.loaders import StepBatch
from opcod.drafts import Response
from opcod.feedback import Feedback, Outcome
from opcod.grading import Grade
from opcod.matching import Match
from opcod.records import Mean, StepRecord, Sum, deaths_of, distillation_figures, figures_of, over_ranks, repetition
from tiny import QUESTION

CHEMISTRY = replace(QUESTION, id="c", domain="chemistry")


def answered(question, sample, tokens, *, right, formatted, finished, entropy):
    response = Response(torch.tensor(tokens), torch.zeros(len(tokens)), finished, entropy)
    return Attempt(question, sample, (1,), response, "", Grade(right, formatted, "A" if formatted else None))


def a_step():
    """Two responses to each of two questions; the tutor speaks on physics alone."""
    one = answered(QUESTION, 0, [7] * 13, right=True, formatted=True, finished=True, entropy=0.5)
    two = answered(QUESTION, 1, [1, 2, 3], right=False, formatted=True, finished=False, entropy=2.0)
    three = answered(CHEMISTRY, 0, [1, 2], right=False, formatted=False, finished=False, entropy=1.0)
    four = answered(CHEMISTRY, 1, [3, 4], right=False, formatted=True, finished=True, entropy=1.0)
    kept = Feedback("So.", "So.", Outcome.MATCH, tokens=9, finished=True)
    dropped = Feedback("No.", None, Outcome.NO_MATCH, tokens=4, finished=False)
    none = Feedback(None, None, Outcome.FB_NONE)
    batch = StepBatch(1, 0, 2, [QUESTION, CHEMISTRY])
    contexts = [Context(one, (1,), None, "So."), Context(two, (1,), "s", None), Context(three, (1,), "s", None)]
    groups, feedbacks = [[one, two], [three, four]], [[kept, dropped], [none, none]]
    return StepRecord(batch, "ann", "ben", frozenset({"physics"}), groups, feedbacks, contexts)


def test_the_figures_of_a_step_by_hand():
    figures = over_ranks([figures_of(a_step(), norm=3.0, skipped=1)])
    assert figures == pytest.approx(
        {
            "round": 1,
            "phase": 0,
            "phase_step": 2,
            "train/ann/gradient_norm": 3,
            "train/ann/skipped_updates": 1,
            "train/ann/accuracy": 1 / 4,
            "train/ann/format": 3 / 4,
            "train/ann/success_groups": 1 / 2,
            "train/ann/response_tokens": 20 / 4,
            "train/ann/truncated": 2 / 4,
            "train/ann/entropy": (13 * 0.5 + 3 * 2 + 2 + 2) / 20,  # of a token, not of a response
            "train/ann/repetition": 0.9 / 4,
            "train/ann/feedback_kept": 1 / 2,
            "train/ann/feedback_tokens": 13 / 2,
            "train/ann/feedback_truncated": 1 / 2,
        }
    )


def test_what_a_step_distilled_by_hand():
    """Of two ranks, the second of which had one context of four tokens; a mean is over the tokens of both."""
    mine = Match(0.25, [torch.full((13,), 0.1), torch.full((3,), 0.5), torch.full((2,), 1.0)], 0.75)
    theirs = Match(0.5, [torch.full((4,), 2.0)], 0.25)
    there = replace(a_step(), contexts=a_step().contexts[:1])
    told = [distillation_figures(a_step(), mine, 5), distillation_figures(there, theirs, 2)]
    assert told[0]["train/ann/distilled"] == Mean(3, 4)
    assert told[0]["train/ann/context_cut"] == Sum(5)
    assert over_ranks(told) == pytest.approx(
        {
            "train/ann/distilled": 4 / 8,
            "train/ann/context_cut": 7,
            "train/ann/loss": 0.75,
            "train/ann/divergence": (1.3 + 1.5 + 2 + 8) / 22,
            "train/ann/overlap": (18 * 0.75 + 4 * 0.25) / 22,
        }
    )
    idle = distillation_figures(replace(there, contexts=[]), Match(0.0, [], 0.0), 0)
    assert over_ranks([told[0], idle])["train/ann/divergence"] == pytest.approx(4.8 / 18)
    assert set(distillation_figures(there, None, 0)) == {"train/ann/distilled", "train/ann/context_cut"}


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


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"success_groups": 0.0}, "no right response to any question; take easier questions or more samples"),
        ({"feedback_kept": 0.0}, "none of ben's feedback was kept; read the samples"),
        ({"truncated": 1.0}, "every response was cut off; raise `rollout.max_new_tokens`"),
        ({"contrasted": 0.0}, "every question's responses are all right or all wrong"),
        ({"gradient_norm": 0.0}, "the gradient is zero"),
    ],
    ids=str,
)
def test_each_way_to_be_dead_is_said_with_its_place_and_others_are_not(figures, said):
    fine = {"success_groups": 0.5, "feedback_kept": 0.1, "truncated": 0.9, "distilled": 0.1, "gradient_norm": 1e-9}
    place = {"round": 1.0, "phase": 0.0, "phase_step": 2.0}
    of_ann = {f"train/ann/{name}": value for name, value in (fine | figures).items()}
    [death] = deaths_of(place | of_ann, "ann", "ben")
    assert death.startswith(f"round 2, phase 1, step 3: {said}")
    assert deaths_of(place | {f"train/ann/{name}": value for name, value in fine.items()}, "ann", "ben") == []
