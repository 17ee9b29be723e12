"""Generated science: questions from real constants, nothing to download, deterministic by seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from opcod.data.questions import QuestionError, content_key
from opcod.data.science import biology, chemistry, materials, physics
from opcod.data.science.common import Family
from opcod.data.science.worked import Attempted, WorkedQuestion, compose
from opcod.data.splits import split_of

__all__ = ["DOMAINS", "LEVELS", "Attempted", "WorkedQuestion", "generate"]

DOMAINS: dict[str, dict[str, Family]] = {
    "physics": physics.FAMILIES,
    "chemistry": chemistry.FAMILIES,
    "materials": materials.FAMILIES,
    "biology": biology.FAMILIES,
}
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
) -> list[WorkedQuestion]:
    """Draw `count` distinct questions of one split, evenly from the families and levels.

    The split is a function of a question's content, so that splits never share one, whatever is drawn.

    Args:
        domain: `physics`, `chemistry`, `materials` or `biology`.
        count: How many.
        seed: Another seed, another draw from the same families.
        split: `train`, `validation` or `test`.
        levels: Difficulties to draw from: 1 one step with small numbers, 2 larger or two steps, 3 decimals,
            conversions or three steps.
        families: Only these families; all by default.

    Raises:
        QuestionError: If there is no such domain, level or family, or fewer than `count` distinct questions.
    """
    chosen = _families(domain, families)
    if unknown := set(levels) - set(LEVELS) or not levels:
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
            worked = _draw_new(domain, chosen[slot[0]], slot, tries, seed=seed, split=split, seen=seen)
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
    family: Family,
    slot: tuple[str, int],
    tries: dict[tuple[str, int], int],
    *,
    seed: int,
    split: str,
    seen: set[str],
) -> WorkedQuestion | None:
    """The next question of a family and level that is of this split and new; None if it seems exhausted."""
    name, level = slot
    for _ in range(_PATIENCE):
        number = tries[slot]
        tries[slot] += 1
        rng = random.Random(f"{seed} {domain} {name} {level} {number}")
        worked = compose(
            family(rng, level), rng, id=f"{domain}-{name}-{level}-{seed}-{number}", domain=domain, family=name
        )
        key = content_key(worked.question)
        if key not in seen and split_of(worked.question) == split:
            seen.add(key)
            return worked
    return None


def _families(domain: str, wanted: Collection[str] | None) -> dict[str, Family]:
    if domain not in DOMAINS:
        raise QuestionError(f"unknown domain {domain!r}: generated science has {', '.join(DOMAINS)}")
    known = DOMAINS[domain]
    if wanted is None:
        return known
    if unknown := set(wanted) - set(known):
        raise QuestionError(f"{domain} has no families {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return {name: known[name] for name in known if name in wanted}
