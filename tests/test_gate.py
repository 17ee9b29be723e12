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


# Three students. Of the best, 0.8 and 0.5, a lacks 0.1 / 0.5, b 0.2 / 0.8, and c 0.08 / 0.8 + 0.05 / 0.5.
TRIO = {"a": {"A": 0.8, "B": 0.4}, "b": {"A": 0.6, "B": 0.5}, "c": {"A": 0.72, "B": 0.45}}
# On three domains: the best are 0.8 in each; a lacks (0.2 + 0.2) / 0.8, b (0.1 + 0.1) / 0.8 and c 0.16 / 0.8.
WIDE = {
    "a": {"A": 0.8, "B": 0.6, "C": 0.6},
    "b": {"A": 0.7, "B": 0.8, "C": 0.7},
    "c": {"A": 0.64, "B": 0.8, "C": 0.8},
}
ALL = frozenset({"A", "B", "C"})


@pytest.mark.parametrize(
    ("scores", "gaps"),
    [
        (TRIO, {"a": 0.2, "b": 0.25, "c": 0.2}),
        (WIDE, {"a": 0.5, "b": 0.25, "c": 0.2}),
        ({"a": WIDE["a"], "b": WIDE["b"]}, {"a": 0.25 + 0.1 / 0.7, "b": 0.125}),  # without c the best in C is 0.7
        (WIDE | {"d": {"A": 1.0, "B": 0.0, "C": 0.0}}, {"a": 0.7, "b": 0.425, "c": 0.36, "d": 2.0}),
    ],
    ids=["three on two domains", "three on three", "two on three", "four on three"],
)
def test_gaps_of_any_number_of_students_and_domains_by_hand(scores, gaps):
    assert cognizance_gaps(scores) == pytest.approx(gaps, abs=1e-12)


def test_each_of_three_students_is_cognizant_by_its_own_gap():
    assert Gate(tau=0.2).decide(TRIO) == {"a": BOTH, "b": NONE, "c": BOTH}
    assert Gate(tau=0.3).decide(WIDE) == {"a": NONE, "b": ALL, "c": ALL}


def test_a_tutees_tutors_are_its_cognizant_peers_the_nearest_first():
    gate = Gate(tau=0.3)
    assert list(gate.tutors("a", WIDE).items()) == [("c", ALL), ("b", ALL)]
    assert list(gate.tutors("b", WIDE).items()) == [("c", ALL), ("a", NONE)]
    assert list(gate.tutors("c", WIDE).items()) == [("b", ALL), ("a", NONE)]
    assert list(Gate(tau=0.1).tutors("a", WIDE).items()) == [("c", NONE), ("b", NONE)]
    assert list(Gate("never").tutors("b", WIDE).items()) == [("c", NONE), ("a", NONE)]
    assert list(Gate("always", tau=0.0).tutors("b", WIDE).items()) == [("c", ALL), ("a", ALL)]


def test_of_equal_gaps_the_order_of_the_students_counts_whatever_rounding_says():
    a, c = cognizance_gaps(TRIO)["a"], cognizance_gaps(TRIO)["c"]
    assert a != c
    assert abs(a - c) < 1e-12
    for order in (["a", "b", "c"], ["c", "b", "a"]):
        assert next(iter(Gate().tutors("b", {s: TRIO[s] for s in order}))) == order[0]


def test_domain_selective_lets_the_best_of_three_tutor_its_domain():
    gate = Gate("domain-selective", tau=0.1)  # nobody is cognizant; in B two are equally good
    assert gate.decide(WIDE) == {"a": frozenset({"A"}), "b": NONE, "c": frozenset({"C"})}
    assert list(gate.tutors("b", WIDE)) == ["c", "a"]
    assert list(gate.tutors("a", WIDE)) == ["c", "b"]
    assert list(gate.tutors("c", WIDE)) == ["a", "b"]  # a speaks, though b is nearer


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
