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


def mean(tables, student):
    """A student's accuracy over all runs and domains, and its standard error."""
    values = [scores for table in tables for scores in table[student].values()]
    return sum(s["avg"] for s in values) / len(values), math.sqrt(sum(s["stderr"] ** 2 for s in values)) / len(values)


def rises(before, after):
    """Every student's accuracy rises beyond its standard error, over all runs."""
    means = {name: (mean(before, name), mean(after, name)) for name in before[0]}
    return all(higher - lower > stderr for (lower, stderr), (higher, _) in means.values())


def test_both_students_become_better(pair):
    """Over three seeds: a single run of so small a model gains two or three standard errors, and now and then none."""
    before, after, records = zip(*(run(pair, seed, LEARNING_RATE) for seed in SEEDS), strict=True)
    assert rises(before, after), (before, after)
    assert {record.tutor for steps in records for record in steps if record.spoken}, "nobody tutored"


def test_without_learning_nobody_becomes_better(pair):
    before, after, _ = run(pair, SEEDS[0], 0.0)
    assert before == after
    assert not rises([before], [after])
