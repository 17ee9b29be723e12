"""The answer reader: any text is a response, and is graded."""

from opcod.data.questions import Question, QuestionError
from opcod.grading import extract_answer, grade
from opcod.units import convert, unit_fault

QUESTIONS = {
    "c": Question("c", "physics", "Which?", ("1 m", "2 m", "3 m"), "B"),
    "n": Question("n", "physics", "How far?", (), "12.5"),
    "u": Question("u", "physics", "How far?", (), "12.5", unit="km/h"),
    "d": Question("d", "physics", "How warm?", (), "25", unit="degC", absolute_tolerance=0.5),
    "t": Question("t", "physics", "Who?", (), "Curie", kind="text", accept=("Marie Curie",)),
}


def examine(data: bytes) -> None:
    """The first character says what is asked; the rest is the answer, with `w` a whole response, with `k` a unit."""
    text = data.decode(errors="surrogateescape")
    asked, said = text[:1], text[1:]
    if asked == "k":
        _unit(said)
    else:
        question = QUESTIONS.get(asked, QUESTIONS["u"])
        response = said if asked == "w" else f"<answer>{said}</answer>"
        given = grade(response, question)
        assert given.formatted == (given.choice is not None)
        assert given.formatted or not given.correct
        assert not given.formatted or extract_answer(response)


def _unit(unit: str) -> None:
    value = convert(1.0, unit, "m")
    assert value is None or value == value
    if unit_fault(unit) is None:
        assert convert(2.0, unit, unit) is not None
        Question("k", "physics", "How far?", (), "1", unit=unit)
        return
    try:
        Question("k", "physics", "How far?", (), "1", unit=unit)
    except QuestionError:
        return
    raise AssertionError(f"{unit!r} is a fault and was taken")
