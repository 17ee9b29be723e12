"""Questions on things that do not exist, so that no model knows the rule and must take it from what it is shown.

A small model that is taught to use feedback on questions it can answer by heart learns to ignore it.
"""

from __future__ import annotations

import random

from opcod.data.science.common import Draft, Family, Quantity, divide, multiply, redraw_until_distinct, slip
from opcod.data.science.working import choose, reckon, sentence

_ONSETS = (*"bdfgklmnprstvz", "dr", "fl", "gr", "kl", "pr", "tr")
_COLOURS = ("red", "blue", "green", "white", "black", "yellow")
_STATES = ("hard", "soft", "brittle", "tough", "smooth", "rough", "bright", "dull", "clear", "cloudy")


def _word(rng: random.Random) -> str:
    """A word that there is not, such as `drolin`."""
    syllables = [rng.choice(_ONSETS) + rng.choice("aeiou") for _ in range(2)]
    return "".join(syllables) + rng.choice("lnrstx")


def _words(rng: random.Random, count: int) -> list[str]:
    words: list[str] = []
    while len(words) < count:
        if (word := _word(rng)) not in words:
            words.append(word)
    return words


@redraw_until_distinct
def made_up_quantity(rng: random.Random, level: int) -> Draft:
    """A quantity reckoned from two others."""
    wanted, first, second, thing, unit = _words(rng, 5)
    a, b = rng.randint(2, 9 * level), rng.randint(2, 9)
    if rng.random() < 0.5:
        one, other = Quantity(a, unit), Quantity(b, "")
        working, rule = multiply(one, other, unit), f"The {wanted} is the {first} times the {second}."
    else:
        one, other = Quantity(a * b, unit), Quantity(b, "")
        working, rule = divide(one, other, unit), f"The {wanted} is the {first} divided by the {second}."
    given = [f"a {first} of {one}", f"a {second} of {other}"]
    rng.shuffle(given)
    return working.draft(f"A {thing} has {given[0]} and {given[1]}. What is its {wanted}?", rule, wanted)


@redraw_until_distinct
def made_up_sum(rng: random.Random, level: int) -> Draft:
    """A quantity that is the sum or the difference of two others."""
    wanted, first, second, thing = _words(rng, 4)
    a, b = rng.randint(10, 30 * level), rng.randint(2, 9)
    results = {"plus": a + b, "minus": a - b, "times": a * b}
    signs = {"plus": "+", "minus": "-", "times": "x"}
    right = rng.choice(("plus", "minus"))
    mistakes = [slip(f"{a} {signs[op]} {b}", value, "") for op, value in results.items() if op != right]
    mistakes.append(slip(f"{b}", b, ""))
    question = f"What {wanted} has a {thing} with a {first} of {a} and a {second} of {b}?"
    working = reckon(f"{a} {signs[right]} {b}", results[right], "")
    return working.draft(question, f"The {wanted} is the {first} {right} the {second}.", wanted, *mistakes)


@redraw_until_distinct
def made_up_pairing(rng: random.Random, level: int) -> Draft:
    """What comes of two things by their kinds."""
    one, other, made, first, second = _words(rng, 5)
    mixed, both, neither, never = rng.sample(_STATES, 4)
    kinds = rng.choice(((one, other), (one, one), (other, other)))
    right = mixed if kinds == (one, other) else {one: both, other: neither}[kinds[0]]
    facts = f"{sentence(first)} is a {kinds[0]} and {second} a {kinds[1]}"
    question = rng.choice(
        (
            f"{facts}. What is the {made} of {first} and {second} like?",
            f"What is the {made} that {first} and {second} form like? {facts}.",
        )
    )
    rule = f"{sentence(one)} with {other}: {mixed}; {one} only: {both}; {other} only: {neither}."
    reasons = dict.fromkeys((mixed, both, neither, never), facts)
    return choose(reasons, right).draft(question, rule, made)


@redraw_until_distinct
def made_up_treatment(rng: random.Random, level: int) -> Draft:
    """What each of three treatments does."""
    thing, *treatments = _words(rng, 4)
    colours = rng.sample(_COLOURS, 4)
    chosen = rng.randrange(3)
    done = f"{treatments[chosen]}ing"
    rule = ", ".join(f"{t}ing makes it {c}" for t, c in zip(treatments, colours, strict=False)) + "."
    question = rng.choice(
        (f"A {thing} is treated by {done}. What colour is it then?", f"What colour does {done} give a {thing}?")
    )
    reasons = dict.fromkeys(colours, f"It is treated by {done}")
    return choose(reasons, colours[chosen]).draft(question, sentence(rule), done)


@redraw_until_distinct
def made_up_threshold(rng: random.Random, level: int) -> Draft:
    """What a thing is like below and above a point."""
    thing, point = _words(rng, 2)
    low, high, other, never = rng.sample(_STATES, 4)
    limit = rng.randint(20, 80)
    here = limit + rng.choice((-1, 1)) * rng.randint(3, 15)
    side, right = ("below", low) if here < limit else ("above", high)
    reasons = dict.fromkeys((low, high, other, never), f"{here} C is {side} {limit} C")
    question = f"The {point} point of a {thing} is {limit} C. What is the {thing} like at {here} C?"
    rule = f"Below its {point} point it is {low}, above it {high}."
    return choose(reasons, right).draft(question, rule, f"{point} point")


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (made_up_quantity, made_up_sum, made_up_pairing, made_up_treatment, made_up_threshold)
}
