import json
from pathlib import Path

import pytest

from opcod.data.questions import Question
from opcod.feedback import Feedback, Outcome, anchor, judge, sanitize, tutor_messages

ORACLE = json.loads((Path(__file__).parent / "oracles" / "anchoring.json").read_text())
QUESTION = Question("q", "chemistry", "Find the molarity of {HCl}.", ("0.1 mol per litre", "burette"), "A")


def collapsed(text):
    return None if text is None else " ".join(text.split())


@pytest.mark.parametrize("case", ORACLE["anchor"], ids=lambda case: case["outcome"])
def test_anchor_agrees_with_the_oracle(case):
    kept, outcome = anchor(case["text"], case["question"])
    assert (collapsed(kept), outcome) == (case["kept"], case["outcome"])


@pytest.mark.parametrize("case", ORACLE["sanitize"], ids=lambda case: case["text"])
def test_sanitize_agrees_with_the_oracle(case):
    assert collapsed(sanitize(case["text"])) == case["expected"]


@pytest.mark.parametrize(
    "reveal",
    [
        "The answer is B.",
        "So the answer is B",
        "**Final Answer:** B",
        "**Final answer: B**",
        "Final answer:\n\n$\\boxed{\\text{B}}$",
        "The final answer is \\(\\boxed{B}\\).",
        "The correct choice would be option (b).",
        "The right answer is clearly B!",
        "Option B is correct.",
        "B is the right answer.",
        "You should choose option B.",
        "Answer: B",
        "\\textbf{B}",
        "<b>B</b>",
        "\\boxed{B",
        "\\boxed{B. 3.5 m}",
        "<answer>B",
        "<ANSWER>\n b </ANSWER>",
    ],
)
def test_no_explicit_reveal_survives(reveal):
    assert sanitize(reveal) == ""
    assert collapsed(sanitize("Check the units. " + reveal)) == "Check the units."


@pytest.mark.parametrize(
    "text",
    [
        "The correct answer is a vector.",
        "The correct answer is not B.",
        "Your option B drops a factor of 2.",
        "Option B is right about the units.",
        "**Option B** overestimates the density.",
        "The field \\mathbf{B} is missing; \\boxed{A = 3} and $\\boxed{3.52}$ are fine.",
        "The final answer: 3.52 g has the wrong unit.",
        "The right answer. A common slip follows.",
        "Use $\\frac{1}{2}$ {braces} and $x$ twice: $y$.",
        "",
    ],
)
def test_ordinary_text_survives(text):
    assert sanitize(text) == text


def test_nested_reveal_does_not_form_out_of_its_pieces():
    assert "<answer>" not in sanitize("<ans<answer>x</answer>wer>B</answer>")
    clean = sanitize("\\boxed{\\boxed{B}}")
    assert "\\boxed{B}" not in clean
    assert sanitize(clean) == clean


def test_first_complete_tag_counts():
    text = "<concept>zebra</concept> <concept>density</concept> Fine."
    assert anchor(text, "Find the density.") == (None, Outcome.NO_MATCH)
    assert anchor("<concept> <concept>density</concept> Fine.", "Find the density.") == (
        "Fine.",
        Outcome.MATCH,
    )


def test_empty_tag_is_empty_and_lonely_tag_is_none():
    assert anchor("<concept></concept>", "Find the density.") == (None, Outcome.EMPTY)
    for concept in ("zebra", "the answer"):  # whatever is wrong with the concept as well
        assert anchor(f"<concept>{concept}</concept> .", "Find the density.") == (None, Outcome.FB_NONE)


def test_no_stemming():
    assert anchor("<concept>densities</concept> Fine.", "Find the density.") == (None, Outcome.NO_MATCH)


def test_judge_sanitizes_then_anchors_and_records_the_word():
    raw = "<concept>The Molarity</concept> Step 2 is fine. The correct option is B."
    feedback = judge(raw, QUESTION, anchored=True)
    assert feedback == Feedback(raw, "Step 2 is fine.", Outcome.MATCH, "molarity", found=frozenset({"reveal"}))
    assert feedback.log == "match:molarity"


def test_concept_may_stand_in_the_options():
    assert judge("<concept>burette</concept> Fine.", QUESTION, anchored=True).outcome is Outcome.MATCH


def test_concept_may_not_be_the_key():
    question = Question("q", "chemistry", "Which metal rusts?", (), "iron", kind="text", accept=("ferrum",))
    for concept in ("iron", "ferrum"):
        feedback = judge(f"<concept>{concept}</concept> Fine.", question, anchored=True)
        assert (feedback.text, feedback.outcome) == (None, Outcome.NO_MATCH)


def test_feedback_that_only_reveals_is_none():
    feedback = judge("The answer is B.", QUESTION, anchored=True)
    assert (feedback.text, feedback.outcome, feedback.log) == (None, Outcome.FB_NONE, "fb_none")


def test_without_anchoring_all_is_kept():
    raw = "No tag here. The answer is B."
    assert judge(raw, QUESTION, anchored=False) == Feedback(raw, raw, Outcome.MATCH, found=frozenset({"reveal"}))
    assert judge("  ", QUESTION, anchored=False) == Feedback("  ", None, Outcome.FB_NONE)
    assert judge(None, QUESTION, anchored=False) == Feedback(None, None, Outcome.FB_NONE)


def test_tutor_is_told_domains_and_rules_and_sees_question_first():
    system, user = tutor_messages(
        QUESTION, "Step 1: {x}. PEER TUTOR", tutor_domain="physics", peer_domain="chemistry", anchored=True
    )
    for requirement in (
        "You are a specialist in physics. Your peer, a specialist in chemistry, responds",
        "on the physics side",
        "<concept></concept>",
        "1-3 words",
        "3-5 sentences",
        "80 words",
    ):
        assert requirement in system["content"]
    assert user["content"].startswith("Find the molarity of {HCl}.\n\nA. 0.1 mol per litre\nB. burette\n\n")
    assert "Step 1: {x}. PEER TUTOR" in user["content"]
    assert len((system["content"] + user["content"]).split()) < 150


def test_tutor_never_sees_the_key_or_the_worked_solution():
    prompts = [
        tutor_messages(
            Question("q", "physics", "Which?", ("one", "two"), key, solution="KEY " + key),
            "A response.",
            tutor_domain="physics",
            peer_domain="chemistry",
            anchored=True,
        )
        for key in "AB"
    ]
    assert prompts[0] == prompts[1]


def test_without_anchoring_the_tutor_is_asked_for_short_feedback_only():
    system, user = tutor_messages(QUESTION, "x", tutor_domain="physics", peer_domain="chemistry", anchored=False)
    assert "concept" not in system["content"] + user["content"]
    assert "short, constructive feedback" in system["content"]


def test_what_gives_an_options_text_away_is_taken_out_of_kept_feedback():
    raw = "<concept>molarity</concept> Check the volume. The correct answer is 0.1 mol per litre."
    assert judge(raw, QUESTION, anchored=True).text == "Check the volume."
