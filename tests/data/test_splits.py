"""No question stands in two splits, and what is drawn depends on contents and seed alone."""

import random

import pytest

from opcod.data.questions import Question, QuestionError, content_key
from opcod.data.splits import Leaks, assert_disjoint, drop_leaks, hold_out, split_of

# `printf 'What is 1' | sha256sum` starts with d425: 0xd425 / 0x10000 = 0.829, between 0.7 and 0.85
SPLITS_BY_HAND = [
    ("0", "train"),  # 212b: 0.130
    ("5", "train"),  # 9578: 0.584
    ("1", "validation"),  # d425: 0.829
    ("12", "test"),  # ee74: 0.931
    ("9", "test"),  # f9b1: 0.975
]


def ask(name, text=None, domain="physics", options=("1", "2")):
    return Question(name, domain, text or f"What is {name}?", options, "A")


def many(domain, count):
    return [ask(f"{domain}-{n}", domain=domain) for n in range(count)]


def ids(questions):
    return [q.id for q in questions]


def test_leaks_are_dropped_from_train_counted_and_said():
    train = [
        ask("t1", "Volume of CsNb₃?", "materials"),  # the same as h1 but for typography
        ask("t2", "Heat of water?"),  # the same as h2 to the letter
        ask("t3", "Heat of water?", options=("2", "7")),  # h2 again, with other options
        ask("t4", "Speed of light?"),
    ]
    held = [
        ask("h1", "Question: Volume of CsNb3?", "materials"),
        ask("h2", "Heat of water?"),
        ask("h3", "Mass of the sun?"),
    ]
    clean, leaks = drop_leaks(train, held[:1], held[1:])
    assert ids(clean) == ["t4"]
    assert leaks == Leaks(
        split="test",
        held_out={"materials": 1, "physics": 2},
        leaked={"materials": 1, "physics": 1},
        verbatim={"physics": 1},
        dropped={"materials": 1, "physics": 2},
        duplicates={},
    )
    assert str(leaks) == (
        "1 of 1 materials test questions also stand in train (0 word for word); "
        "dropped from train (1 question). "
        "1 of 2 physics test questions also stand in train (1 word for word); "
        "dropped from train (2 questions)."
    )


def test_duplicates_within_train_have_the_same_options_in_any_order():
    train = [
        ask("t1", "Heat?", options=("1", "2")),
        ask("t2", "Heat?", options=("2", "1")),
        ask("t3", "Heat?", options=("1", "3")),
    ]
    clean, leaks = drop_leaks(train, split="validation")
    assert ids(clean) == ["t1", "t3"]
    assert leaks.duplicates == {"physics": 1}
    assert str(leaks) == "1 physics question stood in train before, options and all; dropped from train."


def test_clean_train_stays_as_it_is():
    train = many("physics", 3)
    clean, leaks = drop_leaks(train, many("chemistry", 2))
    assert clean == train
    assert not leaks
    assert str(leaks) == "No test question stands in train, and none repeats there."


def test_hold_out_is_balanced_complete_and_disjoint():
    questions = many("physics", 20) + many("chemistry", 7)
    rest, held = hold_out(questions, 5, seed=1)
    assert [q.domain for q in held] == ["physics"] * 5 + ["chemistry"] * 5
    assert sorted(ids(rest + held)) == sorted(ids(questions))
    assert_disjoint(rest=rest, held=held)


def test_hold_out_depends_on_the_seed_and_not_on_the_order():
    questions = many("physics", 40)
    shuffled = random.Random(0).sample(questions, 40)
    held = ids(hold_out(questions, 10, seed=1)[1])
    assert sorted(ids(hold_out(shuffled, 10, seed=1)[1])) == sorted(held)
    assert ids(hold_out(questions, 10, seed=2)[1]) != held


@pytest.mark.parametrize("seed", range(5))
def test_all_copies_of_a_content_move_together(seed):
    questions = [ask(f"{n}{copy}", f"What is {n}?") for n in range(6) for copy in "ab"]
    rest, held = hold_out(questions, 4, seed)
    assert len(held) == 4
    assert len({content_key(q) for q in held}) == 2
    assert_disjoint(rest=rest, held=held)


def test_content_of_two_domains_is_not_held_out():
    questions = [
        *many("physics", 3),
        ask("x", "Shared?"),
        ask("y", "Shared?", "chemistry"),
        *many("chemistry", 3),
    ]
    for seed in range(10):
        assert not {"x", "y"} & set(ids(hold_out(questions, 2, seed)[1]))


def test_too_few_questions_name_each_domain_and_the_remedy():
    questions = many("physics", 3) + many("chemistry", 2) + many("biology", 4)
    with pytest.raises(QuestionError) as refused:
        hold_out(questions, 3, seed=0)
    assert str(refused.value) == (
        "cannot hold out 3 questions per domain: chemistry has 2 questions, expected more than 3; "
        "physics has 3 questions, expected more than 3 that stand in one domain only; "
        "hold out fewer or add questions"
    )
    with pytest.raises(QuestionError, match="0 questions to hold out per domain, expected at least 1"):
        hold_out(questions, 0, seed=0)


def test_split_of_shares_are_as_asked():
    splits = [split_of(ask(str(n))) for n in range(2000)]
    # a binomial share's standard error is at most 0.011 here: four of them
    assert splits.count("train") / 2000 == pytest.approx(0.70, abs=0.045)
    assert splits.count("validation") / 2000 == pytest.approx(0.15, abs=0.045)
    assert splits.count("test") / 2000 == pytest.approx(0.15, abs=0.045)


def test_split_of_goes_by_content():
    for n in range(50):
        one = ask("a", f"What is {n}?")
        other = ask("b", f"Question: What is {n}", "chemistry", ("2", "9"))
        assert split_of(one) == split_of(other)


@pytest.mark.parametrize(("name", "split"), SPLITS_BY_HAND)
def test_split_of_never_changes(name, split):
    assert split_of(ask(name)) == split


def test_split_of_takes_shares_only():
    assert split_of(ask("a"), {"train": 0.0, "test": 1.0}) == "test"
    for shares in ({"train": 0.5}, {"train": 1.5, "test": -0.5}):
        with pytest.raises(QuestionError, match="expected at least 0 each and 1 in sum"):
            split_of(ask("a"), shares)


def test_shared_contents_and_ids_are_named():
    train = [ask("t1", "Heat of water?"), ask("same", "One?")]
    test = [ask("e1", "Heat of water ?"), ask("same", "Another?")]
    with pytest.raises(QuestionError) as refused:
        assert_disjoint(train=train, validation=[ask("v1")], test=test)
    assert str(refused.value) == (
        "the splits train, validation, test share questions: train 't1' and test 'e1' are the same question; "
        "train and test both use the id 'same'; drop them from one split"
    )
