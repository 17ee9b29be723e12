"""Biology of cells in numbers, of organisms and of their food chains."""

from __future__ import annotations

import itertools
import random

from opcod.data.science.common import (
    Draft,
    Family,
    Mistake,
    Quantity,
    divide,
    multiply,
    num,
    redraw_until_distinct,
    slip,
)
from opcod.data.science.working import by_level, choose, reckon, sentence, with_article

# Producer, then each the food of the next.
FOOD_CHAINS = (
    ("grass", "grasshoppers", "frogs", "snakes"),
    ("algae", "water fleas", "perch", "pike"),
    ("oak leaves", "caterpillars", "tits", "hawks"),
    ("plankton algae", "krill", "penguins", "leopard seals"),
    ("wheat", "mice", "weasels", "owls"),
    ("kelp", "sea urchins", "sea otters", "orcas"),
    ("lettuce", "slugs", "hedgehogs", "badgers"),
    ("pond weed", "tadpoles", "newts", "herons"),
    ("clover", "aphids", "ladybirds", "swallows"),
    ("diatoms", "mussels", "starfish", "gulls"),
    ("acorns", "squirrels", "martens", "eagles"),
    ("cabbage", "snails", "thrushes", "falcons"),
)
ROLES = ("producers", "primary consumers", "secondary consumers", "tertiary consumers")


@redraw_until_distinct
def population_doubling(rng: random.Random, level: int) -> Draft:
    """Every generation doubles a population of dividing cells."""
    cells = rng.choice(("bacteria", "yeast cells", "algae", "amoebae", "cultured cells"))
    start = by_level(rng, level, range(2, 13), range(5, 31), range(100, 501, 50))
    generations = by_level(rng, level, (2, 3), range(3, 7), range(3, 8))
    minutes = rng.choice((20, 30, 40, 60) if level == 2 else (15, 30, 45, 90))
    period = generations * minutes
    told, first = f"each divide {'twice' if generations == 2 else 'three times'}", ""
    if level > 1:
        shown = f"{period} min" if level == 2 else f"{num(period / 60)} hours"
        told = f"double in number every {minutes} min for {shown}"
        first = f"{period} / {minutes} = {generations}; "
    question = rng.choice(
        (
            f"{start} {cells} {told}. How many {cells} are there then?",
            f"In a culture, {start} {cells} {told}. How many {cells} does it hold in the end?",
            f"How many {cells} come from {start} {cells} that {told}?",
        )
    )
    slips = (2 * generations, generations, 2 ** (generations - 1), 2 ** (generations + 1))
    mistakes = [slip(f"{first}{start} x {n}", start * n, "cells") for n in slips]
    mistakes.append(slip(f"{first}{start} + {2 * generations}", start + 2 * generations, "cells"))
    doubled = " x ".join("2" for _ in range(generations))
    rule = "Each division doubles the number: multiply by two for every generation."
    working = reckon(f"{first}{start} x {doubled}", start * 2**generations, "cells")
    return working.draft(question, rule, "divide" if level == 1 else "double", *mistakes)


@redraw_until_distinct
def magnification(rng: random.Random, level: int) -> Draft:
    """Magnification is the size of the image divided by the actual size."""
    thing, drawn = rng.choice(
        (
            ("beetle", "drawing"),
            ("seed", "photo"),
            ("ant", "image"),
            ("spider", "drawing"),
            ("leaf bud", "image"),
        )
        if level < 3
        else (("cell", "image"), ("pollen grain", "photo"), ("alga", "image"), ("diatom", "micrograph"))
    )
    actual = by_level(rng, level, range(2, 13), range(2, 13), (20, 25, 40, 50, 80))
    times = by_level(rng, level, range(2, 13), range(15, 61, 5), (100, 200, 400, 500, 600))
    size, unit = actual * times, "um" if level == 3 else "mm"
    image, real = Quantity(size, unit), Quantity(actual, unit)
    shown = f"{num(size / 1000)} mm" if level == 3 else str(image)
    question = rng.choice(
        (
            f"{sentence(with_article(thing))} of {real} measures {shown} in {with_article(drawn)}. "
            "What is the magnification?",
            f"What magnification has {with_article(drawn)} in which {with_article(thing)} of {real} is {shown} long?",
            f"In {with_article(drawn)}, {with_article(thing)} is {shown} long; it is really {real}. "
            "Find the magnification.",
        )
    )
    rule = "Magnification is image size divided by actual size, both in one unit."
    if level < 3:
        return divide(image, real, "times").draft(question, rule, "magnification")
    unconverted = slip(f"{num(size / 1000)} / {actual}", times / 1000, "times")
    hundredfold = slip(f"{num(size / 10)} um / {real}", times / 10, "times")
    working = divide(image, real, "times", f"{shown} = {image}; ")
    return working.draft(question, rule, "magnification", unconverted, hundredfold)


@redraw_until_distinct
def cardiac_output(rng: random.Random, level: int) -> Draft:
    """Cardiac output is heart rate times stroke volume."""
    owner = rng.choice(
        ("tortoise", "python", "toad", "carp", "iguana") if level == 1 else ("runner", "patient", "nurse", "teacher")
    )
    rate = Quantity(by_level(rng, level, range(3, 13), range(60, 101, 5), range(60, 101, 4)), "beats")
    volume = Quantity(by_level(rng, level, range(2, 10), range(50, 91, 10), range(50, 101, 5)), "mL")
    output = rate.value * volume.value
    beats = f"{rate} per minute" if level < 3 else f"{num(rate.value / 4)} beats in 15 s"
    unit = "mL" if level < 3 else "litres"
    question = rng.choice(
        (
            f"The heart of {with_article(owner)} makes {beats} of {volume} each. "
            f"What is its cardiac output in {unit} per minute?",
            f"Find the cardiac output in {unit} per minute of {with_article(owner)}: {beats}, stroke volume {volume}.",
            f"{sentence(with_article(owner))}'s heart makes {beats}, {volume} per beat. "
            f"What is the cardiac output in {unit} per minute?",
        )
    )
    if level < 3:
        rule = "Cardiac output is heart rate times stroke volume."
        return multiply(rate, volume, "mL").draft(question, rule, "cardiac output")
    counted = num(rate.value / 4)
    mistakes = (
        slip(f"{counted} x {volume} = {num(output / 4)} mL", output / 4000, "L"),
        slip(f"{rate} x {volume}", output, "L"),
        slip(f"{rate} x {volume} / 100", output / 100, "L"),
    )
    rule = "Cardiac output is beats per minute times stroke volume; 1000 mL is a litre."
    working = reckon(f"{counted} x 4 = {rate}; {rate} x {volume} = {num(output)} mL", output / 1000, "L")
    return working.draft(question, rule, "cardiac output", *mistakes)


@redraw_until_distinct
def trophic_energy(rng: random.Random, level: int) -> Draft:
    """About ten per cent of the energy of a trophic level reaches the next."""
    producer, *eaters = rng.choice(FOOD_CHAINS)
    steps, percent = level, 10
    kilojoules = by_level(rng, level, range(20, 500, 10), range(1000, 60000, 500), range(10000, 90000, 500))
    result = kilojoules / 10**steps
    consumer = eaters[steps - 1]
    path = " to ".join([producer, *eaters[:steps]])
    question = rng.choice(
        (
            f"From {path}, {percent} % of the energy passes at each trophic level. "
            f"How much of {kilojoules} kJ in the {producer} reaches the {consumer}?",
            f"With {percent} % passed on per trophic level, what energy do {consumer} get from "
            f"{kilojoules} kJ "
            f"along {path}?",
            f"Of {kilojoules} kJ in the {producer}, {percent} % passes at each trophic level along {path}. "
            f"What energy reaches the {consumer}?",
        )
    )
    working = f"{kilojoules} kJ" + " / 10" * steps
    mistakes = (
        slip(f"{kilojoules} x 90 / 100", kilojoules * 0.9, "kJ"),
        slip(f"{working} / 10", result / 10, "kJ"),
        slip(f"{kilojoules} kJ{' / 10' * (steps - 1) or ' x 1'}", result * 10, "kJ"),
        slip(f"{kilojoules} x 10", kilojoules * 10, "kJ"),
    )
    rule = "Divide the energy by ten for each step to the next trophic level."
    return reckon(working, result, "kJ").draft(question, rule, "trophic level", *mistakes)


@redraw_until_distinct
def serial_dilution(rng: random.Random, level: int) -> Draft:
    """The count in the original is the count in the diluted sample times every dilution factor."""
    sample, cells = rng.choice(
        (("milk", "bacteria"), ("pond water", "algae"), ("blood", "cells"), ("beer", "yeast cells"))
    )
    counted = by_level(rng, level, range(3, 13), range(5, 31), range(20, 100, 5))
    one, two = (
        by_level(rng, level, (2, 3, 4, 5, 6, 8, 10), (2, 4, 5), (10, 20, 50)),
        rng.choice((10, 20, 100)),
    )
    factor = one if level == 1 else one * two
    diluted = f"{one}-fold" if level == 1 else f"{one}-fold and then {two}-fold"
    plated = "1 mL" if level < 3 else "0.1 mL"
    question = rng.choice(
        (
            f"After dilution of {sample} {diluted}, {plated} holds {counted} {cells}. "
            "How many are in 1 mL of the original?",
            f"{plated} of {sample} holds {counted} {cells} after dilution {diluted}. How many were in 1 mL before?",
            f"{counted} {cells} are found in {plated} of {sample} after dilution {diluted}. "
            "How many does 1 mL undiluted hold?",
        )
    )
    total, last = counted * factor, ""
    if level == 3:
        total, last = 10 * total, " / 0.1"
    mistakes = [
        slip(f"{counted} / {one}", counted / one, "cells"),
        slip(f"{counted} + {factor}", counted + factor, "cells"),
        Mistake(f"{counted} cells", f"The count stays {counted} cells."),
    ]
    if level > 1:
        added = slip(f"{counted} x ({one} + {two}){last}", total / factor * (one + two), "cells")
        mistakes[:0] = [added, slip(f"{counted} x {one}{last}", total / two, "cells")]
    if level == 3:
        mistakes.insert(0, slip(f"{counted} x {one} x {two}", counted * factor, "cells"))
    product = f"{counted} x {one}" if level == 1 else f"{counted} x {one} x {two}{last}"
    rule = "Multiply the count by every dilution factor"
    rule += ", and divide by the volume counted." if level == 3 else " to get the original."
    return reckon(product, total, "cells").draft(question, rule, "dilution", *mistakes)


@redraw_until_distinct
def osmosis(rng: random.Random, level: int) -> Draft:
    """Water crosses a membrane toward the side with more dissolved solute."""
    cell = with_article(
        rng.choice(("onion cell", "red blood cell", "potato cell", "amoeba", "beet cell", "yeast cell"))
    )
    solute = rng.choice(("sugar", "salt"))
    inside: float = by_level(rng, level, range(2, 10), range(8, 30), (100, 150, 200, 250, 300, 400))
    outside = rng.choice(
        (inside, *(by_level(rng, level, range(1, 13), range(4, 35), range(50, 501, 50)) for _ in "1234"))
    )
    if level == 2:
        inside, outside = inside / 10, outside / 10
    unit = "mmol/L" if level == 3 else "%"
    shown = f"{num(outside / 1000)} mol/L" if level == 3 else f"{num(outside)} %"
    question = rng.choice(
        (
            f"{sentence(cell)} with {num(inside)} {unit} {solute} lies in {shown} {solute} solution. "
            "Where does osmosis move water?",
            f"By osmosis, where does water go if {cell} with {num(inside)} {unit} {solute} is put in {shown} {solute}?",
            f"Outside {cell} there is {shown} {solute}, inside {num(inside)} {unit}. What does osmosis do?",
        )
    )
    within, around = f"{num(inside)} {unit} inside", f"{num(outside)} {unit} outside"
    into, out, level_flow = "water flows in", "water flows out", "no net water flow"
    right = into if inside > outside else out if outside > inside else level_flow
    seen = f"{within}, {around}"
    options = {
        into: f"{seen}, so inside draws water",
        out: f"{seen}, so outside draws water",
        level_flow: f"{seen}, both sides alike",
        f"only {solute} moves": f"{seen}, so the {solute} evens out",
    }
    rule = "Water moves through the membrane to the side with more solute."
    if level == 3:
        rule = "Water moves to the side with more solute; 1 mol is 1000 mmol."
    return choose(options, right).draft(question, rule, "osmosis")


@redraw_until_distinct
def food_chain(rng: random.Random, level: int) -> Draft:
    """In a food chain producers are eaten by primary, these by secondary, these by tertiary consumers."""
    chain = rng.choice(FOOD_CHAINS)
    place = rng.randrange(4) if level < 3 else rng.randrange(1, 4)
    told = f"Food chain: {' -> '.join(chain)}."
    if level > 1:
        links = [f"{eater} eat {food}" for food, eater in itertools.pairwise(chain)]
        told = f"In a food chain {', '.join(rng.sample(links, 3))}."
    asked = f"are the {ROLES[place]}"
    rule = "Producers come first, then primary, secondary and tertiary consumers, each eating the last."
    if level == 3:
        share = num(100 / 10**place)
        asked = f"receive about {share} % of the producers' energy"
        rule = "Order the chain from the producer; each step keeps about 10 %."
    question = rng.choice((f"{told} Which organisms {asked}?", f"Which organisms {asked}? {told}"))
    ordered = " -> ".join(chain)
    labels = ROLES if level < 3 else [f"{num(100 / 10**n)} % in" for n in range(4)]
    counted = ", ".join(f"{label} {organism}" for label, organism in zip(labels, chain, strict=True))
    options = {o: f"{ordered}, place {n + 1} taken" for n, o in enumerate(chain)}
    options[chain[place]] = sentence(counted)
    concept = "Food chain" if "Food chain" in question else "food chain"
    return choose(options, chain[place]).draft(question, rule, concept)


@redraw_until_distinct
def enzyme_activity(rng: random.Random, level: int) -> Draft:
    """An enzyme works faster toward its optimum and slower beyond it."""
    enzyme = with_article(rng.choice(("plant enzyme", "yeast enzyme", "fungal lipase", "insect amylase", "protease")))
    best: float = by_level(rng, level, range(30, 51, 5), range(32, 49), range(60, 81, 2))
    below, lower = sorted(rng.sample(range(5, int(best) - 4) if level < 3 else range(30, int(best) - 3), 2))
    above, higher = sorted(rng.sample(range(int(best) + 4, int(best) + 30), 2))
    paths = [
        (below, lower, "rises"),
        (above, higher, "falls"),
        (best, higher, "falls"),
        (below, best, "rises"),
    ]
    if level > 1:
        paths += [(below, higher, "rises, then falls"), (lower, above, "rises, then falls")]
    if level == 3:
        paths += [(higher, below, "rises, then falls"), (higher, above, "rises"), (lower, below, "falls")]
    start, end, right = rng.choice(paths)
    if level == 3:
        kind, unit, (best, start, end) = "pH", "", (x / 10 for x in (best, start, end))
    else:
        kind, unit = "temperature", " C"
    optimum, begin, finish = (f"{num(x)}{unit}" for x in (best, start, end))
    question = rng.choice(
        (
            f"{sentence(enzyme)} has its optimum {kind} at {optimum}. "
            f"How does its rate change when the {kind} goes from {begin} to {finish}?",
            f"The {kind} goes from {begin} to {finish} for {enzyme} with an optimum of {optimum}. "
            "What happens to its rate?",
            f"What does the rate of {enzyme} (optimum {optimum}) do when the {kind} changes from {begin} to {finish}?",
        )
    )
    options = {
        "rises": f"From {begin} toward {optimum}",
        "falls": f"From {begin} to {finish}, away from {optimum}",
        "rises, then falls": f"From {begin} across {optimum} to {finish}",
        "stays the same": f"From {begin} to {finish} is no matter",
    }
    rule = f"The rate rises toward the optimum {kind} and falls beyond it."
    return choose(options, right).draft(question, rule, "optimum")


ORGANISMS: dict[str, Family] = {
    "population_doubling": population_doubling,
    "magnification": magnification,
    "cardiac_output": cardiac_output,
    "trophic_energy": trophic_energy,
    "serial_dilution": serial_dilution,
    "osmosis": osmosis,
    "food_chain": food_chain,
    "enzyme_activity": enzyme_activity,
}
