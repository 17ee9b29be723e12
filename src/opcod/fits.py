"""Whether a run fits, before it begins: its memory into the device's, its lengths into the model's positions.

Memory is what `opcod plan` says, from bases with few of their layers: it grows by as much with each. Nothing is loaded.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from operator import attrgetter, itemgetter
from typing import Any, Generic, TypeVar

import lightning as L

from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.data.lesson_data import LessonData
from opcod.devices import Device
from opcod.grpo import Grpo
from opcod.lesson_plan import base_of, largest_step, longest_asked, prompts_to_solve, read_steps, standing_under
from opcod.models import BaseModel, load_config, positions_of
from opcod.passes import (
    Lengths,
    imitating,
    matching_contexts,
    parts_of_step,
    peak_of_answering,
    peak_of_scoring,
)
from opcod.peers import Peer
from opcod.plan import chats_of, read_lengths, simulated_peers, standing
from opcod.prompts import student_messages
from opcod.rollout import Sampling
from opcod.simulation import SimulatedBase
from opcod.specialist import STUDENT, Specialist
from opcod.students import Students

M = TypeVar("M", bound=Students | Specialist)
"""Whose memory it is."""

DEPTHS = (2, 4)
"""Layers of which memory is taken. With a single one a part's peak may lie elsewhere than in the whole model."""
AT_A_TIME = {
    "rollout": "rollout.batch_size",
    "feedback": "feedback.batch_size",
    "match": "matching.micro_batch_tokens",
    "reinforce": "policy_gradient.micro_batch_tokens",
    "imitate": "micro_batch_tokens",
    "alone": "solving.sampling.batch_size",
    "keyed": "solving.sampling.batch_size",
    "scoring": "evaluation.batch_size",
}
"""The part of a run, or of solving -> the key below `model` that says how much of it is in memory at a time."""
LEARNING = {"match", "reinforce", "imitate"}
"""The parts that keep activations for a backward pass."""
SLACK = 0.02
"""Share of the memory that the largest setting may leave: each one that is tried takes seconds."""
_RESPONSE, _FEEDBACK, _SOLUTION = "rollout.max_new_tokens", "feedback.max_new_tokens", "solving.sampling.max_new_tokens"
LENGTHS = {
    "rollout": [_RESPONSE],
    "feedback": [_FEEDBACK, _RESPONSE],
    "match": [_RESPONSE, _FEEDBACK],
    "reinforce": [_RESPONSE],
    "imitate": [],
    "alone": [_SOLUTION],
    "keyed": [_SOLUTION],
    "scoring": ["evaluation.max_new_tokens"],
}
"""The part of a run, or of solving -> the keys below `model` that say how long its sequences may become."""


@dataclass(frozen=True)
class Excess:
    """A part of a run that takes more than there is.

    Args:
        part: Its name.
        needed: Bytes at its peak, with those that are there all the time; or positions of its longest sequence.
        setting: A key below `model` on which that depends.
        value: As it is set.
        largest: Value with which it fits, or nearly the largest; 0 where none does.
        alone: A key that would have to be 1 for that.
    """

    part: str
    needed: float
    setting: str
    value: int
    largest: int
    alone: str | None = None


class Needs(ABC, Generic[M]):
    """The memory and the positions that a stage of a run takes at its limits.

    Args:
        model: The students, with their settings.
        bases: The base model of each.
        device: To run on.

    Raises:
        ModelError: If a base model's config cannot be found.
    """

    parts: list[str]
    """What it does, by name."""
    standing: float
    """Bytes that are there all the time."""

    def __init__(self, model: M, bases: Sequence[BaseModel], device: Device) -> None:
        self.model, self.device = model, device
        configs = [load_config(base) for base in bases]
        self._layers = [c.get_text_config().num_hidden_layers for c in configs]
        self._positions = min(positions_of(c) for c in configs)
        self._depths = sorted({min(depth, max(self._layers)) for depth in DEPTHS})

    @abstractmethod
    def _peak(self, part: str, model: M) -> float:
        """Bytes of tensors at the peak of a part, beside what is there all the time."""

    @abstractmethod
    def _longest(self, part: str, model: M) -> int:
        """Tokens of a part's longest sequence."""

    def memory(self, part: str, model: M) -> float:
        """Bytes at the peak of a part, with those that are there all the time, by the settings of `model`."""
        return self.standing + self.device.gaps * self._peak(part, model)

    def excesses(self, room: float) -> Iterator[Excess]:
        """The parts that take more than so many bytes; where even one sequence at a time would, its length counts."""
        for part in self.parts:
            of, at_a_time = partial(self.memory, part), AT_A_TIME[part]
            if (needed := of(self.model)) > room:
                found = self._excess(part, needed, [at_a_time], of, room)
                if not found.largest and LENGTHS[part]:
                    found = self._excess(part, needed, LENGTHS[part], of, room, alone=at_a_time)
                yield found

    def beyond_positions(self) -> Iterator[Excess]:
        """The parts whose sequences may become longer than the model was made for."""
        for part in self.parts:
            of = partial(self._longest, part)
            if LENGTHS[part] and (needed := of(self.model)) > self._positions:
                yield self._excess(part, needed, LENGTHS[part], of, self._positions, slack=0.0)

    def _excess(
        self,
        part: str,
        needed: float,
        settings: Sequence[str],
        of: Callable[[M], float],
        room: float,
        *,
        alone: str | None = None,
        slack: float = SLACK,
    ) -> Excess:
        """With the first of the settings that can help."""
        model = self.model if alone is None else _with(self.model, alone, 1)
        for setting in settings:
            with_value = partial(_with, model, setting)
            value: int = attrgetter(setting)(model)
            found = largest(value, needed, lambda n, at=with_value: of(at(n)), room, slack=slack)  # type: ignore[misc]
            if found:
                break
        return Excess(part, needed, setting, value, found, alone)


class StudentNeeds(Needs[Students]):
    """What students take: to learn, or to be scored and nothing else.

    Args:
        model: The method with its students.
        data: The questions, set up for the stage; they are read for their lengths.
        device: To run on.
        stage: As Lightning calls it: `fit`, `validate`, `test` or `predict`.

    Raises:
        ModelError: If a base model's config cannot be found.
    """

    def __init__(self, model: Students, data: QuestionData, device: Device, stage: str) -> None:
        assert data.splits is not None
        self._bases = [s.base or model.base for s in model.students]
        super().__init__(model, self._bases, device)
        self._peers = {depth: simulated_peers(model, device, depth) for depth in self._depths}
        self._firsts = [self._bases.index(base) for base in dict.fromkeys(self._bases)]
        self.standing = device.before + sum(self._standing(first, learning=stage == "fit") for first in self._firsts)
        if stage == "fit":
            questions, self._batch, self._scored = data.splits.train, data.batch_size, data.evaluation_batch_size
            self.parts = [*parts_of_step(model, self._peers[self._depths[0]][0], self._batch), "scoring"]
        else:
            batches = data.val_dataloader() if stage == "validate" else data.test_dataloader()
            questions, self._batch = batches.questions, batches.most
            self._scored = self._batch
            self.parts = ["scoring"] if questions else []  # a process may have none
        if questions:
            self._lengths, _ = read_lengths(model, questions, self._batch)

    def _peak(self, part: str, model: Students) -> float:
        at = self._at(model)

        def peak(peer: Peer) -> float:
            if part == "scoring":
                return peak_of_scoring(model, peer, self._scored, at)
            return parts_of_step(model, peer, self._batch, peak_alone=True)[part](at).peak

        return max(self._whole(first, lambda peers, i=first: peak(peers[i])) for first in self._firsts)  # type: ignore[misc]

    def _longest(self, part: str, model: Students) -> int:
        at = self._at(model)
        if part == "feedback":
            return at.tutoring + at.response + at.feedback if at.feedback else 0
        if part == "match":
            assert isinstance(model, CoDistillation)
            return len(matching_contexts(at, model.context, questions=1, samples=1)[0].prompt) + at.response
        return at.prompt + (model.evaluation.max_new_tokens if part == "scoring" else at.response)

    def _at(self, model: Students) -> Lengths:
        """The lengths with a model's limits."""
        at = self._lengths
        if isinstance(model, CoDistillation | Grpo):
            at = replace(at, response=model.rollout.max_new_tokens)
        if isinstance(model, CoDistillation):
            at = replace(at, feedback=min(at.feedback, model.feedback.max_new_tokens))
        return at

    def _standing(self, first: int, *, learning: bool) -> float:
        """Bytes that a student's base with all its students has all the time."""
        of = [i for i, base in enumerate(self._bases) if base == self._bases[first]]
        return self._whole(first, lambda peers: sum(standing([peers[i] for i in of], learning=learning).values()))

    def _whole(self, whose: int, of: Callable[[list[Peer]], float]) -> float:
        """What `of` would be with all the layers of a student's base."""
        layers = self._layers[whose]
        return _deep({min(depth, layers): of(peers) for depth, peers in self._peers.items()}, layers)


class SpecialistNeeds(Needs[Specialist]):
    """What a specialist takes: to learn its lessons and be scored, or to find worked solutions.

    Args:
        model: The student.
        data: Its lessons, or the questions that it solves, set up for the stage; they are read for their lengths.
        device: To run on.
        stage: As Lightning calls it: `fit` or `predict`.

    Raises:
        ModelError: If the base model's config cannot be found.
    """

    def __init__(self, model: Specialist, data: LessonData, device: Device, stage: str) -> None:
        super().__init__(model, [model.base], device)
        self._bases = {depth: base_of(model, device, depth) for depth in self._depths}
        learning = stage == "fit"
        self.standing = device.before + self._whole(lambda b: sum(standing_under(b, learning=learning).values()))
        (chat,), _ = chats_of([model.base])
        batches = data.val_dataloader() if learning else data.predict_dataloader()
        questions, self._batch = batches.questions, batches.most
        self._steps = read_steps(data.train_dataloader(), chat) if learning else []
        self.parts = ["imitate"] if self._steps else []
        if questions:  # all may be solved
            if learning:
                prompts = {"scoring": longest_asked(student_messages, model, chat, questions, self._batch)}
            else:
                prompts = prompts_to_solve(model, chat, questions, self._batch)
            name, self._prompt = max(prompts.items(), key=itemgetter(1))
            self.parts.append(name)

    def _peak(self, part: str, model: Specialist) -> float:
        if part == "imitate":
            tokens = model.micro_batch_tokens
            step = largest_step(self._steps, tokens)
            return self._whole(lambda base: imitating(base, STUDENT, step, tokens).peak)
        sampling, samples = _sampled(part, model)
        return self._whole(lambda b: peak_of_answering(b, STUDENT, sampling, samples, self._batch, self._prompt))

    def _longest(self, part: str, model: Specialist) -> int:
        return self._prompt + _sampled(part, model)[0].max_new_tokens

    def _whole(self, of: Callable[[SimulatedBase], float]) -> float:
        """What `of` would be with all the layers of the base."""
        return _deep({depth: of(base) for depth, base in self._bases.items()}, self._layers[0])


def needs_of(
    model: L.LightningModule, data: object, device: Device, stage: str
) -> StudentNeeds | SpecialistNeeds | None:
    """What a stage of a run takes; None of a run that is not known.

    Args:
        model: Students, or a specialist.
        data: Their questions, or its lessons, set up for the stage.
        device: To run on.
        stage: As Lightning calls it.

    Raises:
        ModelError: If a base model's config cannot be found.
    """
    if isinstance(model, Students) and isinstance(data, QuestionData):
        return StudentNeeds(model, data, device, stage)
    if isinstance(model, Specialist) and isinstance(data, LessonData):
        return SpecialistNeeds(model, data, device, stage)
    return None


def largest(below: int, needed: float, of: Callable[[int], float], room: float, *, slack: float) -> int:
    """The largest number under `below` of which `of`, which grows with it, is within `room`; 0 where 1 is not.

    By interpolation, as `of` is slow and nearly straight, and by halves now and then.

    Args:
        below: A number of which it is more than `room`.
        needed: What it is of that.
        of: Of a number from 1.
        room: Most that is allowed.
        slack: Share of `room` that may be left.
    """
    low, high, at_low, at_high = 1, below, of(1), needed
    if at_low > room:
        return 0
    for turn in count(1):
        if high - low <= 1 or room - at_low < slack * room:
            break
        share = 0.5 if turn % 3 == 0 else (room - at_low) / (at_high - at_low)
        guess = min(max(low + int(share * (high - low)), low + 1), high - 1)
        if (at := of(guess)) <= room:
            low, at_low = guess, at
        else:
            high, at_high = guess, at
    return low


def _with(model: M, setting: str, value: int) -> M:
    """The same with another setting."""
    changed = copy.copy(model)
    name, _, rest = setting.partition(".")
    setattr(changed, name, _replaced(getattr(model, name), rest, value))
    return changed


def _replaced(settings: Any, name: str, value: int) -> Any:
    """Settings with another value of that name below them; without a name, the value itself."""
    if not name:
        return value
    first, _, rest = name.partition(".")
    return replace(settings, **{first: _replaced(getattr(settings, first), rest, value)})


def _sampled(part: str, model: Specialist) -> tuple[Sampling, int]:
    """How a specialist answers, and how often each question."""
    if part == "scoring":
        return model.evaluation, model.samples
    return model.solving.sampling, model.solving.samples


def _deep(of_depth: Mapping[int, float], layers: int) -> float:
    """Of so many layers, by what it is of few of them."""
    few, more = min(of_depth), max(of_depth)
    slope = (of_depth[more] - of_depth[few]) / (more - few) if more > few else 0.0
    return of_depth[more] + slope * (layers - more)
