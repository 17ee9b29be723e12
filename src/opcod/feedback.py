"""How feedback is given: the tutor's prompt, sanitizing, anchoring (section 1, How feedback is given)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from opcod.data.questions import Question
from opcod.prompts import Message, format_question
from opcod.sanitizing import sanitized

GENERIC_WORDS = frozenset(
    {"problem", "question", "answer", "value", "calculation", "formula", "student", "peer", "specialist"}
)
STOP_WORDS = frozenset({"a", "an", "the", "of", "in", "on", "at", "to", "for", "with", "by", "and", "or", "is"})

_CONCEPT = re.compile(r"<concept>((?:(?!</?concept>).)*)</concept>", re.IGNORECASE | re.DOTALL)
_CONCEPT_MARK = re.compile(r"</?concept>", re.IGNORECASE)
_WORD = re.compile(r"\w+(?:'\w+)*")

_ANCHORED = (
    "You are a specialist in TUTOR. Your peer, a specialist in PEER, responds to a question. "
    "Give two things.\n"
    "First, inside <concept></concept>, one key term of 1-3 words copied exactly from the question. Not a "
    "generic word: problem, question, answer, value, calculation, formula, student, peer, specialist.\n"
    "Then 3-5 sentences, 80 words at most, on the TUTOR side of the peer's reasoning: what is right, wrong "
    "or missing, citing the peer's steps. Do not solve the question and do not name the answer or its letter."
)
_ANCHORED_REMINDER = "Write the <concept></concept> term, then your feedback."
_PLAIN = (
    "You are an expert. Your peer responds to a question. Give short, constructive feedback on the response. "
    "Do not reveal the answer."
)
_PLAIN_REMINDER = "Write your feedback."


class Outcome(StrEnum):
    """What became of one feedback; only a `match` is kept."""

    MATCH = "match"
    NO_CONCEPT_TAG = "no_concept_tag"
    EMPTY = "empty"
    ALL_GENERIC = "all_generic"
    NO_MATCH = "no_match"
    FB_NONE = "fb_none"


@dataclass(frozen=True)
class Feedback:
    """One feedback f on one response.

    Args:
        raw: As the tutor wrote it; None if it was not asked.
        text: What the self-teacher is shown of it, or None if it is dropped.
        outcome: Why it is kept or dropped.
        word: The concept's word that stands in the question; None unless it is anchored.
        tokens: How many the tutor wrote.
        finished: Whether it ended by itself rather than by its length.
        found: What sanitizing finds in it, and takes out if it is sanitized, see `opcod.sanitizing.Sanitized`.
    """

    raw: str | None
    text: str | None
    outcome: Outcome
    word: str | None = None
    tokens: int = 0
    finished: bool = True
    found: frozenset[str] = frozenset()

    @property
    def log(self) -> str:
        """The outcome as it is logged: `match:amplitude`, `no_match`, ..."""
        return self.outcome if self.word is None else f"{self.outcome}:{self.word}"


def judge(raw: str | None, question: Question, *, anchored: bool) -> Feedback:
    """Decide what is kept of a tutor's feedback.

    Args:
        raw: The tutor's text, or None if it wrote none.
        question: The question it is about; a concept may stand in its text or in its options.
        anchored: Sanitize and anchor it. Without (the ablation) all of it is kept, as a `match`.
    """
    clean = sanitized(raw or "", question.options)
    if not anchored:
        text = (raw or "").strip() or None
        return Feedback(raw, text, Outcome.FB_NONE if text is None else Outcome.MATCH, found=clean.found)
    about = "\n".join([question.text, *question.options])
    kept, outcome, word = _anchored(clean.text, about)
    return Feedback(raw, kept, outcome, word, found=clean.found)


def sanitize(text: str, options: Sequence[str] = ()) -> str:
    """Remove explicit answer reveals from a tutor's feedback.

    Boxed and bold option letters, <answer></answer> pairs and phrases that call an option the answer go, such as
    "final answer: B", "the second option is correct" and "la respuesta es B", in whatever letters they are written;
    numeric boxes, other bold words and ordinary mentions of an option stay. Orders to the reader, marks of a chat's
    turns, endless repetition, control characters, and what is longer than any feedback go as well.

    Args:
        text: As the tutor wrote it.
        options: The texts of the question's options.
    """
    return sanitized(text, options).text


def anchor(text: str | None, question: str) -> tuple[str | None, Outcome]:
    """Keep feedback whose concept stands in the question, without its tag.

    The first complete <concept></concept> pair counts. At least one of its words that is neither generic nor
    a stop word must stand in `question` as a whole word, in any case; there is no stemming.

    Args:
        text: Sanitized feedback, or None if there is none.
        question: The question's text with its options.

    Returns:
        The feedback without the tag, or None if it is dropped; and the outcome.
    """
    kept, outcome, _ = _anchored(text, question)
    return kept, outcome


def _anchored(text: str | None, question: str) -> tuple[str | None, Outcome, str | None]:
    """What `anchor` returns, and the first specific word of the concept that stands in the question."""
    if text is None or not text.strip():
        return None, Outcome.FB_NONE, None
    tag = _CONCEPT.search(text)
    if tag is None:
        return None, Outcome.NO_CONCEPT_TAG, None
    if not (concept := _words(tag[1])):
        return None, Outcome.EMPTY, None
    rest = text[: tag.start()].rstrip() + " " + text[tag.end() :].lstrip()
    while _CONCEPT_MARK.search(rest):  # a mark may form out of the pieces around another
        rest = _CONCEPT_MARK.sub("", rest)
    rest = rest.strip()
    if not _words(rest):
        return None, Outcome.FB_NONE, None
    if not (specific := [word for word in concept if word not in GENERIC_WORDS | STOP_WORDS]):
        return None, Outcome.ALL_GENERIC, None
    stands = set(_words(question))
    word = next((word for word in specific if word in stands), None)
    if word is None:
        return None, Outcome.NO_MATCH, None
    return rest, Outcome.MATCH, word


def tutor_messages(
    question: Question, response: str, *, tutor_domain: str, peer_domain: str, anchored: bool
) -> list[Message]:
    """The tutor's prompt: how to give feedback, the question with its options, the peer's response.

    The key is not among them. All that depends on the response stands last, so that the prompts of one
    question share their beginning.

    Args:
        question: x.
        response: The peer's response to x, right or wrong.
        tutor_domain: The domain in which the tutor is strong.
        peer_domain: The domain in which the peer is strong.
        anchored: Ask for a concept and for the tutor's own side; otherwise (the ablation) for short feedback.
    """
    ask, reminder = (_ANCHORED, _ANCHORED_REMINDER) if anchored else (_PLAIN, _PLAIN_REMINDER)
    system = ask.replace("TUTOR", tutor_domain).replace("PEER", peer_domain)
    parts = [format_question(question), "The peer's response:\n" + response.strip(), reminder]
    return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)}]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold().replace("’", "'"))
