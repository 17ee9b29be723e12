"""LessonData: which questions a specialist is taught."""

import pytest

from opcod.data.lesson_data import LessonData
from opcod.data.questions import QuestionError
from opcod.data.sources import GeneratedScience

SPECIALTIES = {"physics": ["waves", "ohm"], "materials": ["bond_type"]}


def families_taught(home, half_known=0):
    source = GeneratedScience(["physics", "materials"], levels=[1], train=10)
    data = LessonData(
        source, home, ["physics"], 60, other_lessons=60, half_known_lessons=half_known, specialties=SPECIALTIES
    )
    data.setup("fit")
    questions = [w.question for d in source.domains for w in source.worked(d, 60, seed=0)]
    told = "\n".join(lesson.messages[-1]["content"] for lesson in data.lessons)
    return {q.family for q in questions if q.text in told}


@pytest.mark.parametrize(
    ("home", "untaught"),
    [("physics", {"bond_type"}), ("materials", {"waves", "ohm"}), (None, {"waves", "ohm", "bond_type"})],
)
def test_specialties_are_taught_at_home_alone(home, untaught):
    specialties = {family for families in SPECIALTIES.values() for family in families}
    assert families_taught(home) & specialties == specialties - untaught


@pytest.mark.parametrize("home", ["physics", "materials"])
def test_others_specialties_can_be_taught_by_halves(home):
    assert families_taught(home, half_known=30) >= {family for families in SPECIALTIES.values() for family in families}


@pytest.mark.parametrize(("home", "specialties"), [("magic", {}), ("physics", {"magic": ["wands"]})])
def test_unknown_domains_are_refused(home, specialties):
    source = GeneratedScience(["physics"], levels=[1])
    with pytest.raises(QuestionError, match="unknown domain 'magic'"):
        LessonData(source, home, ["physics"], specialties=specialties)


def test_an_unknown_specialty_is_refused():
    data = LessonData(GeneratedScience(["physics"]), None, ["physics"], specialties={"physics": ["wands"]})
    with pytest.raises(QuestionError, match="physics has no families wands"):
        data.setup("fit")


def test_lessons_that_fill_no_batch_are_refused():
    source = GeneratedScience(["physics"], levels=[1], train=20)
    data = LessonData(source, "physics", ["physics"], home_lessons=8, other_lessons=0, batch_size=16, validation=1)
    data.setup("fit")
    with pytest.raises(QuestionError, match=r"8 lessons do not fill a step of 16: lower `data.batch_size`"):
        data.train_dataloader()
