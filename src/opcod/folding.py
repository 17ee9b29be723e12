"""A text as a reader takes it, with the way back to how it was written.

Knows nothing about what is looked for in it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

SET = "\ue000"
"""Stands for one letter that is set apart by itself: boxed, bold, circled."""
STRUCK = "\ue001"
"""Stands for one letter that is struck through."""
BOLD = "\ue002"
"""Where bold text begins or ends."""
BOX = "\ue003"
"""Where a box begins."""

_LATIN = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеорсухіјѕԁһԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαινᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢꜱᎪᏴᏟᎠᎬ",
    "ABESIJKMHOPCTYXaeopcyxijsdhqwABEZHIKMNOPTYXoaivABCDEGHIJKLMNOPRTUVWYZSABCDE",
)
_ENCLOSED = ((0x24B6, 26), (0x24D0, 26), (0x1F130, 26), (0x1F150, 26), (0x1F170, 26), (0x1F1E6, 26))
_HIDDEN = {"Cf", "Cs", "Co", "Cn"}

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
_NOUN = r"(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter)"
_LETTER = r"\s{0,4}[(\[{]?\s{0,4}[A-Za-z]\s{0,4}[)\]}]?\s{0,4}[.:]?\s{0,4}"
_ONE = rf"\s{{0,4}}(?:{_NOUN}\s{{0,4}}:?\s{{0,4}})?{_LETTER}"
_FONT = r"\\(?:text|math|bold|operatorname|emph|underline|it|bf|rm|bm|sf|tt|mbox|hbox)[a-z]*"
_PASSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"~~{_ONE}~~|<(?P<tag>s|del|strike)>{_ONE}</(?P=tag)>"), STRUCK),
    (re.compile(rf"<(?P<tag>b|strong|mark|u|em|i)>{_ONE}</(?P=tag)>|\[{_ONE}\]\([^()\n]{{0,99}}\)"), SET),
    (re.compile(rf"\\(?:textbf|underline|emph)\s*\{{(?!\s{{0,4}}[a-z]\s{{0,4}}\}}){_ONE}\}}"), SET),
    (re.compile(r"\\(?:f|frame)?(?i:box)(?:ed)?\s*\{"), BOX),
    (re.compile(r"\*\*\*?|__|==|</?(?:b|strong|mark)>"), BOLD),
    (
        re.compile(
            rf"""
            \\textcolor\s*\{{[^{{}}]{{0,20}}\}} | {_FONT}\s*(?=\{{)
          | \\(?:displaystyle|bf|rm|it|left|right|quad)(?![A-Za-z])
          | \\(?:begin|end)\{{[a-z]{{1,12}}\*?\}} | \\[,;:!()\[\]] | \$
          | <!-- | --> | <(?!\s*/?\s*(?i:answer|final|choice|option|solution|key|result|concept|reasoning)\b)
            /?[A-Za-z][^<>]{{0,99}}>
          | (?<![\w\\])[_*](?=\w) | (?<=[\w.!?])[_*](?!\w) | ^[ \t]*(?:\#{{1,6}}|>)[ \t]* | `{{1,3}} | [┌┐└┘─│├┤]
            """,
            re.VERBOSE | re.MULTILINE,
        ),
        "",
    ),
    (re.compile(rf"{BOX}\s*\{{?{_ONE}(?:(?<=[.:)])[^{{}}\n]{{0,99}})?(?:\}}\}}?|$)"), SET),
    (
        re.compile(
            rf"{BOLD}{_LETTER}{BOLD}(?!\s+(?:is|are|denotes|stands|means|and|the|or)\s)"
            rf"|{BOLD}(?:{_ONE}|\s*(?:{_NOUN}\s*)?[A-Za-z][.:)][^{BOLD}\n]{{0,99}}){BOLD}(?=\s*(?:[.,;!?]|$))",
        ),
        SET,
    ),
    (re.compile(r"(?<=[A-Za-z])\{"), " "),
    (re.compile(r"[{}]"), ""),
    (re.compile(r"(?<=[A-Za-z])_(?=[A-Za-z])|(?<=[A-Za-z]{2})-(?=[A-Za-z])"), " "),
)
_SPACED = re.compile(r"(?<![^\W_])(?:[^\W\d_] ){3,}[^\W\d_](?![^\W_])")


@dataclass(frozen=True)
class Folded:
    """A text as it is read.

    Args:
        text: Look-alikes of Latin letters as these, entities decoded, accents, markup and what is not seen left out;
            single letters that are set apart as `SET`, struck ones as `STRUCK`.
        starts: Where each of its characters begins in the text as it was written.
        ends: Where it ends there.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def written(self, start: int, end: int, length: int) -> tuple[int, int]:
        """The part of the text as it was written, of `length` characters, with the markup next to it."""
        return (self.ends[start - 1] if start else 0), (self.starts[end] if end < len(self.text) else length)

    def replaced(self, spans: Sequence[tuple[int, int]], by: str) -> Folded:
        """With one character, or nothing, for every span."""
        if not spans:
            return self
        text: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for start, end in spans:
            text += (self.text[at:start], by)
            starts += self.starts[at:start]
            ends += self.ends[at:start]
            if by:
                starts.append(self.starts[start])
                ends.append(self.ends[end - 1])
            at = end
        text.append(self.text[at:])
        return Folded("".join(text), [*starts, *self.starts[at:]], [*ends, *self.ends[at:]])


def fold(text: str) -> Folded:
    """`text` as a reader takes it; in time that is linear in its length."""
    folded = _characters(text)
    for pattern, by in _PASSES:
        folded = folded.replaced([m.span() for m in pattern.finditer(folded.text) if m[0]], by)
    blanks = [(i, i + 1) for m in _SPACED.finditer(folded.text) for i in range(m.start() + 1, m.end(), 2)]
    return folded.replaced(blanks, "")


def without_hidden(text: str) -> str:
    """`text` without control characters and what else is not seen; joiners within other scripts stay."""
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for i, character in enumerate(text):
        kind = unicodedata.category(character)
        joins = character in "\u200c\u200d" and text[i - 1 : i] > "\u02ff" and text[i + 1 : i + 2] > "\u02ff"
        if joins or not (kind in _HIDDEN or (kind == "Cc" and character not in "\n\t")):
            kept.append(character)
    return "".join(kept)


def _characters(text: str) -> Folded:
    """Character by character, with entities decoded."""
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    entities = {match.start(): match for match in _ENTITY.finditer(text)}
    at = 0
    while at < len(text):
        entity = entities.get(at)
        end = entity.end() if entity else at + 1
        for character in html.unescape(entity[0]) if entity else text[at]:
            shown = character if " " <= character <= "~" else _shown(character)
            parts.append(shown)
            starts += [at] * len(shown)
            ends += [end] * len(shown)
        at = end
    return Folded("".join(parts), starts, ends)


@cache
def _shown(character: str) -> str:
    """What a character looks like, in Latin letters where it looks like one."""
    if any(first <= ord(character) < first + count for first, count in _ENCLOSED):
        return SET
    if character in "\n\t":
        return character
    plain = unicodedata.normalize("NFKD", character).translate(_LATIN)
    return "".join(c for c in plain if unicodedata.category(c) not in {*_HIDDEN, "Cc", "Mn", "Me"})
