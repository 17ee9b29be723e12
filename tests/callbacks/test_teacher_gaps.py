import json

import lightning as L
import pytest
import torch
from rich.console import Console
from toy import ToyData, ToyRounds, trainer_of

from opcod.callbacks import TeacherGapTable
from opcod.callbacks.teacher_gaps import gap_table
from opcod.codistillation import CoDistillation, Student
from opcod.contexts import ContextSettings
from opcod.data.datamodule import QuestionData
from opcod.data.sources import GeneratedScience
from opcod.diagnosis import TeacherGap, teacher_gaps
from opcod.feedback import Feedback, Outcome
from opcod.matching import Matching
from opcod.models import BaseModel
from opcod.peers import Peer
from opcod.prompts import teacher_messages
from opcod.rollout import Sampling, sample
from tiny import LORA, stir


def pair_of(folder):
    sampling = Sampling(max_new_tokens=4)
    return CoDistillation(
        [Student("ann", "physics"), Student("ben", "chemistry")],
        base=BaseModel(str(folder), quantization="none", dtype="float32"),
        lora=LORA,
        anchored=False,
        feedback=sampling,
        evaluation=sampling,
        evaluation_samples=1,
    )


def validate(module, folder):
    data = QuestionData(GeneratedScience(["physics", "chemistry"], levels=[1], train=4), validation=3, test=2)
    callback = TeacherGapTable(samples=2)
    trainer = L.Trainer(
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.validate(module, data, verbose=False)


def test_validate_writes_and_prints_a_gap_for_every_student_domain_and_context(tiny_folder, tmp_path, capsys):
    validate(pair_of(tiny_folder), tmp_path)
    written = json.loads((tmp_path / "teacher_gaps.json").read_text())
    assert written.keys() == {"ann", "ben"}
    for domains in written.values():
        assert domains.keys() == {"physics", "chemistry"}
        for shown in domains.values():
            # A random model is never right, so there is no s; its peer's feedback is all kept.
            assert {name: gap["count"] for name, gap in shown.items()} == {
                "nothing": 6,
                "s": 0,
                "f": 6,
                "s and f": 0,
            }
            assert shown["s"]["teacher"] is None
            assert shown["f"]["teacher"] == shown["f"]["student"] == 0
    assert "the self-teacher against the student" in capsys.readouterr().out


def test_the_peer_as_it_is_gives_the_feedback(tiny_folder, tmp_path, monkeypatch):
    """A checkpoint holds the tutor as it was when the last round began."""
    module = pair_of(tiny_folder)
    module.configure_model()
    for peer in module.peers:
        stir(peer.base, peer.adapter("student"), seed=1)
    spoken = []

    def measured(module, questions, samples):
        spoken.extend((peer.parameters("tutor"), peer.parameters("student")) for peer in module.peers)
        return {}

    monkeypatch.setattr("opcod.callbacks.teacher_gaps.teacher_gaps", measured)
    validate(module, tmp_path)
    assert len(spoken) == 2
    assert all(torch.equal(one, other) for roles in spoken for one, other in zip(*roles, strict=True))


def test_a_gap_is_the_teacher_minus_the_student():
    assert TeacherGap(student=0.25, teacher=0.75, count=4).gap == 0.5


def test_the_table_shows_points_and_what_was_not_measured():
    gaps = {"ann": {"physics": {"nothing": TeacherGap(0.25, 0.2, 8), "s": TeacherGap(0.0, 0.0, 0)}}}
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(gap_table(gaps))
    lines = [[c.strip() for c in line.strip("│ ").split("│")] for line in console.export_text().splitlines()]
    assert ["ann", "physics", "nothing", "8", "25.0", "20.0", "-5.0"] in lines
    assert ["", "", "s", "0", "-", "-", "-"] in [["", "", *line] if line[0] == "s" else line for line in lines]


def test_the_self_teacher_is_shown_only_what_its_row_says(tiny_folder, monkeypatch):
    module = pair_of(tiny_folder)
    module.configure_model()
    seen = []

    def spy(chat, question, solution, feedback, *, limit):
        seen.append((solution is not None, feedback is not None))
        return real(chat, question, solution, feedback, limit=limit)

    import opcod.diagnosis as diagnosis

    real = diagnosis.fit_with
    monkeypatch.setattr(diagnosis, "fit_with", spy)
    questions = GeneratedScience(["physics"], levels=[1]).splits(validation=1, test=2, seed=0).test
    teacher_gaps(module, questions, samples=2)
    assert seen == [(False, False)] * 4 + [(False, True)] * 4 + [(False, False)] * 4 + [(False, True)] * 4


def test_the_self_teacher_is_shown_no_more_than_in_training(tiny_folder, monkeypatch):
    module = pair_of(tiny_folder)
    module.configure_model()
    (question, *_) = GeneratedScience(["physics"], levels=[1]).splits(validation=1, test=1, seed=0).test
    bare = len(module.chats["ann"].prompt(teacher_messages(question, None, None)))
    module.context = ContextSettings(limit=bare + 60)
    long = Feedback("raw", "Mind the units of all that is given. " * 50, Outcome.MATCH)
    monkeypatch.setattr(
        module, "give_feedback", lambda peer, tutor, groups, *given: [[long for _ in group] for group in groups]
    )
    asked = []

    def spy(base, requests, *given):
        asked.extend(len(request.prompt) for request in requests)
        return sample(base, requests, *given)

    monkeypatch.setattr("opcod.diagnosis.sample", spy)
    teacher_gaps(module, [question], samples=2)
    assert bare + 40 < max(asked) <= bare + 60


@pytest.mark.parametrize(("self_teacher", "role"), [("ema", "teacher"), ("live", "student"), ("frozen", "teacher")])
def test_the_self_teacher_is_the_one_of_training(self_teacher, role, tiny_folder, monkeypatch):
    module = pair_of(tiny_folder)
    module.matching = Matching(self_teacher=self_teacher)
    module.configure_model()
    roles = []

    def spy(peer, role):
        roles.append(role)
        return peer.base.sampling(peer.adapter(role))

    monkeypatch.setattr(Peer, "sampling", spy)
    questions = GeneratedScience(["physics"], levels=[1]).splits(validation=1, test=1, seed=0).test
    teacher_gaps(module, questions, samples=2)
    assert roles == ["student", "student", *["tutor", role, role] * 2]  # there is no s


def test_a_module_without_self_teachers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="ToyRounds has no self-teachers: take TeacherGapTable out"):
        trainer_of(tmp_path, TeacherGapTable()).validate(ToyRounds(), ToyData(), verbose=False)


def test_one_sample_is_too_few():
    with pytest.raises(ValueError, match="expected at least 2"):
        TeacherGapTable(samples=1)
