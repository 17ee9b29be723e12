"""The sanitizer and the anchor: any text is feedback, and what is kept of it holds no answer pair and is no longer."""

import re

from opcod.data.questions import Question
from opcod.feedback import Outcome, anchor, judge, sanitize

QUESTION = Question("q", "physics", "A pendulum swings. Which amplitude is largest?", ("1 m", "2 m", "3 m"), "B")
PAIR = re.compile(r"<answer>.*?</answer>", re.IGNORECASE | re.DOTALL)
CONCEPT = "<concept>amplitude</concept>"


def examine(data: bytes) -> None:
    """The text as it is; from `=` on, behind a concept that stands in the question."""
    text = data.decode(errors="surrogateescape")
    if text.startswith("="):
        text = CONCEPT + text[1:]
    clean = sanitize(text)
    assert not PAIR.search(clean)
    assert sanitize(clean) == clean
    kept, outcome = anchor(clean, QUESTION.text)
    assert (kept is not None) == (outcome is Outcome.MATCH)
    judged = judge(text, QUESTION, anchored=True)
    assert judged.raw == text
    if judged.text is not None:
        assert judged.text.strip()
        assert "<concept>" not in judged.text.lower()
        assert not PAIR.search(judged.text)
