"""Gains and paired differences: by hand where they can be, against scipy's bootstrap where they cannot."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from opcod.comparison import Cell, mean_share, mutual_runs, paired_difference, pooled, read_answers, tables

ROWS = """pair,method,seed,end,student,domain,question,right
p,opcod,0,initial,ann,x,q1,0.5
p,opcod,0,initial,ann,x,q2,0.5
p,opcod,0,initial,ann,y,q3,1.0
p,opcod,0,final,ann,x,q1,1.0
p,opcod,0,final,ann,x,q2,0.5
p,opcod,0,final,ann,y,q3,1.0
p,sdpo,0,initial,ann,x,q1,0.5
p,sdpo,0,initial,ann,x,q2,0.5
p,sdpo,0,initial,ann,y,q3,1.0
p,sdpo,0,final,ann,x,q1,0.5
p,sdpo,0,final,ann,x,q2,0.0
p,sdpo,0,final,ann,y,q3,1.0
"""


@pytest.fixture
def answers(tmp_path):
    (tmp_path / "answers.csv").write_text(ROWS)
    return read_answers(tmp_path / "answers.csv")


def test_seeds_weigh_the_same_whatever_their_questions():
    assert mean_share({0: {"a": 1.0}, 1: {"a": 0.0, "b": 0.0, "c": 0.0}}) == 0.5


def test_only_what_both_have_is_compared():
    one = {0: {"a": 1.0, "b": 1.0, "only here": 0.0}, 7: {"a": 0.0}}
    other = {0: {"a": 0.5, "b": 0.5}, 8: {"a": 1.0}}
    found = paired_difference(one, other)
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="share no seed and question"):
        paired_difference({0: {"a": 1.0}}, {1: {"a": 1.0}})


def test_the_interval_of_one_seed_is_scipys():
    generator = np.random.default_rng(2)
    one, other = generator.integers(0, 3, 50) / 2, generator.integers(0, 3, 50) / 2
    found = paired_difference(
        {0: {str(i): float(v) for i, v in enumerate(one)}},
        {0: {str(i): float(v) for i, v in enumerate(other)}},
        draws=5000,
    )
    expected = bootstrap((one - other,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    assert found.mean == pytest.approx((one - other).mean())
    assert found.low == pytest.approx(expected.low, abs=0.02)
    assert found.high == pytest.approx(expected.high, abs=0.02)


def test_seeds_that_disagree_widen_the_interval():
    questions = {str(i): 0.0 for i in range(30)}
    up, down = dict.fromkeys(questions, 0.4), dict.fromkeys(questions, -0.2)
    found = paired_difference({0: up, 1: down}, {0: questions, 1: questions})
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(-0.2), pytest.approx(0.4))


def test_the_tables_by_hand(answers):
    x, y = Cell("p", "opcod", "ann", "x"), Cell("p", "opcod", "ann", "y")
    assert (mean_share(answers["initial"][x]), mean_share(answers["final"][x])) == (0.5, 0.75)
    assert mean_share(answers["final"][y]) == 1.0
    assert mutual_runs(answers, "p", "opcod") == (1, 1)
    assert mutual_runs(answers, "p", "sdpo") == (0, 1)
    text = tables(answers)
    # q1 rises by 0.5 and q2 by nothing: of both drawn with replacement the mean is 0, 0.25 or 0.5.
    assert "| opcod | 50.0 -> 75.0 (+25.0, +0.0 to +50.0) | 100.0 -> 100.0 (+0.0, +0.0 to +0.0) | 1 of 1 |" in text
    assert "| sdpo | 50.0 -> 25.0 (-25.0, -50.0 to +0.0) | 100.0 -> 100.0 (+0.0, +0.0 to +0.0) | 0 of 1 |" in text
    # Over both domains: 0.5, 0.5 and 0 of three questions.
    assert "| sdpo | +50.0, +50.0 to +50.0 | +0.0, +0.0 to +0.0 | +33.3, +0.0 to +50.0 |" in text
    assert "All pairs" not in text


def test_a_grid_that_is_not_finished_has_all_its_methods_over_all_pairs(tmp_path):
    """Of the last pair, q, no more than the first method is there, and of r the one that shares no pair with it."""
    half = [row.replace("p,opcod", "q,opcod") for row in ROWS.splitlines() if row.startswith("p,opcod")]
    alone = [row.replace("p,opcod", "r,grpo") for row in ROWS.splitlines() if row.startswith("p,opcod")]
    (tmp_path / "answers.csv").write_text("\n".join([*ROWS.splitlines(), *half, *alone]) + "\n")
    _, _, over_all = tables(read_answers(tmp_path / "answers.csv")).partition("## All pairs")
    assert "What opcod is ahead of" in over_all
    assert "| sdpo | +33.3, +0.0 to +50.0 |" in over_all
    assert "grpo" not in over_all


def test_a_question_that_several_answer_is_one_question():
    def shares(**of):
        return {0: of, 1: of}

    cells = {
        Cell("p", "opcod", "ann", "x"): shares(q1=1.0, q2=0.0),
        Cell("p", "opcod", "bob", "x"): shares(q1=0.5, q2=0.0),
        Cell("q", "opcod", "ann", "x"): {0: {"q1": 0.0}},
        Cell("p", "sdpo", "ann", "x"): shares(q1=0.0, q2=0.0),
    }
    assert pooled(cells, "opcod", ["p"]) == shares(**{"x q1": 0.75, "x q2": 0.0})
    assert pooled(cells, "opcod", ["p", "q"]) == {0: {"x q1": 0.5, "x q2": 0.0}}
