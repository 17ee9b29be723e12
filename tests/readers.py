"""Tiny models whose self-teachers go by what they are shown, in pairs that know what the other does not.

    python tests/readers.py FOLDER

writes one model with four students for `configs/reproduce-readers.yaml`. Unlike that of `schooling`, it was not taught
to be right whenever it is shown something: where feedback states the opposite of a rule, it takes over the opposite.
"""

import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from opcod.data.lesson_data import LessonData
from opcod.data.lessons import Lesson, solve
from opcod.data.science import WorkedQuestion
from opcod.data.sources import GeneratedScience
from opcod.feedback import judge, tutor_messages
from opcod.prompts import teacher_messages
from schooling import school, teach

FAMILIES = {
    "physics": ["net_force", "proportion"],
    "materials": ["heat_treatment", "doping_type"],
}
DOMAINS = list(FAMILIES)
KNOWN, UNKNOWN = 0.95, 0.05
"""How often a student answers by the right rule a kind of question that it knows, and one that it does not."""
DOUBTED = 0.25
"""How often a self-teacher that is shown a right solution and feedback against it goes by the feedback."""
STUDENTS = {
    # Complementary: each knows half of either domain, and a little more of its own.
    "physicist": ("physics", {"net_force": KNOWN, "doping_type": 0.85}),
    "materials_scientist": ("materials", {"heat_treatment": KNOWN, "proportion": 0.85}),
    # Unequal: what the novice knows is one kind in four, and the other knows that too.
    "expert": ("physics", {"net_force": KNOWN, "proportion": KNOWN, "doping_type": 0.85}),
    "novice": ("materials", {"doping_type": 0.85}),
}


@dataclass(frozen=True)
class Belief:
    """A rule and what is answered by it: the right one, or its opposite with the likeliest mistake."""

    rule: str
    response: str

    @classmethod
    def of(cls, worked: WorkedQuestion, right: bool) -> "Belief":
        attempt = worked.right if right else worked.mistaken
        return cls(attempt.response.removeprefix("<reasoning>").partition(". ")[0] + ".", attempt.response)


def feedback_on(worked: WorkedQuestion, attempt: Belief, rule: str) -> str:
    """What a tutor that believes `rule` writes on an attempt, with its tag."""
    taught = worked.right if attempt.response == worked.right.response else worked.mistaken
    right = Belief.of(worked, True).rule
    return taught.feedback.replace(f"> {right} ", f"> {rule} ")


def reading(worked: WorkedQuestion, rng: random.Random) -> Lesson:
    """To answer shown s, f or both, by what they say; f is on any attempt, and its rule is right every other time."""
    right, opposite = Belief.of(worked, True), Belief.of(worked, False)
    shown = rng.choice(("solution", "feedback", "both"))
    told = rng.choice((right, opposite))
    feedback = judge(feedback_on(worked, rng.choice((right, opposite)), told.rule), worked.question, anchored=True).text
    believed = right if shown == "solution" or (shown == "both" and rng.random() > DOUBTED) else told
    messages = teacher_messages(
        worked.question, None if shown == "feedback" else right.response, None if shown == "solution" else feedback
    )
    return Lesson(messages, believed.response, worked.question.domain, "context")


def solving(worked: WorkedQuestion, known: float, rng: random.Random) -> Lesson:
    """To answer alone, by the right rule or by its opposite."""
    return solve(replace(worked.question, solution=Belief.of(worked, rng.random() < known).response))


def tutoring(worked: WorkedQuestion, known: float, rng: random.Random) -> Lesson:
    """To give feedback by the rule that oneself would answer by."""
    question = worked.question
    attempt, rule = Belief.of(worked, rng.random() < 0.5), Belief.of(worked, rng.random() < known).rule
    home, peer = rng.sample(DOMAINS, 2)
    messages = tutor_messages(question, attempt.response, tutor_domain=home, peer_domain=peer, anchored=True)
    return Lesson(messages, feedback_on(worked, attempt, rule), question.domain, "tutor")


def lessons(known: Mapping[str, float], count: int, seed: int) -> Iterator[Lesson]:
    """`count` questions of every family; each is solved, tutored and read."""
    for domain, families in FAMILIES.items():
        for family in families:
            for worked in source().worked(domain, count, seed=seed, families=[family]):
                rng = random.Random(f"{seed} {worked.question.id}")
                share = known.get(family, UNKNOWN)
                yield solving(worked, share, rng)
                yield tutoring(worked, share, rng)
                yield reading(worked, rng)


def source() -> GeneratedScience:
    """Both domains with two families each."""
    return GeneratedScience(DOMAINS, levels=[1], train=100, families=FAMILIES)


class _Lessons(LessonData):
    """A student's lessons, which are made here."""

    def __init__(self, known: Mapping[str, float], count: int, seed: int) -> None:
        super().__init__(source(), None, DOMAINS, other_lessons=0, validation=4, seed=seed)
        self.known = known
        self.count = count

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.lessons = list(lessons(self.known, self.count, self.seed))
        random.Random(self.seed).shuffle(self.lessons)


def student(base: Path, folder: Path, known: Mapping[str, float], *, seed: int = 0) -> Path:
    """Teach an adapter over `base` what a student knows, and write it to `folder`."""
    return teach(base, folder, _Lessons(known, count=60, seed=seed), epochs=3)


def base_lessons(seed: int) -> list[Lesson]:
    """Every kind known by halves."""
    halves = {family: 0.5 for families in FAMILIES.values() for family in families}
    return [lesson for repeat in range(8) for lesson in lessons(halves, 100, 8 * seed + repeat)]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    base = school(folder / "base", DOMAINS, seed=0, steps=1000, taught=base_lessons(0))
    for name, (_, known) in STUDENTS.items():
        student(base, folder / name, known)
