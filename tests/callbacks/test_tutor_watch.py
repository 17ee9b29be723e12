"""Tutors that are not to be trusted are named, in the run and in its report; honest ones are not."""

import json
import random
import shutil
import warnings

import lightning as L
import pytest
from toy import QUESTIONS

import opcod.codistillation
from adversaries import ADVERSARIES, Adversary
from feedbacks.measure import FOLDER
from opcod.callbacks import SampleTable, TutorWatch
from opcod.callbacks.tutor_watch import Tally, doubt_of_breaks, doubts
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.feedback import judge
from opcod.report.page import write_report
from opcod.report.runs import read_run
from test_codistillation import ANN, BEN, module_of


def found_in(texts):
    return "chemist", [sorted(judge(text, QUESTIONS[0], anchored=True).found) for text in texts]


def tally_of(found):
    tally = Tally()
    for kinds in found:
        tally.add(kinds)
    return tally


def test_a_share_above_its_limit_is_doubted_and_one_at_it_is_not():
    found = [{"reveal"}] * 2 + [set()] * 6
    assert doubts("ann", tally_of(found)) == {}
    told = doubts("ann", tally_of([*found, {"reveal"}]))
    assert list(told) == ["reveal"]
    assert told["reveal"].startswith("ann gives the answer away in 33 % of 9 feedbacks; read the exchanges")
    assert list(doubts("ann", tally_of([{"order"}, {"order"}, *found]))) == ["order"]
    assert doubts("ann", tally_of([{"reveal"}] * 7)) == {}, "too few to say anything"


def test_break_rates_are_doubted_by_the_lower_end_of_their_interval():
    rates = {"break/all": 0.3, "break/all/low": 0.12, "right/all": 40.0}
    assert doubt_of_breaks("ann", "ben", rates).startswith(
        "ann's feedback turned 30 % of 40 right responses of ben wrong"
    )
    assert doubt_of_breaks("ann", "ben", rates | {"break/all/low": 0.1}) is None
    assert doubt_of_breaks("ann", "ben", {}) is None


def test_a_leaking_tutor_is_named_once_and_again_not_after_a_resumption():
    watch = TutorWatch()
    assert watch.observe(*found_in(["<concept>it</concept> Look again."] * 4)) == []
    (told,) = watch.observe(*found_in(["<concept>it</concept> The answer is B."] * 4))
    assert told.startswith("chemist gives the answer away in 50 % of 8 feedbacks")
    assert watch.observe(*found_in(["The answer is B."] * 4)) == []
    other = TutorWatch()
    other.load_state_dict(watch.state_dict())
    assert other.observe(*found_in(["The answer is B."] * 4)) == []


def test_what_is_kept_does_not_grow_with_the_run():
    watch = TutorWatch()
    watch.observe("ann", [["reveal"], ["order", "reveal"], []])
    assert watch.state_dict()["found"] == {"ann": {"feedbacks": 3, "kinds": {"reveal": 2, "order": 1}}}
    watch.observe("ann", [[]] * 1000)
    assert watch.state_dict()["found"] == {"ann": {"feedbacks": 1003, "kinds": {"reveal": 2, "order": 1}}}


def test_honest_tutors_of_a_real_run_are_not_doubted(tmp_path):
    shutil.copy(FOLDER / "exchanges.jsonl", tmp_path / "samples.jsonl")
    run = read_run(tmp_path)
    assert len(run.exchanges) == 48
    assert run.doubts == []
    assert 'class="doubt"' not in write_report([tmp_path]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "said"), [("leaks", "gives the answer away"), ("orders", "gives orders to the reader")]
)
def test_an_adversarial_run_names_its_tutors(kind, said, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(opcod.codistillation, "write_feedback", Adversary(ADVERSARIES[kind]))
    data = QuestionData(
        GeneratedScience(["physics", "chemistry"], levels=[1], train=20), batch_size=2, steps=3, validation=2, test=2
    )
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[SampleTable(printed=0), TutorWatch()],
        logger=L.pytorch.loggers.CSVLogger(tmp_path, name="", version=0),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module_of(tiny_folder), data)
    named = {name for name in (ANN.name, BEN.name) for w in caught if str(w.message).startswith(f"{name} {said}")}
    assert named == {ANN.name, BEN.name}
    page = write_report([tmp_path / "version_0"]).read_text(encoding="utf-8")
    assert page.count('class="doubt"') >= 2
    assert said in page


def test_a_diagnosis_names_who_breaks_right_answers(tmp_path):
    rates = {
        f"{n}/{d}": 0.0
        for n in ("right", "break", "wrong", "rescue")
        for d in ("all", "easiest", "easy", "hard", "hardest")
    }
    rates |= {"right/all": 100.0, "break/all": 0.4, "break/all/low": 0.3}
    found = [{"tutor": "ann", "tutee": "ben", "gap": 0.0, "cognizant": True, "rates": {"all": rates}, "outcomes": {}}]
    (tmp_path / "diagnosis.json").write_text(json.dumps(found))
    (told,) = read_run(tmp_path).doubts
    assert told.startswith("ann's feedback turned 40 % of 100 right responses of ben wrong")


def test_a_liar_is_not_told_by_its_words():
    """What gives it away is its break rate, which is why that is measured."""
    worked = GeneratedScience(["physics"], levels=[1], train=40).worked("physics", 40, seed=0)
    lies = [ADVERSARIES["lies"](w.question, random.Random(i)) for i, w in enumerate(worked)]
    found = [judge(lie, w.question, anchored=True).found for lie, w in zip(lies, worked, strict=True)]
    assert doubts("ann", tally_of(found)) == {}
