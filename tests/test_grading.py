import pytest

from opcod.data.questions import Question
from opcod.grading import Grade, extract_answer, extract_choice, extract_quantity, grade

LABELS = ("A", "B", "C", "D")
CHOICE = Question("q", "physics", "Which?", ("one", "two", "three", "four"), "B")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<reasoning>x</reasoning><answer>B</answer>", "B"),
        ("<answer>A</answer> no, <answer>\n B \n</answer>", "B"),
        ("<ANSWER>b</Answer>", "b"),
        ("<answer>A</answer> then <answer>B", "A"),
        ("<answer>A <answer>B</answer>", "B"),
        ("<answer>A</answer></answer>", "A"),
        ("<answer></answer>", ""),
        ("<answer>B", None),
        ("B</answer>", None),
        ("B", None),
        ("", None),
    ],
)
def test_last_complete_pair_counts(response, answer):
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("content", "choice"),
    [
        ("B", "B"),
        (" d ", "D"),
        ("E", None),
        ("B.", None),
        ("(B)", None),
        ("B: two", None),
        ("AB", None),
        ("", None),
    ],
)
def test_choice_is_the_letter_alone_in_either_case(content, choice):
    assert extract_choice(f"<answer>{content}</answer>", LABELS) == choice
    assert extract_choice(f"<answer>{content}</answer>", "ABCD") == choice


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("3", 3.0),
        ("-0.5", -0.5),
        ("+.25", 0.25),
        ("−4", -4.0),
        ("1,234,567.5", 1234567.5),
        ("1.2e3", 1200.0),
        ("1.2E-3", 0.0012),
        ("1.2 x 10^3", 1200.0),
        ("1.2 × 10³", 1200.0),
        ("1.2⋅10³", 1200.0),
        ("1.2 × 10⁻³ mol/L", 0.0012),
        ("$1.2 \\times 10^{3}$", 1200.0),
        ("-10^3", -1000.0),
        ("3.5 m/s^2", 3.5),
        ("3.5kg m²", 3.5),
        ("3 eV", 3.0),
        ("50%", 50.0),
        ("25 °C.", 25.0),
    ],
)
def test_number_is_read(content, number):
    read, _ = extract_quantity(f"<answer>{content}</answer>")
    assert read == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "three",
        "nan",
        "inf",
        "1e999",
        "3 or 4",
        "3 ± 1",
        "3/4",
        "12,5",
        "0,123",
        "x = 3",
        "5 x 10",
        "B",
        "--3",
        ".",
    ],
)
def test_what_is_not_one_finite_number_is_not_read(content):
    assert extract_quantity(f"<answer>{content}</answer>") is None


def test_choice_is_graded_against_the_key():
    assert grade("<answer>b</answer>", CHOICE) == Grade(correct=True, formatted=True, choice="B")
    assert grade("<answer>C</answer>", CHOICE) == Grade(correct=False, formatted=True, choice="C")
    assert grade("It is B. <answer>B", CHOICE) == Grade(correct=False, formatted=False, choice=None)


@pytest.mark.parametrize(("content", "correct"), [("99", True), ("101 m", True), ("98.9", False), ("-100", False)])
def test_number_is_graded_within_the_relative_tolerance(content, correct):
    question = Question("q", "physics", "How far?", (), "100", tolerance=0.01)
    assert grade(f"<answer>{content}</answer>", question).correct is correct


@pytest.mark.parametrize(("content", "correct"), [("50", True), ("150", True), ("49", False), ("151", False)])
def test_a_wide_tolerance_is_of_the_key_and_not_of_the_answer(content, correct):
    question = Question("q", "physics", "How far, about?", (), "100", tolerance=0.5)
    assert grade(f"<answer>{content}</answer>", question).correct is correct


@pytest.mark.parametrize(("key", "content"), [("1", "1.01"), ("0.1", "0.101"), ("300", "303"), ("7e-9", "7.07e-9")])
def test_rounding_takes_no_number_off_the_edge(key, content):
    assert grade(f"<answer>{content}</answer>", Question("q", "physics", "?", (), key, tolerance=0.01)).correct


def test_without_a_tolerance_long_numbers_are_told_apart():
    question = Question("q", "physics", "How many?", (), "1234567890123", tolerance=0)
    assert grade("<answer>1234567890123</answer>", question).correct
    assert not grade("<answer>1234567890124</answer>", question).correct


def test_absolute_tolerance_serves_a_key_of_zero():
    question = Question("q", "physics", "Net force?", (), "0", absolute_tolerance=0.05)
    assert grade("<answer>0.04 N</answer>", question).correct
    assert not grade("<answer>0.06 N</answer>", question).correct


@pytest.mark.parametrize(("content", "correct"), [("104", True), ("105", False), ("95", False)])
def test_of_both_tolerances_the_one_that_allows_more_counts_and_not_their_sum(content, correct):
    for tolerance, absolute in ((0.04, 1.0), (0.01, 4.0)):
        question = Question("q", "physics", "How far?", (), "100", tolerance=tolerance, absolute_tolerance=absolute)
        assert grade(f"<answer>{content}</answer>", question).correct is correct


@pytest.mark.parametrize(
    ("kind", "options", "answer"), [("choice", ("one", "two"), "B"), ("numeric", (), "3"), ("text", (), "iron")]
)
def test_without_a_key_nothing_is_right_and_all_that_is_readable_votes(kind, options, answer):
    question = Question("q", "physics", "What?", options, "", kind=kind, keyed=False)
    assert grade(f"<answer>{answer}</answer>", question) == Grade(correct=False, formatted=True, choice=answer)
    assert grade("What?", question) == Grade(correct=False, formatted=False, choice=None)


def test_unreadable_number_is_a_format_failure():
    question = Question("q", "physics", "How far?", (), "100")
    assert grade("<answer>far</answer>", question) == Grade(correct=False, formatted=False, choice=None)


def test_equal_numbers_cast_the_same_vote():
    question = Question("q", "physics", "How far?", (), "1200")
    votes = {grade(f"<answer>{c}</answer>", question).choice for c in ("1,200", "1.2e3 m", "1200.0")}
    assert len(votes) == 1


SPEED = Question("q", "physics", "How fast?", (), "10", unit="m/s")
METAL = Question("q", "chemistry", "Which metal?", (), "Iron", kind="text", accept=("Fe", "α iron"))
ENERGY = Question("q", "physics", "Which energy?", (), "\\frac{1}{2} m v^2", kind="expression")


@pytest.mark.parametrize(
    ("content", "correct", "vote"),
    [
        ("10", True, "10"),
        ("10.05", True, "10.1"),
        ("10 m/s", True, "10"),
        ("36 km/h", True, "10"),
        ("1 × 10³ cm/s", True, "10"),
        ("$10\\ \\text{m/s}$", True, "10"),
        ("10 \\mathrm{m\\,s^{-1}}", True, "10"),
        ("36", False, "36"),
        ("10 km/h", False, "2.78"),
        ("10 m", False, "10 m"),
        ("10 knotz", False, "10 knotz"),
        ("10 m/s upward", False, "10 m/s upward"),
        ("10 m/9**9**9", False, "10 m/9**9**9"),
    ],
)
def test_a_number_is_converted_to_the_unit_that_is_asked_for(content, correct, vote):
    assert grade(f"<answer>{content}</answer>", SPEED) == Grade(correct=correct, formatted=True, choice=vote)


def test_temperatures_are_compared_on_the_scale_that_is_asked_for():
    question = Question("q", "physics", "How warm?", (), "25", absolute_tolerance=0.1, unit="°C")
    for content in ("25", "25 °C", "25℃", "77℉", "25^\\circ C", "25^{\\circ}\\text{C}", "298.15 K", "77 °F"):
        assert grade(f"<answer>{content}</answer>", question).correct, content
    for content in ("25 K", "298.15", "25 C"):
        assert not grade(f"<answer>{content}</answer>", question).correct, content


def test_without_a_unit_in_the_question_no_unit_is_looked_at():
    question = Question("q", "physics", "How fast?", (), "10")
    assert grade("<answer>10 knotz</answer>", question).correct
    assert not grade("<answer>36 km/h</answer>", question).correct
    assert grade("<answer>25^\\circ C</answer>", question) == Grade(correct=False, formatted=False, choice=None)


@pytest.mark.parametrize(
    ("content", "correct", "vote"),
    [
        ("iron", True, "iron"),
        (" IRON. ", True, "iron"),
        ("ｉｒｏｎ", True, "iron"),
        ("FE", True, "iron"),
        ("α  Iron", True, "iron"),
        ("iron ore", False, "iron ore"),
        ("Iron\nore.", False, "iron ore"),
        ("steel", False, "steel"),
    ],
)
def test_a_text_is_right_whatever_its_case_spacing_and_typography(content, correct, vote):
    assert grade(f"<answer>{content}</answer>", METAL) == Grade(correct=correct, formatted=True, choice=vote)


@pytest.mark.parametrize("content", ["", " ", "."])
def test_no_text_is_a_format_failure(content):
    assert not grade(f"<answer>{content}</answer>", METAL).formatted


def test_a_power_in_a_text_keeps_its_meaning():
    question = Question("q", "physics", "How many?", (), "10² grains", kind="text")
    assert grade("<answer>10^2 grains</answer>", question).correct
    assert not grade("<answer>102 grains</answer>", question).correct


def test_an_expression_is_right_in_any_spelling():
    pytest.importorskip("math_verify")
    right = [grade(f"<answer>{c}</answer>", ENERGY) for c in ("m v^2/2", "$0.5\\,m v^{2}$", "0.5*m*v**2")]
    assert right == [Grade(correct=True, formatted=True, choice=ENERGY.answer)] * 3
    wrong = [grade(f"<answer>{c}</answer>", ENERGY) for c in ("m v^2", "v^2 m", "$v^{2}m$")]
    assert not any(g.correct for g in wrong)
    assert len({g.choice for g in wrong}) == 1
    assert grade("<answer>half of it (</answer>", ENERGY) == Grade(correct=False, formatted=False, choice=None)
