"""What a run takes, before anyone rents a GPU for it: memory, floating-point operations and time.

Nothing is loaded but the model's config and its tokenizer: the run's own code goes by on `simulation`'s model without
numbers. Memory is planned at the limits of all lengths, work at what responses are expected to take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from opcod.attempts import Attempt
from opcod.chat import Chat
from opcod.codistillation import CoDistillation
from opcod.contexts import Context, ContextSettings
from opcod.data.datamodule import QuestionData
from opcod.data.questions import Question
from opcod.devices import Device
from opcod.feedback import tutor_messages
from opcod.finetuning import FineTuning
from opcod.grading import Grade
from opcod.grpo import Grpo, reinforce
from opcod.matching import match
from opcod.models import (
    BaseModel,
    ModelError,
    attention_of,
    compute_dtype,
    load_config,
    load_tokenizer,
    stays_packed,
)
from opcod.peers import Peer
from opcod.prompts import student_messages, teacher_messages
from opcod.rollout import Request, Response, Sampling, choose, prefill
from opcod.scoring import Scored
from opcod.simulation import META, NF4_BYTES, SimulatedBase, Trace, add
from opcod.specialist import imitate
from opcod.students import Students

_READ = 128  # questions whose lengths are looked at


@dataclass(frozen=True)
class Lengths:
    """Tokens of what is read and written.

    Args:
        prompt: A question as a student is asked it.
        context: The same as the self-teacher is asked it, before s and f.
        tutoring: The same as the tutor is asked about it, before the response.
        response: A student's.
        feedback: A tutor's.
        limit: Longest context prompt.
    """

    prompt: int
    context: int
    tutoring: int
    response: int
    feedback: int
    limit: int


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Args:
        name: Of what it does.
        memory: Bytes of tensors at its peak, beside what is there all the time.
        work: Of one step in which the tutor speaks, or of one scoring of all students.
        silent: The same where it does not.
    """

    name: str
    memory: int
    work: Trace
    silent: Trace


@dataclass
class Plan:
    """What a run takes.

    Args:
        device: To run on.
        lengths: At the limits, for memory.
        expected: For the work.
        steps: Of all students together.
        scorings: Of the validation questions, and of the test questions.
        parameters: Of the bases.
        trained: Parameters of each student's adapter.
        standing: What is in memory all the time -> bytes.
        parts: Of a step, the tutor's feedback included.
        scored: One scoring of the validation questions, and one of the test questions.
        notes: What was assumed.
    """

    device: Device
    lengths: Lengths
    expected: Lengths
    steps: int
    scorings: tuple[int, int]
    parameters: int = 0
    trained: int = 0
    standing: dict[str, float] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    scored: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def memory(self) -> float:
        """Bytes at the run's peak."""
        return sum(self.standing.values()) + self.device.gaps * max(p.memory for p in (*self.parts, *self.scored))

    @property
    def fits(self) -> bool | None:
        """Whether that is less than the device has; None where that is not known."""
        return None if self.device.memory is None else self.memory < self.device.memory

    def step(self, *, feedback: bool) -> Trace:
        """The work of a step, whose tutor speaks or does not."""
        return add(p.work if feedback else p.silent for p in self.parts)

    def run(self, *, feedback: bool) -> Trace:
        """The work of the whole run, in all of whose steps the tutor speaks, or in none."""
        scored = add(p.work.times(n) for p, n in zip(self.scored, self.scorings, strict=True))
        return self.step(feedback=feedback).times(self.steps) + scored


def plan(
    model: Students,
    data: QuestionData,
    *,
    rounds: int,
    device: Device,
    response: int | None = None,
    feedback: int | None = None,
) -> Plan:
    """Plan a run.

    Args:
        model: The method with its students.
        data: The questions; they are read for their lengths.
        rounds: R.
        device: To run on.
        response: Tokens that a response is expected to take; by default the limit.
        feedback: Tokens that a feedback is expected to take; by default the limit.

    Raises:
        ModelError: If a base model's config cannot be found.
    """
    data.setup("fit")
    assert data.splits is not None
    limits, notes = read_lengths(model, data.splits.train, data.batch_size)
    expected = replace(
        limits,
        response=min(response or limits.response, limits.response),
        feedback=min(feedback or limits.feedback, limits.feedback),
    )
    planned = Plan(device, limits, expected, 2 * data.steps * rounds, (rounds + 1, 2), notes=notes)
    peers = _peers(model, device)
    planned.standing = dict(_standing(peers, device))
    planned.parameters = sum(base.parameter_count for base in _bases(peers))
    planned.trained = sum(p.numel() for p in peers[0].parameters())
    tutee, tutor = peers[0], peers[-1]
    for name, of in _parts(model, tutee, tutor, data.batch_size).items():
        whole, work = of(limits), of(expected)
        quiet, silent = (whole, work) if name == "rollout" else (of(_silent(limits)), of(_silent(expected)))
        planned.parts.append(Part(name, max(whole.peak, quiet.peak), work, silent))
    memory, question = _scoring(model, tutee, data.evaluation_batch_size, limits, expected)
    for name in ("validation", data.scored):
        work = question.times(len(getattr(data.splits, name)) * len(peers))
        planned.scored.append(Part(name, memory, work, work))
    return planned


def read_lengths(model: Students, questions: Sequence[Question], batch: int) -> tuple[Lengths, list[str]]:
    """The lengths at their limits; prompts are as long as the longest of a step on average, as batches are padded.

    Returns:
        The lengths, and what was assumed.
    """
    notes = []
    try:
        tokenizer = load_tokenizer(model.base)
    except ModelError:
        tokenizer = load_tokenizer(BaseModel())
        notes.append(f"The tokenizer of {model.base.model} was not found: tokens are counted by the bundled model's.")
    chat = Chat(tokenizer, (0,))
    read = list(questions[:: max(len(questions) // _READ, 1)])[:_READ]
    solved = [len(chat.response(q.solution)) for q in read if q.solution is not None]
    domain = model.students[0].domain

    def longest(prompt: Callable[[Question], list[dict[str, str]]]) -> int:
        lengths = [len(chat.prompt(prompt(q))) for q in read]
        steps = [max(lengths[i : i + batch]) for i in range(0, len(lengths), batch)]
        return min(math.ceil(sum(steps) / len(steps)), model.prompt_limit)

    codistils = model if isinstance(model, CoDistillation) else None
    tutored = codistils is not None and len(model.students) > 1 and codistils.gate.strategy != "never"
    sampled = model.rollout.max_new_tokens if isinstance(model, CoDistillation | Grpo) else max(solved, default=1)
    lengths = Lengths(
        prompt=longest(student_messages),
        context=longest(lambda q: teacher_messages(q, "", "")),
        tutoring=longest(lambda q: tutor_messages(q, "", tutor_domain=domain, peer_domain=domain, anchored=True)),
        response=sampled,
        feedback=codistils.feedback.max_new_tokens if codistils and tutored else 0,
        limit=codistils.context.limit if codistils else 0,
    )
    return lengths, notes


def _peers(model: Students, device: Device) -> list[Peer]:
    """The students over bases without weights, as `Students.configure_model` makes them."""
    target = torch.device(device.kind)
    bases: dict[BaseModel, SimulatedBase] = {}
    peers = []
    for student in model.students:
        spec = student.base or model.base
        if spec not in bases:
            dtype = (
                torch.bfloat16 if spec.dtype == "auto" and device.kind == "cuda" else compute_dtype(spec.dtype, "cpu")
            )
            bases[spec] = SimulatedBase(
                load_config(spec),
                dtype,
                model.lora,
                speed=device.speed,
                fused=attention_of(spec, target) != attention_of(BaseModel(), torch.device("cpu")),
                packed=stays_packed(spec, target),
                checkpoint_activations=model.checkpoint_activations,
            )
        peer = Peer(student.name, student.domain, bases[spec])
        peer.create(seed=0, source=None)
        peers.append(peer)
    return peers


def _bases(peers: Sequence[Peer]) -> list[SimulatedBase]:
    """Each once."""
    return list({id(p.base): p.base for p in peers if isinstance(p.base, SimulatedBase)}.values())


def _standing(peers: Sequence[Peer], device: Device) -> Iterator[tuple[str, float]]:
    """What is in memory all the time."""
    yield "libraries" if device.kind == "cpu" else "context", device.before
    bases = _bases(peers)
    linear = [sum(w.numel() for w in base.linear_weights) for base in bases]
    sizes = [base.loaded.dtype.itemsize for base in bases]
    rest = [(b.parameter_count - n) * size for b, n, size in zip(bases, linear, sizes, strict=True)]
    kept = [n * (NF4_BYTES if b.packed else size) for b, n, size in zip(bases, linear, sizes, strict=True)]
    yield "weights", sum(rest) + sum(kept)
    trained = [sum(p.numel() for p in peer.parameters()) for peer in peers]
    yield "adapters", 4.0 * sum((3 * n) for n in trained)
    yield "gradients and optimizers", 4.0 * 3 * sum(trained)


Work = Callable[[Lengths], Trace]


def _silent(lengths: Lengths) -> Lengths:
    """Where the tutor does not speak."""
    return replace(lengths, feedback=0)


def _parts(model: Students, tutee: Peer, tutor: Peer, questions: int) -> dict[str, Work]:
    """The parts of a step: its name -> its work at given lengths."""
    if isinstance(model, FineTuning):
        return {"imitate": lambda lengths: _imitated(model, tutee, questions, lengths)}
    assert isinstance(model, CoDistillation | Grpo)
    rows = questions * model.samples
    parts: dict[str, Work] = {
        "rollout": lambda at: _sampled(
            tutee, "student", model.rollout, rows, at.response, prompt=at.prompt, same=model.samples
        )
    }
    if isinstance(model, Grpo):
        return parts | {"reinforce": lambda at: _reinforced(model, tutee, questions, at)}
    return parts | {
        "feedback": lambda at: _sampled(
            tutor,
            "tutor",
            model.feedback,
            rows,
            at.feedback,
            prompt=at.tutoring + at.response,
            shared=at.tutoring,
            group=model.samples,
        ),
        "match": lambda at: _matched(model, tutee, questions, at),
    }


def _scoring(model: Students, student: Peer, batch: int, limits: Lengths, expected: Lengths) -> tuple[int, Trace]:
    """The memory of scoring a batch of questions, and the work of one question and student."""
    samples, limit = model.evaluation_samples, model.evaluation.max_new_tokens

    def at(lengths: Lengths, response: int) -> Trace:
        return _sampled(
            student, "student", model.evaluation, batch * samples, response, prompt=lengths.prompt, same=samples
        )

    return at(limits, limit).peak, at(expected, min(limit, expected.response)).times(1 / batch)


def _sampled(
    peer: Peer,
    role: str,
    sampling: Sampling,
    rows: int,
    response: int,
    *,
    prompt: int,
    same: int = 1,
    shared: int = 0,
    group: int = 1,
) -> Trace:
    """Sampling responses: prompts are read, then token by token is written.

    Args:
        peer: Who writes.
        role: As what.
        sampling: How.
        rows: Responses.
        response: Tokens of each.
        prompt: Tokens of each prompt.
        same: Responses to one and the same prompt.
        shared: Tokens that the prompts of a group begin with.
        group: Responses whose prompts share these.
    """
    if response == 0:
        return Trace()
    base, batch = peer.base, min(rows, sampling.batch_size)
    assert isinstance(base, SimulatedBase)
    requests = [Request(_tokens(prompt, row // same, shared, row // group), (), shared) for row in range(batch)]

    def write(tokens: int) -> Trace:
        """Read the prompts and write one token, the last of so many; or none."""

        def code() -> object:
            with peer.sampling(role):  # type: ignore[arg-type]
                cache, mask, hidden = prefill(base, requests)
                if not tokens:
                    return cache
                for layer in cache.layers:
                    assert isinstance(layer, DynamicLayer)
                    assert layer.keys is not None
                    before = layer.keys[:, :, :1].expand(-1, -1, max(tokens - 1, 1), -1)
                    layer.update(before, before)
                chosen = choose(base.head(hidden).log_softmax(-1), torch.zeros(batch, device=META), 1.0, 1.0)
                hidden = base.hidden(chosen[:, None], position_ids=mask.sum(1)[:, None], cache=cache)
                return cache, hidden

        return base.trace(code)

    reading = write(0)
    halfway, last = write(math.ceil(response / 2)), write(response)
    work = reading + (halfway - reading).times(response)
    return replace(work.times(rows / batch), peak=last.peak)


def _tokens(length: int, which: int, shared: int = 0, group: int = 0) -> tuple[int, ...]:
    """A prompt unlike any other `which`, but for the beginning that its group shares."""
    return (*[2 * group] * shared, *[2 * which + 1] * (length - shared))


def _matched(model: CoDistillation, tutee: Peer, questions: int, at: Lengths) -> Trace:
    """The passes of self-teacher and student, as if every response were distilled, shown both s and f."""
    shown, settings = model.context, model.matching
    context = len(matching_contexts(at, shown, questions=1, samples=1)[0].prompt)
    count, times = _enough(questions, model.samples, context + at.response, settings.micro_batch_tokens)
    contexts = matching_contexts(at, shown, questions=count, samples=model.samples)
    return _traced(tutee, lambda: match(tutee, contexts, settings, Tensor.backward)).times(times)


def matching_contexts(at: Lengths, shown: ContextSettings, *, questions: int, samples: int) -> list[Context]:
    """Contexts of made-up tokens, whose lengths are as given and whose beginnings are shared as they would be."""
    begins = at.context + (at.response if shown.solution else 0)  # the question and s
    length = min(at.limit, begins + (at.feedback if shown.feedback else 0))
    return [
        Context(a, _tokens(length, i, min(begins, length - 1), int(a.question.id)), "s", "f", 0)
        for i, a in enumerate(_attempts(questions, samples, at))
    ]


def _reinforced(model: Grpo, tutee: Peer, questions: int, at: Lengths) -> Trace:
    """The student's passes, as if every response had an advantage."""
    loss = model.policy_gradient
    count, times = _enough(questions, model.samples, at.prompt + at.response, loss.micro_batch_tokens)
    attempts = _attempts(count, model.samples, at)
    gained = [1.0] * len(attempts)
    return _traced(tutee, lambda: reinforce(tutee, attempts, gained, loss, Tensor.backward)).times(times)


def _imitated(model: FineTuning, tutee: Peer, questions: int, at: Lengths) -> Trace:
    count, times = _enough(questions, 1, at.prompt + at.response, model.micro_batch_tokens)
    rows = [Scored(_tokens(at.prompt, i), (0,) * at.response) for i in range(count)]
    student = tutee.adapter("student")
    return _traced(tutee, lambda: imitate(tutee.base, student, rows, model.micro_batch_tokens, Tensor.backward)).times(
        times
    )


def _traced(tutee: Peer, code: Callable[[], object]) -> Trace:
    assert isinstance(tutee.base, SimulatedBase)
    return tutee.base.trace(code)


def _enough(questions: int, samples: int, tokens: int, micro_batch_tokens: int) -> tuple[int, float]:
    """Questions that fill two micro-batches, and how many times these all are."""
    count = min(questions, math.ceil(2 * micro_batch_tokens / (samples * tokens)))
    return count, questions / count


def _attempts(questions: int, samples: int, at: Lengths) -> list[Attempt]:
    """Responses of the given lengths to questions of the given length."""
    return [
        Attempt(
            Question(str(i), "x", "x", (), "0"),
            j,
            _tokens(at.prompt, i),
            Response(torch.zeros(at.response, dtype=torch.long), torch.zeros(at.response), True),
            "",
            Grade(False, False, None),
        )
        for i in range(questions)
        for j in range(samples)
    ]
