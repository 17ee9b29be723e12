import json
from pathlib import Path

import pytest

from opcod.gate import Gate, cognizance_gaps

CASES = json.loads((Path(__file__).parent / "oracles" / "cognizance.json").read_text())["cases"]
BOTH = frozenset({"A", "B"})
NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_gaps_and_decisions_agree_with_the_oracle(case):
    assert cognizance_gaps(case["scores"]) == pytest.approx(case["gaps"], abs=1e-9)
    for student, domains in Gate("cognizance", 0.2).decide(case["scores"]).items():
        expected = frozenset(case["scores"][student]) if case["cognizant_at_0.2"][student] else NONE
        assert domains == expected


def test_gap_at_tau_is_cognizant_despite_rounding():
    scores = {"a": {"A": 1.0, "B": 1.0}, "b": {"A": 0.9, "B": 0.9}}  # 0.1 + 0.1, in floats above 0.2 or below
    assert Gate(tau=0.2).decide(scores)["b"] == BOTH
    assert Gate(tau=0.2 - 5e-10).decide(scores)["b"] == BOTH
    assert Gate(tau=0.2 - 1e-8).decide(scores)["b"] == NONE


def test_gate_ignores_scores_always_or_never():
    scores = {"a": {"A": 1.0, "B": 0.0}, "b": {"A": 0.0, "B": 1.0}}
    assert Gate("always").decide(scores) == {"a": BOTH, "b": BOTH}
    assert Gate("never").decide(scores) == {"a": NONE, "b": NONE}


def test_domain_selective_lets_an_incognizant_tutor_where_it_is_above_its_peer():
    scores = {"a": {"A": 1.0, "B": 0.5}, "b": {"A": 0.9, "B": 1.0}}  # gaps 0.5 and 0.1
    assert Gate("domain-selective").decide(scores) == {"a": frozenset({"A"}), "b": BOTH}


def test_domain_selective_does_not_take_a_tie():
    scores = {"a": {"A": 0.5, "B": 0.1}, "b": {"A": 0.5, "B": 1.0}}
    assert Gate("domain-selective").decide(scores)["a"] == NONE


def test_one_student_alone_has_no_gap():
    assert cognizance_gaps({"a": {"A": 0.3, "B": 0.0}}) == {"a": 0.0}
    assert Gate("never").decide({"a": {"A": 0.3}}) == {"a": NONE}


@pytest.mark.parametrize("tau", [-0.1, float("nan"), float("inf")])
def test_tau_must_be_finite_and_not_negative(tau):
    with pytest.raises(ValueError, match=r"tau .* is not a finite number of at least 0: use"):
        Gate(tau=tau)


def test_unknown_strategy_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'sometimes' is unknown: use cognizance, always, never, domain-selective"):
        Gate("sometimes")  # type: ignore[arg-type]


def test_scores_must_cover_the_same_domains_and_be_finite():
    with pytest.raises(ValueError, match=r"'b' has no score on B.*'b' has a score .* A nan: score every student"):
        cognizance_gaps({"a": {"A": 0.1, "B": 0.2}, "b": {"A": float("nan")}})
    with pytest.raises(ValueError, match="negative"):
        cognizance_gaps({"a": {"A": -0.1}})
