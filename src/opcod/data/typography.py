"""One spelling for what is written in several: superscripts, compatibility characters, white space."""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")


def spell_powers(text: str) -> str:
    """`text` with every superscript number as a power: `10²` is `10^2`, not `102`; the digits are left to NFKC."""
    return _SUPERSCRIPT.sub(lambda number: "^" + number[0], text)


def visible(text: str) -> str:
    """`text` with whatever is no printable character written out (`\\x1b`), for a terminal to show and not to obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(text: str) -> str:
    """`text` in NFKC, with superscript numbers as powers, plain minus signs and single spaces."""
    text = unicodedata.normalize("NFKC", spell_powers(text)).replace("\N{MINUS SIGN}", "-")
    return " ".join(text.split())
