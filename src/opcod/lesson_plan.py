"""What a specialist takes, before anyone rents a GPU for it: `opcod solve` and `opcod specialise`.

As `plan` plans a run. Lessons that are there are read, and pass by as they are. Before `opcod solve` has run there are
none: then they are planned as if it had found a solution to every question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from opcod.chat import Chat
from opcod.data.lesson_data import LessonData
from opcod.data.lessons import solve
from opcod.data.loaders import SIDE_BY_SIDE, LessonLoader
from opcod.data.questions import Question
from opcod.devices import Device
from opcod.passes import Lengths, answering, imitating
from opcod.plan import Part, Plan, beforehand, chats_of, longest_prompt, simulated_base, some, weights
from opcod.prompts import Message, keyed_messages, student_messages
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
    read = read_steps(loader, chat)
    steps = [_as_long(sequences, limit) for sequences in read]
    longest = max((s for step in steps for s in step), key=lambda s: len(s.response))
    likely = steps if response is None else [_as_long(s, min(response, len(longest.response))) for s in read]
    largest = largest_step(steps, model.micro_batch_tokens)
    middle = sorted(likely, key=lambda step: sum(_padded(step, model.micro_batch_tokens)))[len(likely) // 2]
    base = base_of(model, device)
    whole = imitating(base, STUDENT, largest, model.micro_batch_tokens)
    work = whole if middle == largest else imitating(base, STUDENT, middle, model.micro_batch_tokens)
    planned = _plan(
        base,
        device,
        Lengths(len(longest.prompt), 0, 0, len(longest.response), 0, 0),
        Lengths(_mean([len(s.prompt) for s in middle]), 0, 0, _mean([len(s.response) for s in middle]), 0, 0),
        learning=True,
        steps=len(loader) * epochs,
        notes=notes,
    )
    planned.scorings = (epochs,)
    planned.trained = sum(p.numel() for p in base.parameters_of(STUDENT))
    planned.parts = [Part("imitate", whole.peak, work, work)]
    batch = min(SIDE_BY_SIDE, len(questions))
    asked = longest_asked(student_messages, model, chat, questions, batch)
    limits, expected = (replace(lengths, prompt=asked) for lengths in (planned.lengths, planned.expected))
    memory, one = answering(base, STUDENT, model.evaluation, model.samples, batch, limits, expected)
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
    batch, limit = min(data.batch_size, len(questions)), solving.sampling.max_new_tokens
    prompts = prompts_to_solve(model, chat, questions, batch)
    lengths = list(prompts.values())
    limits = Lengths(prompt=lengths[0], context=lengths[-1], tutoring=0, response=limit, feedback=0, limit=0)
    expected = replace(limits, response=min(response or limit, limit))
    steps = math.ceil(len(questions) / batch)
    base = base_of(model, device)
    planned = _plan(base, device, limits, expected, learning=False, steps=steps, notes=notes)
    planned.cases = ("with the key shown to all", "with none shown it")
    for name, prompt in prompts.items():
        at, likely = replace(limits, prompt=prompt), replace(expected, prompt=prompt)
        memory, one = answering(base, STUDENT, solving.sampling, solving.samples, batch, at, likely)
        work = one.times(len(questions) / steps)  # the last batch has fewer
        planned.parts.append(Part(name, memory, work, work if not planned.parts else Trace()))
    return planned


def _plan(
    base: SimulatedBase,
    device: Device,
    limits: Lengths,
    expected: Lengths,
    *,
    learning: bool,
    steps: int,
    notes: list[str],
) -> Plan:
    """With what is in memory all the time, and as yet without parts."""
    planned = Plan(device, limits, expected, steps, (), base.parameter_count, notes=notes)
    planned.standing = beforehand(device) | standing_under(base, learning=learning)
    return planned


def base_of(model: Specialist, device: Device, layers: int | None = None) -> SimulatedBase:
    """The base without weights, under the student's adapter; see `plan.simulated_peers`."""
    base = simulated_base(model.base, model, device, layers)
    base.add_adapter(STUDENT, seed=0)
    return base


def standing_under(base: SimulatedBase, *, learning: bool) -> dict[str, float]:
    """What the student and its base have in memory all the time -> bytes."""
    adapter = 4.0 * sum(p.numel() for p in base.parameters_of(STUDENT))
    held = {"weights": weights(base), "adapter": adapter}
    return held | ({"gradient and optimizer": 3 * adapter} if learning else {})  # AdamW holds two averages


def read_steps(loader: LessonLoader, chat: Chat) -> list[list[Scored]]:
    """The lessons of as many steps as are looked at."""
    return [[sequence_of(lesson, chat) for lesson in loader.at(0, place)] for place in some(range(len(loader)))]


def largest_step(steps: Sequence[list[Scored]], micro_batch_tokens: int) -> list[Scored]:
    """The step that has the largest micro-batch."""
    return max(steps, key=lambda step: max(_padded(step, micro_batch_tokens)))


def _padded(step: Sequence[Scored], micro_batch_tokens: int) -> list[int]:
    """Tokens of each micro-batch of a step."""
    return [padded_tokens(step, [rows]) for rows in token_batches(step, micro_batch_tokens)]


def prompts_to_solve(model: Specialist, chat: Chat, questions: Sequence[Question], batch: int) -> dict[str, int]:
    """The ways in which `opcod solve` asks, in its order -> tokens of the longest prompt; see `longest_asked`."""
    messages = {"alone": student_messages, "keyed": keyed_messages}
    ways = {"unsolved": ["alone", "keyed"], "always": ["keyed"], "never": ["alone"]}[model.solving.key]
    return {way: longest_asked(messages[way], model, chat, questions, batch) for way in ways}


def longest_asked(
    messages: Callable[[Question], list[Message]],
    model: Specialist,
    chat: Chat,
    questions: Sequence[Question],
    batch: int,
) -> int:
    """Tokens of the longest prompt of a batch, on average; no more than the student's limit."""
    return longest_prompt([chat], [messages(q) for q in some(questions)], batch, model.prompt_limit)


def _as_long(sequences: Sequence[Scored], tokens: int | None) -> list[Scored]:
    """With responses of so many tokens; None leaves them."""
    return [s if tokens is None else Scored(s.prompt, (0,) * tokens) for s in sequences]


def _mean(lengths: Sequence[int]) -> int:
    return round(sum(lengths) / len(lengths))
