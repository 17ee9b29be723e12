import json

import pytest
import torch
from test_checkpoints import Plain
from toy import QUESTIONS, attempt_of, record_of, run, trainer_of

from opcod.callbacks import RoundCheckpoint, SampleTable
from opcod.callbacks.samples import exchange, sample_rows
from opcod.contexts import Context
from opcod.data.loaders import StepBatch
from opcod.data.questions import Question
from opcod.feedback import Feedback, Outcome
from opcod.records import StepRecord

BATCH = StepBatch(1, 0, 1, QUESTIONS)
ASKED = Feedback("No tag.", None, Outcome.NO_CONCEPT_TAG)
NOT_ASKED = Feedback(None, None, Outcome.FB_NONE)


def record(groups, feedbacks, contexts=()):
    return StepRecord(BATCH, "physicist", "chemist", frozenset(), groups, feedbacks, list(contexts))


def rows_in(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]


def places(folder):
    return [(row["round"], row["phase"], row["step"]) for row in rows_in(folder)]


class Letters:
    """A chat whose tokens are letters."""

    def pieces(self, tokens):
        return [chr(96 + t) for t in tokens]


def test_of_a_distilled_response_the_divergence_of_every_token_is_kept():
    one, other = attempt_of(sample=0), attempt_of(sample=1)
    given = record([[one, other]], [[NOT_ASKED, NOT_ASKED]], [Context(other, (1,), "s", None)])
    given.divergences = [torch.tensor([0.25, 1.123456])]
    [first, second] = sample_rows(given, {"physicist": Letters()}, 4, 4000)
    assert "pieces" not in first
    assert (second["pieces"], second["divergence"]) == (["a", "b"], [0.25, 1.1235])
    [_, short] = sample_rows(given, {"physicist": Letters()}, 4, 1)
    assert (short["pieces"], short["divergence"]) == (["a"], [0.25])


def test_a_row_tells_what_was_asked_answered_said_and_shown():
    assert sample_rows(record_of(BATCH), {}, 1, 4000) == [
        {
            "round": 1,
            "phase": 0,
            "step": 1,
            "tutee": "physicist",
            "tutor": "chemist",
            "question": "q0",
            "domain": "physics",
            "options": ["this", "that"],
            "key": "A",
            "sample": 0,
            "answer": "A",
            "correct": True,
            "outcome": "match",
            "distilled": True,
            "text": "What is it?",
            "response": "Because.",
            "feedback_raw": "<concept>it</concept> So.",
            "solution_shown": None,
            "feedback_shown": "So.",
            "cut": 0,
        }
    ]


def test_attempts_with_feedback_come_first_and_then_as_many_questions_as_there_are():
    groups = [[attempt_of(q, j) for j in range(2)] for q in QUESTIONS]
    given = record(groups, [[NOT_ASKED, NOT_ASKED], [NOT_ASKED, ASKED]])
    chosen = [(row["question"], row["sample"]) for row in sample_rows(given, {}, 3, 4000)]
    assert chosen == [("q1", 1), ("q0", 0), ("q1", 0)]


def test_an_exchange_reads_as_four_lines():
    [right, wrong, *_] = sample_rows(record_of(BATCH), {}, 3, 4000)
    assert exchange(right).splitlines() == [
        "  question     What is it? A. this B. that",
        "  response     Because. (physicist: right)",
        "  feedback     <concept>it</concept> So. (chemist: match)",
        "  self-teacher shown f",
    ]
    assert "Because. (physicist: wrong, the key is A)" in exchange(wrong)
    assert "not asked of chemist" in exchange(wrong | {"feedback_raw": None})


def test_the_first_exchanges_of_every_phase_are_printed(tmp_path, capsys):
    run(tmp_path, SampleTable(printed=1), rounds=2)
    assert capsys.readouterr().out.count("  feedback     <concept>it</concept> So.") == 4
    run(tmp_path, SampleTable(printed=0), rounds=2)
    assert "<concept>" not in capsys.readouterr().out


def test_texts_are_bounded_and_what_is_cut_is_counted():
    question = Question(id="long", domain="physics", text="w" * 10, options=("x" * 12, "y"), answer="A")
    one = attempt_of(question, text="r" * 15)
    raw = Feedback("f" * 11, "f" * 10, Outcome.MATCH)
    [row] = sample_rows(record([[one]], [[raw]], [Context(one, (1,), "s" * 20, "f" * 10)]), {}, 4, 10)
    assert (row["response"], row["options"], row["solution_shown"]) == ("r" * 10, ["x" * 10, "y"], "s" * 10)
    assert row["cut"] == 2 + 5 + 1 + 10  # option, response, raw feedback, solution


def test_every_step_leaves_at_most_the_rows_asked_for(tmp_path):
    run(tmp_path, SampleTable(per_step=3), rounds=2)
    steps = [(r, phase, step) for r in range(2) for phase in range(2) for step in range(2)]
    assert places(tmp_path) == [place for place in steps for _ in range(3)]


def test_a_resumed_run_writes_no_step_twice_and_skips_none(tmp_path):
    with pytest.raises(KeyError):
        run(
            tmp_path,
            SampleTable(per_step=1),
            RoundCheckpoint(every_n_steps=2),
            module=_dying_at((1, 1, 1)),
        )
    assert places(tmp_path)[-1] == (1, 1, 0)  # one step after the checkpoint
    with (tmp_path / "samples.jsonl").open("ab") as file:
        for foreign in (b"\n", b"null\n", b"[0]\n", b'{"round": "0"}\n', b"\xff\x00{\n", b"[" * 10**5 + b"\n"):
            file.write(foreign)
        file.write(b'{"round": "0", "phase": 0, "step": 0}\n')
        file.write(b'{"round": 1, "pha')  # it died while writing
    run(
        tmp_path,
        SampleTable(per_step=1),
        RoundCheckpoint(every_n_steps=2),
        ckpt_path=tmp_path / "checkpoints/round=1-step=2.ckpt",
    )
    assert places(tmp_path) == [(r, phase, step) for r in range(3) for phase in range(2) for step in range(2)]


def _dying_at(place):
    from toy import ToyRounds

    return ToyRounds(die_after=place)


def test_a_new_run_in_the_same_folder_begins_a_new_file(tmp_path):
    run(tmp_path, SampleTable(per_step=1), rounds=2)
    run(tmp_path, SampleTable(per_step=1), rounds=1)
    assert places(tmp_path) == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]


def test_text_that_utf8_cannot_hold_is_escaped(tmp_path, monkeypatch):
    def odd(batch):
        return record([[attempt_of(text="π \ud800 </script>")]], [[NOT_ASKED]])

    monkeypatch.setattr("toy.record_of", odd)
    run(tmp_path, SampleTable(), rounds=1)
    assert rows_in(tmp_path)[0]["response"] == "π \ud800 </script>"


def test_a_module_without_records_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Plain keeps no samples: take SampleTable out of the callbacks"):
        trainer_of(tmp_path, SampleTable(), rounds=1).fit(Plain())


@pytest.mark.parametrize(("name", "least"), [("per_step", 1), ("characters", 1), ("printed", 0)])
def test_counts_that_are_too_low_are_refused(name, least):
    with pytest.raises(ValueError, match=f"^{name} is {least - 1}, expected at least {least}$"):
        SampleTable(**{name: least - 1})
