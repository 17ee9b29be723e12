"""From a family's draft to a question with options, its worked solution, and what tutors say of mistakes."""

from __future__ import annotations

import random
from dataclasses import dataclass

from opcod.data.questions import LABELS, Question
from opcod.data.science.common import Draft

_RIGHT_REMARKS = (
    "Your working follows the right rule.",
    "Your method is sound.",
    "The rule you used is the right one.",
)
_REDO = (
    "Go through your step again with this rule, then compare the result with every option.",
    "Write the step out again from this rule and check each option against it.",
    "Start again from this rule, keep the units, and only then look at the options.",
)
_CHECK = (
    "Check once more that each option you ruled out really differs from your result.",
    "Make sure that the option you named is the one that your result stands in.",
)


@dataclass(frozen=True)
class Attempted:
    """A response to a question with the feedback a good tutor gives on it.

    Args:
        response: In the response format, right or wrong.
        feedback: With its <concept></concept> tag, as the tutor's prompt asks for it.
    """

    response: str
    feedback: str


@dataclass(frozen=True)
class WorkedQuestion:
    """A generated question with what teaches it.

    Args:
        question: With its worked solution.
        right: The worked solution with its feedback.
        wrong: For every wrong option the response that a typical mistake leads to, with its feedback.
    """

    question: Question
    right: Attempted
    wrong: tuple[Attempted, ...]


def compose(draft: Draft, rng: random.Random, *, id: str, domain: str, family: str) -> WorkedQuestion:
    """Lay out a draft as a question with four options, in random order.

    A solution reasons to its result, goes through the options one by one, and says the letter where one fits: for
    a small model, to find the option that holds a result, and its letter, are skills of their own.
    """
    mistakes = rng.sample(draft.mistakes, 3)
    options = [draft.answer, *(m.value for m in mistakes)]
    rng.shuffle(options)

    def respond(reasoning: str, result: str) -> str:
        verdicts = " ".join(
            f"{label} {option} {f'yes: {label}' if option == result else 'no'}."
            for label, option in zip(LABELS, options, strict=False)
        )
        chosen = LABELS[options.index(result)]
        return f"<reasoning>{reasoning} {verdicts}</reasoning>\n<answer>{chosen}</answer>"

    def feedback(remark: str, advice: str) -> str:
        return f"<concept>{draft.concept}</concept> {remark} {draft.rule} {advice}"

    solution = respond(f"{draft.rule} {draft.steps}", draft.answer)
    question = Question(
        id=id,
        domain=domain,
        text=draft.question,
        options=tuple(options),
        answer=LABELS[options.index(draft.answer)],
        solution=solution,
        family=family,
    )
    return WorkedQuestion(
        question,
        Attempted(solution, feedback(rng.choice(_RIGHT_REMARKS), rng.choice(_CHECK))),
        tuple(Attempted(respond(m.steps, m.value), feedback(m.remark, rng.choice(_REDO))) for m in mistakes),
    )
