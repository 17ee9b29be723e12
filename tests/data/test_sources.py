"""Sources: a development split to choose settings by, apart from all others."""

import pytest
from test_sciknoweval import PUBLISHED, lay_out, needs_published, raw

from opcod.data.datamodule import QuestionData
from opcod.data.jsonl import write_questions
from opcod.data.questions import Question, QuestionError
from opcod.data.sources import GeneratedScience, JsonQuestions, SciKnowEval
from opcod.data.splits import count_domains

DOMAINS = ["physics", "chemistry"]


def generated(tmp_path):
    return GeneratedScience(DOMAINS, levels=[1], train=6)


def from_files(tmp_path):
    def questions(kind, count):
        return [Question(f"{kind}-{d}-{i}", d, f"{kind} {d} {i}?", (), str(i)) for d in DOMAINS for i in range(count)]

    write_questions(tmp_path / "train.jsonl", questions("train", 9))
    write_questions(tmp_path / "test.jsonl", questions("test", 2))
    return JsonQuestions(DOMAINS, str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"))


@pytest.mark.parametrize("source", [generated, from_files])
def test_development_questions_change_no_other_split_but_train(source, tmp_path):
    made = source(tmp_path)
    without = made.splits(validation=3, test=2, seed=0)
    with_some = made.splits(validation=3, test=2, seed=0, development=2)
    assert without.development == []
    assert count_domains(with_some.development) == dict.fromkeys(DOMAINS, 2)
    assert with_some.validation == without.validation
    assert with_some.test == without.test
    assert {q.id for q in with_some.train} <= {q.id for q in without.train}  # `Splits` refuses what is shared


def test_few_test_questions_are_drawn_by_the_seed_and_not_by_their_order(tmp_path):
    questions = [Question(f"t{i}-{d}", d, f"What is {i} in {d}?", (), "1") for i in range(9) for d in DOMAINS]
    train = [Question(f"r{i}-{d}", d, f"Which {i} in {d}?", (), "1") for i in range(3) for d in DOMAINS]
    write_questions(tmp_path / "train.jsonl", train)

    def drawn(tests, seed):
        write_questions(tmp_path / "test.jsonl", tests)
        source = JsonQuestions(DOMAINS, str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl"))
        chosen = source.splits(validation=1, test=3, seed=seed).test
        assert count_domains(chosen) == dict.fromkeys(DOMAINS, 3)
        return {q.id for q in chosen}

    assert drawn(questions, 0) == drawn(questions[::-1], 0)
    assert len({frozenset(drawn(questions, seed)) for seed in range(4)}) > 1


def test_every_drop_is_said(tmp_path):
    """Of p0 to p9 the test holds 0, the validation file 0 and 1, and train 2 twice."""
    for name, numbers in {"train": [0, 1, 2, 2, 3], "validation": [0, 1, 4], "test": [0, 5]}.items():
        questions = [Question(f"{name}-{i}", "physics", f"What is {n}?", (), "1") for i, n in enumerate(numbers)]
        write_questions(tmp_path / f"{name}.jsonl", questions)
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test", "validation")}
    with pytest.warns(UserWarning, match="not all questions are taken") as caught:
        splits = JsonQuestions(["physics"], **files).splits(validation=3, test=None, seed=0)
    assert [str(w.message).partition(": ")[2] for w in caught] == [
        "1 of 2 physics test questions also stand in train (1 word for word); dropped from train (1 question). "
        "1 physics question stood in train before, options and all; dropped from train.",
        "1 of 3 physics validation questions also stand in train (1 word for word); dropped from train (1 question).",
        "1 of 2 physics test questions also stand in validation (1 word for word); "
        "dropped from validation (1 question).",
    ]
    assert [q.text for q in splits.train] == ["What is 2?", "What is 3?"]
    assert [q.text for q in splits.validation] == ["What is 1?", "What is 4?"]


def test_an_id_that_two_domains_share_is_refused(tmp_path):
    """The two would have the same draws."""
    for domain in DOMAINS:
        train = [raw(name, domain=domain, question=f"{domain} {name}?") for name in ("1", f"{domain}-2", f"{domain}-3")]
        lay_out(tmp_path, train, [raw(f"{domain}-4", domain=domain, question=f"{domain}?")], domain)
    source = SciKnowEval(DOMAINS, folder=str(tmp_path))
    with pytest.raises(QuestionError, match="ids used more than once: 1; give every question its own"):
        source.splits(validation=0, test=None, seed=0)


def test_where_nothing_is_dropped_nothing_is_said(tmp_path, recwarn):
    from_files(tmp_path).splits(validation=3, test=None, seed=0)
    assert not recwarn


@pytest.mark.parametrize(("development", "scored", "count"), [(0, "test", 4), (2, "development", 2)])
def test_where_there_are_development_questions_nobody_sees_the_test(development, scored, count):
    data = QuestionData(generated(None), batch_size=2, validation=3, test=4, development=development)
    data.setup("fit")
    assert data.scored == scored
    shown = [q for batch in data.test_dataloader() for q in batch]
    assert shown == getattr(data.splits, scored)
    assert count_domains(shown) == dict.fromkeys(DOMAINS, count)


def test_a_negative_number_of_development_questions_is_refused():
    with pytest.raises(ValueError, match="development is -1"):
        QuestionData(generated(None), development=-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_specialist_of_ones_own_questions_is_not_taught_what_its_pair_is_scored_on(seed, tmp_path):
    """Whichever seed the pair has: one specialist serves all of them."""
    source = from_files(tmp_path)
    splits = source.splits(validation=3, test=None, seed=seed, development=2)
    taught = source.to_solve("physics", seed=0, held_out=5)
    assert len(taught) == 4
    assert {q.id for q in taught}.isdisjoint(q.id for q in (*splits.validation, *splits.development, *splits.test))


@needs_published
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_specialist_is_not_taught_what_its_pair_is_scored_on(seed):
    """Whatever other domains stand beside it, and whether some of it is held out for development."""
    pair = SciKnowEval(["physics", "chemistry"], folder=str(PUBLISHED))
    splits = pair.splits(validation=20, test=None, seed=seed, development=10)
    taught = SciKnowEval(["physics", "chemistry", "materials"], folder=str(PUBLISHED)).to_solve(
        "physics", seed=0, held_out=30
    )
    scored = [q for q in (*splits.validation, *splits.development, *splits.test) if q.domain == "physics"]
    assert {q.id for q in taught}.isdisjoint(q.id for q in scored)
    assert len(taught) > 500


def test_families_of_no_domain_are_refused():
    with pytest.raises(QuestionError, match="families names phyiscs: generated science has physics, chemistry"):
        GeneratedScience(["physics"], families={"phyiscs": ["net_force"]})
