"""Materials science: families of short questions on structure and composition, and those of its other parts.

Densities and lattices are periodictable's, read at generation time.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import periodictable

from opcod.data.science.common import (
    Draft,
    Family,
    Mistake,
    num,
    redraw_until_distinct,
    slip,
)
from opcod.data.science.materials_choices import CHOICES
from opcod.data.science.materials_strength import STRENGTH
from opcod.data.science.working import by_level, reckon, sentence

FIBRES_GPA = {"glass": 70, "aramid": 120, "carbon": 230, "basalt": 90, "flax": 50}
# Alloy, alloying element and base metal.
ALLOYS = (
    ("bronze", "tin", "copper"),
    ("brass", "zinc", "copper"),
    ("cupronickel", "nickel", "copper"),
    ("rose gold", "copper", "gold"),
    ("nickel steel", "nickel", "iron"),
    ("silver alloy", "copper", "silver"),
)
STRUCTURAL = (
    "iron",
    "aluminum",
    "titanium",
    "magnesium",
    "copper",
    "nickel",
    "zinc",
    "beryllium",
    "tin",
    "lead",
)


@dataclass(frozen=True)
class Lattice:
    """A cubic lattice: its atoms per cell, that count with shared atoms taken whole, and a look-alike's."""

    atoms: int
    unshared: int
    other: int
    rule: str


LATTICES = {
    "bcc": Lattice(2, 9, 4, "A bcc cell holds 2 atoms: eight corner eighths and one centre atom."),
    "fcc": Lattice(4, 14, 2, "An fcc cell holds 4 atoms: eight corner eighths and six face halves."),
    "diamond": Lattice(8, 18, 4, "A diamond cell holds 8 atoms: four of an fcc cell plus four inside."),
}


@functools.cache
def cubic_crystals() -> tuple[tuple[str, str], ...]:
    """Elements solid at room temperature with a lattice of `LATTICES`, as (name, lattice); not carbon."""
    symmetries = (
        (e, (getattr(e, "crystal_structure", None) or {}).get("symmetry", "").lower()) for e in periodictable.elements
    )
    unsuited = {periodictable.C, *(periodictable.elements.symbol(s) for s in ("Ne", "Ar", "Kr", "Xe"))}
    return tuple(
        (e.name, lattice) for e, lattice in symmetries if lattice in LATTICES and e not in unsuited and e.number < 84
    )


def density(metal: str) -> float:
    """The density of a metal in g/cm3."""
    return float(periodictable.elements.name(metal).density)


@redraw_until_distinct
def unit_cell_atoms(rng: random.Random, level: int) -> Draft:
    """Atoms in a crystal are unit cells times atoms per cell, where shared atoms count in part."""
    element, name = rng.choice(cubic_crystals())
    lattice, side = LATTICES[name], rng.randint(3, 6)
    cells = by_level(rng, level, range(2, 13), range(15, 61, 5), (side**3,))
    count = f"{cells} unit cells" if level < 3 else f"{side} x {side} x {side} unit cells"
    question = rng.choice(
        (
            f"{sentence(element)} crystallises in the {name} lattice. How many atoms belong to {count}?",
            f"How many atoms do {count} of {element} hold in its {name} lattice?",
            f"A crystal of {element} has the {name} lattice. Count the atoms in {count}.",
        )
    )
    first = "" if level < 3 else f"{side} x {side} x {side} = {cells}; "

    def wrong(per_cell: int) -> Mistake:
        return slip(f"{first}{cells} x {per_cell}", cells * per_cell, "atoms")

    mistakes = [
        wrong(lattice.unshared),
        wrong(lattice.other),
        wrong(1),
        wrong(8),
    ]
    if level == 3:
        squared = slip(f"{side} x {side} x {lattice.atoms}", side**2 * lattice.atoms, "atoms")
        mistakes.insert(0, squared)
    working = reckon(f"{first}{cells} x {lattice.atoms}", cells * lattice.atoms, "atoms")
    return working.draft(question, lattice.rule, f"{name} lattice", *mistakes)


@redraw_until_distinct
def mass_saving(rng: random.Random, level: int) -> Draft:
    """The mass saved by a lighter material is the volume times the difference in density."""
    heavy, light = sorted(rng.sample(STRUCTURAL, 2), key=density, reverse=True)
    volume = by_level(rng, level, range(2, 10), range(20, 91, 10), range(15, 96, 10))
    high, low = (round(density(metal), 0 if level < 3 else 1) for metal in (heavy, light))
    saved = round(high - low, 1)
    question = rng.choice(
        (
            f"A part of {volume} cm3 of {heavy} ({num(high)} g/cm3) is remade in {light} ({num(low)} g/cm3). "
            "What is the mass saving?",
            f"What mass saving brings {light} ({num(low)} g/cm3) in place of {heavy} ({num(high)} g/cm3) "
            f"for {volume} cm3?",
            f"Find the mass saving when {volume} cm3 of {heavy}, {num(high)} g/cm3, becomes {light}, {num(low)} g/cm3.",
        )
    )
    first = f"{num(high)} - {num(low)} = {num(saved)}; "
    mistakes = (
        slip(f"{num(high)} x {volume}", high * volume, "g"),
        slip(f"{num(low)} x {volume}", low * volume, "g"),
        slip(f"({num(high)} + {num(low)}) x {volume}", (high + low) * volume, "g"),
        slip(f"{num(high)} - {num(low)}", saved, "g"),
    )
    rule = "The mass saved is the volume times the difference of the densities."
    return reckon(f"{first}{num(saved)} x {volume}", saved * volume, "g").draft(
        question, rule, "mass saving", *mistakes
    )


@redraw_until_distinct
def rule_of_mixtures(rng: random.Random, level: int) -> Draft:
    """A composite's modulus along its fibres is the volume-weighted mean of its phases' moduli."""
    fibre, stiff = rng.choice(tuple(FIBRES_GPA.items()))
    matrix = rng.choice(("epoxy", "polyester", "nylon", "polypropylene"))
    soft: float = by_level(rng, level, range(2, 11, 2), (2, 3, 4, 5), (1.2, 1.6, 2.4, 2.8, 3.2))
    if level == 1:
        fibre, stiff = rng.choice(("wood", "hemp", "polymer", "bamboo", "cotton")), 2 * rng.randint(6, 20)
    percent = by_level(rng, level, (50,), (20, 40, 60, 80), (15, 25, 35, 45, 55))
    f, m = percent / 100, (100 - percent) / 100
    a, b = f"{num(f)} x {stiff}", f"{num(m)} x {num(soft)}"
    of_fibre, of_matrix = f"{stiff} GPa", f"{num(soft)} GPa"
    question = rng.choice(
        (
            f"A composite holds {percent} % {fibre} fibres ({of_fibre}), the rest {matrix} ({of_matrix}). "
            "Which modulus along the fibres does the rule of mixtures give?",
            f"Use the rule of mixtures: {percent} vol % {fibre} fibres of {of_fibre} in {matrix} of "
            f"{of_matrix}. "
            "What is the modulus along them?",
        )
    )
    mistakes = [
        slip(f"{stiff} + {num(soft)}", stiff + soft, "GPa"),
        slip(a, f * stiff, "GPa"),
        slip(b, m * soft, "GPa"),
    ]
    if level > 1:
        swapped = f"{num(m)} x {stiff} + {num(f)} x {num(soft)}"
        mistakes.insert(0, slip(swapped, m * stiff + f * soft, "GPa"))
    working = f"{a} + {b} = {num(f * stiff)} + {num(m * soft)}"
    rule = "Multiply each phase's modulus by its volume fraction and add."
    return reckon(working, f * stiff + m * soft, "GPa").draft(question, rule, "rule of mixtures", *mistakes)


@redraw_until_distinct
def lever_rule(rng: random.Random, level: int) -> Draft:
    """A phase's share is the opposite arm of the tie line over the whole tie line."""
    span = by_level(rng, level, (10, 20, 25, 50), (10, 20, 25, 40, 50), (10, 20, 40, 50))
    opposite = rng.randint(1, span - 1)
    if level > 1:
        return _lever_rule_of_compositions(rng, level, span, opposite)
    near, share = span - opposite, 100 * opposite / span
    phase = rng.choice(("liquid", "solid", "alpha", "beta", "ferrite", "cementite"))
    question = rng.choice(
        (
            f"A tie line is {span} mm long; the arm opposite {phase} is {opposite} mm. "
            f"What percentage is {phase} by the lever rule?",
            f"By the lever rule, what percentage is {phase} if its opposite arm is {opposite} mm of a "
            f"{span} mm tie line?",
        )
    )
    mistakes = (
        slip(f"{near} / {span} x 100", 100 - share, "%"),
        slip(f"{opposite} / {near} x 100", 100 * opposite / near, "%"),
        slip(f"{opposite} / {span}", share / 100, "%"),
    )
    rule = "A phase's share is its opposite arm divided by the whole tie line."
    return reckon(f"{opposite} / {span} x 100", share, "%").draft(question, rule, "lever rule", *mistakes)


def _lever_rule_of_compositions(rng: random.Random, level: int, span: int, opposite: int) -> Draft:
    """The lever rule where the arms follow from compositions; at level 3 the phase's mass is asked."""
    solute, alpha = rng.choice(("tin", "nickel", "silicon", "copper")), 5 * rng.randint(1, 8)
    alloy, beta, grams = alpha + opposite, alpha + span, rng.choice((100, 200, 300, 400, 500))
    sample, asked, unit, scale, last = "an alloy", "percentage", "%", 100, " x 100"
    if level == 3:
        sample, asked, unit, scale, last = f"{grams} g of alloy", "mass in grams", "g", grams, f" x {grams}"
    question = rng.choice(
        (
            f"With {alloy} % {solute}, {sample} forms alpha ({alpha} %) and beta ({beta} %). "
            f"By the lever rule, what {asked} is beta?",
            f"Alpha holds {alpha} % {solute}, beta {beta} %. Use the lever rule: what {asked} is beta "
            f"in {sample} with {alloy} %?",
        )
    )
    arm, line, near = f"{alloy} - {alpha} = {opposite}", f"{beta} - {alpha} = {span}", span - opposite
    first = f"{arm}; {line}; "
    mistakes = (
        slip(f"{first}{near} / {span}{last}", near / span * scale, unit),
        slip(f"{arm}; {opposite} / {near}{last}", opposite / near * scale, unit),
        slip(f"{alloy} / {beta}{last}", alloy / beta * scale, unit),
    )
    rule = "Beta's share is alloy minus alpha, divided by beta minus alpha."
    working = reckon(f"{first}{opposite} / {span}{last}", opposite / span * scale, unit)
    return working.draft(question, rule, "lever rule", *mistakes)


@redraw_until_distinct
def alloy_mass(rng: random.Random, level: int) -> Draft:
    """The mass of a component is the alloy's mass times its weight per cent over 100."""
    alloy, solute, base = rng.choice(ALLOYS)
    percent = by_level(rng, level, range(2, 13), range(5, 26, 5), (1.2, 1.6, 2.4, 3.2, 4.8))
    grams = by_level(rng, level, range(200, 1000, 100), range(100, 500, 20), range(250, 4001, 250))
    mass = f"{num(grams / 1000)} kg" if level == 3 else f"{grams} g"
    wanted = base if level == 2 else solute
    question = rng.choice(
        (
            f"{sentence(alloy)} has {num(percent)} weight per cent {solute}, the rest {base}. "
            f"How many grams of {wanted} are in {mass}?",
            f"What mass of {wanted} in grams is in {mass} of {alloy}, {num(percent)} weight per cent "
            f"{solute} in {base}?",
            f"A founder melts {mass} of {alloy}: {num(percent)} weight per cent {solute} in {base}. "
            f"How many grams are {wanted}?",
        )
    )
    share, first = percent, ""
    if level == 2:
        share, first = 100 - percent, f"100 - {percent} = {100 - percent} %; "
    elif level == 3:
        first = f"{mass} = {grams} g; "
    result, other = grams * share / 100, grams * (100 - share) / 100
    mistakes = [
        slip(f"{grams} g x {num(100 - share)} / 100", other, "g"),
        slip(f"{grams} g - {num(share)}", grams - share, "g"),
        slip(f"{grams} g x {num(share)}", grams * share, "g"),
        slip(f"{grams} g / {num(share)}", grams / share, "g"),
    ]
    if level == 3:
        unconverted = f"{num(grams / 1000)} x {num(share)} / 100"
        mistakes.insert(0, slip(unconverted, result / 1000, "g"))
    rule = "A component's mass is the alloy's mass times its weight per cent over 100."
    if level == 2:
        rule = "Take the rest of 100 per cent, then that share of the mass."
    return reckon(f"{first}{grams} g x {num(share)} / 100", result, "g").draft(
        question, rule, "weight per cent", *mistakes
    )


FAMILIES: dict[str, Family] = {
    **STRENGTH,
    "unit_cell_atoms": unit_cell_atoms,
    "mass_saving": mass_saving,
    "rule_of_mixtures": rule_of_mixtures,
    "lever_rule": lever_rule,
    "alloy_mass": alloy_mass,
    **CHOICES,
}
