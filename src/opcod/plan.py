"""What a run takes, before anyone rents a GPU for it: memory, floating-point operations and time.

Nothing is loaded but the model's config and its tokenizer: the run's own code goes by on `simulation`'s model without
numbers. Memory is planned at the limits of all lengths, work at what responses are expected to take.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

import torch
from transformers import PreTrainedConfig

from opcod.attention import GROUPED
from opcod.chat import Chat
from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.questions import Question
from opcod.devices import Device
from opcod.feedback import tutor_messages
from opcod.grpo import Grpo
from opcod.models import (
    BaseModel,
    ModelError,
    attention_of,
    compute_dtype,
    load_config,
    load_tokenizer,
    packing_of,
)
from opcod.passes import Lengths, parts_of_step, scoring, untutored
from opcod.peers import Peer
from opcod.prompts import Message, student_messages, teacher_messages
from opcod.simulation import NF4_BYTES, SimulatedBase, Trace, add
from opcod.specialist import Specialist
from opcod.students import Students

T = TypeVar("T")

_READ = 128  # questions whose lengths are looked at


@dataclass(frozen=True)
class Part:
    """A part of a run.

    Args:
        name: Of what it does.
        memory: Bytes of tensors at its peak, beside what is there all the time.
        work: Of one step in which the tutor speaks, on average over the students; or of one scoring of all of them.
        least: The same where it does not. In finding solutions: where no question is left to be shown the key.
    """

    name: str
    memory: int
    work: Trace
    least: Trace


@dataclass
class Plan:
    """What a run takes.

    Args:
        device: To run on.
        lengths: At the limits, for memory.
        expected: For the work.
        steps: Of all students together; in finding solutions, batches of questions.
        scorings: How often `scored` are scored.
        parameters: Of the bases.
        trained: Parameters of the largest student's adapter.
        standing: What is in memory all the time -> bytes.
        parts: Of a step, the tutor's feedback included.
        scored: One scoring of the validation questions, and one of the test questions where a run has any.
        cases: What a step is called with all the work that may come, and with the least.
        notes: What was assumed.
    """

    device: Device
    lengths: Lengths
    expected: Lengths
    steps: int
    scorings: tuple[int, ...]
    parameters: int = 0
    trained: int = 0
    standing: dict[str, float] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    scored: list[Part] = field(default_factory=list)
    cases: tuple[str, str] = ("with feedback", "without")
    notes: list[str] = field(default_factory=list)

    @property
    def memory(self) -> float:
        """Bytes at the run's peak."""
        return sum(self.standing.values()) + self.device.gaps * max(p.memory for p in (*self.parts, *self.scored))

    @property
    def fits(self) -> bool | None:
        """Whether that is less than the device has; None where that is not known."""
        return None if self.device.memory is None else self.memory < self.device.memory

    def step(self, *, least: bool = False) -> Trace:
        """The work of a step, all that may come or the least."""
        return add(p.least if least else p.work for p in self.parts)

    def run(self, *, least: bool = False) -> Trace:
        """The work of the whole run, all of whose steps are such."""
        scored = add(p.work.times(n) for p, n in zip(self.scored, self.scorings, strict=True))
        return self.step(least=least).times(self.steps) + scored


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
    planned = Plan(device, limits, expected, model.phases * data.steps * rounds, (rounds + 1, 2), notes=notes)
    peers = simulated_peers(model, device)
    planned.standing = beforehand(device) | standing(peers)
    planned.parameters = sum(base.parameter_count for base in _bases(peers))
    planned.trained = max(sum(p.numel() for p in peer.parameters()) for peer in peers)
    students = Counter(peer.base for peer in peers)
    of_base = [next(peer for peer in peers if peer.base is base) for base in students]
    shares = [count / len(peers) for count in students.values()]
    steps = [_parts(model, peer, data.batch_size, limits, expected) for peer in of_base]
    planned.parts = [_together(parts, shares) for parts in zip(*steps, strict=True)]
    scored = [scoring(model, peer, data.evaluation_batch_size, limits, expected) for peer in of_base]
    for name in ("validation", data.scored):
        asked = len(getattr(data.splits, name))
        parts = [Part(name, memory, question, question) for memory, question in scored]
        planned.scored.append(_together(parts, [asked * count for count in students.values()]))
    return planned


def _parts(model: Students, peer: Peer, questions: int, limits: Lengths, expected: Lengths) -> list[Part]:
    """The parts of a step as a peer does them."""
    parts = []
    for name, pass_by in parts_of_step(model, peer, questions).items():
        of = cache(pass_by)  # the limits may be what is expected
        whole, work = of(limits), of(expected)
        quiet, least = (whole, work) if name == "rollout" else (of(untutored(limits)), of(untutored(expected)))
        parts.append(Part(name, max(whole.peak, quiet.peak), work, least))
    return parts


def _together(parts: Sequence[Part], times: Sequence[float]) -> Part:
    """The same part over several bases, by each so many times: the largest memory, and all the work."""
    work = add(p.work.times(n) for p, n in zip(parts, times, strict=True))
    least = add(p.least.times(n) for p, n in zip(parts, times, strict=True))
    return Part(parts[0].name, max(p.memory for p in parts), work, least)


def read_lengths(model: Students, questions: Sequence[Question], batch: int) -> tuple[Lengths, list[str]]:
    """The lengths at their limits; prompts are as long as the longest of a step on average, as batches are padded.

    Of several tokenizers the one that takes most tokens for a text counts.

    Returns:
        The lengths, and what was assumed.
    """
    chats, notes = chats_of(dict.fromkeys(s.base or model.base for s in model.students))
    read = some(questions)
    solved = [max(len(chat.response(q.solution)) for chat in chats) for q in read if q.solution is not None]
    domain = model.students[0].domain

    def longest(prompt: Callable[[Question], list[Message]]) -> int:
        return longest_prompt(chats, [prompt(q) for q in read], batch, model.prompt_limit)

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


def chats_of(bases: Iterable[BaseModel]) -> tuple[list[Chat], list[str]]:
    """Between text and tokens by each base's tokenizer, and what was assumed."""
    chats, notes = [], []
    for base in bases:
        try:
            tokenizer = load_tokenizer(base)
        except ModelError:
            tokenizer = load_tokenizer(BaseModel())
            notes.append(f"The tokenizer of {base.model} was not found: tokens are counted by the bundled model's.")
        chats.append(Chat(tokenizer, (0,)))
    return chats, notes


def some(items: Sequence[T]) -> list[T]:
    """As many as are looked at, from all over."""
    return list(items[:: max(len(items) // _READ, 1)])[:_READ]


def longest_prompt(chats: Sequence[Chat], prompts: Sequence[Sequence[Message]], batch: int, limit: int) -> int:
    """Tokens of the longest prompt of a batch, on average; no more than the limit."""
    lengths = [max(len(chat.prompt(prompt)) for chat in chats) for prompt in prompts]
    longest = [max(lengths[i : i + batch]) for i in range(0, len(lengths), batch)]
    return min(math.ceil(sum(longest) / len(longest)), limit)


def simulated_peers(model: Students, device: Device, layers: int | None = None) -> list[Peer]:
    """The students over bases without weights, as `Students.configure_model` makes them.

    Args:
        model: The method with its students.
        device: To run on.
        layers: Most layers of a base; all by default.

    Raises:
        ModelError: If a base model's config cannot be found.
    """
    bases: dict[BaseModel, SimulatedBase] = {}
    peers = []
    for student in model.students:
        spec = student.base or model.base
        if spec not in bases:
            bases[spec] = simulated_base(spec, model, device, layers)
        peer = Peer(student.name, student.domain, bases[spec])
        peer.create(seed=0, source=None)
        peers.append(peer)
    return peers


def simulated_base(
    spec: BaseModel, model: Students | Specialist, device: Device, layers: int | None = None
) -> SimulatedBase:
    """A base without weights, as `model` would have it on the device; see `simulated_peers`."""
    target = torch.device(device.kind)
    config = load_config(spec)
    whole = config.get_text_config().num_hidden_layers
    base = SimulatedBase(
        _first_layers(config, layers),
        torch.bfloat16 if spec.dtype == "auto" and device.kind == "cuda" else compute_dtype(spec.dtype, "cpu"),
        model.lora,
        speed=device.speed,
        fused=attention_of(spec, target) not in (GROUPED, "eager"),
        packed=False,
        checkpoint_activations=model.checkpoint_activations,
    )
    share = min(layers or whole, whole) / whole
    unpacked = base.loaded.dtype.itemsize * sum(w.numel() for w in base.linear_weights) / share
    packing = packing_of(spec, target, unpacked, device.memory)
    base.packed, base.merge = packing != "no", packing != "yes"
    return base


def _first_layers(config: PreTrainedConfig, layers: int | None) -> PreTrainedConfig:
    """The config of a model that ends after so many layers."""
    text = config.get_text_config()
    if layers is not None and layers < text.num_hidden_layers:
        text.num_hidden_layers = layers
        if kinds := getattr(text, "layer_types", None):  # full attention, or a sliding window
            with contextlib.suppress(AttributeError):  # where they follow from their number
                text.layer_types = kinds[:layers]
    return config


def _bases(peers: Sequence[Peer]) -> list[SimulatedBase]:
    """Each once."""
    return list({id(p.base): p.base for p in peers if isinstance(p.base, SimulatedBase)}.values())


def standing(peers: Sequence[Peer], *, learning: bool = True) -> dict[str, float]:
    """What these students have in memory all the time -> bytes; less where they only answer."""
    trained = 4.0 * sum(p.numel() for peer in peers for p in peer.parameters())
    held = {
        "weights": sum(map(weights, _bases(peers))),
        "adapters": 3 * trained,  # student, self-teacher and tutor
    }
    return held | ({"gradients and optimizers": 3 * trained} if learning else {})  # AdamW holds two averages


def weights(base: SimulatedBase) -> float:
    """Bytes of a base's weights."""
    linear, size = sum(w.numel() for w in base.linear_weights), base.loaded.dtype.itemsize
    return (base.parameter_count - linear) * size + linear * (NF4_BYTES if base.packed else size)


def beforehand(device: Device) -> dict[str, float]:
    """What is taken before anything is loaded -> bytes."""
    return {"libraries" if device.kind == "cpu" else "context": device.before}
