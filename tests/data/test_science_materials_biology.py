"""Materials and biology questions: well-formed for every family, and right by an independent derivation."""

import random
import re
from collections.abc import Callable

import periodictable
import pint
import pytest
from molmass import Formula

from opcod.data.science import biology, materials
from opcod.data.science.common import Draft, Family

FAMILIES: dict[str, Family] = {**materials.FAMILIES, **biology.FAMILIES}
LEVELS = (1, 2, 3)
SEEDS = range(150)
every_family = pytest.mark.parametrize("name", FAMILIES)
u = pint.UnitRegistry()


def drafts(name: str, *levels: int, seeds: range = SEEDS) -> list[Draft]:
    return [FAMILIES[name](random.Random(seed), level) for level in levels or LEVELS for seed in seeds]


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", text)]


def one(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match, f"{pattern} not in {text}"
    return float(match[1])


def number_and_unit(text: str) -> float | str:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?: [A-Za-z%]\S*){0,2}", text)
    return float(match[1]) if match else text.casefold()


def contains(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words."""
    return re.search(rf"(?<![\w.]){re.escape(part)}(?![\w])", text) is not None


def test_each_subject_has_fourteen_families() -> None:
    assert len(materials.FAMILIES) == len(biology.FAMILIES) == 14
    assert len(FAMILIES) == 28


@every_family
def test_same_seed_and_level_give_the_same_draft(name: str) -> None:
    assert drafts(name, seeds=range(20)) == drafts(name, seeds=range(20))


@every_family
def test_options_are_distinct_as_text_and_as_numbers(name: str) -> None:
    for draft in drafts(name):
        options = [draft.answer, *(mistake.value for mistake in draft.mistakes)]
        assert len(draft.mistakes) >= 3
        assert len({number_and_unit(option) for option in options}) == len(options), draft
        assert not any(option.startswith(("-", "0 ")) for option in options), draft


@every_family
def test_workings_end_in_their_result(name: str) -> None:
    for draft in drafts(name):
        assert draft.steps.endswith(f"{draft.answer}."), draft
        for mistake in draft.mistakes:
            assert mistake.steps.endswith(f"{mistake.value}."), mistake


@every_family
def test_concept_is_copied_from_the_question(name: str) -> None:
    for draft in drafts(name):
        assert contains(draft.question, draft.concept), draft
        assert 1 <= len(draft.concept.split()) <= 3


@every_family
def test_rule_does_not_tell_the_answer(name: str) -> None:
    for draft in drafts(name):
        if re.match(r"\d", draft.answer):
            assert not contains(draft.rule, draft.answer), (draft.rule, draft.answer)
        assert not re.search(r"\b(option|letter) [A-D]\b", draft.rule)


@every_family
def test_texts_are_short_sentences(name: str) -> None:
    for draft in drafts(name):
        assert len(draft.question.split()) <= 40, draft.question
        assert len(draft.rule.split()) <= 14, draft.rule
        assert len(draft.steps.split()) <= 25, draft.steps
        assert draft.question.endswith((".", "?"))
        assert draft.rule.endswith(".")
        for mistake in draft.mistakes:
            assert len(mistake.steps.split()) <= 25, mistake.steps


@every_family
def test_texts_are_plain(name: str) -> None:
    for draft in drafts(name):
        for text in (draft.question, draft.rule, draft.steps, *(m.steps for m in draft.mistakes)):
            assert text.isascii(), text
            assert not re.search(r"[{}\\$]|  | \.|e[+-]\d", text), text
            assert not re.search(r"\ba [aeiou]", text), text


@every_family
def test_every_family_has_enough_questions(name: str) -> None:
    by_level = [{draft.question for draft in drafts(name, level, seeds=range(700))} for level in LEVELS]
    assert len(by_level[0]) >= 80
    assert len(set().union(*by_level)) >= 300


@every_family
def test_level_one_numbers_are_small(name: str) -> None:
    for draft in drafts(name, 1):
        if answer := re.match(r"\d+(\.\d+)?", draft.answer):
            assert answer[1] is None, draft
            assert float(answer[0]) <= 200, draft


def test_stress_agrees_with_pint() -> None:
    for draft in drafts("stress"):
        force = u(re.search(r"[\d.]+ k?N\b", draft.question)[0])
        area = one(r"(\d+) mm2", draft.question) * u.mm**2
        assert (force / area).to("MPa").magnitude == pytest.approx(one(r"(.*) MPa", draft.answer))


def test_percent_elongation_is_the_relative_increase() -> None:
    for draft in drafts("percent_elongation"):
        old, other = numbers(draft.question)
        extension = other if "stretches by" in draft.question else other - old
        assert extension / old == pytest.approx(one(r"(.*) %", draft.answer) / 100)


def test_youngs_modulus_agrees_with_pint() -> None:
    for draft in drafts("youngs_modulus"):
        strain = re.search(r"([\d.]+) (%|thousandths)", draft.question)
        stress = one(r"(\d+) MPa", draft.question) * u.MPa
        modulus = stress / (float(strain[1]) / {"%": 100, "thousandths": 1000}[strain[2]])
        assert modulus.to("GPa").magnitude == pytest.approx(one(r"(.*) GPa", draft.answer))


def test_thermal_expansion_agrees_with_pint() -> None:
    for draft in drafts("thermal_expansion", 2, 3):
        length = one(r"(\d+) m ", draft.question) * u.m
        coefficient = one(r"\((\d+) um per m per K\)", draft.question) * u.um / u.m / u.K
        span = re.search(r"from (\d+) C to (\d+) C", draft.question)
        rise = int(span[2]) - int(span[1]) if span else one(r"by (\d+) K", draft.question)
        value, unit = draft.answer.split()
        assert (length * coefficient * rise * u.K).to(unit).magnitude == pytest.approx(float(value))


def test_safety_factor_divides_the_strength() -> None:
    for draft in drafts("safety_factor"):
        strength = one(r"(\d+) MPa", draft.question) * u.MPa
        allowed = strength / one(r"safety factor of (\d+)", draft.question)
        if area := re.search(r"(\d+) mm2", draft.question):
            allowed = allowed * float(area[1]) * u.mm**2
        value, unit = draft.answer.split()
        assert allowed.to(unit).magnitude == pytest.approx(float(value))


def test_unit_cell_atoms_agree_with_measured_densities() -> None:
    """Atoms per cell also follow from a measured density, lattice constant and atomic mass."""
    for draft in drafts("unit_cell_atoms", 1, 2):
        symbols = {e.name: e for e in periodictable.elements}
        element = next(symbols[w] for w in re.findall(r"[a-z]+", draft.question.lower()) if w in symbols)
        cells = one(r"(\d+) unit cells", draft.question)
        edge_cm = element.crystal_structure["a"] * 1e-8
        per_cell = element.density * edge_cm**3 * 6.02214076e23 / element.mass
        assert cells * per_cell == pytest.approx(one(r"(\d+) atoms", draft.answer), rel=0.1), element


def test_mass_saving_is_the_difference_of_two_masses() -> None:
    for draft in drafts("mass_saving", 3):
        volume = one(r"(\d+) cm3", draft.question)
        high, low = sorted(map(float, re.findall(r"([\d.]+) g/cm3", draft.question)), reverse=True)
        assert high * volume - low * volume == pytest.approx(one(r"(.*) g", draft.answer))


def test_densities_are_those_of_the_elements() -> None:
    for draft in drafts("mass_saving", 3):
        for metal, stated in re.findall(r"([a-z]+)[ ,(]+([\d.]+) g/cm3", draft.question):
            assert float(stated) == pytest.approx(periodictable.elements.name(metal).density, abs=0.051)


def test_rule_of_mixtures_weights_by_volume() -> None:
    for draft in drafts("rule_of_mixtures"):
        share = one(r"(\d+) (?:vol )?%", draft.question) / 100
        stiff, soft = (float(x) for x in re.findall(r"([\d.]+) GPa", draft.question))
        assert soft + share * (stiff - soft) == pytest.approx(one(r"(.*) GPa", draft.answer))


def test_lever_rule_balances_the_solute() -> None:
    for draft in drafts("lever_rule", 2):
        if match := re.search(r"With (\d+) % .*alpha \((\d+) %\) and beta \((\d+) %\)", draft.question):
            alloy, alpha, beta = map(int, match.groups())
            share = one(r"(.*) %", draft.answer) / 100
            assert share * beta + (1 - share) * alpha == pytest.approx(alloy)


def test_alloy_mass_is_a_share_of_the_alloy() -> None:
    for draft in drafts("alloy_mass"):
        percent = one(r"([\d.]+) weight per cent", draft.question)
        mass = u(re.search(r"[\d.]+ k?g\b", draft.question)[0]).to("g").magnitude
        solute = re.search(r"weight per cent ([a-z]+)", draft.question)[1]
        wanted = re.search(r"grams of ([a-z]+)|mass of ([a-z]+)|grams are ([a-z]+)", draft.question)
        share = percent if solute in wanted.groups() else 100 - percent
        assert mass * share / 100 == pytest.approx(one(r"(.*) g", draft.answer))


def test_lightest_metal_agrees_with_the_elements() -> None:
    for draft in drafts("lightest_metal"):
        metals = re.findall(r"([a-z]+) [\d.]+(?=[,.])", draft.question)
        order = sorted(metals, key=lambda metal: periodictable.elements.name(metal).density)
        if "Order" in draft.question:
            assert draft.answer == ", ".join(order)
        else:
            assert draft.answer == order[0 if "lightest" in draft.question else -1]


def test_doping_agrees_with_the_groups() -> None:
    donors, acceptors = {"phosphorus", "arsenic", "antimony"}, {"boron", "aluminum", "gallium", "indium"}
    for draft in drafts("doping_type", 1, 2):
        words = set(re.findall(r"[a-z]+", draft.question.lower()))
        assert bool(words & donors) != bool(words & acceptors)
        assert draft.answer == ("n-type, extra electrons" if words & donors else "p-type, holes")


def test_bonds_by_electronegativity_agree_with_the_limit() -> None:
    for draft in drafts("bond_type", 3):
        low, high = sorted(float(x) for x in re.findall(r"\d\.\d+|\b1\b", draft.question))
        kind = "ionic" if high - low > 1.7 else "covalent"
        assert draft.answer == f"{round(high - low, 2):g}, mainly {kind}"


def test_coding_length_counts_codons() -> None:
    for draft in drafts("coding_length", 1, 2):
        codons = one(r"(\d+) amino acids", draft.question) + ("including" in draft.question)
        assert one(r"(\d+)", draft.answer) == len("AUG" * int(codons))


def test_protein_of_a_messenger_codes_back() -> None:
    for draft in drafts("coding_length", 3):
        amino_acids = one(r"(\d+)", draft.answer)
        assert 3 * amino_acids + 3 + one(r"(\d+) untranslated", draft.question) == one(
            r"of (\d+) nucleotides", draft.question
        )


def test_chargaff_shares_add_to_the_whole() -> None:
    for draft in drafts("chargaff", 1):
        given, answer = one(r"(\d+) %", draft.question), one(r"(\d+) %", draft.answer)
        assert 2 * given + 2 * answer == 100


def test_punnett_agrees_with_enumerated_offspring() -> None:
    for draft in drafts("punnett"):
        mother, father = re.search(r"(\w+) x (\w+)", draft.question).groups()
        genes = [sorted(a + b) for a in mother[:2] for b in father[:2]]
        total = max(numbers(draft.question))
        if len(mother) == 2:
            kinds = re.search(r"\((AA or Aa|Aa|aa)\)", draft.question)[1].split(" or ")
            share = sum("".join(gene) in kinds for gene in genes) / 4
        else:
            dominant = sum("A" in gene for gene in genes) / 4
            look = re.search(r"\(([^)]*)\)", draft.question)[1]
            share = {
                "both dominant": dominant * dominant,
                "dominant and recessive": dominant * (1 - dominant),
                "both recessive": (1 - dominant) * (1 - dominant),
            }[look]
        assert share * total == one(r"(\d+)", draft.answer)


def test_peptide_masses_agree_with_whole_molecules() -> None:
    """The free amino acids' formulas are typed here, where the source adds water to molmass's residues."""
    letters = {"glycine": "C2H5NO2", "alanine": "C3H7NO2", "serine": "C3H7NO3", "lysine": "C6H14N2O2"}
    for draft in drafts("peptide", 2, 3):
        for acid, formula in letters.items():
            if match := re.search(rf"\b{acid} ([\d.]+)", draft.question):
                assert float(match[1]) == pytest.approx(Formula(formula).mass, abs=0.51)
        *acids, water = numbers(draft.question)
        assert sum(acids) - (len(acids) - 1) * water == pytest.approx(one(r"(.*) Da", draft.answer))


def test_base_pairing_pairs_every_base() -> None:
    for draft in drafts("base_pairing"):
        template = re.search(r"3'-([ACGT]+)-5'", draft.question)[1]
        pairs = {"GC", "CG", "AT", "TA"} if "mRNA" not in draft.question else {"GC", "CG", "AU", "TA"}
        assert {a + b for a, b in zip(template, draft.answer, strict=True)} <= pairs


def test_population_doubles_step_by_step() -> None:
    for draft in drafts("population_doubling", 2, 3):
        cells = one(r"(\d+) [a-z]", draft.question)
        period = u(re.search(r"for ([\d.]+ (?:min|hours))", draft.question)[1]).to("min").magnitude
        elapsed = 0.0
        while elapsed < period:
            cells, elapsed = 2 * cells, elapsed + one(r"every (\d+) min", draft.question)
        assert cells == one(r"(\d+)", draft.answer)


def test_magnification_agrees_with_pint() -> None:
    for draft in drafts("magnification"):
        small, large = sorted(u(size) for size in re.findall(r"[\d.]+ [mu]m\b", draft.question))
        assert (large / small).to("").magnitude == pytest.approx(one(r"(\d+) times", draft.answer))


def test_cardiac_output_agrees_with_pint() -> None:
    for draft in drafts("cardiac_output"):
        beats, volume = one(r"(\d+) beats", draft.question), one(r"(\d+) mL\b", draft.question) * u.mL
        time = 15 * u.s if "15 s" in draft.question else 1 * u.min
        value, unit = draft.answer.split()
        assert (beats * volume / time).to(f"{unit}/min").magnitude == pytest.approx(float(value))


def test_trophic_energy_loses_a_zero_per_step() -> None:
    for draft in drafts("trophic_energy"):
        steps = len(re.findall(r" to ", draft.question))
        assert one(r"(\d+) kJ", draft.question) * 0.1**steps == pytest.approx(one(r"(.*) kJ", draft.answer))


def test_serial_dilution_undoes_every_dilution() -> None:
    for draft in drafts("serial_dilution"):
        cells = one(r"(?<![\d.])(\d+) (?:bacteria|algae|cells|yeast)", draft.question)
        for factor in re.findall(r"(\d+)-fold", draft.question):
            cells *= float(factor)
        cells *= 10 if "0.1 mL" in draft.question else 1
        assert cells == one(r"(\d+)", draft.answer)


def test_osmosis_follows_the_solute() -> None:
    flows = {"in": 1, "out": -1, "no": 0}
    for draft in drafts("osmosis"):
        amounts = re.findall(r"([\d.]+) (%|mmol/L|mol/L)", draft.question)
        scaled = [float(amount) * {"%": 1, "mmol/L": 1, "mol/L": 1000}[unit] for amount, unit in amounts]
        inside, outside = scaled[::-1] if draft.question.startswith("Outside") else scaled
        flow = next(sign for word, sign in flows.items() if contains(draft.answer, word))
        assert flow == (inside > outside + 1e-9) - (outside > inside + 1e-9)


def test_enzyme_rate_follows_the_distance_to_the_optimum() -> None:
    for draft in drafts("enzyme_activity"):
        start, end = (float(x) for x in re.search(r"from ([\d.]+)(?: C)? to ([\d.]+\d|\d)", draft.question).groups())
        best = one(r"(?:optimum (?:temperature |pH )?(?:at |of )?)([\d.]*\d)", draft.question)
        crossed = (start - best) * (end - best) < 0
        expected = "falls" if abs(end - best) > abs(start - best) else "rises"
        assert draft.answer == ("rises, then falls" if crossed else expected)


def food_chain_answer(question: str) -> str:
    chain = re.search(r"Food chain: ([^.]*)", question)
    if chain:
        ordered = chain[1].split(" -> ")
    else:
        eats = dict(re.findall(r"(?:chain |, )([a-z ]+?) eat ([a-z ]+?)(?=[,.])", question))
        (start,) = set(eats.values()) - set(eats)
        ordered = [start]
        while eater := {food: eater for eater, food in eats.items()}.get(ordered[-1]):
            ordered.append(eater)
    asked = ("producers?", "primary consumers", "secondary consumers", "tertiary consumers")
    for place, (role, share) in enumerate(zip(asked, ("100 %", "10 %", "1 %", "0.1 %"), strict=True)):
        if f"the {role}" in question or f"about {share}" in question:
            return ordered[place]
    raise AssertionError(question)


def test_food_chain_roles_follow_who_eats_whom() -> None:
    for draft in drafts("food_chain"):
        assert draft.answer == food_chain_answer(draft.question), draft


EXAMPLES: list[tuple[str, Callable[[str], bool], str]] = [
    ("chromosome_number", lambda q: "human" in q and "gamete" in q, "23 chromosomes"),
    ("chromosome_number", lambda q: "maize" in q and "endosperm" in q, "30 chromosomes"),
    ("chromosome_number", lambda q: "human" in q and "metaphase" in q, "92 chromatids"),
    ("bond_type", lambda q: "sodium" in q and "chlorine" in q and "electroneg" not in q, "ionic bonds"),
    ("bond_type", lambda q: "copper" in q and "zinc" in q, "metallic bonds"),
    ("bond_type", lambda q: "carbon" in q and "hydrogen" in q and "electroneg" not in q, "covalent bonds"),
    ("doping_type", lambda q: "gaas" in q and "zinc" in q, "p-type, holes"),
    ("doping_type", lambda q: "gaas" in q and "tellurium" in q, "n-type, extra electrons"),
    ("heat_treatment", lambda q: "slowly" in q, "soft and ductile"),
    ("heat_treatment", lambda q: "reheated" in q, "hard but tougher"),
    ("heat_treatment", lambda q: "only" in q, "nearly unchanged"),
]


@pytest.mark.parametrize(("name", "chosen", "answer"), EXAMPLES)
def test_hand_derived_examples(name: str, chosen: Callable[[str], bool], answer: str) -> None:
    examples = [draft for draft in drafts(name, seeds=range(600)) if chosen(draft.question.lower())]
    assert examples
    assert {draft.answer for draft in examples} == {answer}
