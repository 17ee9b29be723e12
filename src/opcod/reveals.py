"""Where a text gives an answer away: its words are sorted into kinds, and phrases are looked for among the kinds.

Which answer is right is not known here. So what counts is a phrase that calls an option the answer, in any of the
languages of the table, and not the mention of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from opcod.answer_words import KINDS, UNSPACED, UNSPACED_KINDS
from opcod.folding import BOLD, BOX, SET, STRUCK, fold

Span = tuple[int, int]

_WORD = rf"[{UNSPACED}]+|(?:(?![{UNSPACED}])[^\W\d_])+(?:['’][^\W\d_]+)?|\d(?:st|nd|rd|th)(?!\w)"
_UNIT = (
    r"(?:%|°\s?C|(?:[kMGmµμncd]?(?:N|J|Pa|W|V|A|Hz|g|m|s|L|l|mol|eV|bar|T|F|C|K|M|ohms?|Ω|h|min|rad)|atm|psi|u)"
    r"(?:[23²³]|\^-?\d)?(?!\w))"
)
_TOKEN = re.compile(
    rf"""
    (?P<D>{SET}) | (?P<struck>{STRUCK}) | (?P<tick>\[[xX✓✔]\]|[✅✓✔☑]) | (?P<line>[ \t]*\n\s*)
  | (?P<bracketed>[(\[]\s*(?:[A-Za-z]|i{{2,3}}|iv|vi{{0,3}}|I{{2,3}}|IV|VI{{0,3}})\s*[)\]])
  | (?P<quoted>(?<!\w)["'“”„‘«「{BOLD}][^"“”«»「」{BOLD}{BOX}\n]{{1,80}}?["'”“’»」{BOLD}](?!\w))
  | (?P<boxed>{BOX}\s*[^{BOX}{BOLD}\n.]{{2,60}})
  | (?P<figure>(?<!\w)[-+−]?\d(?:[\d.,]*\d)?(?:\s*(?:[×x*]|\\times)\s*10\^?[-−]?\d+|[eE][-+]?\d+)?
        (?P<unit>\s?{_UNIT}(?:\s?[/·*]\s?{_UNIT})*)?(?!\w))
  | (?P<word>{_WORD})
  | (?P<arrow>\.{{3,}}|:=|[-=]+>|→|⇒|<-+|[:=|]|(?<=\s)[-–](?=\s)|—|–) | (?P<hence>∴) | (?P<stop>[.!?。।؟]+)
  | (?P<comma>[,;、،()])  | (?P<hash>\#(?=\s?\d))
    """,
    re.VERBOSE,
)
_KIND_OF_GROUP = {
    "struck": "~",
    "tick": "+",
    "line": "r",
    "arrow": ":",
    "hence": "H",
    "stop": ".",
    "comma": ",",
    "hash": "#",
}
_LABELS = frozenset({"A", "R", "N", "f"})

# Kinds beside those of the table: D a letter set apart, b one in brackets or quotes, L a capital, c a small letter,
# Q a quotation, F a figure, u a single digit, w any other word; and punctuation: . , : r (a new line) + ~.
_END = r"(?=[.,:rC]|$)"
_OPEN = r"(?<![^.,:rnCHti+])"
_NAMED = r"(?:N[DbLMUucSY]|#[uU]|D|b|ON|OpU|[Of]N(?:pw)?|OU|NO|Nk?Q|Q)"
_OPTION = rf"(?:N?[DbLM]|N?#?[U]|(?:N#?|#)u|NY{_END}|N?[cS]{_END}|[Of][NU]|NO|N?xL(?:nx?L)?|UxO|Oxw?O|Nz|z|Nu?Sq?)"
_LAST = rf"(?:{_OPTION}|[OY]{_END}|cq|Sp)"
_ANSWER = r"(?:[Rf]{1,4}[ANU]+k?|[AN][Rf]{1,4})"
_SIDE = r"(?:,[^.,r]{1,9},)?"
_IS = r"(?:[me:,tr]|mp|Ep?|kp?|Pp)"
_PICKED = (
    rf"(?:N[DbLMUucS]|\#[uU]|ON|OU|NxL|D|b|Q{_END}|[LMcS](?=[.,:rC]|$|n(?!L)))"  # "choose A and B as axes" is none
)
PHRASES = {
    "the correct answer is B": rf"(?<![yf]){_ANSWER}{_SIDE}{_IS}{{0,5}}i?{_LAST}",
    "your final answer should be B": rf"y{_ANSWER}{_SIDE}{_IS}{{0,3}}m{_IS}{{0,3}}{_LAST}",
    "the answer to this one is B": rf"(?<!y)A[Ak]?[wpiUNy]{{0,4}}{_SIDE},?(?:E|:|k|mp?e)p?{_IS}{{0,4}}i?E?{_LAST}",
    "your answer should have been B": rf"yA{_IS}{{0,2}}me{_IS}{{0,2}}{_LAST}",
    "the letter is B": rf"(?<!y)N[Ywi]{{0,2}}Ep?[DbL]{_END}",
    "the only option that works is B": rf"oN[iKl]{{0,2}}E{_LAST}",
    "think of the second letter of the alphabet": r"ONpz",
    "the one you are looking for is B": rf"[UA]YE?P?wpE{_LAST}",
    "the answer you want is B": rf"[UA]YPp?E{_LAST}",
    "the sheet has B": rf"Am[DbL]{_END}",
    "you get B as the answer": rf"(?:{_OPTION}|[Fu])q[Rf]*A",
    "Answer: B": rf"{_OPEN}[RfAN]{{1,3}}k?(?:[:r]+|,)(?:iE)?(?:{_OPTION}|F){_END}",
    "Answer B": rf"{_OPEN}A[DbL](?=[.,r]|$)",
    "correct is B": rf"{_OPEN}R[E:]{{1,2}}{_OPTION}",
    "B is correct": rf"(?:{_NAMED}|{_OPEN}[LMSc]),?i?(?:E|me)o?(?:R[NUA]?|[Rf]*A)(?=[.,:rCnq]|$)",
    "B is the only option that fits": rf"(?:{_NAMED}|{_OPEN}[LM])(?:Eo[NU]|Eh)",
    "option B is the one": rf"N[DbLMUu]EU{_END}",
    "the third listed value is the right answer": r"Ow?vERA",
    "B it is": rf"(?:{_OPTION})iE{_END}",
    "it must be B": rf"i(?:E|Eep?e|mp?e|ki|k|kp)(?:{_OPTION}|O[NU]|Op[NU]){_END}",
    "which is option B": rf"CEN[DbL]{_END}",
    "you should have picked B": rf"(?:Ymp?[eh]?|m|{_OPEN})(?:[PAj]p?|Py?[ANwi]?p|Px[DbL]p){_PICKED}",
    "ich würde B nehmen": r"Ym[LDb]P",
    "trust me, B": rf"Pw,[DbL]{_END}",
    "you want the second one": r"YPp?(?:NxL|ON|OU|NO)",
    "hence B": rf"H[,:]?(?:D|b|L|ON|OU|N[DbLM]){_END}",
    "everything points to option B": rf"kp?N[DbLM]|kp?L{_END}",
    "my vote goes to B": r"AEpL",
    "that leaves B": rf"Kp?o?N?[DbL]{_END}|[DbL]K",
    "only B fits": r"oN?[DbL][Kl]",
    "rule out A, C and D": r"(?:G|V|Gw|Gme|Ge)p?N?[DbL](?:[,n]+N?[DbL]){2,12}",
    "A, C and D are wrong": r"[DbL](?:[,n]+[DbL]){2,12}m?(?:E|e)[EeT]*W",
    "A is wrong. C is wrong. D is wrong": r"(?:N?[DbL]EW[.,n]*){3,12}",
    "not A, not C, not D": r"(?:G[DbL][,n]*){3,12}",
    "the first, third and fourth options are wrong": r"O(?:[,n]+O){2,12}[NU]?EW",
    "every option but B": r"Tw?N?BN?[DbL]",
    "not A but B": r"G[DbL],?B[DbL]",
    "~~A~~ ~~C~~ B": r"(?:~,?){2,12}[DbL]",
    "[x] B": r"\+[,:]?[DbL]|[DbL],?\+",
    "the final answer is 42 N": rf"(?<![yf])(?:{_ANSWER}|A|Rv)[wpiUNy]{{0,3}}{_SIDE}{_IS}{{0,4}}"
    rf"(?:[E:r]|me)p?,?[Fu]{_END}",
    "the correct answer is 'steel'": rf"(?:{_ANSWER}|A|Rv){_SIDE}{_IS}{{0,4}}(?:[E:]|me)N?Q",
    "B": r"(?<![^.r])[Lb](?=r|$|\.(?:r|$))|D",
}
"""An example -> its pattern over kinds."""
_REVEALS = [re.compile(pattern) for pattern in PHRASES.values()]
_CLAUSE_MARKS = (". ", "! ", "? ", ", ", "; ", ": ", "\n", "> ", ") ", "—")
_FAR = 120  # characters
_TAG = r"(?:answer|final|choice|option|solution|key|result)"
_MARKED = re.compile(
    rf"<\s*{_TAG}\b[^<>]{{0,40}}>[^<>]{{0,200}}<\s*/\s*{_TAG}\b[^<>]{{0,40}}>"
    r"|<\s*answer\b[^<>]{0,40}>\s*\(?[A-Za-z]?\)?\s*$|<\s*/?\s*answer\b[^<>]{0,40}>"
    rf"|\[{_TAG}\][^\[\]\n]{{0,80}}\[/{_TAG}\]",
    re.IGNORECASE,
)


def find_reveals(text: str, options: Sequence[str] = ()) -> list[Span]:
    """Where a folded text calls an option or a figure the answer.

    Args:
        text: As `fold` has it.
        options: The texts of the question's options, as they are written; without them only quoted ones are known.

    Returns:
        Spans, each from the beginning of its clause; they may overlap.
    """
    found = find_answer_tags(text)
    kinds, spans = _sorted_words(text, tuple(options))
    for pattern in _REVEALS:
        for match in pattern.finditer(kinds):
            start, end = spans[match.start()][0], spans[match.end() - 1][1]
            found.append((start if match[0] == "D" else _clause_start(text, start), end))
    return found


def find_answer_tags(text: str) -> list[Span]:
    """Where a text, folded or as it was written, has an <answer></answer> pair, a part of one, or a tag like it."""
    return [match.span() for match in _MARKED.finditer(text)]


def _clause_start(text: str, at: int) -> int:
    """Where the clause begins that holds a place; that place itself where it would be far away."""
    before = max(text.rfind(mark, max(at - _FAR, 0), at) for mark in _CLAUSE_MARKS)
    if before < 0 and at > _FAR:
        return at
    start = before + 1
    while start < at and text[start] in " \t":
        start += 1
    return start


def _sorted_words(text: str, options: tuple[str, ...]) -> tuple[str, list[Span]]:
    """The kinds of a text's words and marks, one character each, and where they stand."""
    kinds: list[str] = []
    spans: list[Span] = []
    for kind, span in _tokens(text, options):
        kinds.append(kind)
        spans += [span] * len(kind)
    return "".join(kinds), spans


def _tokens(text: str, options: tuple[str, ...]) -> Iterator[tuple[str, Span]]:
    known = _option_pattern(options) if options else None
    at = 0
    while (match := _TOKEN.search(text, at)) is not None:
        if known is not None and (option := known.match(text, match.start())) is not None:
            yield "Q", option.span()
            at = option.end()
            continue
        at = match.end()
        group, token = str(match.lastgroup), match[0]
        if group == "D":
            yield "D", match.span()
        elif group == "quoted" or group == "boxed":
            kind = _kind_of_quoted(token.strip("\"'“”„‘’«»「」 " + BOLD + BOX), bold=token[0] in BOLD + BOX)
            if kind:
                yield kind, match.span()
            else:  # words like others
                at = match.start() + 1
        elif group == "bracketed":
            yield ("b" if len(token.strip("([)] ")) == 1 else "M"), match.span()
        elif group in {"figure", "unit"}:
            yield ("u" if re.fullmatch(r"[1-9]", token) else "F"), match.span()
            if text[at : at + 1] == BOLD:  # a bold line ends
                yield ".", match.span()
        elif group == "word":
            yield from _kinds_of_word(text, match.start(), match.end())
        elif group == "stop" and text[at : at + 1].isalnum():  # within a formula
            yield "w", match.span()
        else:
            yield _KIND_OF_GROUP[group], match.span()


def _kind_of_quoted(text: str, *, bold: bool) -> str:
    """Q, b for a letter; nothing where what is quoted is to be read like the text around it."""
    if re.fullmatch(r"[A-Za-z][.)]?", text):
        return "b"
    if bold and re.fullmatch(r"I{2,3}|IV|VI{0,3}|i{2,3}|iv", text):
        return "D"
    kinds = [_table().get(word.lower(), "w") for word in re.findall(_WORD, text)]
    told = {"A", "E", "P", "f"} if bold else set()
    return "" if not kinds or told.intersection(kinds) or _LABELS.issuperset(kinds) or ":" in text else "Q"


def _kinds_of_word(text: str, start: int, end: int) -> Iterator[tuple[str, Span]]:
    word = text[start:end]
    if end - start == 1 and re.fullmatch(r"[A-Za-zБГДΓΔ]", word):
        kind = _kind_of_letter(text, start)
        yield kind, (start, end)
    elif re.match(f"[{UNSPACED}]", word):
        at = start
        for match in _unspaced().finditer(word):
            if start + match.start() > at:
                yield "w", (at, start + match.start())
            yield _table()[match[0]], (start + match.start(), start + match.end())
            at = start + match.end()
        if at < end:
            yield "w", (at, end)
    else:
        yield _kinds_of_plain(word.lower().replace("’", "'")), (start, end)


def _kinds_of_plain(word: str) -> str:
    """The kind of a word, or of the two in one such as `answer's`."""
    if word in _table() or "'" not in word:
        return _table().get(word, "w")
    first, _, second = word.partition("'")
    if second in {"s", "ve"} and first in _table():
        return _table()[first] + ("E" if second == "s" else "e")
    return _table().get(second, "w")


def _kind_of_letter(text: str, at: int) -> str:
    """L for a capital that may be an option's, c for such a small letter, w where it stands in a formula."""
    letter, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 3]
    if before in {"'", "’", "^", "/", "+", "-", "=", "\\"} or re.match(r"['’^/+]\w|-\w| ?[=+×·]", after):
        return "w"
    if letter == "I":
        return "Y"
    if (
        letter == "A"
        and re.match(r" [a-z]{2}", text[at + 1 : at + 4])
        and not re.search(r"[a-z,] $", text[max(at - 2, 0) : at])
    ):
        word = re.match(r" (\w+)", text[at + 1 : at + 30])
        return "L" if word and _table().get(word[1].lower(), "w") not in {"w", "R"} else ""
    if letter.isupper():
        return "L"
    return _table().get(letter, "w" if letter == "i" else "c")


@cache
def _table() -> dict[str, str]:
    """Folded word -> kind; of a script with vowel signs, what stands before the first."""
    table: dict[str, str] = {}
    for kinds in (UNSPACED_KINDS, KINDS):
        for kind, words in kinds.items():
            for word in f"{words} {words.title()}".split():  # capitals fold to others than small letters
                table.setdefault(re.findall(_WORD, fold(word).text)[0].lower(), kind)
    return table


@cache
def _unspaced() -> re.Pattern[str]:
    words = [fold(word).text for words in UNSPACED_KINDS.values() for word in words.split()]
    return re.compile("|".join(sorted(map(re.escape, words), key=len, reverse=True)))


@cache
def _option_pattern(options: Iterable[str]) -> re.Pattern[str] | None:
    folded = [fold(option).text.strip().rstrip(".") for option in options]
    texts = sorted({option for option in folded if 2 <= len(option) <= 200}, key=len, reverse=True)
    parts = [r"\s+".join(map(re.escape, option.split())) for option in texts]
    return re.compile(rf"(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE) if parts else None
