"""Physics: families of short questions on circuits, matter, waves and optics, and those on mechanics.

Constants of nature and of materials are read from scipy, periodictable and CoolProp, never typed in.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass
from fractions import Fraction

import periodictable
import periodictable.activation
from CoolProp.CoolProp import PropsSI
from scipy import constants

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
from opcod.data.science.mechanics import MECHANICS, factors

METALS = (
    "aluminum",
    "copper",
    "gold",
    "iron",
    "lead",
    "nickel",
    "platinum",
    "silver",
    "tin",
    "titanium",
    "zinc",
)
LIQUIDS = ("Water", "Ethanol", "Methanol", "Acetone", "Benzene", "Toluene")
SOUND_CARRIERS = ("Air", "Helium", "Argon", "Methane", "Water", "Ethanol", "Acetone", "Toluene")
RADIOACTIVE = (
    ("Na", 23, "Na-24"),
    ("Co", 59, "Co-60"),
    ("P", 31, "P-32"),
    ("Cu", 63, "Cu-64"),
    ("H", 2, "H-3"),
    ("F", 19, "F-18"),
)
TIME_UNITS = {"s": "s", "m": "min", "h": "hours", "d": "days", "y": "years"}


@functools.cache
def at_room_temperature(property_key: str, fluid: str) -> float:
    """A fluid's property from CoolProp, in SI units, at 20 C and 1 atm."""
    celsius_20 = constants.convert_temperature(20, "Celsius", "Kelvin")
    return float(PropsSI(property_key, "T", celsius_20, "P", constants.atm, fluid))


@functools.cache
def half_life_of(element: str, mass_number: int, product: str) -> Quantity:
    """The rounded half-life of what neutrons make of a nuclide, from periodictable's activation table."""
    reactions = getattr(periodictable, element)[mass_number].neutron_activation
    length, unit = next(r.Thalf_str for r in reactions if r.daughter == product).split()
    return Quantity(round(float(length)), TIME_UNITS[unit])


@redraw_until_distinct
def ohm(rng: random.Random, level: int) -> Draft:
    """Voltage is current times resistance; power is voltage times current."""
    part, i, r = (
        rng.choice(("lamp", "heater", "resistor", "motor coil", "wire")),
        rng.randint(2, 9),
        rng.randint(2, 10),
    )
    if level == 1:
        current, resistance, voltage = Quantity(i, "A"), Quantity(r, "ohm"), Quantity(i * r, "V")
        if rng.random() < 0.5:
            question = f"A {part} of {resistance} carries a current of {current}. What is its voltage?"
            return multiply(current, resistance, "V").draft(question, "Voltage is current times resistance.", "voltage")
        question = f"A {part} of {resistance} is connected to {voltage}. What current flows?"
        return divide(voltage, resistance, "A").draft(question, "Current is voltage divided by resistance.", "current")
    if level == 2:
        r1 = rng.randint(2, 20)
        r2, total = r, r1 + r
        question = rng.choice(
            (
                f"Resistors of {r1} ohm and {r2} ohm are in series on {i * total} V. What current flows?",
                f"A battery of {i * total} V feeds {r1} ohm and {r2} ohm in series. Find the current.",
            )
        )
        voltage = Quantity(i * total, "V")
        working = divide(voltage, Quantity(total, "ohm"), "A", f"{r1} + {r2} = {total}; ")
        first_only = slip(f"{voltage} / {r1} ohm", i * total / r1, "A")
        second_only = slip(f"{voltage} / {r2} ohm", i * total / r2, "A")
        rule = "Series resistances add; current is voltage divided by the total."
        return working.draft(question, rule, "series", first_only, second_only)
    milliamps, v = 50 * rng.randint(2, 30), rng.choice((2, 4, 5, 6, 8, 9, 12, 20, 24))
    voltage, current = Quantity(v, "V"), Quantity(milliamps / 1000, "A")
    question = rng.choice(
        (
            f"A {part} on {voltage} carries {milliamps} mA. What is its electric power in watts?",
            f"Find the electric power in watts of a {part} that draws {milliamps} mA from {voltage}.",
        )
    )
    unconverted = slip(f"{v} x {milliamps}", v * milliamps, "W")
    tenfold = slip(f"{milliamps} mA = {num(milliamps / 100)} A; {v} x {num(milliamps / 100)}", v * milliamps / 100, "W")
    working = multiply(voltage, current, "W", f"{milliamps} mA = {current}; ")
    rule = "Convert to amperes; electric power is voltage times current."
    return working.draft(question, rule, "electric power", unconverted, tenfold)


@redraw_until_distinct
def density(rng: random.Random, level: int) -> Draft:
    """Density is mass divided by volume."""
    if level == 3:
        return _block_of_metal(rng)
    thing, (rho, v) = (
        rng.choice(("stone", "plastic block", "syrup sample", "glass ball", "metal lump")),
        factors(rng, 1),
    )
    v *= 1 if level == 1 else rng.choice((5, 10, 20))
    mass, volume, dense = Quantity(rho * v, "g"), Quantity(v, "cm3"), Quantity(rho, "g/cm3")
    if level == 1 or rng.random() < 0.5:
        question = rng.choice(
            (
                f"A {thing} has a mass of {mass} and a volume of {volume}. What is its density?",
                f"Find the density of a {thing} that weighs {mass} and fills {volume}.",
            )
        )
        return divide(mass, volume, "g/cm3").draft(question, "Density is mass divided by volume.", "density")
    question = rng.choice(
        (
            f"A {thing} has a density of {dense} and a mass of {mass}. What is its volume?",
            f"What volume has {mass} of a {thing} with density {dense}?",
        )
    )
    return divide(mass, dense, "cm3").draft(question, "Volume is mass divided by density.", "density")


def _block_of_metal(rng: random.Random) -> Draft:
    """The mass of a block from its edges and the metal's tabulated density."""
    metal = rng.choice(METALS)
    rho = round(getattr(periodictable, metal).density, 1)
    a, b, c = sorted(rng.choices((2, 3, 4, 5, 10), k=3))
    volume = a * b * c
    size, dense = f"{a} cm x {b} cm x {c} cm", f"density is {num(rho)} g/cm3"
    question = rng.choice(
        (
            f"A block of {metal} measures {size}; its {dense}. What is its mass?",
            f"What is the mass of a bar of {metal} that measures {size}? Its {dense}.",
        )
    )
    first = f"{a} x {b} x {c} = {volume}; "
    working = multiply(Quantity(rho, "g/cm3"), Quantity(volume, "cm3"), "g", first)
    edges = slip(f"{a} + {b} + {c} = {a + b + c}; {num(rho)} x {a + b + c}", rho * (a + b + c), "g")
    face = slip(f"{a} x {b} = {a * b}; {num(rho)} x {a * b}", rho * a * b, "g")
    return working.draft(
        question, "Volume is the product of the edges; mass is density times volume.", "density", edges, face
    )


@redraw_until_distinct
def waves(rng: random.Random, level: int) -> Draft:
    """Wave speed is frequency times wavelength."""
    f, length = factors(rng, min(level, 2))
    wave = rng.choice(("water wave", "rope wave", "spring wave", "sound wave", "seismic wave"))
    if level < 3 and rng.random() < 0.5:
        frequency, wavelength = Quantity(f, "Hz"), Quantity(length, "m")
        question = rng.choice(
            (
                f"A {wave} has a frequency of {frequency} and a wavelength of {wavelength}. How fast is it?",
                f"How fast is a {wave} with a wavelength of {wavelength} and a frequency of {frequency}?",
            )
        )
        return multiply(frequency, wavelength, "m/s").draft(
            question, "Wave speed is frequency times wavelength.", "wavelength"
        )
    if level < 3:
        pace, frequency = Quantity(f * length, "m/s"), Quantity(f, "Hz")
        question = rng.choice(
            (
                f"A {wave} moves at {pace} with a frequency of {frequency}. What is its wavelength?",
                f"Find the wavelength of a {wave} of {frequency} that travels at {pace}.",
            )
        )
        return divide(pace, frequency, "m").draft(
            question, "Wavelength is wave speed divided by frequency.", "wavelength"
        )
    medium = rng.choice(SOUND_CARRIERS)
    c = round(at_room_temperature("A", medium), -1)
    length = rng.choice((0.05, 0.1, 0.2, 0.25, 0.4, 0.5, 1.25, 2, 2.5, 4, 5))
    pace, frequency = Quantity(c, "m/s"), Quantity(c / length, "Hz")
    question = rng.choice(
        (
            f"Sound travels at {pace} in {medium.lower()}. What is the wavelength of a tone of {frequency}?",
            f"Sound moves at {pace} in {medium.lower()}. Find the wavelength of a tone of {frequency} there.",
        )
    )
    kilohertz = slip(f"{pace} / {num(c / length / 1000)} kHz", 1000 * length, "m")
    return divide(pace, frequency, "m").draft(
        question, "Wavelength is wave speed divided by frequency.", "wavelength", kilohertz
    )


@redraw_until_distinct
def heat(rng: random.Random, level: int) -> Draft:
    """Heat is mass times specific heat times temperature change."""
    liquid = "Water" if level == 1 else rng.choice(LIQUIDS)
    c = round(at_room_temperature("C", liquid) / 1000, 1 if level == 3 else 0)
    m = rng.randint(2, 9) if level == 1 else 10 * rng.randint(1, 9)
    cold, rise = (rng.randint(11, 29), rng.randint(2, 9)) if level == 1 else (rng.randint(10, 25), rng.randint(3, 20))
    warm, name = cold + rise, liquid.lower()
    given = f"1 g of {name} takes {num(c)} J per 1 C."
    question = rng.choice(
        (
            f"{given} How much heat warms {m} g of it by {rise} C?",
            f"How much heat warms {m} g of {name} by {rise} C? {given}",
        )
        if level == 1
        else (
            f"{given} How much heat warms {m} g of it from {cold} C to {warm} C?",
            f"{m} g of {name} is warmed from {cold} C to {warm} C. {given} How much heat does it take?",
        )
    )
    answer = amount(m * c * rise, "J")
    first = "" if level == 1 else f"{warm} - {cold} = {rise}; "
    steps = f"{first}{m} x {num(c)} = {num(m * c)}; {num(m * c)} x {rise} = {answer}."
    final = slip(f"{m} x {num(c)} x {warm}", m * c * warm, "J")
    mistakes = (
        slip(f"{m} x {rise}", m * rise, "J"),
        slip(f"{m} x {num(c)}", m * c, "J"),
        slip(f"{num(c)} x {rise}", c * rise, "J"),
        slip(f"{m} x {rise} / {num(c)}", m * rise / c, "J"),
    )
    rule = "Heat is mass times specific heat times the temperature change."
    return Draft(question, answer, rule, steps, "heat", mistakes if level == 1 else (final, *mistakes))


@redraw_until_distinct
def half_life(rng: random.Random, level: int) -> Draft:
    """What is left of a radioactive sample halves in every half-life."""
    element, mass_number, nuclide = rng.choice(RADIOACTIVE)
    period, n = half_life_of(element, mass_number, nuclide), rng.randint(2, 3 if level < 3 else 4)
    left = rng.randint(1, 10) if level < 3 else rng.randint(1, 30) / 2
    start, time = left * 2**n, num(n * period.value) + " " + period.unit
    if level == 1:
        question = rng.choice(
            (
                f"A sample holds {num(start)} g of {nuclide}. How much of it is left after {n} half-lives?",
                f"How much of {num(start)} g of radioactive {nuclide} remains after {n} half-lives?",
            )
        )
    else:
        question = rng.choice(
            (
                f"{nuclide} has a half-life of {period}. How much of {num(start)} g is left after {time}?",
                f"How much of {num(start)} g of {nuclide} remains after {time} with a half-life of {period}?",
            )
        )
    first = "" if level == 1 else f"{time} is {n} half-lives. "
    halvings = [num(start / 2**k) for k in range(n + 1)]
    answer = amount(left, "g")
    mistakes = (
        slip(f"{num(start)} / 2", start / 2, "g"),
        slip(f"{num(start)} - {num(left)}", start - left, "g"),
        slip(f"{first}{num(start)} / {2 * n}", start / 2 / n, "g"),
        slip(f"{num(left)} / 2", left / 2, "g"),
    )
    rule = "In every half-life half of what is there decays."
    concept = "half-lives" if level == 1 else "half-life"
    return Draft(question, answer, rule, f"{first}{' -> '.join(halvings)} g.", concept, mistakes)


@redraw_until_distinct
def lens_image(rng: random.Random, level: int) -> Draft:
    """A converging lens: beyond 2f the image is smaller, within 2f larger, inside f virtual."""
    thing = rng.choice(("candle", "lamp", "pencil", "coin", "flower", "key"))
    if level == 3:
        dioptres = rng.choice((1, 2, 4, 5, 8, 10, 20))
        f: float = 100 / dioptres
        lens, first = f"converging lens of {dioptres} dioptres", f"f = 100 / {dioptres} = {num(f)} cm; "
    else:
        f = rng.randint(2, 10) if level == 1 else rng.randint(11, 45)
        lens, first = f"converging lens of focal length {num(f)} cm", ""
    images = {
        "real and smaller": f"beyond 2f = {num(2 * f)} cm",
        "real and larger": f"between f = {num(f)} cm and 2f",
        "virtual and larger": f"inside f = {num(f)} cm",
        "virtual and smaller": "in front of a diverging lens",
    }
    answer, (nearest, farthest) = rng.choice(
        (("real and smaller", (2.1, 4)), ("real and larger", (1.1, 1.9)), ("virtual and larger", (0.2, 0.9)))
    )
    u = rng.randint(math.ceil(nearest * f), math.floor(farthest * f))
    question = rng.choice(
        (
            f"A {thing} stands {u} cm from a {lens}. What is its image like?",
            f"What image of a {thing} at {u} cm does a {lens} make?",
        )
    )
    steps = f"{first}{u} cm is {images.pop(answer)}, so the image is {answer}."
    mistakes = tuple(Mistake(image, f"{u} cm is {where}, so the image is {image}.") for image, where in images.items())
    rule = "Real images shrink beyond 2f and grow within 2f; inside f images are virtual."
    if level == 3:
        rule = "f = 100 cm / dioptres; beyond 2f smaller, within 2f larger, inside f virtual."
    return Draft(question, answer, rule, steps, "converging lens", mistakes)


@dataclass(frozen=True)
class Law:
    """`quantity` of something, proportional to powers of its causes, e.g. kinetic energy: speed squared."""

    quantity: str
    of: str
    causes: tuple[tuple[str, int], ...]


POWERS = {
    1: "proportional to the {}",
    -1: "inverse to the {}",
    2: "proportional to the {} squared",
    -2: "inverse to the {} squared",
}
LAWS = {
    1: (
        Law("weight", "a stone", (("mass", 1),)),
        Law("potential energy", "a lifted box", (("height", 1),)),
        Law("resistance", "a wire", (("length", 1),)),
        Law("resistance", "a copper rod", (("cross-section", -1),)),
        Law("momentum", "a ball", (("speed", 1),)),
        Law("stretch", "a spring", (("force", 1),)),
        Law("current", "a circuit at fixed voltage", (("resistance", -1),)),
        Law("pressure", "a heavy crate", (("base area", -1),)),
        Law("acceleration", "a cart pushed with fixed force", (("mass", -1),)),
        Law("wavelength", "sound in air", (("frequency", -1),)),
        Law("travel time", "a fixed route", (("speed", -1),)),
        Law("period", "a vibration", (("frequency", -1),)),
    ),
    2: (
        Law("kinetic energy", "a car", (("speed", 2),)),
        Law("braking distance", "a truck", (("speed", 2),)),
        Law("heating power", "a resistor", (("current", 2),)),
        Law("centripetal force", "a car in a bend", (("speed", 2),)),
        Law("gravity", "a planet pulling a probe", (("distance", -2),)),
        Law("electric force", "one charge pulling another", (("distance", -2),)),
        Law("light intensity", "a small lamp", (("distance", -2),)),
    ),
    3: (
        Law("kinetic energy", "a car", (("mass", 1), ("speed", 2))),
        Law("heating power", "a coil", (("resistance", 1), ("current", 2))),
        Law("gravity", "a star pulling a planet", (("mass", 1), ("distance", -2))),
        Law("electric force", "one charge pulling another", (("charge", 1), ("distance", -2))),
        Law("centripetal force", "a car in a bend", (("speed", 2), ("radius", -1))),
        Law("current", "a circuit", (("voltage", 1), ("resistance", -1))),
    ),
}


@redraw_until_distinct
def proportion(rng: random.Random, level: int) -> Draft:
    """A quantity changes by the factor of its cause, raised to the power in the law."""
    law = rng.choice(LAWS[level])
    factors = [rng.randint(2, 10 if level < 3 else 4) for _ in law.causes]
    changes = " and ".join(
        f"the {name} becomes {k} times as large" for (name, _), k in zip(law.causes, factors, strict=True)
    )
    only = "only " if len(factors) == 1 else ""
    question = rng.choice(
        (
            f"For {law.of}, {only}{changes}. How does the {law.quantity} change?",
            f"How does the {law.quantity} of {law.of} change if {only}{changes}?",
        )
    )
    powers = [p for _, p in law.causes]
    working = " x ".join(_power(k, p) for k, p in zip(factors, powers, strict=True))

    def mistake(powers: list[int]) -> Mistake:
        wrong = " x ".join(_power(k, p) for k, p in zip(factors, powers, strict=True))
        return Mistake(_scaled(factors, powers), f"{wrong}: it is {_scaled(factors, powers)}.")

    mistakes = (
        mistake([(p > 0) - (p < 0) for p in powers]),  # no squares
        mistake([abs(p) for p in powers]),
        mistake([-p for p in powers]),
        mistake([2 * p // abs(p) for p in powers]),  # nothing but squares
        mistake([p if i == 0 else 0 for i, p in enumerate(powers)]),
        Mistake("unchanged", "It does not depend on that: it is unchanged."),
    )
    dependence = " and ".join(POWERS[p].format(name) for name, p in law.causes)
    rule = f"{law.quantity.capitalize()} is {dependence}."
    answer = _scaled(factors, powers)
    return Draft(question, answer, rule, f"{working}: it is {answer}.", law.quantity, mistakes)


def _power(k: int, p: int) -> str:
    """How a factor `k` to the power `p` is written out."""
    return {0: "1", 1: f"{k}", 2: f"{k} x {k}", -1: f"1/{k}", -2: f"1/({k} x {k})"}[p]


def _scaled(factors: list[int], powers: list[int]) -> str:
    """The change these factors bring about, as options print it."""
    change = math.prod(Fraction(k) ** p for k, p in zip(factors, powers, strict=True))
    if change == 1:
        return "unchanged"
    return f"{change} times as large" if change > 1 else f"{change} as large"


FAMILIES: dict[str, Family] = MECHANICS | {
    family.__name__: family for family in (ohm, density, waves, heat, half_life, lens_image, proportion)
}
