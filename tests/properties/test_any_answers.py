"""Of any responses, numbers and units; what they come to is worked out here in another way."""

import math
import time
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opcod.data.questions import Question
from opcod.expressions import MAX_CHARACTERS, read_expression, same_expression
from opcod.grading import extract_answer, extract_choice, extract_quantity, grade
from opcod.units import convert, unit_fault

QUESTIONS = [
    Question("c", "physics", "Which?", ("1 m", "2 m", "3 m"), "B"),
    Question("n", "physics", "How far?", (), "12.5"),
    Question("u", "physics", "How far?", (), "12.5", unit="km/h"),
    Question("t", "physics", "Who?", (), "Curie", kind="text", accept=("Marie Curie",)),
]
ANY_TEXT = st.text(st.characters(), max_size=60)  # halves of surrogate pairs too
PROSE = ANY_TEXT.filter(lambda text: "<" not in text and ">" not in text)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNITS = {  # symbol -> (its value in SI's base units, exponents of metre, second and kilogram)
    "m": (Fraction(1), (1, 0, 0)),
    "km": (Fraction(1000), (1, 0, 0)),
    "cm": (Fraction(1, 100), (1, 0, 0)),
    "s": (Fraction(1), (0, 1, 0)),
    "min": (Fraction(60), (0, 1, 0)),
    "h": (Fraction(3600), (0, 1, 0)),
    "kg": (Fraction(1), (0, 0, 1)),
    "g": (Fraction(1, 1000), (0, 0, 1)),
    "N": (Fraction(1), (1, -2, 1)),
    "kJ": (Fraction(1000), (2, -2, 1)),
    "W": (Fraction(1), (2, -3, 1)),
}
PRODUCTS = st.lists(st.tuples(st.sampled_from(sorted(UNITS)), st.integers(-3, 3).filter(bool)), min_size=1, max_size=4)


@given(ANY_TEXT | ANY_TEXT.map(lambda text: f"<answer>{text}</answer>"), st.sampled_from(QUESTIONS))
def test_any_response_is_graded(response, question):
    given = grade(response, question)
    assert given.formatted == (given.choice is not None)
    assert given.formatted or not given.correct
    if given.formatted:
        assert extract_answer(response)


@given(PROSE, ANY_TEXT, st.sampled_from("ABCDabcdEz1"), st.sampled_from("ABCD"), st.sampled_from(["", " ", "\n\t"]))
def test_the_last_pair_decides_and_only_a_letter_alone(before, earlier, letter, key, space):
    response = f"<answer>{earlier}</answer>{before}<ANSWER>{space}{letter}{space}</Answer>{before}"
    assert extract_choice(response, "ABCD") == (letter.upper() if letter.upper() in "ABCD" else None)
    assert extract_choice(response.replace("</Answer>", "."), "ABCD") in (
        None,
        extract_choice(f"<answer>{earlier}</answer>", "ABCD"),
    )


@given(
    st.decimals(min_value=-1000, max_value=1000, places=4),
    st.integers(-30, 30),
    st.sampled_from(range(6)),
    st.booleans(),
)
def test_a_number_is_read_however_its_power_is_written(mantissa, power, way, minus_sign):
    written = [
        f"{mantissa}e{power}",
        f"{mantissa} x 10^{power}",
        f"{mantissa} × 10{str(power).translate(SUPERSCRIPTS)}",
        f"${mantissa} \\times 10^{{{power}}}$",
        f"{mantissa}\\cdot10^{power}.",
        f" {mantissa}E{power:+} ",
    ][way]
    if minus_sign:
        written = written.replace("-", "−")
    number, _ = extract_quantity(f"<answer>{written}</answer>")
    assert number == float(f"{mantissa}e{power}")


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "m", "km/h"]))
def test_a_number_is_read_with_separators_and_with_a_unit(number, unit):
    assert extract_quantity(f"<answer>{number:,} {unit}</answer>") == (number, unit)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 0.5), st.floats(-1, 1))
def test_a_number_within_its_tolerance_is_right_and_no_other(key, tolerance, off):
    answer = key * (1 + off)
    assume(math.isfinite(answer) and (off == 0 or abs(abs(off) - tolerance) > 1e-6 * max(abs(off), 1e-6)))
    assume(key == 0 or abs(key) > 1e-290)  # below, a relative error is lost to rounding
    asked = Question("n", "physics", "How far?", (), repr(key), tolerance=tolerance)
    assert grade(f"<answer>{answer!r}</answer>", asked).correct == (key == 0 or abs(off) <= tolerance)


@given(PRODUCTS, PRODUCTS, st.integers(-1000, 1000))
def test_a_product_of_units_is_converted_by_its_factors(unit, wanted, value):
    (factor, dimension), (other, others) = _measured(unit), _measured(wanted)
    converted = convert(float(value), _written(unit), _written(wanted))
    if dimension != others:
        assert converted is None
    else:
        assert converted == pytest.approx(float(value * factor / other), rel=1e-9)


def _measured(product):
    factor, dimension = Fraction(1), (0, 0, 0)
    for name, power in product:
        value, exponents = UNITS[name]
        factor *= value**power
        dimension = tuple(old + power * new for old, new in zip(dimension, exponents, strict=True))
    return factor, dimension


def _written(product):
    return " ".join(f"{name}^{power}" for name, power in product)


@given(ANY_TEXT | st.text("mskgNJ^*/()123- ", max_size=30))
def test_any_text_is_a_unit_that_can_be_asked_for_or_has_a_fault(text):
    converted = convert(2.0, text, "m")
    assert converted is None or math.isfinite(converted)
    if unit_fault(text) is None:
        assert convert(2.0, text, text) == pytest.approx(2.0)


@given(st.text(max_size=20).filter(lambda text: not text.strip(" .")) | st.just("1+" * MAX_CHARACTERS))
def test_nothing_and_far_too_much_are_no_expressions(text):
    assert read_expression(text) is None
    assert not same_expression("x", text)


@pytest.mark.parametrize(
    "piece",
    ["<answer>", "</answer>", "<answer>1</answer>", "<answer", "9", "1,000", "-", "10^", "{", "m ", "²", "\\times"],
)
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
def test_a_megabyte_is_graded_in_seconds(piece, question):
    began = time.process_time()
    grade(piece * (1_000_000 // len(piece)), question)
    grade(f"<answer>{piece * (1_000_000 // len(piece))}</answer>", question)
    assert time.process_time() - began < 10
