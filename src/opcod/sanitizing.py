"""What is taken out of a tutor's feedback: answers given away, orders to the reader, repetition, what is not seen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from opcod.folding import fold, without_hidden
from opcod.reveals import Span, find_answer_tags, find_reveals

LONGEST = 20_000
"""Characters of a feedback that are looked at; what follows is cut off."""
_PASSES = 12

_ROLE = r"(?:system|user|assistant|human|developer|model|tool)"
_TURNS = re.compile(
    rf"<\|[^<>|\n]{{1,40}}\|>(?:[^<]{{0,2000}}<\|[^<>|\n]{{1,40}}\|>)?(?:\s{{0,9}}{_ROLE}\b)?|\[INST\][^\[]{{0,2000}}\[/INST\]|\[/?INST\]"
    rf"|<<SYS>>[^<]{{0,2000}}<</SYS>>|<</?SYS>>|<(?:start|end)_of_turn>(?:\s{{0,9}}{_ROLE}\b)?|</?reasoning>|</?s>"
    r"|^[ \t]{0,9}\#{2,6}\s{0,9}(?:instructions?|system|response|user|assistant)\b.{0,400}(?:\n(?!\n).{0,400})?",
    re.IGNORECASE | re.MULTILINE,
)
_TO_READER = r"(?:^|(?<=[.!?:;,\n]\s)|(?<=\n)|\b(?:please|must|now|and|just|should)\s)[\"'\s]{0,4}"
_ORDER = re.compile(
    rf"""
    {_TO_READER}(?:ignore|disregard|forget|override|bypass)\b[^.!?\n]{{0,50}}
        \b(?:instructions?|prompts?|questions?|options|rules|guidelines|everything|above|previous|told)\b
  | ^[ \t]{{0,9}}(?-i:SYSTEM|USER|ASSISTANT|HUMAN|Assistant|User|Human)\s*:
  | \byou\s+are\s+now\s+(?:a|an|the|in)\b | \bnew\s+(?:instructions?|task|rules)\s*: | \bfrom\s+now\s+on\b
  | \b(?:always|only)\s+(?:answer|output|respond|reply)s?\b(?:\s+with)?\s+\W?[A-Z]\b
  | \boutput\s+only\b | \bend\s+(?:every|each)\s+(?:response|answer)\b | \balways\s+outputs?\b
  | {_TO_READER}(?:do\s+not|don't|stop|skip)\s+(?:the\s+)?reason(?:ing)?\b(?!\s+(?:about|from))
  | \b(?:reveal|repeat|print|output|show)\s+(?:your|the)\s+(?:system\s+)?prompt\b | \bjump\s+to\s+the\s+end\b
  | {_TO_READER}ignor(?:ez|iere|iert|a|e|ad)\b[^.!?\n]{{0,50}}(?:instru|anweis|istruz)
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_SENTENCE_END = re.compile(r"[.!?。]+[\"')\]*]*(?=\s|$)|\n")
_REST = re.compile(
    r"[\"'”’\]*_$`|]*(?:(?:\s*[:)]\s*|\.\s+(?=[-−\d]))[^\n.!?;:]{1,60}(?=[.!?;\n]|$)|,?\s+(?:and\s+)?not\s+\W?[\w.]{1,12}(?=\W))?"
    r"[\"'”’)\]*_$`|]*[.,;:!?。，；]*[\"'”’*_$`]*"
)
_REPEATED = re.compile(
    r"(?<!\S)(?P<unit>(?=[^\n]{0,199}?\w)\S.{0,199}?)(?:\s{1,9}(?P=unit)){4,}(?!\S)|(?P<short>[^\s.=_*|-]\S{0,19}?)(?P=short){29,}",
    re.DOTALL,
)
"""The same words five times in a row, or the same characters thirty times."""


@dataclass(frozen=True)
class Sanitized:
    """A feedback after sanitizing.

    Args:
        text: What is left of it.
        found: What was in it and was taken out: `reveal`, `order`, `repetition`, `hidden` characters, what was too
            `long`.
    """

    text: str
    found: frozenset[str] = frozenset()


def sanitized(text: str, options: Sequence[str] = ()) -> Sanitized:
    """Take out of a feedback what a self-teacher must not be shown; in time that is linear in its length.

    Until nothing more goes, so that nothing forms around what was taken out. Where that does not come to an end
    soon, nothing is left of it.

    Args:
        text: As the tutor wrote it.
        options: The texts of the question's options, which may be called the answer without their letters.
    """
    found = {"long"} if len(text) > LONGEST else set()
    text = text[:LONGEST]
    for _ in range(_PASSES):
        clean = _once(text, options, found)
        if clean == text:
            return Sanitized(clean, frozenset(found))
        text = clean
    return Sanitized("", frozenset(found))


def _once(text: str, options: Sequence[str], found: set[str]) -> str:
    clean = without_hidden(text)
    if clean != text:
        found.add("hidden")
    for name, find in (("repetition", _repetitions), ("order", _orders)):
        if spans := find(clean):
            found.add(name)
            clean = _without(clean, spans)
    if spans := find_answer_tags(clean):  # folding may take a part of one for markup
        found.add("reveal")
        clean = _without(clean, spans)
    folded = fold(clean)
    if spans := [folded.written(*span, len(clean)) for span in find_reveals(folded.text, options)]:
        found.add("reveal")
        clean = _without(clean, [(start, _rest(clean, end)) for start, end in spans])
    return re.sub(r"[ \t]{2,}", " ", clean).strip()


def _repetitions(text: str) -> list[Span]:
    """All but the first of what is repeated."""
    return [
        (max(match.end("unit"), match.end("short")), match.end())
        for match in _REPEATED.finditer(text)
        if match["short"] or re.search(r"[^\W\d_]{3}", match["unit"])  # not 2 x 2 x 2
    ]


def _orders(text: str) -> list[Span]:
    """Marks of turns of a chat with what stands between them, and sentences that tell the reader what to do."""
    folded = fold(text)
    found = [match.span() for match in _TURNS.finditer(text)]
    for match in _ORDER.finditer(folded.text):
        start, end = _sentence(folded.text, *match.span())
        found.append(folded.written(start, end, len(text)))
    return found


def _sentence(text: str, start: int, end: int) -> Span:
    """The whole sentence around a part of it."""
    while text[start : start + 1].isspace():
        start += 1
    before = [match.end() for match in _SENTENCE_END.finditer(text, max(start - 400, 0), start)]
    after = _SENTENCE_END.search(text, end)
    return (before[-1] if before else max(start - 400, 0)), (after.end() if after else len(text))


def _rest(text: str, end: int) -> int:
    """Where what belongs to a removed phrase is over, too: the option's text behind its letter, and marks."""
    match = _REST.match(text, end)
    return match.end() if match else end


def _without(text: str, spans: Sequence[Span]) -> str:
    parts = []
    at = 0
    for start, end in sorted(spans):
        if end > max(start, at):
            parts.append(text[at : max(start, at)])
            at = end
    return " ".join([*parts, text[at:]])
