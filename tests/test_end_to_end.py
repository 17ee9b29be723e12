"""The whole method on a model of less than a million parameters, from its first letter to a better pair."""

import math

import pytest

from schooling import DOMAINS, codistil, school, specialist

SEEDS = (0, 1, 2)
LEARNING_RATE = 2e-3


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A base model and the adapters of its two specialists, both made from nothing."""
    folder = tmp_path_factory.mktemp("school")
    base = school(folder / "base", DOMAINS, seed=0)
    return base, {home: specialist(base, folder / home, DOMAINS, home=home, seed=0) for home in DOMAINS}


def run(pair, seed, lr):
    base, adapters = pair
    return codistil(base, adapters, seed=seed, lr=lr)


def mean(scores):
    """A student's accuracy over all domains, and its standard error."""
    values = list(scores.values())
    return sum(s["avg"] for s in values) / len(values), math.sqrt(sum(s["stderr"] ** 2 for s in values)) / len(values)


def rises(before, after):
    """Every student's accuracy rises beyond its standard error."""
    return all(mean(after[name])[0] - mean(before[name])[0] > mean(before[name])[1] for name in before)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_students_become_better(pair, seed):
    before, after, records = run(pair, seed, LEARNING_RATE)
    assert rises(before, after), (before, after)
    assert {record.tutor for record in records if record.spoken}, "nobody tutored"


def test_without_learning_nobody_becomes_better(pair):
    before, after, _ = run(pair, SEEDS[0], 0.0)
    assert before == after
    assert not rises(before, after)
