"""Chemistry: families of short questions on amounts, solutions and gases, and those on atoms and reactions.

Molar masses, melting and boiling points and constants are read from molmass, CoolProp and scipy.
"""

from __future__ import annotations

import functools
import random
import re

from CoolProp.CoolProp import PropsSI
from scipy import constants

from opcod.data.science.atoms import ATOMS, grams_per_mol
from opcod.data.science.common import (
    Draft,
    Family,
    Mistake,
    Quantity,
    amount,
    divide,
    multiply,
    num,
    redraw_until_distinct,
    slip,
)
from opcod.data.science.reactions import REACTION_FAMILIES

KELVIN_AT_0_C = round(constants.zero_Celsius)
AMOUNTS = {
    1: "H2 He CH4 H2O Ne NH3 CO N2 C O2 Li",
    2: "CO2 C2H6 NO C3H8 SO2 SO3 CaO MgO NaOH CaCO3 NaF HF Na2O",
    3: "H2O CO2 CaCO3 NaOH CH4 C6H12O6 KOH MgO SO2 NH3",
}
STRONG_ACIDS = ("HCl", "HBr", "HI", "HNO3", "HClO4")
STRONG_BASES = ("NaOH", "KOH", "LiOH", "RbOH", "CsOH")
SOLUTES = ("salt", "sugar", "NaOH", "HCl", "KCl", "glucose", "CuSO4", "KNO3")
GASES = ("helium", "nitrogen", "oxygen", "argon", "air", "neon", "methane", "hydrogen")
SUBSTANCES = {
    1: "Water Ethanol Methanol Acetone Benzene Toluene CycloHexane n-Hexane n-Heptane n-Octane n-Decane o-Xylene",
    2: "Ammonia Oxygen Nitrogen Argon Methane n-Propane n-Butane Krypton Xenon Ethane Ethylene Fluorine "
    "Chlorine HydrogenSulfide SulfurDioxide",
    3: "Water Ethanol Methanol Acetone Benzene Toluene Ammonia n-Butane n-Pentane n-Hexane SulfurDioxide Chlorine",
}


@functools.cache
def melting_and_boiling_point(substance: str) -> tuple[int, int]:
    """Triple point, close to the melting point, and boiling point at 1 atm from CoolProp, in C."""
    kelvin = (
        PropsSI("Ttriple", substance),
        PropsSI("T", "P", constants.atm, "Q", 0, substance),
    )
    melting, boiling = (round(constants.convert_temperature(t, "Kelvin", "Celsius")) for t in kelvin)
    return melting, boiling


@redraw_until_distinct
def moles(rng: random.Random, level: int) -> Draft:
    """The amount in mol is mass divided by molar mass."""
    formula = rng.choice(AMOUNTS[level].split())
    molar = Quantity(grams_per_mol(formula), "g/mol")
    n = rng.randint(2, 9) if level == 1 else rng.randint(3, 25)
    if level == 2 and rng.random() < 0.5:
        question = rng.choice(
            (
                f"What is the mass of {n} mol of {formula}? Its molar mass is {molar}.",
                f"{formula} has a molar mass of {molar}. How many grams are {n} mol of it?",
            )
        )
        working = multiply(Quantity(n, "mol"), molar, "g")
        return working.draft(question, "Mass is the amount in mol times the molar mass.", "molar mass")
    rule, first, mistakes = "The amount in mol is mass divided by molar mass.", "", list[Mistake]()
    grams = n * molar.value * (5 if level == 3 else 1)
    given = f"{num(grams)} g"
    if level == 3:
        given, first = f"{num(grams / 1000)} kg", f"{num(grams / 1000)} kg = {num(grams)} g; "
        rule = "Convert to grams; mol is mass divided by molar mass."
        hundred = f"{given} = {num(grams / 10)} g; {num(grams / 10)} g / {molar}"
        mistakes = [
            slip(f"{given} / {molar}", grams / 1000 / molar.value, "mol"),
            slip(hundred, grams / 10 / molar.value, "mol"),
        ]
    question = rng.choice(
        (
            f"How many mol are {given} of {formula}? Its molar mass is {molar}.",
            f"{formula} has a molar mass of {molar}. How many mol are in {given} of it?",
            f"A flask holds {given} of {formula} with molar mass {molar}. How many mol is that?",
        )
    )
    working = divide(Quantity(grams, "g"), molar, "mol", first)
    return working.draft(question, rule, "molar mass", *mistakes)


@redraw_until_distinct
def ph(rng: random.Random, level: int) -> Draft:
    """pH is the exponent of the hydrogen ion concentration with its sign changed; pH and pOH add up to 14."""
    if level == 3:
        return _ph_after_dilution(rng)
    n, solute = rng.randint(1, 6), rng.choice(STRONG_ACIDS if level == 1 else STRONG_BASES)
    strength, ion = ("acid", "H+") if level == 1 else ("base", "OH-")
    concentration = rng.choice((f"10^-{n} mol/L", f"{10**-n:.{n}f} mol/L"))
    question = rng.choice(
        (
            f"What is the pH of {concentration} {solute}, a strong {strength} that gives one {ion} each?",
            f"{solute} is a strong {strength} with one {ion} each. Find the pH at {concentration}.",
        )
    )
    other = slip(f"14 - {n}", 14 - n, "")
    sign = slip("The exponent", -n, "")
    tens = slip(f"10 x {n}", 10 * n, "")
    if level == 1:
        rule = "pH is the exponent of the H+ concentration without its minus sign."
        miscount = slip("Counting the zeros after the point", n - 1, "")
        steps = f"{concentration} H+ is 10^-{n}, so the pH = {n}."
        return Draft(question, str(n), rule, steps, "pH", (other, sign, tens, miscount))
    rule = "The exponent without minus is the pOH; pH is 14 minus pOH."
    acid = slip(f"{concentration} is 10^-{n}, so pH", n, "")
    added = slip(f"14 + {n}", 14 + n, "")
    seven = slip(f"7 + {n}", 7 + n, "")
    steps = f"{concentration} OH- is 10^-{n}, so pOH {n}; 14 - {n} = {14 - n}."
    return Draft(question, str(14 - n), rule, steps, "pH", (acid, added, seven))


def _ph_after_dilution(rng: random.Random) -> Draft:
    """Each tenfold dilution moves the pH of a strong acid or base by one towards 7."""
    acid, k = rng.random() < 0.5, rng.randint(1, 3)
    start = rng.randint(1, 6 - k) if acid else rng.randint(8 + k, 14)
    step = 1 if acid else -1
    solute = rng.choice(STRONG_ACIDS if acid else STRONG_BASES)
    question = rng.choice(
        (
            f"{solute} solution of pH {start} is diluted {10**k}-fold with water. What is its pH then?",
            f"Water makes the volume of {solute} of pH {start} {10**k} times as large. Find the new pH.",
        )
    )
    end = start + step * k
    sign = "+" if acid else "-"
    mistakes = (
        slip(f"{start} {'-' if acid else '+'} {k}", start - step * k, ""),
        slip("Diluting changes nothing, pH", start, ""),
        slip(f"{start} {sign} {k + 1}", end + step, ""),
        slip("Water makes it neutral, pH", 7, ""),
    )
    rule = "Each tenfold dilution moves the pH by one towards neutral."
    factors = " x ".join(["10"] * k)
    first = f"{10**k} = {factors}; " if k > 1 else ""
    return Draft(question, str(end), rule, f"{first}{start} {sign} {k} = {end}.", "pH", mistakes)


@redraw_until_distinct
def dilution(rng: random.Random, level: int) -> Draft:
    """Dissolved amount stays: concentration times volume before equals concentration times volume after."""
    solute, k = rng.choice(SOLUTES), rng.randint(2, 9)
    c2 = rng.randint(1, 9) / (1 if level == 1 else 10)
    v1 = 10 * rng.randint(1, 9) if level == 1 else 5 * rng.randint(3, 40)
    c1, v2 = c2 * k, v1 * k
    before = f"{v1} mL of {num(c1)} g/L {solute} solution"
    if level < 3:
        question = rng.choice(
            (
                f"{before} is diluted to {v2} mL. What is its concentration now?",
                f"Water fills up {before} to {v2} mL. Find the new concentration.",
            )
        )
        rule, first = "The concentration falls by the factor by which the volume grows.", ""
    else:
        question = rng.choice(
            (
                f"{v2 - v1} mL of water is added to {before}. What is its concentration now?",
                f"To {before} we add {v2 - v1} mL of water. Find the new concentration.",
            )
        )
        rule = "Volumes add; concentration falls by the factor by which the volume grows."
        first = f"{v1} + {v2 - v1} = {v2}; "
    unit = "g/L"
    answer = amount(c2, unit)
    mistakes = (
        slip(f"{num(c1)} x {v2} / {v1}", c1 * k, unit),
        slip(f"{num(c1)} x {v1} / {v2 - v1}", c1 / (k - 1), unit),
        slip("The concentration", c1, unit),
        slip(f"{num(c1)} / 2", c1 / 2, unit),
    )
    steps = f"{first}{v2} / {v1} = {k}; {num(c1)} / {k} = {answer}."
    return Draft(question, answer, rule, steps, "concentration", mistakes)


@redraw_until_distinct
def gas_law(rng: random.Random, level: int) -> Draft:
    """A gas shrinks as the pressure rises, and grows in proportion to the temperature in kelvin."""
    gas = rng.choice(GASES)
    if level == 1:
        return _squeezed_gas(rng, gas)
    a, b = rng.sample(range(2, 10), k=2)
    size = rng.choice((30, 40, 50, 60, 100))
    cold, hot, v1 = a * size, b * size, a * rng.randint(1, 9)
    v2 = v1 * b / a
    if level == 2:
        start, end, first = f"{cold} K", f"{hot} K", ""
        rule = "At constant pressure the volume is proportional to the kelvin temperature."
    else:
        start, end = f"{cold - KELVIN_AT_0_C} C", f"{hot - KELVIN_AT_0_C} C"
        first = f"{start} = {cold} K, {end} = {hot} K; "
        rule = "Volume is proportional to kelvin, which is C plus 273."
    question = rng.choice(
        (
            f"{v1} L of {gas} at {start} is brought to {end} at constant pressure. What is its volume then?",
            f"At constant pressure, {v1} L of {gas} goes from {start} to {end}. What volume has it then?",
        )
    )
    inverted = slip(f"{first}{v1} x {cold} / {hot}", v1 * a / b, "L")
    mistakes: tuple[Mistake, ...] = (
        inverted,
        slip("Constant pressure, so the volume", v1, "L"),
        slip(f"{v1} x {b}", v1 * b, "L"),
    )
    if level == 3:
        t1, t2 = cold - KELVIN_AT_0_C, hot - KELVIN_AT_0_C
        if t1 <= 0 or t2 <= 0:
            return gas_law(rng, level)
        unconverted = slip(f"{v1} x {t2} / {t1}", v1 * t2 / t1, "L")
        mistakes = (unconverted, *mistakes[:2])
    steps = f"{first}{v1} x {hot} / {cold} = {amount(v2, 'L')}."
    return Draft(question, amount(v2, "L"), rule, steps, "volume", mistakes)


def _squeezed_gas(rng: random.Random, gas: str) -> Draft:
    """At constant temperature pressure times volume stays the same."""
    k, p, v = rng.randint(2, 6), rng.randint(1, 9), rng.randint(2, 10)
    start, end = f"{k * v} L of {gas} at {p} bar", f"{k * p} bar"
    question = rng.choice(
        (
            f"At constant temperature, {start} is squeezed to {end}. What is its volume then?",
            f"The pressure of {start} rises to {end} at constant temperature. Find the new volume.",
        )
    )
    mistakes = (
        slip(f"{k * v} x {k}", k * k * v, "L"),
        slip("Constant temperature, so the volume", k * v, "L"),
        slip(f"{k * v} / {k * p}", v / p, "L"),
        slip(f"{k * v} - {k}", k * v - k, "L"),
    )
    rule = "At constant temperature, volume falls by the factor by which pressure rises."
    steps = f"{k * p} / {p} = {k}; {k * v} / {k} = {v} L."
    return Draft(question, f"{v} L", rule, steps, "volume", mistakes)


@redraw_until_distinct
def state_of_matter(rng: random.Random, level: int) -> Draft:
    """Solid below the melting point, liquid up to the boiling point, gas above."""
    substance = rng.choice(SUBSTANCES[level].split())
    melting, boiling = melting_and_boiling_point(substance)
    answer = rng.choice(("solid", "liquid", "gas"))
    coldest = max(melting - 60, 5 - KELVIN_AT_0_C)
    lowest, highest = {
        "solid": (coldest, melting - 2),
        "liquid": (melting + 2, boiling - 2),
        "gas": (boiling + 3, boiling + 90),
    }[answer]
    t = rng.randint(lowest, max(lowest, highest))
    if not lowest <= t <= highest:
        return state_of_matter(rng, level)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", substance.replace("CycloHexane", "Cyclohexane")).lower()
    name = name.removeprefix("n-").replace("o-xylene", "ortho-xylene")
    shown = f"{t + KELVIN_AT_0_C} K" if level == 3 else f"{t} C"
    points = f"melts at {melting} C and boils at {boiling} C"
    question = rng.choice(
        (
            f"{name.capitalize()} {points}. In which state is it at {shown}?",
            f"In which state is {name} at {shown}? It {points}.",
            f"In which state is {name} at {shown} if it {points}?",
        )
    )
    reasons = {
        "solid": f"{shown} is below {melting} C",
        "liquid": f"{shown} lies between the two",
        "gas": f"{shown} is above {boiling} C",
        "plasma": f"{shown} is extremely hot",
    }
    if level == 3:
        unconverted = _state(t + KELVIN_AT_0_C, melting, boiling)
        reasons[unconverted] = f"{t + KELVIN_AT_0_C} is compared as if in C"
    place = {
        "solid": f"is below {melting} C",
        "liquid": f"lies between {melting} C and {boiling} C",
        "gas": f"is above {boiling} C",
    }[answer]
    first = f"{shown} = {t} C; " if level == 3 else ""
    mistakes = tuple(Mistake(state, f"{why}, so it is {state}.") for state, why in reasons.items() if state != answer)
    rule = "Solid below the melting point, gas above the boiling point, liquid between them."
    if level == 3:
        rule = "C is kelvin minus 273; solid below melting, gas above boiling, else liquid."
    return Draft(question, answer, rule, f"{first}{t} C {place}, so it is {answer}.", "state", mistakes)


def _state(celsius: float, melting: float, boiling: float) -> str:
    """The state of matter at a temperature."""
    if celsius < melting:
        return "solid"
    return "liquid" if celsius < boiling else "gas"


FAMILIES: dict[str, Family] = (
    ATOMS | REACTION_FAMILIES | {family.__name__: family for family in (moles, ph, dilution, gas_law, state_of_matter)}
)
