"""SciKnowEval from the published folder, where there is one, and from a stand-in for the hub."""

import json
import logging
from pathlib import Path

import datasets
import pytest

from opcod.data.questions import Question, QuestionError, content_key
from opcod.data.sciknoweval import load_sciknoweval
from opcod.data.splits import assert_disjoint, count_domains, drop_leaks

PUBLISHED = Path(__file__).parents[3] / "shared" / "sciknoweval"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="SciKnowEval is not in ../shared/sciknoweval beside the repository"
)
DOMAINS = ("chemistry", "materials", "physics")
RAW = {
    "id": "physics-train-1",
    "domain": "Physics",
    "question": "How fast?",
    "choices": {"text": ["1 m/s", "2 m/s", "3 m/s", "4 m/s"], "label": ["A", "B", "C", "D"]},
    "answerKey": "C",
    "type": "mcq-4-choices",
    "details": {"level": "L3"},
}


def raw(name="physics-train-1", **changes):
    return RAW | {"id": name} | changes


def choices(*texts, label=("A", "B", "C", "D")):
    return {"text": list(texts), "label": list(label)}


def lay_out(folder, train, test, domain="physics"):
    (folder / domain).mkdir()
    for split, rows in (("train", train), ("test", test)):
        (folder / domain / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def published():
    return load_sciknoweval(DOMAINS, folder=PUBLISHED)


@needs_published
def test_published_rows_are_all_there_but_six_of_physics(published):
    assert count_domains(published["train"]) == {"chemistry": 1890, "materials": 841, "physics": 720 - 6}
    assert count_domains(published["test"]) == {"chemistry": 210, "materials": 94, "physics": 80}
    assert all(len(question.options) == 4 for questions in published.values() for question in questions)


@needs_published
def test_the_six_unanswerable_rows_are_named(caplog):
    load_sciknoweval(["physics"], folder=PUBLISHED)
    (record,) = caplog.records
    named = {int(name.rpartition("-")[2]) for name in record.getMessage().partition("different: ")[2].split(", ")}
    assert named == {237, 256, 266, 321, 632, 691}


@needs_published
def test_published_leaks_are_found_and_dropped(published):
    clean, leaks = drop_leaks(published["train"], published["test"])
    assert leaks.verbatim == {"materials": 3, "physics": 7}
    # two more materials questions differ from train only in subscripts: CsNb3SBr7, KLi3Ca7Ti2Si12(O18F)2
    assert leaks.leaked == {"materials": 5, "physics": 7}
    assert leaks.held_out == {"chemistry": 210, "materials": 94, "physics": 80}
    assert "7 of 80 physics test questions also stand in train (7 word for word)" in str(leaks)
    with pytest.raises(QuestionError, match="'material-train-313' and test 'material-test-365' are the same"):
        assert_disjoint(train=published["train"], test=published["test"])
    assert_disjoint(train=clean, test=published["test"])


def test_a_row_becomes_a_question(tmp_path):
    splits = load_sciknoweval(["physics"], folder=lay_out(tmp_path, [raw("a")], [raw("b", question="Why?")]))
    options = ("1 m/s", "2 m/s", "3 m/s", "4 m/s")
    assert splits == {
        "train": [Question("a", "physics", "How fast?", options, "C")],
        "test": [Question("b", "physics", "Why?", options, "C")],
    }


@pytest.mark.parametrize("name", ["material", "materials"])
def test_materials_may_lie_in_either_folder(tmp_path, name):
    lay_out(tmp_path, [raw("a", domain="Material")], [raw("b", domain="Material")], domain=name)
    assert load_sciknoweval(["materials"], folder=tmp_path)["train"][0].domain == "materials"


def test_rows_with_equal_options_are_left_out_and_named(tmp_path, caplog):
    equal = raw("twice", choices=choices("1", "2", "1", "4"))
    splits = load_sciknoweval(["physics"], folder=lay_out(tmp_path, [raw("a"), equal], [raw("b")]))
    assert [question.id for question in splits["train"]] == ["a"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages[0].endswith("left out, as their options are not all different: twice")


def test_all_faults_of_all_files_stand_in_one_error(tmp_path):
    train = [
        raw("a", answerKey="E", domain="Biology"),
        raw("b", choices=choices("1", "2", "3")),
        raw("c", choices=choices("1", "2", "3", "4", label="1234")),
        raw("c", type="mcq-2-choices", details={}),
        raw("d", choices=None, question=""),
        raw("e", choices=choices("1", "1", "3", "4"), answerKey="E"),
    ]
    folder = lay_out(tmp_path, train, [raw("z", details={"level": "L1"})])
    with pytest.raises(QuestionError) as refused:
        load_sciknoweval(["physics"], folder=folder)
    first, last = folder / "physics" / "train.jsonl", folder / "physics" / "test.jsonl"
    assert str(refused.value).splitlines() == [
        f"{folder} was refused as a whole, 12 faults:",
        f"{last}:1: details.level: is 'L1', expected 'L3'",
        f"{first}:1: domain: 'Biology' in the folder of physics",
        f"{first}:1: answerKey: key 'E' is not among the labels A, B, C, D",
        f"{first}:2: choices.text: holds 3, expected 4",
        f"{first}:3: choices.label: is 1, 2, 3, 4, expected A, B, C, D",
        f"{first}:4: id: 'c' is already used in line 3",
        f"{first}:4: type: is 'mcq-2-choices', expected 'mcq-4-choices'",
        f"{first}:4: details.level: is missing",
        f"{first}:5: choices.text: is missing",
        f"{first}:5: choices.label: is missing",
        f"{first}:5: question: is empty",
        f"{first}:6: answerKey: key 'E' is not among the labels A, B, C, D",
        "Correct the lines named above, or take them out, and run again.",
    ]


def test_unknown_domain_and_missing_folder_say_what_is_expected(tmp_path):
    known = "biology, chemistry, materials, physics"
    with pytest.raises(QuestionError, match=f"'alchemy' given, expected some of {known}"):
        load_sciknoweval(["physics", "alchemy"], folder=tmp_path)
    with pytest.raises(QuestionError, match=f"none given, expected some of {known}"):
        load_sciknoweval([], folder=tmp_path)
    with pytest.raises(QuestionError, match=r"has no folder 'physics'; expected physics/train\.jsonl"):
        load_sciknoweval(["physics"], folder=tmp_path)


def hub_row(question, **changes):
    row = {name: value for name, value in RAW.items() if name != "id"}
    return row | {"question": question, "answer": "", "prompt": {"default": "Choose."}} | changes


def serve(monkeypatch, rows):
    """Let `datasets.load_dataset` return these rows; the returned list fills with its calls."""
    calls = []

    def load_dataset(path, **options):
        calls.append((path, options))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_hub_gives_l3_multiple_choice_of_the_wanted_domains(monkeypatch):
    rows = [
        hub_row("Biology?", domain="Biology"),
        hub_row("Level 1?", details={"level": "L1"}),
        hub_row("True?", type="true_or_false", choices=choices(label=())),
        hub_row("Physics?"),
        hub_row("Material?", domain="Material"),
    ]
    calls = serve(monkeypatch, rows)
    splits = load_sciknoweval(["physics", "materials"], folder=None, revision="v")
    found = {question.id: question.text for questions in splits.values() for question in questions}
    assert found == {"physics-4": "Physics?", "materials-5": "Material?"}
    assert calls == [("hicai-zju/SciKnowEval", {"split": "test", "revision": "v"})]


def test_hub_is_divided_by_content(monkeypatch):
    rows = [hub_row(f"What is {n}?") for n in range(400)]
    copies = [hub_row(f"Question: What is {n}", answerKey="A") for n in range(400)]
    serve(monkeypatch, rows + copies)
    splits = load_sciknoweval(["physics"], folder=None)
    assert_disjoint(**splits)
    assert len(splits["train"]) + len(splits["test"]) == 800
    # a tenth of 400 contents, give or take four standard errors of 6
    assert len({content_key(q) for q in splits["test"]}) == pytest.approx(40, abs=24)


def test_unusable_rows_of_the_hub_are_left_out_and_named(monkeypatch, caplog):
    rows = [
        hub_row("Good?"),
        hub_row("Twice?", choices=choices("1", "1", "2", "3")),
        hub_row("No key?", answerKey=""),
    ]
    serve(monkeypatch, rows)
    splits = load_sciknoweval(["physics"], folder=None)
    assert [q.id for q in splits["train"] + splits["test"]] == ["physics-1"]
    assert caplog.messages == [
        "hicai-zju/SciKnowEval: rows left out, as they cannot be used: 2 (options are not all different), "
        "3 (answerKey: key '' is not among the labels A, B, C, D)"
    ]


def test_hub_without_a_wanted_domain_is_refused(monkeypatch):
    serve(monkeypatch, [hub_row("Physics?")])
    with pytest.raises(QuestionError, match=r"no usable L3 question of type mcq-4-choices for chemistry, biology"):
        load_sciknoweval(["physics", "chemistry", "biology"], folder=None)


def test_without_network_the_error_says_which_command_fetches_it(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(QuestionError) as refused:
        load_sciknoweval(["physics"], folder=None, revision="abc")
    assert str(refused.value).splitlines() == [
        "hicai-zju/SciKnowEval is not in the cache and cannot be loaded from the hub "
        "(Couldn't reach the Hub). "
        'Where there is a network, this fetches it: python -c "import datasets; '
        "datasets.load_dataset('hicai-zju/SciKnowEval', split='test', revision='abc')\"",
        "Or give a folder that holds <domain>/train.jsonl and <domain>/test.jsonl.",
    ]
