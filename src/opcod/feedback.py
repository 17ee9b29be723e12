"""How feedback is given: the tutor's prompt, sanitizing, anchoring (section 1, How feedback is given)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from opcod.data.questions import Question
from opcod.prompts import Message, format_question

GENERIC_WORDS = frozenset(
    {"problem", "question", "answer", "value", "calculation", "formula", "student", "peer", "specialist"}
)
STOP_WORDS = frozenset({"a", "an", "the", "of", "in", "on", "at", "to", "for", "with", "by", "and", "or", "is"})

_CONCEPT = re.compile(r"<concept>((?:(?!</?concept>).)*)</concept>", re.IGNORECASE | re.DOTALL)
_CONCEPT_MARK = re.compile(r"</?concept>", re.IGNORECASE)
_WORD = re.compile(r"\w+(?:'\w+)*")

# How a tutor reveals the answer. A letter that is boxed or bold is first replaced by one private-use
# character, so that the phrases around it are recognised whatever its dress was.
_SET_LETTER = "\ue000"
_ANSWER_PAIR = re.compile(r"<answer>.*?</answer>|<answer>\s*\(?[A-Za-z]?\)?\s*$|</?answer>", re.IGNORECASE | re.DOTALL)
_PLAIN_LETTER = r"\(?\s*[A-Za-z]\s*\)?"
_NOUN = r"(?i:option|choice|answer|letter)"
_DRESSED_LETTER = re.compile(
    rf"""
    (?P<math> \$\$? | \\[(\[] )? \s*
    \\(?:f|framed)?box(?:ed)? \s* \{{ \s* (?P<font> \\(?:text|math)[a-z]* \s* \{{ \s* )?
        (?: {_NOUN} \s* )? {_PLAIN_LETTER} \s* (?: [.:)] [^{{}}]{{0,99}} )?
        (?(font) (?: \}} | $ ) ) \s* (?: \}} | $ )
    (?(math) \s* (?: \$\$? | \\[)\]] ) )
  | (?P<bold> \*{{2,3}} | __ ) \s* {_PLAIN_LETTER} \s* [.:]? \s* (?P=bold)
  | (?P<bolder> \*{{2,3}} | __ ) \s* (?: {_NOUN} \s+ )? {_PLAIN_LETTER} (?: [.:)] [^*_\n]{{0,99}} )?
        (?P=bolder) (?= \s* (?: [.,;!?] | $ ) )
  | <(?P<html>b|strong)> \s* {_PLAIN_LETTER} \s* [.:]? \s* </(?P=html)>
  | \\textbf \s* \{{ \s* {_PLAIN_LETTER} \s* [.:]? \s* \}}
    """,
    re.VERBOSE,
)
_LETTER = rf"""(?: {_SET_LETTER} | \(\s*[A-Za-z]\s*\) | \[\s*[A-Za-z]\s*\]
    | (?<!\w) [A-Z] (?! [\w'’+^/-] ) \)? | (?<!\w) [a-z] \)? (?= \s* (?: [.,;:!?] | $ ) ) )"""
_GAP = r"[\s*_:=,$]{0,9}"
_BE = r"""(?i: (?: is | was | (?:would|should|must|has\ to) \s+ be )
    (?: \s+ (?:clearly|indeed|then|thus|therefore|simply) )? )"""
_REVEAL = re.compile(
    rf"""
    (?: \*\* | __ )?
    (?:
        (?i: \b (?:so|thus|hence|therefore) ,? \s+ )? (?i: \b (?:the|my|your|its) \s+ )?
        (?: (?i: \b (?:final|correct|right|true|best) \s+ )+ {_NOUN} \b {_GAP} (?: {_BE} \b )?
          | (?i: \b the \s+ answer \b ) {_GAP} {_BE} \b
          | (?: ^ | (?<= [.!?]\s ) ) (?i: ans(?:wer)? ) \s* [*_]* [:=]
        )
        {_GAP} (?: {_NOUN} \b )? {_GAP} {_LETTER}
      | (?i: \b (?:you\s+)? (?:should|must|(?:need|have)\s+to) \s+ (?:choose|select|pick|answer) \b )
        {_GAP} (?: {_NOUN} \b )? {_GAP} {_LETTER}
      | (?: ^ | (?<= [.!?;:,]\s ) | (?<= \bso\s ) | (?<= \bthat\s ) | (?<= \bthink\s ) | (?<= \bbecause\s ) )
        (?: {_NOUN} \s+ )? {_LETTER} \s+ {_BE} \s+
        (?i: (?:the\s+)? (?:correct|right) \b (?: \s+ (?:one|{_NOUN}) )? )
        (?! \s+ (?:about|in|to|that|for|on|when|if|only|up|as)\b )
    )
    (?: \*\* | __ | \$ )? [.,;:!]?
    """,
    re.VERBOSE | re.MULTILINE,
)
_LEFT_OVER = re.compile(rf"(?: (?<=[.!?]) \s* | ^ \s* ) {_SET_LETTER} [.,;:!]? | \s* {_SET_LETTER}", re.VERBOSE)

_LONG_GAP = re.compile(r"\s{20,}")  # the patterns above take the square of its length

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
    """

    raw: str | None
    text: str | None
    outcome: Outcome
    word: str | None = None
    tokens: int = 0
    finished: bool = True

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
    if not anchored:
        text = (raw or "").strip() or None
        return Feedback(raw, text, Outcome.FB_NONE if text is None else Outcome.MATCH)
    about = "\n".join([question.text, *question.options])
    clean = sanitize(raw or "")
    kept, outcome = anchor(clean, about)
    return Feedback(raw, kept, outcome, _anchoring_word(clean, about) if kept is not None else None)


def sanitize(text: str) -> str:
    """Remove explicit answer reveals from a tutor's feedback.

    Boxed and bold option letters, <answer></answer> pairs and phrases such as "final answer: B", "the
    correct option is B" and "option B is correct" go; numeric boxes, other bold words and ordinary mentions
    of an option stay. Repeated until nothing more goes, so that no reveal forms around another.
    """
    while True:
        clean = _LONG_GAP.sub(_short_gap, text.replace(_SET_LETTER, " "))
        clean = _ANSWER_PAIR.sub(" ", clean)
        clean = _DRESSED_LETTER.sub(_SET_LETTER, clean)
        clean = _LEFT_OVER.sub("", _REVEAL.sub("", clean))
        clean = re.sub(r"[ \t]{2,}", " ", clean).strip()
        if clean == text:
            return clean
        text = clean


def _short_gap(gap: re.Match[str]) -> str:
    return "\n\n" if "\n" in gap[0] else " "


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
    if text is None or not text.strip():
        return None, Outcome.FB_NONE
    tag = _CONCEPT.search(text)
    if tag is None:
        return None, Outcome.NO_CONCEPT_TAG
    if not (concept := _words(tag[1])):
        return None, Outcome.EMPTY
    rest = text[: tag.start()].rstrip() + " " + text[tag.end() :].lstrip()
    while _CONCEPT_MARK.search(rest):  # a mark may form out of the pieces around another
        rest = _CONCEPT_MARK.sub("", rest)
    rest = rest.strip()
    if not _words(rest):
        return None, Outcome.FB_NONE
    if not _specific(concept):
        return None, Outcome.ALL_GENERIC
    if _anchoring_word(text, question) is None:
        return None, Outcome.NO_MATCH
    return rest, Outcome.MATCH


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


def _specific(words: list[str]) -> list[str]:
    return [word for word in words if word not in GENERIC_WORDS | STOP_WORDS]


def _anchoring_word(text: str, question: str) -> str | None:
    """The first specific word of the feedback's concept that stands in the question."""
    tag = _CONCEPT.search(text)
    stands = set(_words(question))
    return next((word for word in _specific(_words(tag[1])) if word in stands), None) if tag else None
