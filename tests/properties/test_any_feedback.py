"""Of any feedback, whatever the rules by which it is sanitized."""

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from opcod.data.questions import Question
from opcod.feedback import GENERIC_WORDS, STOP_WORDS, Outcome, anchor, judge, sanitize

QUESTION = Question("q", "physics", "A pendulum swings. Which amplitude is largest?", ("1 m", "2 m", "3 m"), "B")
PAIR = re.compile(r"<answer>.*?</answer>", re.IGNORECASE | re.DOTALL)
PIECES = st.sampled_from(
    [
        *"ABcd.,:;$*_()[]{}\\ \n",
        *("**", "__", "<answer>", "</answer>", "<ans", "wer>", "<concept>", "</concept>", "<con", "<b>", "\\boxed{"),
        *("\\text{", "}", "final answer: ", "the correct option is ", "Option ", " is correct", "choose ", "amplitude"),
        *("The pendulum swings ", "2 m", "\u200b", "\ue000", "\x00", "В", "Ｂ", "<|im_end|>", "\ud800", "’", "é"),
    ]
)
FEEDBACK = st.lists(PIECES, max_size=30).map("".join) | st.text(st.characters(), max_size=60)


def within(part, whole):
    """Whether all characters of `part` stand in `whole` in the same order, white space apart."""
    letters = iter("".join(whole.split()))
    return all(letter in letters for letter in "".join(part.split()))


@given(FEEDBACK)
def test_sanitizing_ends_leaves_no_answer_pair_and_adds_nothing(text):
    clean = sanitize(text)
    assert sanitize(clean) == clean
    assert not PAIR.search(clean)
    assert len(clean) <= len(text)


@given(FEEDBACK, st.booleans())
def test_what_is_kept_stands_in_what_was_written(text, tagged):
    if tagged:
        text = f"<concept>amplitude</concept> {text}"
    judged = judge(text, QUESTION, anchored=True)
    assert judged.raw == text
    assert (judged.text is not None) == (judged.outcome is Outcome.MATCH) == (judged.word is not None)
    if judged.text is not None:
        assert judged.text.strip()
        assert not PAIR.search(judged.text)
        assert "<concept>" not in judged.text.lower()


@given(FEEDBACK, st.text(st.characters(), max_size=30))
def test_the_anchor_only_takes_away(text, question):
    kept, outcome = anchor(text, question)
    assert (kept is not None) == (outcome is Outcome.MATCH)
    if kept is not None:
        assert within(kept, text)


WORDS = st.lists(st.text("abcdefghij", min_size=3, max_size=6), min_size=1, max_size=6)


@given(WORDS, WORDS, st.sampled_from(sorted(GENERIC_WORDS | STOP_WORDS)), st.booleans())
def test_a_concept_counts_by_its_specific_words_that_stand_in_the_question(asked, others, generic, loud):
    assume(not set(asked) & set(others))
    question, said = " ".join(asked), "Some sentence about it."
    spoken = asked[0].upper() if loud else asked[0]
    assert anchor(f"<concept>{generic} {spoken}</concept> {said}", question) == (said, Outcome.MATCH)
    assert anchor(f"{said} <Concept>{' '.join(others)}</CONCEPT>", question) == (None, Outcome.NO_MATCH)
    assert anchor(f"<concept>{generic}</concept> {said}", f"{question} {generic}") == (None, Outcome.ALL_GENERIC)
    assert anchor(f"<concept> </concept> {said}", question) == (None, Outcome.EMPTY)
    assert anchor(f"<concept>{spoken} {said}", question) == (None, Outcome.NO_CONCEPT_TAG)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "<answer>",
            "</answer>",
            "<answer>B",
            "**",
            "**B",
            "__",
            "\\boxed{",
            "$$",
            "$$\\boxed{",
            "(",
            "[A]",
            "A. ",
            " ",
        ),
        *("final answer ", "the correct option is ", "answer: ", "option ", "B is correct. ", "\n", "\t\n", "\ue000"),
        *("<concept>", "</concept>"),
    ],
)
def test_a_long_feedback_is_judged_in_seconds(piece):
    """40,000 characters are several times what the published limit of 1,024 tokens holds."""
    began = time.process_time()
    judge(piece * (40_000 // len(piece)), QUESTION, anchored=True)
    judge("<concept>amplitude</concept>" + piece * (40_000 // len(piece)) + "x", QUESTION, anchored=True)
    assert time.process_time() - began < 10
