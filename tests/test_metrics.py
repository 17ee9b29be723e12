import json
import math
from itertools import combinations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.stats import bootstrap

from opcod.feedback import Outcome
from opcod.metrics import AnswerScores, BreakRate, FeedbackOutcomes, maj_at_k, pass_at_k, share_interval


def floats(scores):
    return {name: float(value) for name, value in scores.items()}


def add(metric, question, right, choices=None):
    choices = choices or ["A" if flag else "B" for flag in right]
    metric.update(str(question), right, [choice is not None for choice in choices], choices)


@pytest.mark.parametrize(("correct", "total", "k"), [(0, 5, 2), (2, 5, 1), (2, 5, 3), (3, 5, 3), (5, 5, 5), (1, 6, 6)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(correct, total, k):
    draws = list(combinations([True] * correct + [False] * (total - correct), k))
    assert pass_at_k(correct, total, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("correct", "total", "k"), [(1, 4, 5), (5, 4, 1), (-1, 4, 1), (1, 4, 0)])
def test_pass_at_k_refuses_what_is_not_defined(correct, total, k):
    with pytest.raises(ValueError, match=f"pass@{k} of {correct} right in {total}"):
        pass_at_k(correct, total, k)


@pytest.mark.parametrize(
    ("choices", "k", "expected"),
    [
        (["A", "B", "A"], 3, 1.0),
        (["B", "B", "A"], 3, 0.0),
        (["A", "B"], 2, 0.5),
        (["A", "B", "C"], 3, 1 / 3),
        (["A", "A", "B", "B", "C"], 5, 0.5),
        (["A", None, None], 3, 1.0),
        ([None, None], 2, 0.0),
        (["B", "A", "A"], 1, 0.0),
        (["A", "B", "B"], 2, 0.5),  # whoever does not vote does not count either
    ],
)
def test_majority_vote_with_ties_and_without_votes(choices, k, expected):
    assert maj_at_k([choice == "A" for choice in choices], choices, k) == pytest.approx(expected)


def test_answer_scores_by_hand():
    scores = AnswerScores(ks=(1, 2, 4))
    add(scores, 0, [True, True, False, False], ["A", "A", "B", None])
    add(scores, 1, [True] * 4)
    add(scores, 2, [False] * 4)
    result = floats(scores.compute())
    assert result["avg"] == pytest.approx(0.5)
    assert result["stderr"] == pytest.approx(0.5 / math.sqrt(3))  # standard deviation of 0.5, 1, 0 with ddof 1
    assert result["format"] == pytest.approx(11 / 12)
    assert result["pass@1"] == pytest.approx(0.5)
    assert result["pass@2"] == pytest.approx((1 - 1 / 6 + 1) / 3)
    assert result["pass@4"] == pytest.approx(2 / 3)
    assert result["maj@4"] == pytest.approx(2 / 3)
    assert result["count"] == 3


def test_repeated_question_counts_once():
    scores = AnswerScores()
    for question in (7, 3, 7):
        add(scores, question, [question == 7] * 2)
    assert floats(scores.compute())["avg"] == pytest.approx(0.5)
    assert floats(scores.compute())["count"] == 2


def test_merged_scores_are_those_of_one_process():
    here, there, alone = AnswerScores(), AnswerScores(), AnswerScores()
    flags = [[True, False], [True, True], [False, False]]
    for question, right in enumerate(flags):
        add(alone, question, right)
        add(here if question < 2 else there, question, right)
    add(there, 0, flags[0])  # the sampler's filling
    here.merge_state(there)
    assert floats(here.compute()) == floats(alone.compute())


def gather_scores(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    scores, outcomes = AnswerScores(), FeedbackOutcomes()
    if rank == 0:
        add(scores, 0, [True, False])
        add(scores, 1, [True, True])
        outcomes.update([Outcome.MATCH])
    (folder / f"{rank}.json").write_text(json.dumps(floats(scores.compute()) | floats(outcomes.compute())))
    dist.destroy_process_group()


def test_process_without_any_question_agrees_on_the_scores(tmp_path):
    mp.spawn(gather_scores, (tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert (first["avg"], first["count"], first["count/match"]) == (pytest.approx(0.75), 2, 1)


def test_shares_of_two_runs_pair_by_question():
    here, there = AnswerScores(), AnswerScores()
    for question, right in ((0, [True, False]), (1, [True, True]), (0, [True, False])):
        add(here, question, right)
    add(there, 1, [False, False])
    assert list(here.shares().values()) == [0.5, 1.0]
    (shared,) = here.shares().keys() & there.shares().keys()
    assert (here.shares()[shared], there.shares()[shared]) == (1.0, 0.0)


def test_scores_of_few_questions_are_nan_where_undefined():
    scores = AnswerScores()
    add(scores, 0, [True])
    assert math.isnan(floats(scores.compute())["stderr"])


def test_scores_refuse_ragged_or_too_few_responses():
    with pytest.raises(ValueError, match="question '3' has 2 correct flags, 1 formatted flags and 2 choices"):
        AnswerScores().update("3", [True, False], [True], ["A", "B"])
    with pytest.raises(ValueError, match=r"maj@4 of 2|pass@4 of"):
        add(AnswerScores(ks=(4,)), 0, [True, False])


def test_outcomes_are_counted_and_shared():
    here, there = FeedbackOutcomes(), FeedbackOutcomes()
    here.update([Outcome.MATCH, Outcome.MATCH, Outcome.NO_MATCH])
    there.update([Outcome.FB_NONE])
    here.merge_state(there)
    result = floats(here.compute())
    assert result["count/match"] == 2
    assert result["share/match"] == pytest.approx(0.5)
    assert result["share/no_match"] == result["share/fb_none"] == pytest.approx(0.25)
    assert result["count/empty"] == 0
    assert sum(result[f"share/{outcome}"] for outcome in Outcome) == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # that is the case tested
def test_no_feedback_at_all_has_no_shares():
    assert math.isnan(floats(FeedbackOutcomes().compute())["share/match"])


def test_break_and_rescue_rate_by_hand():
    here, there = BreakRate(), BreakRate()
    here.update("q0", [True, True, True, True], [True, True, True, False], wrong=1)  # three of eight were not kept
    there.update("q1", [True, False, False], [False, True, False], wrong=7)
    here.merge_state(there)
    result = floats(here.compute())
    assert result["break/all"] == pytest.approx(2 / 5)
    assert result["rescue/all"] == pytest.approx(1 / 2)
    assert result["break/easiest"] == result["break/easy"] == pytest.approx(1 / 4)
    assert result["break/hard"] == result["break/hardest"] == pytest.approx(1)
    assert (result["right/all"], result["wrong/all"]) == (5, 2)
    assert math.isnan(result["rescue/easiest"])


def test_each_rate_has_an_interval_of_its_own():
    rate = BreakRate(draws=500)
    kept, broken, rescued, lost = [3, 4, 1, 2], [1, 0, 2, 0], [1, 3, 2, 4], [2, 0, 2, 1]
    for question, (k, b, r, w) in enumerate(zip(kept, broken, rescued, lost, strict=True)):
        after = [True] * k + [False] * b + [True] * r + [False] * w
        rate.update(str(question), [True] * (k + b) + [False] * (r + w), after, wrong=2)
    result = floats(rate.compute())
    for name, turned, others in (("break", broken, kept), ("rescue", rescued, lost)):
        total = [t + o for t, o in zip(turned, others, strict=True)]
        low, high = share_interval(torch.tensor(turned), torch.tensor(total), draws=500)
        assert (result[f"{name}/easy/low"], result[f"{name}/easy/high"]) == (float(low), float(high))
        assert low < result[f"{name}/easy"] < high


def test_difficulties_overlap_and_leave_eight_wrong_to_all():
    rate = BreakRate()
    rate.update("q0", [True], [False], wrong=4)
    rate.update("q1", [False], [True], wrong=8)
    result = floats(rate.compute())
    assert (result["right/easy"], result["right/easiest"], result["right/hard"]) == (1, 0, 0)
    assert (result["wrong/all"], result["wrong/hardest"]) == (1, 0)


def test_break_rate_refuses_unpaired_responses_and_other_difficulties():
    with pytest.raises(ValueError, match="2 responses before and 1 after"):
        BreakRate().update("q", [True, True], [True], wrong=0)
    with pytest.raises(ValueError, match="9 wrong responses"):
        BreakRate().update("q", [True], [True], wrong=9)


def test_a_question_that_comes_twice_counts_once():
    rate = BreakRate()
    for _ in range(2):
        rate.update("q0", [True, False], [False, False], wrong=3)
    assert floats(rate.compute())["right/all"] == 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # that is the case tested
def test_break_rates_of_an_empty_process_are_nan():
    assert math.isnan(floats(BreakRate().compute())["break/all"])


def test_an_interval_is_that_of_scipys_bootstrap():
    generator = torch.Generator().manual_seed(1)
    total = torch.randint(1, 9, (40,), generator=generator)
    turned = (torch.rand(40, generator=generator) * (total + 1)).long()

    def share(numerator, denominator, axis):
        return numerator.sum(axis) / denominator.sum(axis)

    expected = bootstrap(
        (turned.numpy(), total.numpy()), share, paired=True, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    low, high = share_interval(turned, total, draws=5000)
    assert float(low) == pytest.approx(expected.low, abs=0.01)
    assert float(high) == pytest.approx(expected.high, abs=0.01)
    assert float(low) < float(turned.sum() / total.sum()) < float(high)


def test_without_any_response_there_is_no_interval():
    low, high = share_interval(torch.zeros(3), torch.zeros(3))
    assert math.isnan(low)
    assert math.isnan(high)
    low, high = share_interval(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))  # half of the draws have none
    assert (float(low), float(high)) == (1, 1)


def test_metrics_start_afresh_after_reset():
    scores = AnswerScores()
    add(scores, 0, [True])
    scores.compute()
    scores.reset()
    add(scores, 0, [False])
    assert floats(scores.compute())["avg"] == 0.0
    assert isinstance(scores.compute()["avg"], torch.Tensor)
