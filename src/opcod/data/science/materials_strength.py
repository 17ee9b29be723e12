"""Materials under load and heat: stress, strain, stiffness, expansion and safety.

Moduli and expansion coefficients are rounded handbook values; the question states those it needs.
"""

from __future__ import annotations

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
from opcod.data.science.working import by_level, reckon, sentence, with_article

MODULI_GPA = {
    "magnesium": 45,
    "aluminum": 70,
    "glass": 70,
    "titanium": 110,
    "brass": 100,
    "nickel": 200,
    "tungsten": 400,
    "steel": 200,
}
EXPANSION_UM = {
    "silicon": 3,
    "tungsten": 4,
    "alumina": 8,
    "glass": 9,
    "titanium": 9,
    "platinum": 9,
    "steel": 12,
    "concrete": 12,
    "nickel": 13,
    "copper": 17,
    "brass": 19,
    "aluminum": 23,
}


@redraw_until_distinct
def stress(rng: random.Random, level: int) -> Draft:
    """Stress is force divided by cross-sectional area."""
    part = rng.choice(("steel rod", "nylon cord", "copper wire", "glass rod", "titanium rod", "aluminum strip"))
    area = Quantity(by_level(rng, level, range(2, 13), range(15, 61, 5), range(20, 201, 20)), "mm2")
    result = by_level(rng, level, range(2, 13), range(6, 41), range(50, 301, 10))
    force = Quantity(result * area.value, "N")
    shown = f"{num(force.value / 1000)} kN" if level == 3 else str(force)
    question = rng.choice(
        (
            f"{sentence(with_article(part))} of {area} cross-section carries {shown}. What is the stress in MPa?",
            f"A force of {shown} pulls on {with_article(part)} of {area} cross-section. Find the stress in MPa.",
            f"What tensile stress in MPa does a load of {shown} cause in {with_article(part)} of area {area}?",
        )
    )
    rule = "Stress is force divided by area; N per mm2 is MPa."
    if level < 3:
        return divide(force, area, "MPa").draft(question, rule, "stress")
    unconverted = slip(f"{shown} / {area}", result / 1000, "MPa")
    return divide(force, area, "MPa", f"{shown} = {force}; ").draft(question, rule, "stress", unconverted)


@redraw_until_distinct
def percent_elongation(rng: random.Random, level: int) -> Draft:
    """Percent elongation is the increase in length over the original length, times 100."""
    part = rng.choice(("copper strip", "steel bar", "nylon thread", "rubber band", "tin wire", "brass sample"))
    length = by_level(rng, level, (10, 20, 25, 50, 100), (40, 60, 80, 120, 150, 200), (12.5, 37.5, 62.5, 87.5))
    percent: float = 4 * by_level(rng, level, range(1, 16), range(5, 21), range(2, 20))
    if level == 1:
        percent = 100 / length * rng.randint(1, 6)
    extension = length * percent / 100
    old, new, more = f"{num(length)} mm", f"{num(length + extension)} mm", f"{num(extension)} mm"
    change = f"stretches by {more}" if level == 1 else f"is stretched to {new}"
    question = rng.choice(
        (
            f"{sentence(with_article(part))} of {old} {change} before it breaks. What is its percent elongation?",
            f"In a tensile test {with_article(part)} of {old} {change}. Find the percent elongation.",
            f"What percent elongation has {with_article(part)} of {old} that {change}?",
        )
    )
    first = "" if level == 1 else f"{new} - {old} = {more}; "
    by_new = extension / (length + extension) * 100
    mistakes = (
        Mistake(f"{num(extension)} %", f"An extension of {more} means {num(extension)} %."),
        slip(f"{new} / {old} x 100", 100 + percent, "%"),
        slip(f"{more} / {old}", percent / 100, "%"),
        slip(f"{more} / {new} x 100", by_new, "%"),
    )
    return reckon(f"{first}{more} / {old} x 100", percent, "%").draft(
        question,
        "Divide the increase in length by the original length, times 100.",
        "percent elongation",
        *mistakes,
    )


@redraw_until_distinct
def youngs_modulus(rng: random.Random, level: int) -> Draft:
    """Young's modulus is stress divided by elastic strain."""
    soft = rng.choice(("epoxy plate", "wood beam", "nylon bar", "plywood strip", "bone sample", "polymer fibre"))
    metal, form = rng.choice(tuple(MODULI_GPA)), rng.choice(("bar", "rod", "wire", "plate"))
    part, gpa = (soft, rng.randint(2, 12)) if level == 1 else (f"{metal} {form}", MODULI_GPA[metal])
    strain = Quantity(by_level(rng, level, range(2, 10), range(2, 5), range(2, 5)), "thousandths")
    stress = Quantity(gpa * strain.value, "MPa")
    percent = num(strain.value / 10)
    shown = f"{percent} %" if level == 3 else str(strain)
    part = with_article(part)
    question = rng.choice(
        (
            f"{sentence(part)} has an elastic strain of {shown} under {stress}. What is its Young's modulus in GPa?",
            f"A stress of {stress} strains {part} elastically by {shown}. Find its Young's modulus in GPa.",
            f"Which Young's modulus in GPa has {part} with a strain of {shown} at {stress}?",
        )
    )
    rule = "Young's modulus is stress over strain; MPa per thousandth is GPa."
    if level < 3:
        return divide(stress, strain, "GPa").draft(question, rule, "Young's modulus")
    rule = "Divide stress in MPa by strain in thousandths; 1 % is ten thousandths."
    unconverted = slip(f"{stress} / {percent}", gpa * 10, "GPa")
    working = divide(stress, strain, "GPa", f"{percent} % = {strain}; ")
    return working.draft(question, rule, "Young's modulus", unconverted)


@redraw_until_distinct
def thermal_expansion(rng: random.Random, level: int) -> Draft:
    """Expansion is coefficient times length times temperature rise."""
    material = rng.choice(tuple(m for m, um in EXPANSION_UM.items() if level > 1 or um <= 12))
    um = EXPANSION_UM[material]
    coefficient, start = Quantity(um, "um per m per K"), 5 * rng.randint(2, 6)
    rise = Quantity(by_level(rng, level, range(2, 13), range(5, 21, 5), range(20, 90, 10)), "K")
    if level == 1:
        question = rng.choice(
            (
                f"A 1 m {material} rod expands {um} um per kelvin. What is its thermal expansion after a {rise} rise?",
                f"Each metre of {material} grows {um} um per kelvin. Find the thermal expansion of 1 "
                f"m heated by {rise}.",
                f"Heated by {rise}, what thermal expansion has 1 m of {material} at {um} um per kelvin?",
            )
        )
        coefficient = Quantity(um, "um per K")
        rule = "Expansion of one metre is its expansion per kelvin times the temperature rise."
        return multiply(coefficient, rise, "um").draft(question, rule, "thermal expansion")
    length, end = rng.choice((2, 3, 4, 5, 10)), start + int(rise.value)
    unit, scale = ("um", 1) if level == 2 else ("mm", 1000)
    heated = f"is heated by {rise}" if level == 2 else f"is heated from {start} C to {end} C"
    question = rng.choice(
        (
            f"A {length} m {material} bar ({coefficient}) {heated}. What is its thermal expansion in {unit}?",
            f"Find the thermal expansion in {unit} when a {length} m {material} beam ({coefficient}) {heated}.",
        )
    )
    rule = "Expansion is coefficient times length times temperature rise; 1000 um is a millimetre."
    total = um * length * rise.value
    first = "" if level == 2 else f"{end} - {start} = {rise}; "
    last = "" if level == 2 else f" = {num(total)} um"
    mistakes = [
        slip(f"{um} x {rise}", um * rise.value / scale, unit),
        slip(f"{um} x {length} m", um * length / scale, unit),
        slip(f"{um} x ({length} + {num(rise.value)})", um * (length + rise.value) / scale, unit),
    ]
    if level == 3:
        mistakes.insert(0, slip(f"{um} x {length} x {end} / 1000", um * length * end / 1000, unit))
        mistakes.insert(0, slip(f"{num(total)} um / 100", total / 100, unit))
    working = reckon(f"{first}{um} x {length} x {num(rise.value)}{last}", total / scale, unit)
    return working.draft(question, rule, "thermal expansion", *mistakes)


@redraw_until_distinct
def safety_factor(rng: random.Random, level: int) -> Draft:
    """The allowable stress is the strength divided by the safety factor."""
    part = with_article(rng.choice(("bolt", "crane hook", "chain link", "pipe", "ladder rung", "tie rod", "cable")))
    factor = by_level(rng, level, range(2, 9), range(2, 7), (2, 3, 4, 5))
    allowed = by_level(rng, level, range(3, 13), range(40, 151, 10), range(50, 151, 10))
    strength, area = allowed * factor, rng.choice((20, 40, 50, 80, 100, 200))
    load = allowed * area
    section = f" and {area} mm2 section" if level == 3 else ""
    asked = "stress in MPa" if level < 3 else "load in kN"
    question = rng.choice(
        (
            f"{sentence(part)} of strength {strength} MPa{section} is used with a safety factor of {factor}. "
            f"What is the allowable {asked}?",
            f"Find the allowable {asked} of {part} of {strength} MPa strength{section} at a safety factor of {factor}.",
            f"With a safety factor of {factor}, which {asked} may {part} of strength {strength} MPa{section} carry?",
        )
    )
    unit = "MPa" if level < 3 else "kN"

    def wrong(working: str, stress: float) -> Mistake:
        if level < 3:
            return slip(working, stress, unit)
        working = f"{working} = {num(stress)} MPa; {num(stress)} x {area} / 1000"
        return slip(working, stress * area / 1000, unit)

    mistakes = (
        wrong(f"{strength} x {factor}", strength * factor),
        wrong(f"{strength} - {factor}", strength - factor),
        wrong(f"{strength} / 1", strength),
        wrong(f"{strength} + {factor}", strength + factor),
    )
    rule = "Allowable stress is strength divided by the safety factor."
    if level < 3:
        return reckon(f"{strength} MPa / {factor}", allowed, unit).draft(question, rule, "safety factor", *mistakes)
    rule = "Divide strength by the safety factor, then multiply by the area."
    in_newtons = slip(f"{strength} / {factor} x {area}", load, unit)
    working = reckon(f"{strength} / {factor} = {allowed} MPa; {allowed} x {area} = {load} N", load / 1000, unit)
    return working.draft(question, rule, "safety factor", in_newtons, *mistakes)


STRENGTH: dict[str, Family] = {
    "stress": stress,
    "percent_elongation": percent_elongation,
    "youngs_modulus": youngs_modulus,
    "thermal_expansion": thermal_expansion,
    "safety_factor": safety_factor,
}
