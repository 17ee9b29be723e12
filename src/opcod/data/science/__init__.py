"""Generated science: questions from real constants, nothing to download, deterministic by seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from opcod.data.questions import QuestionError, content_key
from opcod.data.science import biology, chemistry, fiction, materials, physics
from opcod.data.science.common import Family
from opcod.data.science.worked import Attempted, WorkedQuestion, compose
from opcod.data.splits import split_of

__all__ = ["DOMAINS", "FICTION", "LEVELS", "Attempted", "WorkedQuestion", "generate"]

DOMAINS: dict[str, dict[str, Family]] = {
    "physics": physics.FAMILIES,
    "chemistry": chemistry.FAMILIES,
    "materials": materials.FAMILIES,
    "biology": biology.FAMILIES,
}
FICTION = "fiction"
"""The domain of made-up things, which `generate` knows as well; not of science, so not among the `DOMAINS`."""
LEVELS = (1, 2, 3)
_PATIENCE = 200  # draws in a row without a new question, after which a family counts as exhausted


def generate(
    domain: str,
    count: int,
    *,
    seed: int,
    split: str,
    levels: Sequence[int] = (1, 2),
    families: Collection[str] | None = None,
    without: Collection[str] = (),
) -> list[WorkedQuestion]:
    """Draw `count` distinct questions of one split, evenly from the families and levels.

    The split is a function of a question's content, so that splits never share one, whatever is drawn.

    Args:
        domain: `physics`, `chemistry`, `materials` or `biology`; or `fiction`.
        count: How many.
        seed: Another seed, another draw from the same families.
        split: `train`, `validation` or `test`.
        levels: Difficulties to draw from: 1 one step with small numbers, 2 larger or two steps, 3 decimals,
            conversions or three steps.
        families: Only these families; all by default.
        without: But none of these.

    Raises:
        QuestionError: If there is no such domain, level or family, or fewer than `count` distinct questions.
    """
    chosen = _families(domain, families, without)
    if (unknown := set(levels) - set(LEVELS)) or not levels:
        raise QuestionError(f"levels {unknown or 'are empty'}: expected some of {', '.join(map(str, LEVELS))}")
    slots = [(name, level) for name in chosen for level in levels]
    random.Random(f"{seed} {domain} {split}").shuffle(slots)  # a few questions must not be of the first families alone
    drawn: list[WorkedQuestion] = []
    seen: set[str] = set()
    tries = dict.fromkeys(slots, 0)
    while len(drawn) < count and slots:
        for slot in list(slots):
            if len(drawn) == count:
                break
            worked = _draw_new(domain, chosen, slot, tries, seed=seed, split=split, seen=seen)
            if worked is None:
                slots.remove(slot)
            else:
                drawn.append(worked)
    if len(drawn) < count:
        raise QuestionError(
            f"the {domain} families hold {len(drawn)} distinct {split} questions of the levels "
            f"{', '.join(map(str, levels))}, {count} were asked for: ask for fewer, or for more levels or families"
        )
    return drawn


def _draw_new(
    domain: str,
    families: dict[str, Family],
    slot: tuple[str, int],
    tries: dict[tuple[str, int], int],
    *,
    seed: int,
    split: str,
    seen: set[str],
) -> WorkedQuestion | None:
    """The next question of a family and level that is of this split and new; None if it seems exhausted."""
    name, level = slot
    strangers = [family for other, family in families.items() if other != name]
    for _ in range(_PATIENCE):
        number = tries[slot]
        tries[slot] += 1
        key = f"{seed} {domain} {name} {level} {number}"
        rng, other = random.Random(key), random.Random(f"{key} stranger")
        worked = compose(
            families[name](rng, level),
            rng,
            id=f"{domain}-{name}-{level}-{seed}-{number}",
            domain=domain,
            family=name,
            strange_rule=other.choice(strangers)(other, level).rule if strangers else None,
        )
        content = content_key(worked.question)
        if content not in seen and split_of(worked.question) == split:
            seen.add(content)
            return worked
    return None


def _families(domain: str, wanted: Collection[str] | None, without: Collection[str]) -> dict[str, Family]:
    if domain not in (*DOMAINS, FICTION):
        raise QuestionError(f"unknown domain {domain!r}: generated science has {', '.join(DOMAINS)}")
    known = fiction.FAMILIES if domain == FICTION else DOMAINS[domain]
    if unknown := {*(wanted or ()), *without} - set(known):
        raise QuestionError(f"{domain} has no families {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    chosen = {name: known[name] for name in known if (wanted is None or name in wanted) and name not in without}
    if not chosen:
        raise QuestionError(f"no family of {domain} is left: ask for some of {', '.join(known)}")
    return chosen
