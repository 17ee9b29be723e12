import pytest

from opcod.pareto import improves, mutual

START = {"A": 0.5, "B": 0.4}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ({"A": 0.6, "B": 0.4}, True),
        ({"A": 0.6, "B": 0.5}, True),
        ({"A": 0.5, "B": 0.4}, False),
        ({"A": 0.9, "B": 0.39}, False),
        ({"A": 0.4, "B": 0.3}, False),
    ],
)
def test_improvement_is_nothing_below_and_something_above(after, expected):
    assert improves(START, after) is expected


def test_as_many_right_answers_to_other_questions_are_the_same_score():
    before, after = (1 / 10 + 2 / 10 + 3 / 10) / 3, (3 / 10 + 2 / 10 + 1 / 10) / 3
    assert before != after
    for one, other in ((before, after), (after, before)):
        assert not improves({"A": one, "B": 0.4}, {"A": other, "B": 0.4})
        assert improves({"A": one, "B": 0.4}, {"A": other, "B": 0.5})


def test_improvement_is_mutual_when_both_have_it():
    better, same = {"A": 0.6, "B": 0.4}, dict(START)
    before = {"a": START, "b": START}
    assert mutual(before, {"a": better, "b": better})
    assert not mutual(before, {"a": better, "b": same})


def test_improvement_over_three_domains_and_of_three_students():
    start = {"A": 0.5, "B": 0.4, "C": 0.3}
    better, worse = start | {"C": 0.4}, start | {"A": 0.9, "B": 0.9, "C": 0.29}
    assert improves(start, better)
    assert not improves(start, worse)
    before = {"a": start, "b": start, "c": start}
    assert mutual(before, dict.fromkeys("abc", better))
    assert not mutual(before, {"a": better, "b": better, "c": start})
    assert not mutual(before, {"a": better, "b": worse, "c": better})


def test_published_sdpo_loses_the_native_domain_and_opcod_improves_both():
    before = {"Mat": {"Mat": 65.1, "Phys": 48.1}, "Phys": {"Mat": 56.0, "Phys": 51.6}}
    sdpo = {"Mat": {"Mat": 62.2, "Phys": 52.3}, "Phys": {"Mat": 58.8, "Phys": 51.9}}
    opcod = {"Mat": {"Mat": 70.5, "Phys": 55.3}, "Phys": {"Mat": 66.1, "Phys": 54.3}}
    assert not mutual(before, sdpo)
    assert mutual(before, opcod)


def test_different_domains_or_students_cannot_be_compared():
    with pytest.raises(ValueError, match=r"domains A, B before with A, C after"):
        improves(START, {"A": 1.0, "C": 1.0})
    with pytest.raises(ValueError, match=r"students a before with b after"):
        mutual({"a": START}, {"b": START})
    with pytest.raises(ValueError, match=r"domains A, B before with A after"):
        mutual({"a": START, "b": START}, {"a": START, "b": {"A": 1.0}})
    with pytest.raises(ValueError, match="none before"):
        improves({}, {})
