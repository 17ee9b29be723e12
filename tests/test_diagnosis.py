"""Break and rescue rates: a case worked out by hand, and the command over the tiny model."""

import json
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule

import opcod.diagnosis as diagnosis
from opcod import cli
from opcod.attempts import Attempt
from opcod.callbacks import BreakRateTable
from opcod.codistillation import CoDistillation
from opcod.contexts import ContextSettings
from opcod.data.questions import Question
from opcod.drafts import Response
from opcod.feedback import Feedback, Outcome
from opcod.gate import Gate
from opcod.grading import Grade
from opcod.models import BaseModel
from opcod.report.runs import read_run
from opcod.rollout import Sampling
from opcod.students import Student
from tiny import LORA, run_config

QUESTIONS = [Question(f"q{i}", domain, f"Which {i}?", ("x", "y"), "A") for i, domain in enumerate(["a", "a", "b"])]
RIGHT = {"q0": 8, "q1": 1, "q2": 0}  # of 8 responses, the first ones


def answered(rights):
    empty = Response(torch.tensor([], dtype=torch.long), torch.tensor([]), True)
    return [
        [Attempt(q, j, (), empty, f"{q.id} {j}", Grade(j < rights[q.id], True, "A")) for j in range(8)]
        for q in QUESTIONS
    ]


class Pair:
    """As much of a module as a diagnosis asks for; every second feedback is dropped."""

    seed, gate, context = 0, Gate(tau=0.2), ContextSettings()
    peers = (SimpleNamespace(name="ann"), SimpleNamespace(name="ben"))

    def sampled(self, peer, questions, purpose, *, samples, role="student"):
        # The tutor is right in 6 of 8 on q0, and as good as the tutee elsewhere.
        return answered(RIGHT if role == "student" else RIGHT | {"q0": 6})

    def give_feedback(self, tutee, tutor, groups, spoken, key):
        kept, dropped = Feedback("raw", "text", Outcome.MATCH), Feedback("raw", None, Outcome.NO_MATCH)
        return [[dropped if a.sample % 2 else kept for a in group] for group in groups]


def test_rates_of_both_directions_by_hand(monkeypatch):
    # Shown feedback, ann and ben are wrong on q0's first response, right on q1's third, and as before elsewhere.
    def again(module, peer, cases, key, *, with_s, with_f):
        assert with_s
        assert with_f
        turned = {"q0 0": False, "q1 2": True}
        return [diagnosis.Turn(c, "", turned.get(c.attempt.text, c.attempt.grade.correct)) for c in cases]

    monkeypatch.setattr(diagnosis, "_again", again)
    found = diagnosis.diagnose(Pair(), QUESTIONS)
    assert [(d.tutee, d.tutor) for d in found] == [("ann", "ben"), ("ben", "ann")]
    rates = found[0].rates
    # Kept are responses 0, 2, 4 and 6 of each question: right are four on q0 and one on q1.
    assert (rates["all"]["right/all"], rates["all"]["break/all"]) == (5, pytest.approx(1 / 5))
    assert (rates["all"]["wrong/all"], rates["all"]["rescue/all"]) == (7, pytest.approx(1 / 7))
    assert (rates["a"]["right/all"], rates["a"]["wrong/all"], rates["b"]["wrong/all"]) == (5, 3, 4)
    assert math.isnan(rates["b"]["break/all"])
    assert (rates["all"]["right/easiest"], rates["all"]["right/hardest"]) == (4, 1)  # 0 and 7 of 8 wrong
    assert rates["all"]["break/easiest"] == pytest.approx(1 / 4)
    assert found[0].outcomes["share/match"] == pytest.approx(0.5)
    assert Counter(turn.flip for turn in found[0].turns) == {"neither": 10, "broken": 1, "rescued": 1}
    # On a the tutee has 9 of 16 and the tutor 7, on b both none: (9 - 7) / 9.
    assert found[0].gap == pytest.approx(2 / 9)
    assert not found[0].cognizant


@pytest.mark.parametrize("shown", [True, False])
def test_s_is_shown_where_training_shows_it(shown, monkeypatch):
    def again(module, peer, cases, key, *, with_s, with_f):
        return [diagnosis.Turn(c, "", c.attempt.grade.correct) for c in cases]

    pair = Pair()
    pair.context = ContextSettings(solution=shown)
    monkeypatch.setattr(diagnosis, "_again", again)
    found = diagnosis.diagnose(pair, QUESTIONS)
    solutions = {turn.case.attempt.text: turn.case.solution for turn in found[0].turns}
    assert len(solutions) == 12
    assert solutions["q0 0"] == ("q0 1" if shown else None)
    assert solutions["q1 2"] == ("q1 0" if shown else None)


def test_a_student_alone_has_no_break_rate():
    with pytest.raises(ValueError, match="need a tutor"):
        diagnosis.diagnose(SimpleNamespace(peers=[None]), QUESTIONS)


@pytest.mark.parametrize(
    ("module", "reason"),
    [(LightningModule(), "LightningModule has no tutors"), (CoDistillation([Student("a", "physics")]), "need a tutor")],
    ids=["another method", "alone"],
)
def test_who_cannot_be_diagnosed_is_refused_before_anybody_is_scored(module, reason):
    with pytest.raises(ValueError, match=reason):
        BreakRateTable().setup(SimpleNamespace(world_size=1), module, "validate")


# ---- the tiny model through the whole command


@pytest.fixture
def run(tiny_folder, tmp_path):
    """Arguments of a run of the tiny model."""
    (tmp_path / "config.yaml").write_text(json.dumps(run_config(tiny_folder)))
    return [f"-c={tmp_path / 'config.yaml'}", f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}"]


def test_diagnose_measures_two_checkpoints_of_a_run(run, tmp_path, capsys):
    cli.main(["fit", *run])
    version = tmp_path / "runs" / "version_0"
    last = version / "checkpoints" / "last.ckpt"
    cli.main(["diagnose", f"-c={version / 'config.yaml'}", f"--ckpt_path={last}", f"--tutors={last}"])
    (written,) = (tmp_path / "runs").rglob("diagnosis.json")
    found = json.loads(written.read_text())
    assert [(d["tutee"], d["tutor"]) for d in found] == [("a", "b"), ("b", "a")]
    for direction in found:
        assert direction["rates"].keys() == {"all", "physics", "chemistry"}
        # A random model is never right, its peer's feedback is all kept, and it does not help.
        assert (direction["rates"]["all"]["wrong/all"], direction["rates"]["all"]["rescue/all"]) == (32, 0)
        assert direction["rates"]["all"]["break/all"] is None
        assert direction["cognizant"]
    assert "b to a: cognizant, gap 0.00" in capsys.readouterr().out
    rows = [json.loads(line) for line in (written.parent / "diagnosis.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 32
    assert {row["flip"] for row in rows} == {"neither"}
    assert all(row["again"] and row["feedback_shown"] and not row["correct"] for row in rows)
    assert read_run(written.parent).exchanges == rows


def test_the_tutors_are_those_of_the_checkpoint(tiny_folder, run, tmp_path):
    from opcod.checkpoint import freeze_tutors

    cli.main(["fit", *run])
    last = tmp_path / "runs" / "version_0" / "checkpoints" / "last.ckpt"
    kept = torch.load(last, weights_only=True)["opcod"]["peers"]
    sampling = Sampling(max_new_tokens=4)
    base = BaseModel(str(tiny_folder), quantization="none")
    module = CoDistillation(
        [Student("a", "physics"), Student("b", "chemistry")], base=base, lora=LORA, evaluation=sampling
    )
    module.configure_model()
    freeze_tutors(module.peers, str(last))
    for peer in module.peers:
        state = peer.state()
        assert all(torch.equal(state["tutor"][name], kept[peer.name]["student"][name]) for name in state["tutor"])
        assert not all(torch.equal(state["tutor"][name], state["student"][name]) for name in state["tutor"])
