"""How many answer reveals `sanitize` takes out of tutors' feedback, and how much harmless feedback it leaves as it is.

    python tests/feedbacks/measure.py [development | set-aside] [--missed]

A revealing feedback is caught where nothing that tells the answer is left: its `tell`, the words that carry it, stands
in the sanitized text no more often than in the feedback without its `reveal`, the passage that gives it away. A
harmless one is kept where every word of it is left, in order.
"""

import html
import json
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from opcod.feedback import sanitize

FOLDER = Path(__file__).parent
LOOK_ALIKES = str.maketrans("АВСЕΑΒΕᴀᏟ", "ABCEABEAC")


def feedbacks(name: str, half: str) -> list[dict[str, str]]:
    """The feedbacks of one file, `revealing` or `harmless`, in one half."""
    rows = [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["half"] == half]


def plain(text: str) -> str:
    """A text as it is read: entities decoded, look-alikes of letters as letters, nothing that is not seen."""
    text = unicodedata.normalize("NFKC", html.unescape(text)).translate(LOOK_ALIKES)
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


def caught(row: dict[str, str], clean: str) -> bool:
    """Whether nothing of what tells the answer is left."""
    tell = plain(row["tell"])
    told = re.compile(rf"(?<![A-Za-z]){re.escape(tell)}(?![A-Za-z])" if len(tell) < 4 else re.escape(tell))
    outside = plain(row["text"].replace(row["reveal"], " ", 1))
    return len(told.findall(plain(clean))) <= len(told.findall(outside))


def kept(row: dict[str, str], clean: str) -> bool:
    """Whether the feedback is as it was, but for white space."""
    return clean.split() == row["text"].split()


def measure(half: str, clean: Callable[[str], str] = sanitize) -> dict[str, dict[str, list[tuple[bool, str]]]]:
    """For reveals and harmless ones, by clothing: whether each came out as it should, and its text."""
    found: dict[str, dict[str, list[tuple[bool, str]]]] = {}
    for name, judge in (("revealing", caught), ("harmless", kept)):
        by_clothing = defaultdict(list)
        for row in feedbacks(name, half):
            by_clothing[row["clothing"]].append((judge(row, clean(row["text"])), row["text"]))
        found[name] = dict(by_clothing)
    return found


def share(results: dict[str, list[tuple[bool, str]]]) -> tuple[int, int]:
    """How many came out as they should, of how many."""
    flat = [right for of_one in results.values() for right, _ in of_one]
    return sum(flat), len(flat)


if __name__ == "__main__":
    options = sys.argv[1:]
    for name, results in measure("set aside" if "set-aside" in options else "development").items():
        right, total = share(results)
        print(f"{name}: {'caught' if name == 'revealing' else 'kept'} {right} of {total}, {100 * right / total:.1f} %")
        for clothing, of_one in results.items():
            print(f"  {clothing:12} {sum(r for r, _ in of_one):3} of {len(of_one):3}")
            if "--missed" in options:
                for right, text in of_one:
                    if not right:
                        print("     ", repr(text), "->", repr(sanitize(text)))
