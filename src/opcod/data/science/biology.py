"""Biology: families of short questions on cells, genes and heredity, and those on organisms.

Masses of amino acids are molmass's; chromosome numbers are the well-known ones, and the question states them.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from fractions import Fraction

from molmass import AMINOACIDS, Formula

from opcod.data.science.biology_organisms import ORGANISMS
from opcod.data.science.common import Draft, Family, Mistake, num, redraw_until_distinct, slip
from opcod.data.science.working import by_level, reckon, sentence, with_article

DNA_COMPLEMENT = str.maketrans("ACGT", "TGCA")
RNA_COMPLEMENT = str.maketrans("ACGT", "UGCA")
# Adenine paired with the base of the other nucleic acid: U in DNA, T in RNA.
WRONG_NUCLEIC_ACID = str.maketrans("UT", "TU")
PURINE_WITH_PURINE = str.maketrans("ACGT", "GTAC")
PARTNER = {"A": "T", "T": "A", "G": "C", "C": "G"}
AMINO_ACID_NAMES = {
    "G": "glycine",
    "A": "alanine",
    "S": "serine",
    "P": "proline",
    "V": "valine",
    "T": "threonine",
    "C": "cysteine",
    "L": "leucine",
    "N": "asparagine",
    "K": "lysine",
    "M": "methionine",
    "F": "phenylalanine",
}
# Chromosomes of a body cell, 2n.
DIPLOID = {
    "human": 46,
    "mouse": 40,
    "dog": 78,
    "cat": 38,
    "horse": 64,
    "donkey": 62,
    "pig": 38,
    "sheep": 54,
    "goat": 60,
    "rabbit": 44,
    "rat": 42,
    "guinea pig": 64,
    "zebrafish": 50,
    "cow": 60,
    "fruit fly": 8,
    "onion plant": 16,
    "maize plant": 20,
    "rice plant": 24,
    "pea plant": 14,
    "rye plant": 14,
    "tomato plant": 24,
    "chicken": 78,
    "barley plant": 14,
    "cabbage plant": 18,
    "carrot plant": 18,
    "lettuce plant": 18,
    "radish plant": 18,
    "sunflower plant": 34,
    "cucumber plant": 14,
}
ENDOSPERM_PLANTS = tuple(species for species in DIPLOID if species.endswith("plant"))
# Species, dominant and recessive look, a second gene's dominant and recessive look.
TRAITS = (
    ("pea plants", "purple", "white", "tall", "short"),
    ("mice", "black", "brown", "short-haired", "long-haired"),
    ("guinea pigs", "black", "white", "rough", "smooth"),
    ("fruit flies", "grey", "black", "long-winged", "short-winged"),
    ("rabbits", "grey", "white", "short-haired", "long-haired"),
)
ORGANISM_OF_DNA = ("a bacterium", "a virus", "a plant", "a yeast", "a whale", "a mouse", "a fish")


@functools.cache
def water_mass() -> float:
    """The mass of the water lost at each peptide bond, in Da."""
    return float(Formula("H2O").mass)


@functools.cache
def residue_mass(letter: str) -> float:
    """The mass of an amino acid within a chain, that is without the water lost at its bond, in Da."""
    return float(Formula(AMINOACIDS[letter]).mass)


@redraw_until_distinct
def coding_length(rng: random.Random, level: int) -> Draft:
    """Each amino acid is coded by three nucleotides; the stop codon takes three more."""
    n, protein = (
        by_level(rng, level, range(2, 31), range(20, 131, 5), range(40, 301, 20)),
        rng.choice(("bacterial peptide", "plant protein", "venom peptide", "viral protein", "yeast hormone")),
    )
    if level == 3:
        return _protein_of_messenger(rng, protein, n)
    stop = 3 * (level - 1)
    counted = "without the stop codon" if level == 1 else "including one stop codon"
    question = rng.choice(
        (
            f"{sentence(with_article(protein))} has {n} amino acids. How many nucleotides code for it, {counted}?",
            f"How many nucleotides, {counted}, code for the {n} amino acids of {with_article(protein)}?",
            f"{sentence(with_article(protein))} is {n} amino acids long. Find its coding nucleotides, {counted}.",
        )
    )

    def wrong(per_amino_acid: int) -> Mistake:
        return slip(f"{n} x {per_amino_acid}", n * per_amino_acid, "nucleotides")

    mistakes = [wrong(1), slip(f"{n} / 3", n / 3, "nucleotides"), wrong(2), wrong(4)]
    rule = "Each amino acid is coded by one codon of three nucleotides."
    if level == 1:
        return reckon(f"{n} x 3", 3 * n, "nucleotides").draft(question, rule, "amino acids", *mistakes)
    forgotten = wrong(3)
    single = slip(f"{n} x 3 + 1", 3 * n + 1, "nucleotides")
    rule = "Three nucleotides per amino acid, and three more for the stop codon."
    working = reckon(f"{n} x 3 = {3 * n}; {3 * n} + {stop}", 3 * n + stop, "nucleotides")
    return working.draft(question, rule, "amino acids", forgotten, single, *mistakes)


def _protein_of_messenger(rng: random.Random, protein: str, n: int) -> Draft:
    """The amino acids of an mRNA are its coding nucleotides over three, less the stop codon."""
    flanks, coding = rng.choice((30, 60, 90, 120, 150)), 3 * (n + 1)
    total = coding + flanks
    question = rng.choice(
        (
            f"An mRNA of {total} nucleotides has {flanks} untranslated ones and one stop codon. "
            f"How many amino acids has its {protein}?",
            f"How many amino acids has {with_article(protein)} whose mRNA of {total} nucleotides includes "
            f"{flanks} untranslated ones and a stop codon?",
        )
    )
    mistakes = (
        slip(f"({total} - {flanks}) / 3", n + 1, "amino acids"),
        slip(f"{total} / 3 - 1", total / 3 - 1, "amino acids"),
        slip(f"{total} - {flanks} - 3", coding - 3, "amino acids"),
    )
    rule = "Take off untranslated nucleotides, divide by three, and subtract the stop codon."
    working = reckon(f"{total} - {flanks} = {coding}; {coding} / 3 = {n + 1}; {n + 1} - 1", n, "amino acids")
    return working.draft(question, rule, "amino acids", *mistakes)


@redraw_until_distinct
def chargaff(rng: random.Random, level: int) -> Draft:
    """In double-stranded DNA A equals T and G equals C, so one of each pair makes half of the bases."""
    given = rng.choice("ATGC")
    asked = rng.choice([base for base in "ATGC" if base not in (given, PARTNER[given])])
    source = rng.choice(ORGANISM_OF_DNA)
    if level > 1:
        return _count_of_bases(rng, level, given, asked, source)
    percent = rng.randint(11, 39)
    question = rng.choice(
        (
            f"The double-stranded DNA of {source} is {percent} % {given}. What percentage is {asked}?",
            f"If {percent} % of the bases in double-stranded DNA of {source} are {given}, what percentage are {asked}?",
            f"In {source}, {given} makes {percent} % of the double-stranded DNA. What is the percentage of {asked}?",
        )
    )
    mistakes = (
        slip(f"{asked} = {given}", percent, "%"),
        slip(f"100 - {percent}", 100 - percent, "%"),
        slip(f"100 - 2 x {percent}", 100 - 2 * percent, "%"),
        slip(f"{percent} / 2", percent / 2, "%"),
    )
    rule = "A pairs with T, G with C; one base of each pair makes half."
    return reckon(f"50 - {percent}", 50 - percent, "%").draft(question, rule, "double-stranded DNA", *mistakes)


def _count_of_bases(rng: random.Random, level: int, given: str, asked: str, source: str) -> Draft:
    """Chargaff's rule for numbers of bases, from a number (level 2) or from a percentage (level 3)."""
    if level == 2:
        total, count = rng.choice((200, 400, 600, 800, 1000)), 10 * rng.randint(2, 9)
        told, first = f"the base {given} {count} times", ""
    else:
        total, tenths = rng.choice((1000, 2000, 3000, 4000)), rng.randint(152, 348)
        count = total * tenths // 1000
        told, first = f"{num(tenths / 10)} % {given}", f"{num(tenths / 10)} % of {total} = {count}; "
    half = total // 2
    question = rng.choice(
        (
            f"In {source}, double-stranded DNA of {total} bases has {told}. How many bases are {asked}?",
            f"How many of the {total} bases are {asked} in double-stranded DNA of {source} with {told}?",
        )
    )
    mistakes = (
        slip(f"{asked} = {given}", count, "bases"),
        slip(f"{total} - {count}", total - count, "bases"),
        slip(f"{total} - 2 x {count}", total - 2 * count, "bases"),
    )
    rule = "A equals T and G equals C; one of each makes half the bases."
    working = reckon(f"{first}{total} / 2 = {half}; {half} - {count}", half - count, "bases")
    return working.draft(question, rule, "double-stranded DNA", *mistakes)


@dataclass(frozen=True)
class Cross:
    """The shares of the offspring's classes; `looks` name them by the species' traits."""

    parents: str
    rule: str
    shares: dict[str, Fraction]


MONOHYBRID = Cross(
    "Aa x Aa",
    "Of four offspring of Aa x Aa, one is AA, two Aa, one aa.",
    {
        "{recessive} (aa)": Fraction(1, 4),
        "{dominant} (AA or Aa)": Fraction(3, 4),
        "heterozygous (Aa)": Fraction(1, 2),
    },
)
TEST_CROSS = Cross(
    "Aa x aa",
    "Of the offspring of Aa x aa, half are Aa and half aa.",
    {"{recessive} (aa)": Fraction(1, 2), "{dominant} (Aa)": Fraction(1, 2)},
)
DIHYBRID = Cross(
    "AaBb x AaBb",
    "In sixteenths: both dominant 9, dominant with recessive 3, both recessive 1.",
    {
        "{dominant} and {second} (both dominant)": Fraction(9, 16),
        "{dominant} and {other} (dominant and recessive)": Fraction(3, 16),
        "{recessive} and {other} (both recessive)": Fraction(1, 16),
    },
)


# Shares that mistakes lead to: a third from the ratio of three to one, and with two genes those of one gene.
MONOHYBRID_SLIPS = (Fraction(1, 4), Fraction(3, 4), Fraction(1, 2), Fraction(1, 3), Fraction(1))
DIHYBRID_SLIPS = (Fraction(1, 4), Fraction(3, 4), Fraction(9, 16), Fraction(3, 16), Fraction(1, 16))


@redraw_until_distinct
def punnett(rng: random.Random, level: int) -> Draft:
    """The expected number of offspring is their share in the Punnett square times the total."""
    animals, dominant, recessive, second, other = rng.choice(TRAITS)
    cross = by_level(rng, level, (MONOHYBRID, TEST_CROSS), (MONOHYBRID,), (DIHYBRID,))
    looks = list(cross.shares)[:1] if cross is MONOHYBRID and level == 1 else list(cross.shares)
    look = rng.choice(looks[level == 2 :])
    wanted = look.format(dominant=dominant, recessive=recessive, second=second, other=other)
    share = cross.shares[look]
    total = share.denominator * by_level(rng, level, range(2, 13), range(10, 41), range(5, 31))
    question = rng.choice(
        (
            f"A cross {cross.parents} of {animals} gives {total} offspring. How many are expected to be {wanted}?",
            f"{sentence(animals)} are crossed, {cross.parents}. How many of {total} offspring should be {wanted}?",
            f"Of {total} offspring of {animals} from {cross.parents}, how many are expected {wanted}?",
        )
    )
    likely = MONOHYBRID_SLIPS if cross is not DIHYBRID else DIHYBRID_SLIPS
    mistakes = (slip(f"{s if s < 1 else 'all'} of {total}", float(s * total), "offspring") for s in likely)
    working = reckon(f"{share} of {total}", int(share * total), "offspring")
    return working.draft(question, cross.rule, "offspring", *mistakes)


@dataclass(frozen=True)
class CellCount:
    """What is asked of a species' chromosomes.

    Args:
        asked: What is counted.
        sets: How many haploid sets that is.
        rule: Why.
    """

    asked: str
    sets: int
    rule: str


GAMETE = CellCount("chromosomes has a gamete", 1, "A gamete gets half the chromosomes of a body cell.")
DAUGHTER = CellCount("chromosomes has a cell made by mitosis", 2, "Mitosis keeps the body cell's chromosome number.")
ZYGOTE = CellCount("chromosomes has a zygote", 2, "Two gametes, each with half, restore the body cell's number.")
ENDOSPERM = CellCount("chromosomes has a triploid endosperm cell", 3, "Triploid is three sets; a body cell has two.")
TETRAPLOID = CellCount("chromosomes has a tetraploid cell", 4, "Tetraploid is four sets; a body cell has two.")
METAPHASE = CellCount(
    "chromatids has a cell in mitotic metaphase", 4, "In metaphase each chromosome has two chromatids."
)
MEIOSIS = CellCount(
    "chromatids has a cell after meiosis I", 2, "Meiosis I halves the chromosomes; each keeps two chromatids."
)


@redraw_until_distinct
def chromosome_number(rng: random.Random, level: int) -> Draft:
    """A body cell has two sets of chromosomes; everything else is counted in sets."""
    count = by_level(rng, level, (GAMETE, DAUGHTER, ZYGOTE), (ENDOSPERM, TETRAPLOID), (METAPHASE, MEIOSIS))
    species = rng.choice(ENDOSPERM_PLANTS if level == 2 else tuple(DIPLOID))
    body, one_set = DIPLOID[species], DIPLOID[species] // 2
    unit, asked = count.asked.split(" has ")
    question = rng.choice(
        (
            f"A body cell of {with_article(species)} has {body} chromosomes. How many {unit} has {asked}?",
            f"{sentence(with_article(species))} has {body} chromosomes per body cell. How many {unit} are in {asked}?",
            f"How many {unit} has {asked} of {with_article(species)}, whose body cells have {body} chromosomes?",
        )
    )
    workings = {
        1: f"{body} / 2",
        2: f"2 x {one_set}",
        3: f"{body} / 2 = {one_set}; 3 x {one_set}",
        4: f"2 x {body}",
    }
    mistakes = (slip(workings[n], n * one_set, unit) for n in workings if n != count.sets)
    working = reckon(workings[count.sets], count.sets * one_set, unit)
    return working.draft(question, count.rule, "chromosomes", *mistakes)


@redraw_until_distinct
def peptide(rng: random.Random, level: int) -> Draft:
    """Each peptide bond joins two amino acids and sets one water free."""
    if level > 1:
        return _peptide_mass(rng, level)
    n = rng.randint(3, 40)
    chain = rng.choice(("peptide", "chain", "hormone", "toxin"))
    question = rng.choice(
        (
            f"A linear {chain} is made of {n} amino acids. How many peptide bonds has it?",
            f"How many peptide bonds join {n} amino acids in one linear {chain}?",
            f"{n} amino acids form a linear {chain}. Count its peptide bonds.",
        )
    )
    mistakes = (
        slip(f"{n} x 1", n, "bonds"),
        slip(f"{n} + 1", n + 1, "bonds"),
        slip(f"{n} x 2", 2 * n, "bonds"),
        slip(f"{n} - 2", n - 2, "bonds"),
    )
    rule = "A linear chain has one peptide bond fewer than amino acids."
    return reckon(f"{n} - 1", n - 1, "bonds").draft(question, rule, "peptide bonds", *mistakes)


def _peptide_mass(rng: random.Random, level: int) -> Draft:
    """A peptide's mass is the sum of its amino acids' less one water for each bond."""
    decimals = level - 2
    letters = rng.sample(tuple(AMINO_ACID_NAMES), level)
    masses = [round(residue_mass(letter) + water_mass(), decimals) for letter in letters]
    water, bonds, total = round(water_mass(), decimals), level - 1, round(sum(masses), decimals)
    kind = {2: "dipeptide", 3: "tripeptide"}[level]
    listed = ", ".join(f"{AMINO_ACID_NAMES[a]} {num(m)}" for a, m in zip(letters, masses, strict=True))
    question = rng.choice(
        (
            f"Masses in Da: {listed}, water {num(water)}. What is the mass of the {kind} of these amino acids?",
            f"Find the mass of the {kind} of {listed} Da; each bond frees a water of {num(water)} Da.",
        )
    )
    added = " + ".join(map(num, masses))
    loss = num(water) if bonds == 1 else f"{bonds} x {num(water)}"
    mistakes = (
        slip(added, total, "Da"),
        slip(f"{added} - {bonds + 1} x {num(water)}", total - (bonds + 1) * water, "Da"),
        slip(f"{added} + {loss}", total + bonds * water, "Da"),
    )
    rule = "Add the amino acids, then take off one water for each peptide bond."
    return reckon(f"{added} - {loss}", round(total - bonds * water, decimals), "Da").draft(
        question, rule, kind, *mistakes
    )


@redraw_until_distinct
def base_pairing(rng: random.Random, level: int) -> Draft:
    """A pairs with T (with U in RNA) and G with C."""
    template = "".join(rng.choices("ACGT", k=by_level(rng, level, (4,), (6,), (9,))))
    made = template.translate(DNA_COMPLEMENT if level == 1 else RNA_COMPLEMENT)
    source = rng.choice(("bacterial", "viral", "plant", "yeast", "human"))
    product = "DNA strand" if level == 1 else "mRNA"
    question = rng.choice(
        (
            f"The {source} DNA strand 3'-{template}-5' is the template. Which {product} pairs with it, from 5' to 3'?",
            f"Which {product}, from 5' to 3', pairs with the {source} DNA template 3'-{template}-5'?",
            f"Write the {product}, from 5' to 3', made on the {source} DNA template 3'-{template}-5'.",
        )
    )
    copied = template if level == 1 else template.replace("T", "U")
    crossed = template.translate(PURINE_WITH_PURINE)
    crossed = crossed if level == 1 else crossed.replace("T", "U")
    wrong = (made.translate(WRONG_NUCLEIC_ACID), copied, made[::-1], crossed)
    mistakes = (Mistake(bases, f"{template} gives {bases}.") for bases in wrong)
    partner = "T" if level == 1 else "U, T with A"
    rule = f"Pair A with {partner}, G with C, and keep the order."
    pairs = ", ".join(f"{a}-{b}" for a, b in zip(template, made, strict=True))
    return Draft(question, made, rule, f"{pairs}: {made}.", "template", tuple(mistakes))


FAMILIES: dict[str, Family] = {
    "coding_length": coding_length,
    "chargaff": chargaff,
    "punnett": punnett,
    "chromosome_number": chromosome_number,
    "peptide": peptide,
    "base_pairing": base_pairing,
    **ORGANISMS,
}
