"""Materials science by a rule instead of a sum: which metal, which bond, which doping, which treatment.

Densities are periodictable's; groups, kinds of element and electronegativities are molmass's.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import periodictable
from molmass import ELEMENTS

from opcod.data.science.common import Draft, Family, num, redraw_until_distinct
from opcod.data.science.working import choose, sentence, with_article

METALS = (
    "iron",
    "aluminum",
    "titanium",
    "magnesium",
    "copper",
    "zinc",
    "silver",
    "lead",
    "tungsten",
    "gold",
    "tin",
    "nickel",
)
# molmass numbers the series of the periodic table.
NONMETAL_SERIES = (1, 6)
IONIC = tuple(itertools.product(("Li", "Na", "K", "Mg", "Ca", "Ba"), ("O", "F", "Cl")))
COVALENT = (
    *(("C", e) for e in ("H", "O", "N", "F", "Cl", "S")),
    *(("N", e) for e in ("H", "O", "F")),
    *(("H", e) for e in ("O", "S", "Cl", "Br")),
    *(("P", e) for e in ("Cl", "H")),
    ("S", "O"),
)
METALLIC = (
    *(("Cu", e) for e in ("Zn", "Sn", "Ni", "Al")),
    *(("Ag", e) for e in ("Au", "Cu")),
    *(("Fe", e) for e in ("Cr", "Ni", "Mn")),
    ("Ni", "Ti"),
    ("Al", "Mg"),
    ("Sn", "Pb"),
)
BONDS = {
    "ionic bonds": "A metal gives electrons to a nonmetal",
    "covalent bonds": "Two nonmetals share electrons",
    "metallic bonds": "Metals pool their electrons",
    "van der Waals bonds": "Weak forces between closed shells",
}
MAINLY_IONIC_ABOVE = 1.7
ELEMENT_HOSTS = ("Si", "Ge")
DONORS = ("P", "As", "Sb")
ACCEPTORS = ("B", "Al", "Ga", "In")
# Host compound, dopant, and the element the dopant replaces.
COMPOUND_DOPING = (
    ("GaAs", "Si", "Ga"),
    ("GaAs", "Zn", "Ga"),
    ("GaAs", "Be", "Ga"),
    ("GaAs", "Te", "As"),
    ("GaAs", "Se", "As"),
    ("GaAs", "C", "As"),
    ("GaN", "Si", "Ga"),
    ("GaN", "Mg", "Ga"),
    ("InP", "Zn", "In"),
    ("InP", "Sn", "In"),
    ("InP", "S", "P"),
    ("GaSb", "Te", "Sb"),
)
QUENCHED, ANNEALED = "hard and brittle", "soft and ductile"
TEMPERED, UNTREATED = "hard but tougher", "nearly unchanged"


def name_of(symbol: str) -> str:
    """An element's name, e.g. `aluminum`."""
    return str(periodictable.elements.symbol(symbol).name)


def is_nonmetal(symbol: str) -> bool:
    """Whether molmass lists the element among the nonmetals and halogens."""
    return ELEMENTS[symbol].series in NONMETAL_SERIES


def valence_electrons(symbol: str) -> int:
    """Outer s and p electrons of a main-group or group-12 element: its group, less ten beyond the d block."""
    group = int(ELEMENTS[symbol].group)
    return group if group <= 2 else group - 10


def rounded_densities(rng: random.Random, count: int, decimals: int) -> dict[str, float]:
    """Some metals, heaviest last, with densities in g/cm3 that differ after rounding."""
    density = {m: round(float(periodictable.elements.name(m).density), decimals) for m in METALS}
    metals: list[str] = []
    for metal in rng.sample(METALS, len(METALS)):
        if len(metals) < count and density[metal] not in (density[m] for m in metals):
            metals.append(metal)
    return {m: density[m] for m in sorted(metals, key=density.__getitem__)}


@redraw_until_distinct
def lightest_metal(rng: random.Random, level: int) -> Draft:
    """Parts of equal size weigh in the order of their densities."""
    density = rounded_densities(rng, 3 if level == 3 else 4, 0 if level == 1 else 1)
    listed = ", ".join(f"{m} {num(density[m])}" for m in rng.sample(list(density), len(density)))
    part = rng.choice(("bracket", "handle", "plate", "gear", "cover"))
    if level == 3:
        return _order_by_density(density, listed, part)
    light = rng.random() < 0.5
    wanted, extreme = ("lightest", "lowest") if light else ("heaviest", "highest")
    best, second, third, worst = density if light else reversed(density)
    question = rng.choice(
        (
            f"Which metal makes the {wanted} {part} of a given size? Density in g/cm3: {listed}.",
            f"Density in g/cm3: {listed}. From which metal is a {part} of fixed size the {wanted}?",
        )
    )
    options = {
        best: f"The {extreme} density is {num(density[best])} g/cm3",
        worst: f"{num(density[worst])} g/cm3 looks best",
        second: f"{num(density[second])} g/cm3 looks {extreme}",
        third: f"{num(density[third])} g/cm3 looks {extreme}",
    }
    rule = f"At equal size, the {extreme} density makes the {wanted} part."
    return choose(options, best).draft(question, rule, "Density")


def _order_by_density(density: dict[str, float], listed: str, part: str) -> Draft:
    """Three metals in the order of weight."""
    a, b, c = density
    question = f"Density in g/cm3: {listed}. Order equal {part}s of these metals from lightest to heaviest."
    orders = ((a, b, c), (c, b, a), (b, a, c), (a, c, b))
    options = {", ".join(order): ", ".join(num(density[metal]) for metal in order) for order in orders}
    rule = "Parts of equal size weigh in the order of their densities."
    return choose(options, ", ".join(density)).draft(question, rule, "Density")


@redraw_until_distinct
def bond_type(rng: random.Random, level: int) -> Draft:
    """Metal and nonmetal bond ionically, two nonmetals covalently, metals alone by metallic bonds."""
    if level == 3:
        return _bond_by_electronegativity(rng)
    bond, pairs = rng.choice((("ionic bonds", IONIC), ("covalent bonds", COVALENT), ("metallic bonds", METALLIC)))
    pair = rng.sample(rng.choice(pairs), 2)
    one, two = (name_of(symbol) for symbol in pair)
    kinds = ["nonmetal" if is_nonmetal(symbol) else "metal" for symbol in pair]
    told = f"{sentence(one)} is a {kinds[0]}, {two} a {kinds[1]}. " if level == 1 else ""
    question = told + rng.choice(
        (
            f"Which chemical bond holds {one} and {two} atoms together?",
            f"What kind of chemical bond do {one} and {two} form with each other?",
            f"{sentence(one)} combines with {two}. Which kind of chemical bond forms?",
        )
    )
    rule = "Metal with nonmetal: ionic; nonmetals only: covalent; metals only: metallic."
    options = BONDS | {bond: f"{sentence(one)} is a {kinds[0]} and {two} a {kinds[1]}"}
    return choose(options, bond).draft(question, rule, "chemical bond")


def _bond_by_electronegativity(rng: random.Random) -> Draft:
    """The difference of Pauling electronegativities tells a mainly ionic from a mainly covalent bond."""
    low, high = sorted(rng.choice(IONIC + COVALENT), key=lambda symbol: ELEMENTS[symbol].eleneg)
    x, y = float(ELEMENTS[low].eleneg), float(ELEMENTS[high].eleneg)
    question = rng.choice(
        (
            f"By electronegativity, {name_of(low)} has {num(x)} and {name_of(high)} {num(y)}. "
            "What is the difference, and how is the bond?",
            f"Find the difference in electronegativity of {name_of(high)} ({num(y)}) and "
            f"{name_of(low)} ({num(x)}), "
            "and the kind of bond.",
        )
    )
    difference, total = num(round(y - x, 2)), num(round(x + y, 2))
    kinds = ("mainly ionic", "mainly covalent")
    right, wrong = kinds if y - x > MAINLY_IONIC_ABOVE else kinds[::-1]
    above, below = ("above", "below") if y - x > MAINLY_IONIC_ABOVE else ("below", "above")
    by_difference, by_sum = f"{num(y)} - {num(x)} = {difference}", f"{num(y)} + {num(x)} = {total}"
    options = {
        f"{difference}, {right}": f"{by_difference} is {above} the limit",
        f"{difference}, {wrong}": f"{by_difference} is {below} the limit",
        f"{total}, {right}": by_sum,
        f"{total}, {wrong}": by_sum,
    }
    rule = f"A difference above {MAINLY_IONIC_ABOVE} is mainly ionic, below it mainly covalent."
    return choose(options, f"{difference}, {right}").draft(question, rule, "electronegativity")


@redraw_until_distinct
def doping_type(rng: random.Random, level: int) -> Draft:
    """A dopant with more valence electrons than the atom it replaces gives electrons, with fewer holes."""
    body = rng.choice(("wafer", "crystal", "film", "chip", "substrate"))
    if level == 3:
        host, dopant, replaced = rng.choice(COMPOUND_DOPING)
        material, site = host, f" {name_of(replaced)} atoms"
    else:
        replaced, dopant = rng.choice(ELEMENT_HOSTS), rng.choice(DONORS + ACCEPTORS)
        material, site = name_of(replaced), " host atoms"
    guest, own, hosts = name_of(dopant), valence_electrons(dopant), valence_electrons(replaced)
    told = {
        1: f" Valence electrons: {guest} {own}, {material} {hosts}.",
        2: f" {sentence(guest)} is in group {ELEMENTS[dopant].group}, {material} in group 14.",
        3: "",
    }[level]
    question = (
        rng.choice(
            (
                f"In {with_article(material)} {body}, {guest} replaces some{site}. Which doping results?",
                f"What doping does {guest} give {with_article(material)} {body} when it replaces some{site}?",
                f"Some{site} of {with_article(material)} {body} are replaced by {guest}. Name the doping.",
            )
        )
        + told
    )
    kind, carrier = ("n-type", "extra electrons") if own > hosts else ("p-type", "holes")
    other, opposite = ("p-type", "holes") if own > hosts else ("n-type", "extra electrons")
    counted = f"{sentence(guest)} has {own} valence electrons, {name_of(replaced)} {hosts}"
    options = {
        f"{kind}, {carrier}": counted,
        f"{other}, {opposite}": f"{sentence(guest)} is taken for {'an acceptor' if own > hosts else 'a donor'}",
        f"{other}, {carrier}": counted,
        f"{kind}, {opposite}": counted,
    }
    rule = "More valence electrons than the host: n-type, extra electrons; fewer: p-type, holes."
    return choose(options, f"{kind}, {carrier}").draft(question, rule, "doping")


@dataclass(frozen=True)
class Treatment:
    """What is done to red-hot or cooler steel, what becomes of it, and why."""

    done: str
    result: str
    reason: str


@redraw_until_distinct
def heat_treatment(rng: random.Random, level: int) -> Draft:
    """Quenching hot steel hardens it, slow cooling softens it, tempering gives back toughness."""
    hot, warm, cold = (
        rng.choice((800, 820, 850, 880, 900)),
        rng.choice((200, 250, 300, 350)),
        rng.choice((90, 120, 150)),
    )
    bath, slow = (
        rng.choice(("water", "brine", "oil")),
        rng.choice(("in the furnace", "in hot ash", "in hot sand")),
    )
    treatments = (
        Treatment(f"heated to {hot} C and quenched in {bath}", QUENCHED, "Quenching makes martensite"),
        Treatment(f"heated to {hot} C and cooled slowly {slow}", ANNEALED, "Slow cooling anneals the steel"),
        Treatment(
            f"quenched from {hot} C and then reheated to {warm} C",
            TEMPERED,
            "Reheating tempers the martensite",
        ),
        Treatment(
            f"annealed, heated to only {cold} C and quenched in {bath}",
            UNTREATED,
            "Below 727 C nothing transforms",
        ),
    )
    treatment = rng.choice(treatments[: level + 1])
    part = with_article(rng.choice(("chisel", "gear", "knife", "axle", "spring", "drill", "saw blade", "file")))
    question = rng.choice(
        (
            f"{sentence(part)} of carbon steel is {treatment.done}. What is it like after this heat treatment?",
            f"Heat treatment: {part} of carbon steel is {treatment.done}. What is the steel like now?",
            f"What does this do to {part} of carbon steel: it is {treatment.done}?",
        )
    )
    options = {t.result: t.reason for t in treatments}
    rule = "Quenching from above 727 C hardens, slow cooling softens, reheating afterwards toughens."
    return choose(options, treatment.result).draft(question, rule, "carbon steel")


CHOICES: dict[str, Family] = {
    "lightest_metal": lightest_metal,
    "bond_type": bond_type,
    "doping_type": doping_type,
    "heat_treatment": heat_treatment,
}
