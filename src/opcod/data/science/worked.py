"""From a family's draft to a question with options, its worked solution, and what tutors say of attempts at it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from opcod.data.questions import LABELS, Question
from opcod.data.science.common import Draft, Mistake

_ADVICE = (
    "Work it out by this rule, then compare the result with every option.",
    "Check this step by the rule, and then every option by the result.",
    "Go by the rule step by step, then look for the option with your result.",
)
_OPPOSITES = (
    ("times", "divided by"),
    ("Multiply", "Divide"),
    ("minus", "plus"),
    ("over", "times"),
    ("sum", "difference"),
    ("squared", "doubled"),
    ("inverse", "proportional"),
    ("Real", "Virtual"),
    ("forward", "backward"),
    ("falls", "rises"),
    ("smaller", "larger"),
    ("lowest", "highest"),
    ("above", "below"),
    ("More", "Fewer"),
    ("fewer", "more"),
    ("hardens", "softens"),
    ("ionic", "covalent"),
    ("half", "twice"),
    ("Half", "Twice"),
    ("toward", "away from"),
)


@dataclass(frozen=True)
class Attempted:
    """A response to a question with the feedback a good tutor gives on it.

    Args:
        response: In the response format, right or wrong.
        feedback: With its <concept></concept> tag, as the tutor's prompt asks for it: the rule, the peer's step,
            what to check. Not whether the step is right: of that a small tutor has no more than a guess.
        begun: How the response begins, up to and with its slip; empty where it has none.
    """

    response: str
    feedback: str
    begun: str = ""


@dataclass(frozen=True)
class WorkedQuestion:
    """A generated question with what teaches it.

    Args:
        question: With its worked solution.
        right: The worked solution with its feedback.
        wrong: Responses that end in a wrong option: by each typical mistake, by a wrong result of the right step,
            and by the wrong tick for the right result.
        lucky: A response that comes to the right option by a mistake.
        mistaken: How one answers who takes the rule for its opposite, ending in the likeliest mistake.
        misled: A response with the feedback of a tutor that does not know the rule.
    """

    question: Question
    right: Attempted
    wrong: tuple[Attempted, ...] = ()
    lucky: Attempted | None = None
    mistaken: Attempted | None = None
    misled: Attempted | None = None

    @property
    def faulty(self) -> tuple[Attempted, ...]:
        """The wrong responses and the lucky one."""
        return (*self.wrong, self.lucky) if self.lucky else self.wrong


def compose(
    draft: Draft, rng: random.Random, *, id: str, domain: str, family: str, strange_rule: str | None = None
) -> WorkedQuestion:
    """Lay out a draft as a question with four options, in random order.

    A solution reasons to its result, goes through the options one by one, and says the letter where one fits: for
    a small model, to find the option that holds a result, and its letter, are skills of their own.

    Args:
        draft: What a family drew.
        rng: Of the order of the options, and of what attempts at the question say.
        id: Of the question.
        domain: Of the question.
        family: Of the question.
        strange_rule: The rule of another family, which may be taken for this one's.
    """
    mistakes = rng.sample(draft.mistakes, 3)
    options = [draft.answer, *(m.value for m in mistakes)]
    rng.shuffle(options)

    def verdict(option: str, *, ticked: bool) -> str:
        label = LABELS[options.index(option)]
        return f" {label} {option} {f'yes: {label}' if ticked else 'no'}."

    def finish(result: str) -> str:
        verdicts = "".join(verdict(option, ticked=option == result) for option in options)
        return f"{verdicts}</reasoning>\n<answer>{LABELS[options.index(result)]}</answer>"

    def wrong_rule() -> str:
        return rng.choice([twist(draft.rule, rng), *([strange_rule] if strange_rule else [])])

    def attempted(steps: str, result: str, rule: str = draft.rule) -> Attempted:
        feedback = f"<concept>{draft.concept}</concept> {draft.rule} You wrote: {steps} {rng.choice(_ADVICE)}"
        return Attempted(f"<reasoning>{rule} {steps}{finish(result)}", feedback)

    def begun_with(slip: str, attempt: Attempted) -> Attempted:
        before, _, _ = attempt.response.partition(slip)
        return replace(attempt, begun=before + slip)

    def slipped(mistake: Mistake, result: str) -> Attempted:
        return attempted(mistake.steps, result, draft.rule if rng.random() < 1 / 3 else wrong_rule())

    right = attempted(draft.steps, draft.answer)
    wrong = [begun_with(mistake.steps, slipped(mistake, mistake.value)) for mistake in mistakes]
    lucky = slipped(mistakes[0], draft.answer)  # begun with nothing: what it ends in does not follow from its slip
    likeliest = min(mistakes, key=draft.mistakes.index)
    mistaken = attempted(likeliest.steps, likeliest.value, twist(draft.rule))
    misread = attempted(draft.steps, mistakes[1].value)
    wrong.append(begun_with(verdict(mistakes[1].value, ticked=True), misread))
    step, answer, end = draft.steps.rpartition(draft.answer)
    if answer:
        result = mistakes[2].value
        wrong.append(begun_with(step + result + end, attempted(step + result + end, result)))
    misled = rng.choice((right, *wrong))
    misled = replace(misled, feedback=misled.feedback.replace(f"> {draft.rule} ", f"> {wrong_rule()} "))
    question = Question(
        id=id,
        domain=domain,
        text=draft.question,
        options=tuple(options),
        answer=LABELS[options.index(draft.answer)],
        solution=right.response,
        family=family,
    )
    return WorkedQuestion(question, right, tuple(wrong), lucky, mistaken, misled)


def twist(rule: str, rng: random.Random | None = None) -> str:
    """A rule turned into its opposite: one word exchanged for its opposite, and where that stands too, it for the word.

    So that a tutor cannot take the rule from a faulty response, nor a self-teacher from s. A rule with no such
    word, such as a definition, is cut after its first three words. Which of its words is drawn, or the first listed.
    """
    standing = [pair for pair in _OPPOSITES if any(re.search(rf"\b{word}\b", rule) for word in pair)]
    if not standing:
        return " ".join(rule.split()[:3]).rstrip(",.") + "."
    one, other = rng.choice(standing) if rng else standing[0]
    exchanged = {one: other, other: one}
    return re.sub(rf"\b(?:{one}|{other})\b", lambda match: exchanged[match[0]], rule)
