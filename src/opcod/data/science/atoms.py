"""The atoms and formulas among the chemistry families: nuclides, ions, oxidation states, trends, molar mass.

Atomic numbers, masses, abundances and trends are read from periodictable and molmass.
"""

from __future__ import annotations

import functools
import math
import random

import periodictable
from molmass import ELEMENTS, Formula

from opcod.data.science.common import Draft, Family, Mistake, amount, num, redraw_until_distinct, slip

IONS = {
    1: "Li+1 Na+1 K+1 Be+2 Mg+2 Ca+2 Al+3 N-3 O-2 F-1 P-3 S-2 Cl-1",
    2: "Rb+1 Sr+2 Ag+1 Cs+1 Ba+2 Sc+3 Ti+4 Cr+3 Mn+2 Fe+2 Fe+3 Co+2 Ni+2 Cu+1 Cu+2 Zn+2 Ga+3 Sn+2 Pb+2 Br-1 I-1 Se-2",
    3: "NH4+1 H3O+1 OH-1 NO2-1 NO3-1 HCO3-1 CO3-2 SO3-2 SO4-2 PO4-3 ClO3-1 CN-1 HSO4-1 "
    "C2O4-2 IO3-1 BrO3-1 ClO4-1 CrO4-2 MnO4-1 HPO4-2",
}
SALTS = {
    1: ("Li+1 Na+1 K+1 Mg+2 Ca+2 Sr+2 Ba+2 Al+3", "F-1 Cl-1 Br-1 I-1 O-2 S-2 N-3"),
    2: ("Cu+1 Ag+1 Mn+2 Fe+2 Co+2 Ni+2 Cu+2 Zn+2 Pb+2 Cr+3 Fe+3 Ti+4 Sn+4", "F-1 Cl-1 Br-1 O-2 S-2"),
    3: ("Li+1 Na+1 K+1 NH4+1 Mg+2 Ca+2 Sr+2 Ba+2 Zn+2 Cu+2 Al+3 Fe+3", "NO3-1 ClO3-1 SO4-2 PO4-3"),
}
MOLAR_MASS = {
    1: "CO CO2 NO NO2 N2O SO2 SO3 H2O H2S HF HBr HI NH3 CH4 SiH4 PH3 LiF LiH NaF NaH NaBr KF KBr KI MgO CaO "
    "CaS MgS MgF2 CaF2 H2O2 CS2 SiO2 FeO SiC TiO2 Na2O K2O Li2O AlN",
    2: "CaCO3 NaOH KOH LiOH H2SO4 HNO3 H3PO4 MgCO3 Na2CO3 K2CO3 NaHCO3 KMnO4 K2CrO4 Na2SO4 K2SO4 CaSO4 BaSO4 "
    "NaNO3 KNO3 AgNO3 C2H6O CH4O C2H4O2 C3H6O CH2O HCN KCN FeSO4 MnSO4 AlPO4 Na3PO4 HNO2 H2SO3 H2CO3",
    3: "C6H12O6 C12H22O11 Ca(OH)2 Mg(OH)2 Al(OH)3 Fe(OH)3 Ba(OH)2 Ca(NO3)2 Mg(NO3)2 Al2(SO4)3 Fe2(SO4)3 "
    "(NH4)2SO4 (NH4)2CO3 Ca3(PO4)2 K2Cr2O7 C8H10N4O2 C9H8O4 C8H9NO2 C4H10O C6H8O7",
}
# A formula, the element asked for, and the states of the others.
OXIDATION = {
    1: "Fe:FeO,Fe2O3 Cu:CuO,Cu2O Mn:MnO2,Mn2O7 Cr:CrO3,Cr2O3 V:V2O5 Ti:TiO2,TiCl4 Sn:SnO2,SnCl2,SnCl4 "
    "Pb:PbO2 C:CO,CO2,CCl4 N:NO,NO2,N2O,N2O3,N2O5,NF3 S:SO2,SO3,SF4,SF6 Cl:Cl2O,Cl2O7 P:P4O10,PCl3,PCl5 "
    "Fe:FeCl2,FeCl3 W:WO3 As:As2O3",
    2: "Mn:KMnO4,K2MnO4 Cr:K2Cr2O7,K2CrO4 S:H2SO4,H2SO3,Na2SO3,K2SO4 N:HNO3,HNO2,NaNO2,KNO3 P:H3PO4,Na3PO4 "
    "Cl:HClO,HClO2,HClO3,HClO4,NaClO,KClO3 C:Na2CO3,H2CO3,CaCO3 Fe:K2FeO4 Br:KBrO3 I:NaIO3",
    3: "Mn:MnO4-1,MnO4-2 Cr:Cr2O7-2,CrO4-2 S:SO4-2,SO3-2,HSO4-1 N:NO3-1,NO2-1,NH4+1 P:PO4-3 C:CO3-2,HCO3-1 "
    "Cl:ClO-1,ClO2-1,ClO3-1,ClO4-1 V:VO4-3 Br:BrO3-1 I:IO3-1",
}
STATES = {"O": -2, "F": -1, "Cl": -1, "H": 1, "Na": 1, "K": 1, "Ca": 2}
LINES = {
    "group": ("Li Na K Rb Cs", "Be Mg Ca Sr Ba", "O S Se Te", "F Cl Br I", "N P As Sb"),
    "period": ("Li Be B C N O F", "Na Mg Al Si P S Cl", "K Ca Ga Ge As Se Br"),
}


def element_name(symbol: str) -> str:
    """The element's name in lower case."""
    return str(getattr(periodictable, symbol).name)


def atomic_number(symbol: str) -> int:
    """The element's number of protons."""
    return int(getattr(periodictable, symbol).number)


def atomic_mass(symbol: str) -> int:
    """The element's molar mass in g/mol, rounded."""
    return round(ELEMENTS[symbol].mass)


@functools.cache
def grams_per_mol(formula: str) -> int:
    """A compound's molar mass in g/mol, rounded."""
    return round(Formula(formula).mass)


@functools.cache
def atoms_in(formula: str) -> dict[str, int]:
    """How many atoms of each element a formula has."""
    return {symbol: item.count for symbol, item in Formula(formula).composition().items()}


def signed(number: float) -> str:
    """A charge or oxidation state with its sign; zero has none."""
    return f"{number:+.0f}" if number else "0"


def split_ion(ion: str) -> tuple[str, int]:
    """`SO4-2` as formula and charge."""
    return ion[:-2], int(ion[-2:])


def ion_text(formula: str, charge: int) -> str:
    """How an ion is written: `Na+`, `Al3+`, and with more than one atom `SO4^2-`."""
    size = "" if abs(charge) == 1 else str(abs(charge))
    polyatomic = sum(atoms_in(formula).values()) > 1
    return f"{formula}{'^' if polyatomic else ''}{size}{'+' if charge > 0 else '-'}"


@functools.cache
def stable_nuclides(lightest: int, heaviest: int) -> tuple[tuple[str, int, int], ...]:
    """Name, atomic number and mass number of nuclides found in nature, between two atomic numbers."""
    return tuple(
        (element.name, element.number, a)
        for element in periodictable.elements
        for a in element.isotopes
        if lightest <= element.number <= heaviest and element[a].abundance > 0 and a > element.number
    )


@redraw_until_distinct
def neutrons(rng: random.Random, level: int) -> Draft:
    """Neutrons are the mass number minus the atomic number."""
    name, z, a = rng.choice(stable_nuclides(1 if level == 1 else 21, 20 if level == 1 else 83))
    n = a - z
    atom = f"an atom of {name}-{a} with atomic number {z}"
    protons = slip("The atomic number", z, "")
    whole = slip("The mass number", a, "")
    if level == 3:
        question = rng.choice(
            (
                f"How many more neutrons than protons has {atom}?",
                f"By how many do the neutrons outnumber the protons in {atom}?",
            )
        )
        count = slip(f"{a} - {z}", n, "")
        rule = "Neutrons are mass number minus atomic number; then subtract the protons."
        steps = f"{a} - {z} = {n} neutrons; {n} - {z} = {n - z}."
        return Draft(question, str(n - z), rule, steps, "neutrons", (count, protons, whole))
    question = rng.choice(
        (
            f"How many neutrons has {atom}?",
            f"Find the number of neutrons in {atom}.",
            f"{name.capitalize()} has atomic number {z}. How many neutrons are in a nucleus of {name}-{a}?",
        )
    )
    mistakes = (
        protons,
        whole,
        slip(f"{a} + {z}", a + z, ""),
        slip(f"{a} - {z} - {z}", a - 2 * z, ""),
    )
    rule = "Neutrons are the mass number minus the atomic number."
    return Draft(question, str(n), rule, f"{a} - {z} = {n}.", "neutrons", mistakes)


@redraw_until_distinct
def ion_electrons(rng: random.Random, level: int) -> Draft:
    """An ion's electrons are the protons of its atoms minus its charge."""
    formula, charge = split_ion(rng.choice(IONS[level].split()))
    ion, atoms = ion_text(formula, charge), atoms_in(formula)
    z = sum(count * atomic_number(symbol) for symbol, count in atoms.items())
    if level < 3 and rng.random() < 0.4:
        return _charge_of_ion(rng, formula, charge)
    if level == 3:
        numbers = ", ".join(f"{symbol} {atomic_number(symbol)}" for symbol in atoms)
        question = rng.choice(
            (
                f"How many electrons does the ion {ion} have? Use the atomic numbers {numbers}.",
                f"Count the electrons of one {ion} ion with the atomic numbers {numbers}.",
                f"The atomic numbers are {numbers}. Find the number of electrons in the ion {ion}.",
                f"From the atomic numbers {numbers}, find how many electrons are in one {ion} ion.",
            )
        )
    else:
        given = f"{element_name(formula)} has atomic number {z}"
        question = rng.choice(
            (
                f"{given.capitalize()}. How many electrons does the ion {ion} have?",
                f"Count the electrons of the ion {ion}; {given}.",
                f"How many electrons are in one {ion} ion, if {given}?",
                f"Find the number of electrons in {ion}, given that {given}.",
            )
        )
    terms = " + ".join(f"{count} x {atomic_number(symbol)}" for symbol, count in atoms.items())
    first = f"{terms} = {z}; " if level == 3 else ""
    minus = f"{z} - {charge}" if charge > 0 else f"{z} + {-charge}"
    plus = f"{z} + {charge}" if charge > 0 else f"{z} - {-charge}"
    once = sum(atomic_number(symbol) for symbol in atoms) - charge
    each_once = " + ".join(str(atomic_number(symbol)) for symbol in atoms) + minus.removeprefix(str(z))
    mistakes = (
        slip(f"{first}{z} protons, so electrons", z, ""),
        slip(f"{first}{plus}", z + charge, ""),
        slip(each_once, once, ""),
        slip(f"{first}{z} + {z}", 2 * z, ""),
        slip("The charge", abs(charge), ""),
    )
    rule = "Electrons are all atomic numbers together minus the ion's charge."
    if level < 3:
        rule = "An ion's electrons are its atomic number minus its charge."
    return Draft(question, str(z - charge), rule, f"{first}{minus} = {z - charge}.", "electrons", mistakes)


def _charge_of_ion(rng: random.Random, symbol: str, charge: int) -> Draft:
    """An ion's charge is its protons minus its electrons."""
    name, z = element_name(symbol), atomic_number(symbol)
    electrons = z - charge
    question = rng.choice(
        (
            f"An ion of {name} (atomic number {z}) has {electrons} electrons. What is its charge?",
            f"What is the charge of an ion with atomic number {z} ({name}) and {electrons} electrons?",
            f"{name.capitalize()} has atomic number {z}. What charge has its ion with {electrons} electrons?",
        )
    )
    mistakes = (
        Mistake(f"{-charge:+d}", f"{electrons} - {z} = {-charge:+d}."),
        Mistake(f"{-electrons:+d}", f"It has {electrons} electrons: {-electrons:+d}."),
        Mistake(f"{z:+d}", f"It has {z} protons: {z:+d}."),
    )
    steps = f"{z} - {electrons} = {charge:+d}."
    return Draft(question, f"{charge:+d}", "Charge is the protons minus the electrons.", steps, "charge", mistakes)


@redraw_until_distinct
def oxidation_state(rng: random.Random, level: int) -> Draft:
    """The oxidation states of all atoms add up to the charge."""
    choices = [(group.split(":")[0], f) for group in OXIDATION[level].split() for f in group.split(":")[1].split(",")]
    asked, formula = rng.choice(choices)
    formula, charge = split_ion(formula) if level == 3 else (formula, 0)
    shown = ion_text(formula, charge) if charge else formula
    atoms = dict(atoms_in(formula))
    n = atoms.pop(asked)
    given = " and ".join(f"{element_name(s)} as {STATES[s]:+d}" for s in atoms)
    question = rng.choice(
        (
            f"In {shown} we count {given}. What is the oxidation state of {element_name(asked)}?",
            f"Find the oxidation state of {element_name(asked)} in {shown} with {given}.",
            f"What oxidation state has {element_name(asked)} in {shown}? Take {given}.",
            f"With {given}, which oxidation state does {element_name(asked)} have in {shown}?",
        )
    )
    others = sum(count * STATES[s] for s, count in atoms.items())
    total = charge - others
    terms = " + ".join(f"{count} x {STATES[s]:+d}" for s, count in atoms.items())
    first = f"{terms} = {others:+d}; "

    def shared(difference: str) -> str:
        return f"({difference}) / {n}" if n > 1 else difference

    answer = signed(total // n)
    singles = charge - sum(STATES[s] for s in atoms)
    units = charge - sum(count * math.copysign(1, STATES[s]) for s, count in atoms.items())
    other = next(iter(atoms))
    wrong = (
        (first + shared(f"{others:+d} {'+' if charge < 0 else '-'} {abs(charge)}"), -total / n),
        (first + shared(f"0 - ({others:+d})"), -others / n),
        (f"{first}all of {-others:+d}", total),
        (f"One of each, {signed(charge)} - ({signed(charge - singles)})", singles),
        ("Each other atom counted as one", units / n),
        ("A compound is neutral", 0),
        (f"Like {element_name(other)}", STATES[other]),
    )
    mistakes = tuple(
        Mistake(signed(value), f"{steps} = {signed(value)}.") for steps, value in wrong if float(value).is_integer()
    )
    working = shared(f"{signed(charge)} - ({others:+d})")
    steps = f"{first}{working} = {answer}."
    rule = "Count times state, added over all atoms, gives the total charge."
    return Draft(question, answer, rule, steps, "oxidation state", mistakes)


@redraw_until_distinct
def ionic_formula(rng: random.Random, level: int) -> Draft:
    """In a salt the charges of the ions cancel."""
    positive, negative = SALTS[level]
    (cation, p), (anion, q) = split_ion(rng.choice(positive.split())), split_ion(rng.choice(negative.split()))
    ions = f"{ion_text(cation, p)} and {ion_text(anion, q)}"
    question = rng.choice(
        (
            f"What is the formula of the salt of {ions} ions?",
            f"Which salt do {ions} form?",
            f"Write the formula of the salt made of {ions}.",
        )
    )
    common = math.gcd(p, q)
    a, b = -q // common, p // common

    def salt(a: int, b: int) -> str:
        return _times(cation, a) + _times(anion, b)

    pairs = ((1, 1), (b, a), (-q, p), (p, -q), (1, 2), (2, 1), (2, 2), (1, 3))
    unreduced = (2, 2) if p == -q else (-q, p)

    def is_typical(i: int, j: int) -> bool:
        """Whether the charges do not cancel, or the subscripts are only not reduced."""
        total = i * p + j * q
        if total == 0 or (i, j) == (2, 2):
            return (i, j) == unreduced
        return total < 0 or (i, j) not in ((1, 2), (1, 3))  # those two only as too many negative ions

    mistakes = tuple(
        Mistake(salt(i, j), f"{i} x {ion_text(cation, p)} with {j} x {ion_text(anion, q)}: {salt(i, j)}.")
        for i, j in pairs
        if is_typical(i, j)
    )
    steps = f"{a} x {p:+d} and {b} x {q:+d} cancel, so it is {salt(a, b)}."
    rule = "Take as many of each ion as makes the charges cancel."
    return Draft(question, salt(a, b), rule, steps, "salt", mistakes)


def _times(ion: str, count: int) -> str:
    """An ion with its subscript, in brackets where it has several atoms."""
    if count == 1:
        return ion
    return f"({ion}){count}" if sum(atoms_in(ion).values()) > 1 else f"{ion}{count}"


@redraw_until_distinct
def periodic_trend(rng: random.Random, level: int) -> Draft:
    """Radius grows down and to the left; electronegativity and ionization energy up and to the right."""
    prop, values = {
        1: ("atomic radius", lambda e: e.covrad),
        2: ("electronegativity", lambda e: e.eleneg),
        3: ("ionization energy", lambda e: e.ionenergy[0]),
    }[level]
    while True:
        kind = rng.choice(("group", "period", "period"))
        line = rng.choice(LINES[kind]).split()
        picked = [line[i] for i in sorted(rng.sample(range(len(line)), k=4))]
        measured = [values(ELEMENTS[s]) for s in picked]
        rising = (kind == "group") == (level == 1)
        if measured == sorted(set(measured), reverse=not rising):
            break
    most = rng.random() < 0.5
    extreme = "largest" if most else "smallest"
    order = list(picked) if level < 3 else rng.sample(picked, k=4)
    if level == 3:
        place = f"belong to one {kind}"
    else:
        place = "come in this order down a group" if kind == "group" else "come in this order along a period"
    names = [element_name(s) for s in order]
    question = rng.choice(
        (
            f"{', '.join(names[:3]).capitalize()} and {names[3]} {place}. Which has the {extreme} {prop}?",
            f"Which has the {extreme} {prop}: {', '.join(names[:3])} or {names[3]}? They {place}.",
        )
    )
    best = [element_name(s) for s in (reversed(picked) if rising == most else picked)]
    way, trend = "down a group" if kind == "group" else "along a period", "rises" if rising else "falls"
    rule = f"{prop.capitalize()} {trend} {way}."
    end = "last" if rising == most else "first"
    row = ", ".join(element_name(s) for s in picked)
    steps = f"Along {row} it {trend}, so the {extreme} is that of {best[0]}."
    mistakes = (
        Mistake(best[3], f"The {extreme} comes at the other end: {best[3]}."),
        Mistake(best[1], f"The {extreme} comes near the {end}: {best[1]}."),
        Mistake(best[2], f"The {extreme} lies within the row: {best[2]}."),
    )
    return Draft(question, best[0], rule, steps, prop, mistakes)


@redraw_until_distinct
def molar_mass(rng: random.Random, level: int) -> Draft:
    """Molar mass is the sum over the atoms of their atomic masses."""
    formula = rng.choice(MOLAR_MASS[level].split())
    atoms = atoms_in(formula)
    masses = ", ".join(f"{s} {atomic_mass(s)}" for s in atoms)
    question = rng.choice(
        (
            f"What is the molar mass of {formula}? Atomic masses: {masses}.",
            f"Atomic masses are {masses}. Find the molar mass of {formula}.",
            f"Find the molar mass of {formula} from the atomic masses {masses}.",
            f"With the atomic masses {masses}, how many g/mol is the molar mass of {formula}?",
        )
    )

    def total(weights: dict[str, int], counts: dict[str, int]) -> tuple[str, int]:
        terms = (num(weights[s]) if n == 1 else f"{n} x {weights[s]}" for s, n in counts.items())
        return " + ".join(terms), sum(n * weights[s] for s, n in counts.items())

    weights, numbers = {s: atomic_mass(s) for s in atoms}, {s: atomic_number(s) for s in atoms}
    reversed_counts = dict(zip(atoms, reversed(atoms.values()), strict=True))
    lost = dict(list(atoms.items())[:-1])
    unit = "g/mol"
    sum_text, mass = total(weights, atoms)
    mistakes = (
        slip(*total(weights, dict.fromkeys(atoms, 1)), unit),
        slip(*total(numbers, atoms), unit),
        slip(*total(weights, reversed_counts), unit),
        slip(*total(weights, lost), unit),
        slip(f"2 x ({sum_text})", 2 * mass, unit),
    )
    rule = "Molar mass is the sum of count times atomic mass over the elements."
    return Draft(question, amount(mass, unit), rule, f"{sum_text} = {amount(mass, unit)}.", "molar mass", mistakes)


ATOMS: dict[str, Family] = {
    family.__name__: family
    for family in (neutrons, ion_electrons, oxidation_state, ionic_formula, periodic_trend, molar_mass)
}
