"""The passes of a step and of a scoring, gone through without numbers: what each part of a run takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from opcod.attempts import Attempt
from opcod.codistillation import CoDistillation
from opcod.contexts import Context, ContextSettings
from opcod.data.questions import Question
from opcod.decoding import SharedLayer
from opcod.drafts import Response
from opcod.finetuning import FineTuning
from opcod.grading import Grade
from opcod.grpo import Grpo, reinforce
from opcod.matching import match
from opcod.peers import Peer, SharedBase
from opcod.rollout import PREFIXES, Request, Rows, Sampling, prefill
from opcod.scoring import Scored
from opcod.simulation import SimulatedBase, Speed, Trace
from opcod.specialist import imitate
from opcod.students import Students


@dataclass(frozen=True)
class Lengths:
    """Tokens of what is read and written.

    Args:
        prompt: A question as a student is asked it.
        context: The same as the self-teacher is asked it, before s and f; or as it is asked with its key.
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


Work = Callable[[Lengths], Trace]


def untutored(lengths: Lengths) -> Lengths:
    """The same where the tutor does not speak."""
    return replace(lengths, feedback=0)


def parts_of_step(model: Students, peer: Peer, questions: int, *, peak_alone: bool = False) -> dict[str, Work]:
    """The parts of a step: its name -> its work at given lengths, for a peer as tutee, and for feedback as tutor.

    With `peak_alone` sampling tells its memory and nothing else, which is soon done.
    """
    if isinstance(model, FineTuning):
        return {"imitate": lambda lengths: _imitated(model, peer, questions, lengths)}
    assert isinstance(model, CoDistillation | Grpo)
    rows = questions * model.samples
    parts: dict[str, Work] = {
        "rollout": lambda at: _sampled(
            peer.base,
            peer.adapter("student"),
            model.rollout,
            rows,
            at.response,
            prompt=at.prompt,
            same=model.samples,
            peak_alone=peak_alone,
        )
    }
    if isinstance(model, Grpo):
        return parts | {"reinforce": lambda at: _reinforced(model, peer, questions, at)}
    return parts | {
        "feedback": lambda at: _sampled(
            peer.base,
            peer.adapter("tutor"),
            model.feedback,
            rows,
            at.feedback,
            prompt=at.tutoring + at.response,
            shared=at.tutoring,
            group=model.samples,
            peak_alone=peak_alone,
        ),
        "match": lambda at: _matched(model, peer, questions, at),
    }


def scoring(model: Students, student: Peer, batch: int, limits: Lengths, expected: Lengths) -> tuple[int, Trace]:
    """The memory of scoring a batch of questions, and the work of one question and student."""
    samples, sampling, adapter = model.evaluation_samples, model.evaluation, student.adapter("student")
    return answering(student.base, adapter, sampling, samples, batch, limits, expected)


def peak_of_scoring(model: Students, student: Peer, batch: int, limits: Lengths) -> int:
    """The memory of `scoring`, and nothing else."""
    sampling, adapter = model.evaluation, student.adapter("student")
    return peak_of_answering(student.base, adapter, sampling, model.evaluation_samples, batch, limits.prompt)


def answering(
    base: SharedBase,
    adapter: str,
    sampling: Sampling,
    samples: int,
    batch: int,
    limits: Lengths,
    expected: Lengths,
) -> tuple[int, Trace]:
    """The memory of answering a batch of questions, each so many times, and the work of one question."""
    response = min(sampling.max_new_tokens, expected.response)
    work = _sampled(base, adapter, sampling, batch * samples, response, prompt=expected.prompt, same=samples)
    return peak_of_answering(base, adapter, sampling, samples, batch, limits.prompt), work.times(1 / batch)


def peak_of_answering(base: SharedBase, adapter: str, sampling: Sampling, samples: int, batch: int, prompt: int) -> int:
    """The memory of `answering` at prompts of so many tokens, and nothing else."""
    rows, limit = batch * samples, sampling.max_new_tokens
    return _sampled(base, adapter, sampling, rows, limit, prompt=prompt, same=samples, peak_alone=True).peak


def _sampled(
    base: SharedBase,
    adapter: str,
    sampling: Sampling,
    rows: int,
    response: int,
    *,
    prompt: int,
    same: int = 1,
    shared: int = 0,
    group: int = 1,
    peak_alone: bool = False,
) -> Trace:
    """Sampling responses: prompts are read, then token by token is written.

    Args:
        base: The model.
        adapter: Who writes.
        sampling: How.
        rows: Responses.
        response: Tokens of each.
        prompt: Tokens of each prompt.
        same: Responses to one and the same prompt.
        shared: Tokens that the prompts of a group begin with.
        group: Responses whose prompts share these.
        peak_alone: Tell the memory and nothing else.
    """
    if response == 0:
        return Trace()
    batch = min(rows, sampling.batch_size)
    requests = [Request(_tokens(prompt, row // same, shared, row // group), (), shared) for row in range(batch)]

    filled = sampling.fill_places and batch < rows

    def write(tokens: int, speed: Speed | None = None) -> Trace:
        """Read the prompts and write one token, the last of so many; or none."""

        def code() -> object:
            with base.sampling(adapter):
                if not tokens:
                    return prefill(base, requests, share=sampling.share_prefixes)
                taken = Rows(base, requests, replace(sampling, max_new_tokens=tokens, temperature=1.0, top_p=1.0), ())
                taken.fill()
                cache = taken.cache
                others = [p for _ in range(PREFIXES - 1) for p in _copied_prefixes(cache)] if filled else []
                with base.decoding(cache):
                    taken.reserve(tokens - 1)
                    for layer in cache.layers:
                        if not isinstance(layer, SharedLayer):
                            assert isinstance(layer, DynamicLayer)
                            assert layer.keys is not None
                            before = layer.keys[:, :, :1].expand(-1, -1, max(tokens - 1, 1), -1)
                            layer.update(before, before)
                    taken.advance()
                return taken, others

        return _traced(base, code, speed)

    last = write(response)
    if peak_alone:
        return Trace(last.peak)
    reading, fast = write(0), _captured_speed(base, sampling)
    one = write(math.ceil(response / 2), fast) - (write(0, fast) if fast else reading)
    return replace((reading + one.times(response)).times(rows / batch), peak=last.peak)


def _copied_prefixes(cache: DynamicCache) -> list[Tensor]:
    """As much as rows share, for the prompts of those that take places while some of all prompts' are not done."""
    return [part.clone() for layer in cache.layers if isinstance(layer, SharedLayer) for part in layer.prefix]


def _captured_speed(base: SharedBase, sampling: Sampling) -> Speed | None:
    """The device's where a token's operations are repeated as a captured graph, if they are."""
    assert isinstance(base, SimulatedBase)
    captured = (
        sampling.capture and sampling.share_prefixes and base.family.takes_attention and not base.family.minds_gaps
    )
    return replace(base.speed, launch=base.speed.repeat) if captured and base.speed.repeat is not None else None


def _tokens(length: int, which: int, shared: int = 0, group: int = 0) -> tuple[int, ...]:
    """A prompt unlike any other `which`, but for the beginning that its group shares."""
    return (*[2 * group] * shared, *[2 * which + 1] * (length - shared))


def _matched(model: CoDistillation, tutee: Peer, questions: int, at: Lengths) -> Trace:
    """The passes of self-teacher and student, as if every response were distilled, shown both s and f."""
    shown, settings = model.context, model.matching
    context = len(matching_contexts(at, shown, questions=1, samples=1)[0].prompt)
    count, times = _enough(questions, model.samples, context + at.response, settings.micro_batch_tokens)
    contexts = matching_contexts(at, shown, questions=count, samples=model.samples)
    return _traced(tutee.base, lambda: match(tutee, contexts, settings, Tensor.backward)).times(times)


def matching_contexts(at: Lengths, shown: ContextSettings, *, questions: int, samples: int) -> list[Context]:
    """Contexts of made-up tokens, whose lengths are as given and whose beginnings are shared as they would be."""
    begins = at.context + (at.response if shown.solution else 0)  # the question and s
    length = min(at.limit, begins + (at.feedback if shown.feedback else 0))
    return [
        Context(a, _tokens(length, i, min(begins, length - 1), int(a.question.id)), "s", "f")
        for i, a in enumerate(_attempts(questions, samples, at))
    ]


def _reinforced(model: Grpo, tutee: Peer, questions: int, at: Lengths) -> Trace:
    """The student's passes, as if every response had an advantage."""
    loss = model.policy_gradient
    count, times = _enough(questions, model.samples, at.prompt + at.response, loss.micro_batch_tokens)
    attempts = _attempts(count, model.samples, at)
    gained = [1.0] * len(attempts)
    return _traced(tutee.base, lambda: reinforce(tutee, attempts, gained, loss, Tensor.backward)).times(times)


def _imitated(model: FineTuning, tutee: Peer, questions: int, at: Lengths) -> Trace:
    count, times = _enough(questions, 1, at.prompt + at.response, model.micro_batch_tokens)
    rows = [Scored(_tokens(at.prompt, i), (0,) * at.response) for i in range(count)]
    return imitating(tutee.base, tutee.adapter("student"), rows, model.micro_batch_tokens).times(times)


def imitating(base: SharedBase, adapter: str, sequences: Sequence[Scored], micro_batch_tokens: int) -> Trace:
    """The passes over responses that are learned."""
    return _traced(base, lambda: imitate(base, adapter, sequences, micro_batch_tokens, Tensor.backward))


def _traced(base: SharedBase, code: Callable[[], object], speed: Speed | None = None) -> Trace:
    assert isinstance(base, SimulatedBase)
    return base.trace(code, speed)


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
