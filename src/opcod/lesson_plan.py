"""What a specialist takes, before anyone rents a GPU for it: `opcod solve` and `opcod specialise`.

As `plan` plans a run. Lessons that are there are read, and pass by as they are. Before `opcod solve` has run there are
none: then they are planned as if it had found a solution to every question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from opcod.data.datamodule import SIDE_BY_SIDE, LessonData, LessonLoader
from opcod.data.lessons import solve
from opcod.devices import Device
from opcod.passes import Lengths, answering, imitating
from opcod.plan import Part, Plan, beforehand, chats_of, longest_prompt, simulated_base, some, weights
from opcod.prompts import keyed_messages, student_messages
from opcod.scoring import Scored, padded_tokens, token_batches
from opcod.simulation import SimulatedBase, Trace
from opcod.specialist import STUDENT, Specialist, sequence_of

_NOTHING = "no question is asked for: name a domain as `data.home`, or raise `data.other_lessons`"


def plan_specialise(
    model: Specialist, data: LessonData, *, epochs: int, device: Device, response: int | None = None
) -> Plan:
    """Plan `opcod specialise`: memory by the step that takes most, work by the middle one.

    Args:
        model: The student.
        data: Its lessons. Where they have no worked solutions yet, every question is asked plainly, and has one as long
            as `opcod solve` lets it become.
        epochs: Times through the lessons.
        device: To run on.
        response: Tokens that a response is expected to take; by default what it has, or the limit while it is missing.

    Raises:
        ModelError: If the base model's config cannot be found.
        QuestionError: If a file of questions is faulty.
        ValueError: If there are no lessons, or they do not fill a step.
    """
    (chat,), notes = chats_of([model.base])
    limit = None
    if data.is_solved():
        data.setup("fit")
        lessons, questions = data.lessons, data.questions
    else:
        data.setup("predict")
        lessons, questions = [solve(replace(q, solution="")) for q in data.unsolved], data.held_out()
        limit = model.solving.sampling.max_new_tokens
        where = f"in {data.solutions}" if data.solutions else "to learn from"
        notes.append(
            f"There are no worked solutions {where} yet: planned as if `opcod solve` had found one, of at most {limit} "
            f"tokens, to each of the {len(lessons)} questions."
        )
    if not lessons:
        raise ValueError(_NOTHING)
    loader = LessonLoader(lessons, data.batch_size)
    if not len(loader):
        raise ValueError(
            f"{len(lessons)} lessons do not fill a step of {data.batch_size}: lower `data.batch_size`, or ask for more "
            "by `data.home_lessons` or `data.other_lessons`"
        )
    read = [[sequence_of(lesson, chat) for lesson in loader.at(0, place)] for place in some(range(len(loader)))]
    steps = [_as_long(sequences, limit) for sequences in read]
    longest = max((s for step in steps for s in step), key=lambda s: len(s.response))
    likely = steps if response is None else [_as_long(s, min(response, len(longest.response))) for s in read]

    def padded(step: list[Scored]) -> list[int]:
        return [padded_tokens(step, [rows]) for rows in token_batches(step, model.micro_batch_tokens)]

    largest = max(steps, key=lambda step: max(padded(step)))
    middle = sorted(likely, key=lambda step: sum(padded(step)))[len(likely) // 2]
    base = _base(model, device)
    whole = imitating(base, STUDENT, largest, model.micro_batch_tokens)
    work = whole if middle == largest else imitating(base, STUDENT, middle, model.micro_batch_tokens)
    planned = _plan(
        base,
        device,
        Lengths(len(longest.prompt), 0, 0, len(longest.response), 0, 0),
        Lengths(_mean([len(s.prompt) for s in middle]), 0, 0, _mean([len(s.response) for s in middle]), 0, 0),
        steps=len(loader) * epochs,
        notes=notes,
    )
    planned.scorings = (epochs,)
    planned.trained = sum(p.numel() for p in base.parameters_of(STUDENT))
    planned.standing["gradient and optimizer"] = 3 * planned.standing["adapter"]  # AdamW holds two averages
    planned.parts = [Part("imitate", whole.peak, work, work)]
    asked = longest_prompt([chat], [student_messages(q) for q in some(questions)], SIDE_BY_SIDE, model.prompt_limit)
    limits, expected = (replace(lengths, prompt=asked) for lengths in (planned.lengths, planned.expected))
    memory, one = answering(base, STUDENT, model.evaluation, model.samples, SIDE_BY_SIDE, limits, expected)
    planned.scored = [Part("validation", memory, one.times(len(questions)), one.times(len(questions)))]
    return planned


def plan_solve(model: Specialist, data: LessonData, *, device: Device, response: int | None = None) -> Plan:
    """Plan `opcod solve`: a step is a batch of questions, all samples of each, without the key and then with it.

    Args:
        model: Who solves.
        data: The questions; those that its file has solutions to are left out.
        device: To run on.
        response: Tokens that a response is expected to take; by default the limit.

    Raises:
        ModelError: If the base model's config cannot be found.
        QuestionError: If a file of questions is faulty.
        ValueError: If no question is left to be solved.
    """
    data.setup("predict")
    questions, solving = data.unsolved, model.solving
    if not questions:
        asked = data.home is not None or data.other_lessons > 0
        raise ValueError(f"no question is left to be solved: {data.solutions} has them all" if asked else _NOTHING)
    (chat,), notes = chats_of([model.base])
    batch, read = min(data.batch_size, len(questions)), some(questions)
    limit = solving.sampling.max_new_tokens
    alone, keyed = (
        longest_prompt([chat], [messages(q) for q in read], batch, model.prompt_limit)
        for messages in (student_messages, keyed_messages)
    )
    limits = Lengths(prompt=alone, context=keyed, tutoring=0, response=limit, feedback=0, limit=0)
    expected = replace(limits, response=min(response or limit, limit))
    steps = math.ceil(len(questions) / batch)
    base = _base(model, device)
    planned = _plan(base, device, limits, expected, steps=steps, notes=notes)
    planned.cases = ("with the key shown to all", "with none shown it")
    prompts = {"alone": alone, "keyed": keyed}
    ways = {"unsolved": ["alone", "keyed"], "always": ["keyed"], "never": ["alone"]}[solving.key]
    for name in ways:
        at, likely = (replace(lengths, prompt=prompts[name]) for lengths in (limits, expected))
        memory, one = answering(base, STUDENT, solving.sampling, solving.samples, batch, at, likely)
        work = one.times(len(questions) / steps)  # the last batch has fewer
        planned.parts.append(Part(name, memory, work, work if name == ways[0] else Trace()))
    return planned


def _plan(
    base: SimulatedBase,
    device: Device,
    limits: Lengths,
    expected: Lengths,
    *,
    steps: int,
    notes: list[str],
) -> Plan:
    """With what is in memory all the time, and as yet without parts."""
    planned = Plan(device, limits, expected, steps, (), base.parameter_count, notes=notes)
    adapter = 4.0 * sum(p.numel() for p in base.parameters_of(STUDENT))
    planned.standing = beforehand(device) | {"weights": weights(base), "adapter": adapter}
    return planned


def _base(model: Specialist, device: Device) -> SimulatedBase:
    """The base without weights, under the student's adapter."""
    base = simulated_base(model.base, model, device)
    base.add_adapter(STUDENT, seed=0)
    return base


def _as_long(sequences: Sequence[Scored], tokens: int | None) -> list[Scored]:
    """With responses of so many tokens; None leaves them."""
    return [s if tokens is None else Scored(s.prompt, (0,) * tokens) for s in sequences]


def _mean(lengths: Sequence[int]) -> int:
    return round(sum(lengths) / len(lengths))
