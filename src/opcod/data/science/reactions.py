"""The reactions among the chemistry families: amounts by coefficients, limiting reagents, equilibria."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass

from opcod.data.science.atoms import grams_per_mol
from opcod.data.science.common import Draft, Family, Mistake, amount, num, redraw_until_distinct, slip

REACTIONS = (
    "2 H2 + O2 -> 2 H2O",
    "N2 + 3 H2 -> 2 NH3",
    "CH4 + 2 O2 -> CO2 + 2 H2O",
    "2 CO + O2 -> 2 CO2",
    "C3H8 + 5 O2 -> 3 CO2 + 4 H2O",
    "2 Mg + O2 -> 2 MgO",
    "4 Fe + 3 O2 -> 2 Fe2O3",
    "2 Na + Cl2 -> 2 NaCl",
    "2 Al + 3 Cl2 -> 2 AlCl3",
    "4 Al + 3 O2 -> 2 Al2O3",
    "2 SO2 + O2 -> 2 SO3",
    "Zn + 2 HCl -> ZnCl2 + H2",
    "2 Na + 2 H2O -> 2 NaOH + H2",
    "Fe2O3 + 3 CO -> 2 Fe + 3 CO2",
    "4 NH3 + 5 O2 -> 4 NO + 6 H2O",
    "2 C2H6 + 7 O2 -> 4 CO2 + 6 H2O",
    "C2H4 + 3 O2 -> 2 CO2 + 2 H2O",
    "P4 + 5 O2 -> P4O10",
    "2 Al + 6 HCl -> 2 AlCl3 + 3 H2",
    "CS2 + 3 O2 -> CO2 + 2 SO2",
    "SiO2 + 2 C -> Si + 2 CO",
    "3 Mg + N2 -> Mg3N2",
)


@dataclass(frozen=True)
class Equilibrium:
    """A reaction among gases, and whether its forward direction gives off heat."""

    equation: str
    exothermic: bool


EQUILIBRIA = (
    Equilibrium("N2 + 3 H2 <=> 2 NH3", True),
    Equilibrium("2 SO2 + O2 <=> 2 SO3", True),
    Equilibrium("2 NO + O2 <=> 2 NO2", True),
    Equilibrium("N2O4 <=> 2 NO2", False),
    Equilibrium("PCl5 <=> PCl3 + Cl2", False),
    Equilibrium("CO + H2O <=> CO2 + H2", True),
    Equilibrium("N2 + O2 <=> 2 NO", False),
    Equilibrium("CO + 2 H2 <=> CH4O", True),
    Equilibrium("CH4 + H2O <=> CO + 3 H2", False),
    Equilibrium("C2H4 + H2 <=> C2H6", True),
    Equilibrium("C2H4 + H2O <=> C2H6O", True),
    Equilibrium("CO + Cl2 <=> COCl2", True),
    Equilibrium("2 H2S <=> 2 H2 + S2", False),
)


@functools.cache
def sides(equation: str) -> tuple[dict[str, int], dict[str, int]]:
    """The species of both sides of an equation with their coefficients."""

    def side(text: str) -> dict[str, int]:
        terms = (re.fullmatch(r"(?:(\d+) )?(\S+)", term) for term in text.split(" + "))
        return {term[2]: int(term[1] or 1) for term in terms if term}

    left, right = re.split(" (?:->|<=>) ", equation)
    return side(left), side(right)


@redraw_until_distinct
def stoichiometry(rng: random.Random, level: int) -> Draft:
    """Amounts react and form in the ratio of the coefficients."""
    equation = rng.choice(REACTIONS)
    reactants, products = sides(equation)
    used, a = rng.choice(list(reactants.items()))
    made, b = rng.choice(list(products.items()))
    k = rng.randint(2, 9) if level < 2 else rng.randint(4, 25)
    n, m = a * k, b * k
    molar = grams_per_mol(made)
    asked, unit = ("grams", "g") if level == 3 else ("mol", "mol")
    question = rng.choice(
        (
            f"In {equation}, how many {asked} of {made} form from {n} mol of {used}?",
            f"How many {asked} of {made} does {n} mol of {used} give by the reaction {equation}?",
        )
    )
    rule = "Divide by the given substance's coefficient, multiply by the wanted one's."
    if level == 3:
        question += f" The molar mass of {made} is {molar} g/mol."
        rule = "Scale mol by the ratio of coefficients, then multiply by molar mass."

    def made_by(working: str, mol: float) -> Mistake:
        if level < 3:
            return slip(working, mol, unit)
        return slip(f"{working} = {num(mol)} mol; {num(mol)} x {molar}", mol * molar, unit)

    right = made_by(f"{n} / {a} x {b}", m)
    mistakes: tuple[Mistake, ...] = (
        made_by(f"{n} x 1", n),
        made_by(f"{n} x {a} / {b}", n * a / b),
        made_by(f"{n} x {b}", n * b),
        made_by(f"{n} / {a}", n / a),
        made_by(f"{n} x {a}", n * a),
    )
    if level == 3:
        mistakes = (slip(f"{n} / {a} x {b}", m, unit), *mistakes)
    return Draft(question, right.value, rule, right.steps, used, mistakes)


@redraw_until_distinct
def limiting_reagent(rng: random.Random, level: int) -> Draft:
    """The reagent that lasts for the fewest rounds of the reaction sets how much forms."""
    equation = rng.choice([e for e in REACTIONS if len(sides(e)[0]) == 2])
    left, right = sides(equation)
    (x, a), (y, b) = left.items()
    made, c = rng.choice(list(right.items()))
    scale = {1: 1, 2: 5, 3: 0.1}[level]
    i, j = (scale * k for k in rng.sample(range(1, 8 if level == 1 else 20), k=2))
    amounts = f"{num(a * i)} mol of {x} and {num(b * j)} mol of {y}"
    question = rng.choice(
        (
            f"{amounts} react: {equation}. How many mol of {made} form?",
            f"In {equation}, how many mol of {made} form from {amounts}?",
        )
    )
    few, many = min(i, j), max(i, j)
    first = f"{num(a * i)} / {a} = {num(i)}, {num(b * j)} / {b} = {num(j)}; "
    answer = amount(few * c, "mol")
    mistakes = (
        slip(f"{first}{num(many)} x {c}", many * c, "mol"),
        slip("The smaller amount", min(a * i, b * j), "mol"),
        slip(f"{num(a * i)} + {num(b * j)}", a * i + b * j, "mol"),
        slip(f"{first}{num(i + j)} x {c}", (i + j) * c, "mol"),
    )
    rule = "Divide each amount by its coefficient; the smaller one limits the product."
    steps = f"{first}the smaller gives {num(few)} x {c} = {answer}."
    return Draft(question, answer, rule, steps, made, mistakes)


@redraw_until_distinct
def equilibrium_shift(rng: random.Random, level: int) -> Draft:
    """An equilibrium shifts so as to counteract what is changed."""
    reaction = rng.choice(EQUILIBRIA)
    left, right = sides(reaction.equation)
    if level == 3:
        return _pressed_equilibrium(rng, reaction)
    raised = rng.random() < 0.5
    if level == 1:
        species = rng.choice([*left, *right])
        change = f"some {species} is {'added' if raised else 'removed'}"
        to_right = (species in left) == raised
        rule = "It shifts to use up what is added or replace what is removed."
        side, purpose = "left" if species in left else "right", "use it up" if raised else "replace it"
        steps = f"{species} stands on the {side}; to {purpose} it shifts"
    else:
        heat = "gives off" if reaction.exothermic else "takes up"
        change = f"the mixture is {'heated' if raised else 'cooled'} (the forward reaction {heat} heat)"
        to_right = reaction.exothermic != raised
        rule = "Heating favors the direction that takes up heat, cooling the other."
        favored = "takes up" if raised else "gives off"
        steps = f"The direction that {favored} heat is favored, so it shifts"
    return _shift(rng, reaction, change, rule, steps, "to the right" if to_right else "to the left")


def _pressed_equilibrium(rng: random.Random, reaction: Equilibrium) -> Draft:
    """Pressure favors the side with fewer gas molecules; a catalyst neither side."""
    left, right = (sum(side.values()) for side in sides(reaction.equation))
    change = rng.choice(("the gas mixture is compressed", "the gas mixture is expanded", "a catalyst is added"))
    if change == "a catalyst is added":
        rule = "A catalyst speeds up both directions equally."
        return _shift(rng, reaction, change, rule, "Both directions speed up alike, so there is", "no shift")
    rule = "Compression favors the side with fewer gas molecules, expansion the other."
    steps = f"Left {left}, right {right} gas molecules, so "
    if left == right:
        return _shift(rng, reaction, change, rule, steps + "there is", "no shift")
    to_right = (right < left) == ("compressed" in change)
    return _shift(rng, reaction, change, rule, steps + "it shifts", "to the right" if to_right else "to the left")


def _shift(rng: random.Random, reaction: Equilibrium, change: str, rule: str, steps: str, answer: str) -> Draft:
    """The question which way `reaction` shifts after `change`."""
    question = rng.choice(
        (
            f"In the equilibrium {reaction.equation}, {change}. Which way does it shift?",
            f"How does the equilibrium {reaction.equation} shift when {change}?",
            f"At equilibrium {reaction.equation}, {change}. What happens?",
        )
    )
    wrong = {
        "to the left": "It makes more of the left side, so it shifts",
        "to the right": "It makes more of the right side, so it shifts",
        "no shift": "An equilibrium stays as it is, so there is",
        "the reaction stops": "The balance is lost, so",
    }
    mistakes = tuple(Mistake(shift, f"{why} {shift}.") for shift, why in wrong.items() if shift != answer)
    return Draft(question, answer, rule, f"{steps} {answer}.", "equilibrium", mistakes)


REACTION_FAMILIES: dict[str, Family] = {
    family.__name__: family for family in (stoichiometry, limiting_reagent, equilibrium_shift)
}
