"""A few attempts of every step as they were, for whoever wants to read what the students and the tutor write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate, chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from opcod.attempts import Attempt
from opcod.callbacks.checkpoints import append_rows, run_folder, whole
from opcod.callbacks.progress import tell
from opcod.chat import Chat
from opcod.counts import count_faults
from opcod.data.loaders import StepBatch
from opcod.data.questions import LABELS
from opcod.data.typography import visible
from opcod.feedback import Feedback
from opcod.ranks import Ranks
from opcod.records import StepRecord

NAME = "samples.jsonl"
CHARACTERS = 4000
"""Longest text that is written down."""
Position = tuple[int, int, int]
"""Round, phase and step of the last row, each counted from 0."""


@runtime_checkable
class Recording(Protocol):
    """A module that keeps the record of its last step, as far as it is this rank's."""

    record: StepRecord | None
    chats: dict[str, Chat]
    records: list[StepRecord]
    everyone: Ranks


class SampleTable(Callback):
    """Appends attempts of every training step to `samples.jsonl` in the run's log folder, one row each.

    A row tells the question and its key, the response, the feedback as the tutor wrote it, what became of it, and what
    the self-teacher was shown. Of a response that was distilled, `pieces` are the texts of its tokens and `divergence`
    how far the student was from its self-teacher at each, in nats. `round`, `phase` and `step` count from 0, as they
    are logged. A run that is resumed in the same folder drops the rows after its checkpoint first, and lines that are
    no rows.

    Args:
        per_step: Most attempts of a step, first those with feedback, of as many questions as there are.
        characters: Longest text; of longer ones `cut` tells how many characters are missing.
        printed: How many rows of each phase's first step are printed as well.
    """

    def __init__(self, per_step: int = 4, characters: int = CHARACTERS, printed: int = 1) -> None:
        faults = count_faults(per_step=per_step, characters=characters)
        if printed < 0:
            faults.append(f"printed is {printed}, expected at least 0")
        if faults:
            raise ValueError("; ".join(faults))
        self.per_step = per_step
        self.printed = printed
        self.characters = characters
        self.positions: list[Position] = []  # of the last step, in each of the phases that it was a step of

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the rows that this run is about to write again.

        Raises:
            ValueError: If the module keeps no records.
        """
        if not isinstance(pl_module, Recording):
            raise ValueError(f"{type(pl_module).__name__} keeps no samples: take SampleTable out of the callbacks")
        path = _path(trainer)
        if self._writes(trainer) and path.exists():
            with whole(path) as unfinished, path.open("rb") as old, unfinished.open("wb") as new:
                new.writelines(line for line in old if self._stays(line))

    def _stays(self, line: bytes) -> bool:
        if not self.positions or not line.endswith(b"\n"):  # a new run; or it died while writing
            return False
        try:
            row = json.loads(line)
            position = row["round"], row["phase"], row["step"]
            last = next((p for p in self.positions if p[1] == row["phase"]), self.positions[-1])
            return bool(position <= last)
        except (LookupError, RecursionError, TypeError, ValueError):  # somebody else's line, or a damaged one
            return False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Append rows of the step."""
        assert isinstance(pl_module, Recording)
        if pl_module.record is None:
            return
        self.positions = [(r.batch.round, r.batch.phase, r.batch.step) for r in pl_module.records]
        found = sample_rows(pl_module.record, pl_module.chats, self.per_step, self.characters)
        mine = [(rank_order(row, pl_module.record.batch), row) for row in found]
        told = sorted(chain.from_iterable(pl_module.everyone.gather(mine)), key=itemgetter(0))
        if trainer.is_global_zero:
            for _, phase, _ in self.positions:
                rows = [row for _, row in told if row["phase"] == phase][: self.per_step]
                for row in rows[: self.printed] if pl_module.record.batch.step == 0 else []:
                    tell(trainer, exchange(row))
                if self._writes(trainer):
                    append_rows(_path(trainer), rows)

    @staticmethod
    def _writes(trainer: L.Trainer) -> bool:
        return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """The positions of the last rows."""
        return {"positions": self.positions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after these rows."""
        self.positions = [tuple(position) for position in state_dict.get("positions", [])]


def sample_rows(record: StepRecord, chats: Mapping[str, Chat], per_step: int, characters: int) -> list[dict[str, Any]]:
    """Rows of at most `per_step` attempts of a rank's share of a step; see `SampleTable`."""
    given = [
        (attempt, feedback)
        for group, on_group in zip(record.groups, record.feedbacks, strict=True)
        for attempt, feedback in zip(group, on_group, strict=True)
    ]
    chosen = sorted(given, key=lambda pair: (pair[1].raw is None, pair[0].sample))[:per_step]
    return [_row(record, chats, attempt, feedback, characters) for attempt, feedback in chosen]


def rank_order(row: Mapping[str, Any], batch: StepBatch) -> tuple[bool, int, int]:
    """By which `sample_rows` would have chosen a row of several ranks, had one had the whole step."""
    place = next(i for i, question in enumerate(batch.questions) if question.id == row["question"])
    return row["feedback_raw"] is None, row["sample"], place


def _by_token(chat: Chat, attempt: Attempt, divergence: Tensor, characters: int) -> dict[str, Any]:
    """The response's tokens as text, and the divergence of each."""
    pieces = chat.pieces(attempt.response.tokens.tolist())
    kept = sum(end <= characters for end in accumulate(map(len, pieces)))
    return {"pieces": pieces[:kept], "divergence": [round(d, 4) for d in divergence[:kept].tolist()]}


def _row(
    record: StepRecord, chats: Mapping[str, Chat], attempt: Attempt, feedback: Feedback, characters: int
) -> dict[str, Any]:
    place = next((i for i, c in enumerate(record.contexts) if c.attempt is attempt), None)
    context = None if place is None else record.contexts[place]
    by_token = {}
    if place is not None and record.divergences:
        by_token = _by_token(chats[record.tutee], attempt, record.divergences[place], characters)
    return {
        "round": record.batch.round,
        "phase": record.batch.phase,
        "step": record.batch.step,
        "tutee": record.tutee,
        "tutor": record.tutor,
        **told(
            attempt,
            feedback,
            {
                "solution_shown": context.solution if context else None,
                "feedback_shown": context.feedback if context else None,
            },
            characters,
        ),
        "distilled": context is not None,
        **by_token,
    }


def told(attempt: Attempt, feedback: Feedback, further: Mapping[str, str | None], characters: int) -> dict[str, Any]:
    """The part of a row that says what was asked, answered and fed back.

    Args:
        attempt: The response.
        feedback: On it.
        further: More texts.
        characters: Longest text.
    """
    question = attempt.question
    texts = {"text": question.text, "response": attempt.text, "feedback_raw": feedback.raw, **further}
    return {
        "question": question.id,
        "domain": question.domain,
        "options": [option[:characters] for option in question.options],
        "key": question.answer,
        "sample": attempt.sample,
        "answer": attempt.grade.choice,
        "correct": attempt.grade.correct,
        "outcome": feedback.outcome.value,
        **{name: text if text is None else text[:characters] for name, text in texts.items()},
        "cut": sum(max(len(text or "") - characters, 0) for text in (*texts.values(), *question.options)),
    }


def exchange(row: dict[str, Any]) -> str:
    """A row as lines to be read: question, response, feedback, and what the self-teacher was shown."""
    options = [f"{label}. {option}" for label, option in zip(LABELS, row["options"], strict=False)]
    asked = [row["text"], *([" ".join(options)] if options else [])]
    grade = "right" if row["correct"] else f"wrong, the key is {row['key']}"
    feedback = f"not asked of {row['tutor']}" if row["tutor"] else "no tutor"
    if row["feedback_raw"] is not None:
        feedback = f"{row['feedback_raw']} ({row['tutor']}: {row['outcome']})"
    shown = [name for name, key in (("s", "solution_shown"), ("f", "feedback_shown")) if row[key] is not None]
    parts = {
        "question": " ".join(asked),
        "response": f"{row['response']} ({row['tutee']}: {grade})",
        "feedback": feedback,
        "self-teacher": f"shown {' and '.join(shown)}" if shown else "none: neither s nor f",
    }
    return "\n".join(f"  {name:13}{visible(' '.join(text.split()))}" for name, text in parts.items())


def _path(trainer: L.Trainer) -> Path:
    return run_folder(trainer) / NAME
