"""The mechanics among the physics families: short questions on motion, force, energy and momentum."""

from __future__ import annotations

import random

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

MOVERS = ("car", "train", "drone", "truck", "motorbike", "falcon", "tram", "boat")
BODIES = ("cart", "box", "sled", "trolley", "crate", "wagon", "toy car", "stone block")
WHICH_WAY = ("Which way does the net force on it point?", "Find the direction of the net force on it.")
COMPASS = ("north", "east", "south", "west")


def factors(rng: random.Random, level: int) -> tuple[float, float]:
    """Two numbers to multiply: small integers; then a larger, at level 3 a decimal one, and a small one."""
    first = {1: rng.randint(2, 10), 2: rng.randint(12, 60), 3: rng.randint(11, 99) / 10}[level]
    return first, rng.randint(2, 10 if level == 1 else 9)


@redraw_until_distinct
def speed(rng: random.Random, level: int) -> Draft:
    """Speed is distance divided by time, so distance is speed times time."""
    mover, (v, t) = rng.choice(MOVERS), factors(rng, 2 if level == 2 else 1)
    pace, time = Quantity(v, "m/s"), Quantity(t, "s")
    travel = "Distance is speed times time."
    if level == 3:
        first = f"{num(t)} min = {num(60 * t)} s; "
        question = rng.choice(
            (
                f"A {mover} keeps a speed of {pace} for {num(t)} min. How many metres does it cover?",
                f"How many metres does a {mover} with a speed of {pace} travel in {num(t)} min?",
            )
        )
        unconverted = slip(f"{pace} x {num(t)} min", v * t, "m")
        hours = slip(f"{pace} x {num(3600 * t)} s", 3600 * v * t, "m")
        working = multiply(pace, Quantity(60 * t, "s"), "m", first)
        return working.draft(question, "Convert minutes to seconds; " + travel.lower(), "speed", unconverted, hours)
    if rng.random() < 0.5:
        question = rng.choice(
            (
                f"A {mover} moves at a steady speed of {pace} for {time}. How far does it go?",
                f"How far does a {mover} get in {time} at a constant speed of {pace}?",
            )
        )
        return multiply(pace, time, "m").draft(question, travel, "speed")
    distance = Quantity(v * t, "m")
    question = rng.choice(
        (
            f"A {mover} covers {distance} in {time}. What is its average speed?",
            f"It takes a {mover} {time} to travel {distance}. Find its average speed.",
        )
    )
    return divide(distance, time, "m/s").draft(question, "Speed is distance divided by time.", "average speed")


@redraw_until_distinct
def acceleration(rng: random.Random, level: int) -> Draft:
    """Acceleration is the change of velocity divided by the time it takes."""
    mover, a, t = rng.choice(MOVERS), rng.randint(2, 9), rng.randint(2, 9)
    time = Quantity(t, "s")
    if level == 3:
        return _braking(rng, mover)
    start = 0 if level == 1 else rng.randint(2, 20)
    end = start + a * t
    beginning = "from rest" if start == 0 else f"from {start} m/s"
    question = rng.choice(
        (
            f"A {mover} speeds up {beginning} to {end} m/s in {time}. What is its acceleration?",
            f"Find the acceleration of a {mover} that goes {beginning} to {end} m/s within {time}.",
        )
    )
    rule = "Acceleration is the change of velocity divided by the time."
    first = f"{end} - {start} = {a * t}; " if start else ""
    working = divide(Quantity(a * t, "m/s"), time, "m/s2", first)
    if not start:
        return working.draft(question, rule, "acceleration")
    final_only = slip(f"{end} m/s / {time}", end / t, "m/s2")
    total = slip(f"({end} + {start}) / {t}", (end + start) / t, "m/s2")
    return working.draft(question, rule, "acceleration", final_only, total)


def _braking(rng: random.Random, mover: str) -> Draft:
    """Deceleration from a speed in km/h: convert to m/s, then divide by the time."""
    v, time = Quantity(5 * rng.randint(2, 12), "m/s"), Quantity(rng.choice((2, 4, 5, 8, 10)), "s")
    kmh = v.value / constants.kmh
    question = rng.choice(
        (
            f"A {mover} brakes from {num(kmh)} km/h to a stop in {time}. What is its deceleration in m/s2?",
            f"Find the deceleration in m/s2 of a {mover} that slows from {num(kmh)} km/h to rest in {time}.",
        )
    )
    unconverted = slip(f"{num(kmh)} / {time}", kmh / time.value, "m/s2")
    wrong_way = kmh / constants.kmh
    reverse = slip(f"{num(kmh)} x 3.6 = {num(wrong_way)}; {num(wrong_way)} / {time}", wrong_way / time.value, "m/s2")
    working = divide(v, time, "m/s2", f"{num(kmh)} km/h / 3.6 = {v}; ")
    rule = "Divide km/h by 3.6, then divide the speed lost by the time."
    return working.draft(question, rule, "deceleration", unconverted, reverse)


@redraw_until_distinct
def force(rng: random.Random, level: int) -> Draft:
    """Net force is mass times acceleration."""
    body, m, a = rng.choice(BODIES), rng.randint(2, 10), rng.randint(2, 9)
    mass, gain = Quantity(m, "kg"), Quantity(a, "m/s2")
    if level == 1:
        question = rng.choice(
            (
                f"A {body} of mass {mass} accelerates at {gain}. What net force acts on it?",
                f"What net force gives a {body} of {mass} an acceleration of {gain}?",
            )
        )
        return multiply(mass, gain, "N").draft(question, "Net force is mass times acceleration.", "net force")
    if level == 2:
        friction = rng.randint(2, 20)
        push = m * a + friction
        question = f"A {body} of mass {mass} is pushed with {push} N against {friction} N of friction. "
        question += rng.choice(("What is its acceleration?", "Find its acceleration."))
        working = divide(Quantity(m * a, "N"), mass, "m/s2", f"{push} - {friction} = {m * a}; ")
        ignored = slip(f"{push} N / {mass}", push / m, "m/s2")
        helped = slip(f"({push} + {friction}) / {m}", (push + friction) / m, "m/s2")
        rule = "Acceleration is the push minus the friction, divided by mass."
        return working.draft(question, rule, "friction", ignored, helped)
    grams = 100 * rng.choice((2, 4, 5, 6, 8, 12, 15, 25))
    mass = Quantity(grams / 1000, "kg")
    question = rng.choice(
        (
            f"A {body} of mass {grams} g accelerates at {gain}. What net force in newtons acts on it?",
            f"Which net force in newtons gives a {body} of {grams} g an acceleration of {gain}?",
        )
    )
    unconverted = slip(f"{grams} x {a}", grams * a, "N")
    hundred = slip(f"{grams} g = {num(grams / 100)} kg; {num(grams / 100)} x {a}", grams * a / 100, "N")
    working = multiply(mass, gain, "N", f"{grams} g = {mass}; ")
    rule = "Convert grams to kilograms; net force is mass times acceleration."
    return working.draft(question, rule, "net force", unconverted, hundred)


@redraw_until_distinct
def kinetic_energy(rng: random.Random, level: int) -> Draft:
    """Kinetic energy is half the mass times the speed squared."""
    body = rng.choice(BODIES)
    m: float = 2 * rng.randint(1, 5) if level == 1 else rng.randint(3, 40)
    v = rng.randint(2, 5) if level == 1 else rng.randint(3, 12)
    given, first, rule = f"{num(m)} kg", "", "Kinetic energy is half the mass times the speed squared."
    specials: tuple[Mistake, ...] = ()
    if level == 3:
        grams = rng.choice((100, 200, 400, 500, 600, 800, 1200, 1500))
        m, given, first = grams / 1000, f"{grams} g", f"{grams} g = {num(grams / 1000)} kg; "
        rule = "Use kilograms; kinetic energy is half the mass times the speed squared."
        specials = (slip(f"{grams} x {v} x {v} / 2", grams * v * v / 2, "J"),)
    question = rng.choice(
        (
            f"A {body} of mass {given} moves at {v} m/s. What is its kinetic energy in joules?",
            f"Find the kinetic energy in joules of a {body} of {given} that moves at {v} m/s.",
            f"How much kinetic energy, in joules, has a {body} of {given} at a speed of {v} m/s?",
        )
    )
    energy = m * v * v / 2
    steps = f"{first}{v} x {v} = {v * v}; {num(m)} x {v * v} / 2 = {amount(energy, 'J')}."
    mistakes = (
        slip(f"{first}{num(m)} x {v} / 2", m * v / 2, "J"),
        slip(f"{first}{num(m)} x {v} x {v}", m * v * v, "J"),
        slip(f"{first}{num(m)} x 2 x {v} / 2", m * v, "J"),
        slip(f"{first}{num(m)} x {num(m)} x {v} / 2", m * m * v / 2, "J"),
    )
    return Draft(question, amount(energy, "J"), rule, steps, "kinetic energy", specials + mistakes)


@redraw_until_distinct
def lifting(rng: random.Random, level: int) -> Draft:
    """The energy to lift a body is mass times g times height; power is that divided by the time."""
    body, m, h = rng.choice(BODIES), rng.randint(2, 9 if level == 1 else 30), rng.randint(2, 9)
    g = round(constants.g, 1) if level == 3 else round(constants.g)
    weight = m * g
    if level != 2:
        question = rng.choice(
            (
                f"How much energy does it take to lift a {body} of {m} kg by {h} m? Use g = {num(g)} m/s2.",
                f"A {body} of {m} kg is raised by {h} m. What energy does it gain (g = {num(g)} m/s2)?",
            )
        )
        working = multiply(Quantity(weight, "N"), Quantity(h, "m"), "J", f"{m} x {num(g)} = {num(weight)}; ")
        specials = (
            slip(f"{m} kg x {h} m", m * h, "J"),
            slip(f"{m} kg x {num(g)} m/s2", weight, "J"),
            slip(f"{m} x {num(g)} x {h} / 2", weight * h / 2, "J"),
        )
        return working.draft(question, "Lifting energy is mass times g times height.", "energy", *specials)
    t = rng.choice([n for n in range(2, 13) if m * g * h % n == 0])
    energy = weight * h
    question = rng.choice(
        (
            f"A motor lifts a {body} of {m} kg by {h} m in {t} s. What is its power? Use g = {num(g)} m/s2.",
            f"Find the power of a crane that raises {m} kg by {h} m in {t} s, with g = {num(g)} m/s2.",
        )
    )
    first = f"{m} x {num(g)} x {h} = {num(energy)}; "
    working = divide(Quantity(energy, "J"), Quantity(t, "s"), "W", first)
    no_g = slip(f"{m} x {h} / {t}", m * h / t, "W")
    no_time = slip(f"{m} x {num(g)} x {h}", energy, "W")
    rule = "Power is mass times g times height, divided by the time."
    return working.draft(question, rule, "power", no_g, no_time)


@redraw_until_distinct
def net_force(rng: random.Random, level: int) -> Draft:
    """The net force points along the change of velocity; on a circle, to the centre."""
    return {1: _force_on_a_line, 2: _force_in_a_turn, 3: _force_on_a_circle}[level](rng)


def _force_on_a_line(rng: random.Random) -> Draft:
    """Forward when speeding up, backward when slowing down, zero at constant velocity."""
    mover, heading = rng.choice(MOVERS), rng.choice(COMPASS)
    motion = rng.choice(("speeds up", "slows down", "keeps a constant velocity"))
    question = f"A {mover} heads {heading} and {motion}. "
    question += rng.choice(WHICH_WAY)
    back, side = _turned(heading, 2), _turned(heading, 1)
    nowhere = "nowhere, it is zero"
    options = {
        "speeds up": Mistake(heading, f"The {mover} moves, so a force pushes it along: {heading}."),
        "slows down": Mistake(back, f"Something always resists motion: {back}."),
        "keeps a constant velocity": Mistake(nowhere, f"The forces on the {mover} cancel: {nowhere}."),
    }
    answer = options.pop(motion).value
    sideways = Mistake(side, f"The force acts across the motion: {side}.")
    rule = "Net force points forward when speeding up, backward when slowing, zero otherwise."
    steps = f"The {mover} {motion} while heading {heading}, so the net force points {answer}."
    return Draft(question, answer, rule, steps, "net force", (*options.values(), sideways))


def _force_in_a_turn(rng: random.Random) -> Draft:
    """Towards the side to which the body turns."""
    mover, heading, side = rng.choice(MOVERS), rng.choice(COMPASS), rng.choice(("left", "right"))
    question = f"At constant speed a {mover} heading {heading} begins to turn {side}. "
    question += rng.choice(WHICH_WAY)
    answer, outward = (_turned(heading, k if side == "right" else -k) for k in (1, 3))
    nowhere = "nowhere, it is zero"
    mistakes = (
        Mistake(nowhere, f"The speed is constant, so the force points {nowhere}."),
        Mistake(heading, f"The force points along the motion: {heading}."),
        Mistake(outward, f"The {mover} is flung outward: {outward}."),
    )
    rule = "A turning body is pushed sideways, towards the side it turns to."
    steps = f"Facing {heading}, the {side} side is {answer}, so the net force points {answer}."
    return Draft(question, answer, rule, steps, "net force", mistakes)


def _force_on_a_circle(rng: random.Random) -> Draft:
    """To the centre; without it the body flies on along the tangent."""
    thing = rng.choice(("ball", "stone", "toy plane", "bucket", "puck"))
    place, sense = rng.choice(COMPASS), rng.choice(("clockwise", "counterclockwise"))
    ahead = _turned(place, 1 if sense == "clockwise" else 3)
    inward, behind = _turned(place, 2), _turned(ahead, 2)
    question = f"Seen from above, a {thing} on a string circles {sense} and is at the {place}ernmost point. "
    outward = Mistake(place, f"The {thing} is pulled away from the centre: {place}.")
    backward = Mistake(behind, f"It moves {behind}: {behind}.")
    if rng.random() < 0.5:
        question += "Which way does the net force on it point?"
        along = Mistake(ahead, f"The force points along the motion: {ahead}.")
        rule = "On a circle the net force points from the body to the centre."
        steps = f"From the {place}ernmost point the centre lies {inward}, so the force points {inward}."
        return Draft(question, inward, rule, steps, "net force", (outward, along, backward))
    question += "The string breaks. Which way does it fly off?"
    to_centre = Mistake(inward, f"The string pulled it to the centre: {inward}.")
    rule = "Without its string a body flies straight on along its velocity."
    steps = f"Circling {sense}, at the {place}ernmost point it moves {ahead}, so it flies {ahead}."
    return Draft(question, ahead, rule, steps, "circles", (outward, to_centre, backward))


def _turned(direction: str, quarters: int) -> str:
    """The compass direction some quarter turns to the right of `direction`."""
    return COMPASS[(COMPASS.index(direction) + quarters) % 4]


@redraw_until_distinct
def greatest_momentum(rng: random.Random, level: int) -> Draft:
    """Momentum is mass times speed: neither the heaviest nor the fastest need have the most."""
    m, v = rng.randint(4, 8), rng.randint(4, 8)
    more_mass, more_speed = m + rng.randint(1, 3), v + rng.randint(1, 4)
    bodies = [
        (m, v),
        (more_mass, rng.randint(1, (m * v - 1) // more_mass)),
        (rng.randint(1, (m * v - 1) // more_speed), more_speed),
        (rng.randint(2, m - 1), rng.randint(2, v - 1)),
    ]
    scale = {1: 1, 2: 30, 3: 0.3}[level]
    noun = rng.choice(("cart", "ball", "sled", "wagon"))
    colours = rng.sample(("red", "blue", "green", "white", "black", "yellow"), k=4)
    carts = [
        (f"the {c} {noun}", num(scale * a), b, num(scale * a * b)) for c, (a, b) in zip(colours, bodies, strict=True)
    ]
    shown = rng.sample(range(4), k=4)
    listed = ", ".join(f"{colours[i]} {carts[i][1]} kg at {carts[i][2]} m/s" for i in shown)
    question = rng.choice(
        (
            f"Four {noun}s move: {listed}. Which one has the greatest momentum?",
            f"Which {noun} has the greatest momentum: {listed}?",
        )
    )
    answer, heavy, fast, other = (name for name, *_ in carts)
    products = ", ".join(f"{carts[i][1]} x {carts[i][2]} = {carts[i][3]}" for i in shown)
    steps = f"{products}; {carts[0][3]} is the largest: {answer}."
    mistakes = (
        Mistake(heavy, f"{carts[1][1]} kg is the largest mass, so it is {heavy}."),
        Mistake(fast, f"{carts[2][2]} m/s is the largest speed, so it is {fast}."),
        Mistake(other, f"{carts[3][1]} kg and {carts[3][2]} m/s seems most: {other}."),
    )
    return Draft(question, answer, "Momentum is mass times speed.", steps, "momentum", mistakes)


MECHANICS: dict[str, Family] = {
    family.__name__: family
    for family in (speed, acceleration, force, kinetic_energy, lifting, net_force, greatest_momentum)
}
