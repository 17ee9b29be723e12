"""Whether a run fits, before it begins: its memory into the device's, its lengths into the model's positions.

Memory is what `opcod plan` says, from bases with few of their layers: it grows by as much with each. Nothing is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from operator import attrgetter

from opcod.codistillation import CoDistillation
from opcod.data.datamodule import QuestionData
from opcod.devices import Device
from opcod.grpo import Grpo
from opcod.models import load_config, positions_of
from opcod.passes import Lengths, matching_contexts, parts_of_step, peak_of_scoring
from opcod.peers import Peer
from opcod.plan import read_lengths, simulated_peers, standing
from opcod.students import Students

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
_RESPONSE, _FEEDBACK = "rollout.max_new_tokens", "feedback.max_new_tokens"
LENGTHS = {
    "rollout": [_RESPONSE],
    "feedback": [_FEEDBACK, _RESPONSE],
    "match": [_RESPONSE, _FEEDBACK],
    "reinforce": [_RESPONSE],
    "imitate": [],
    "scoring": ["evaluation.max_new_tokens"],
}
"""The part of a run -> the keys below `model` that say how long its sequences may become."""


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


class Needs:
    """The memory and the positions that a run takes at its limits.

    Args:
        model: The method with its students.
        data: The questions; they are read for their lengths.
        device: To run on.

    Raises:
        ModelError: If a base model's config cannot be found.
    """

    def __init__(self, model: Students, data: QuestionData, device: Device) -> None:
        data.setup("fit")
        assert data.splits is not None
        self.model, self.data, self.device = model, data, device
        self._lengths, _ = read_lengths(model, data.splits.train, data.batch_size)
        self._bases = [s.base or model.base for s in model.students]
        configs = [load_config(base) for base in self._bases]
        self._layers = [c.get_text_config().num_hidden_layers for c in configs]
        self._positions = min(positions_of(c) for c in configs)
        deepest = max(self._layers)
        self._peers = {d: simulated_peers(model, device, d) for d in sorted({min(d, deepest) for d in DEPTHS})}
        self.standing = device.before + sum(self._standing(base) for base in dict.fromkeys(self._bases))
        self._firsts = [self._bases.index(base) for base in dict.fromkeys(self._bases)]
        self.parts = [*parts_of_step(model, next(iter(self._peers.values()))[0], data.batch_size), "scoring"]

    def memory(self, part: str, model: Students) -> float:
        """Bytes at the peak of a part, with those that are there all the time, by the settings of `model`."""
        at = self._at(model)

        def peak(peer: Peer) -> float:
            if part == "scoring":
                return peak_of_scoring(model, peer, self.data.evaluation_batch_size, at)
            return parts_of_step(model, peer, self.data.batch_size, peak_alone=True)[part](at).peak

        peaks = [self._whole(first, lambda peers, i=first: peak(peers[i])) for first in self._firsts]  # type: ignore[misc]
        return self.standing + self.device.gaps * max(peaks)

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
        of: Callable[[Students], float],
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

    def _longest(self, part: str, model: Students) -> int:
        """Tokens of a part's longest sequence."""
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

    def _standing(self, base: object) -> float:
        """Bytes that a base with its students has all the time."""
        of = [i for i, b in enumerate(self._bases) if b == base]
        return self._whole(of[0], lambda peers: sum(standing([peers[i] for i in of]).values()))

    def _whole(self, whose: int, of: Callable[[list[Peer]], float]) -> float:
        """What `of` would be with all the layers of a student's base."""
        layers = self._layers[whose]
        found = {min(depth, layers): of(peers) for depth, peers in self._peers.items()}
        few, more = min(found), max(found)
        slope = (found[more] - found[few]) / (more - few) if more > few else 0.0
        return found[more] + slope * (layers - more)


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


def _with(model: Students, setting: str, value: int) -> Students:
    """The same students with another setting."""
    changed = copy.copy(model)
    name, _, rest = setting.partition(".")
    setattr(changed, name, replace(getattr(model, name), **{rest: value}) if rest else value)
    return changed
