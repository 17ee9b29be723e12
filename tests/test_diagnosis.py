"""Break and rescue rates: a case worked out by hand, and the command over the tiny model."""

import io
import json
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule
from rich.console import Console

import opcod.diagnosis as diagnosis
from opcod import cli
from opcod.attempts import Attempt
from opcod.callbacks import BreakRateTable, break_rates
from opcod.callbacks.break_rates import rate_table
from opcod.checkpoint import freeze_tutors
from opcod.codistillation import CoDistillation
from opcod.contexts import ContextSettings
from opcod.data.questions import Question
from opcod.drafts import Response
from opcod.feedback import Feedback, Outcome
from opcod.gate import Gate
from opcod.grading import Grade
from opcod.metrics import DIFFICULTIES
from opcod.models import BaseModel, ModelError
from opcod.report.runs import read_run
from opcod.rollout import Request, Sampling, sample
from opcod.students import Student
from tiny import LORA, run_config, stir

QUESTIONS = [Question(f"q{i}", domain, f"Which {i}?", ("x", "y"), "A") for i, domain in enumerate(["a", "a", "b"])]
ENDS = ("", "/low", "/high")
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


def test_a_table_tells_rates_with_their_intervals_and_of_how_many():
    of_all = {f"{name}/{d}{end}": math.nan for name in ("break", "rescue") for d in DIFFICULTIES for end in ENDS}
    of_all |= {f"{name}/{d}": 0.0 for name in ("right", "wrong") for d in DIFFICULTIES}
    of_all |= {"break/all": 0.125, "break/all/low": 0.04, "break/all/high": 0.31, "right/all": 40.0}
    of_all |= {"rescue/easy": 0.5, "rescue/easy/low": 0.2, "rescue/easy/high": 0.9, "wrong/easy": 6.0}
    found = diagnosis.Diagnosis("ann", "ben", 0.25, False, {"all": of_all}, {"share/match": 0.75})
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rate_table(found))
    text = console.export_text()
    assert "ben to ann: incognizant, gap 0.25, 75 % of its feedback kept" in text
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in text.splitlines()]
    assert ["all", "all", "12.5 (4 to 31)", "40", "-", "0"] in rows
    assert ["easy", "-", "0", "50.0 (20 to 90)", "6"] in rows


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


def test_diagnose_measures_two_checkpoints_of_a_run(run, tmp_path, capsys, monkeypatch):
    frozen = []
    monkeypatch.setattr(break_rates, "freeze_tutors", lambda peers, by: frozen.append(by) or freeze_tutors(peers, by))
    cli.main(["fit", *run])
    version = tmp_path / "runs" / "version_0"
    last = version / "checkpoints" / "last.ckpt"
    cli.main(["diagnose", f"-c={version / 'config.yaml'}", f"--ckpt_path={last}", f"--tutors={last}"])
    assert frozen == [str(last)]
    (written,) = (tmp_path / "runs").rglob("diagnosis.json")
    found = json.loads(written.read_text())
    assert [(d["tutee"], d["tutor"]) for d in found] == [("a", "b"), ("b", "a")]
    for direction in found:
        assert direction["rates"].keys() == {"all", "physics", "chemistry"}
        # A random model is never right, its peer's feedback is all kept, and it does not help.
        assert (direction["rates"]["all"]["wrong/all"], direction["rates"]["all"]["rescue/all"]) == (32, 0)
        assert direction["rates"]["all"]["break/all"] is None
        assert direction["cognizant"]
    printed = capsys.readouterr().out
    assert "b to a: cognizant, gap 0.00" in printed
    assert f"The rates are in {written}, " in printed
    rows = [json.loads(line) for line in (written.parent / "diagnosis.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * 32
    assert {row["flip"] for row in rows} == {"neither"}
    assert all(row["again"] and row["feedback_shown"] and not row["correct"] for row in rows)
    assert read_run(written.parent).exchanges == rows


def test_the_tutors_are_those_of_the_checkpoint(tiny_folder, run, tmp_path):
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
    content = torch.load(last, weights_only=True)
    for part, other, said in (
        ("bases", {name: of | {"files": "another"} for name, of in content["opcod"]["bases"].items()}, "over the base"),
        ("lora", content["opcod"]["lora"] | {"alpha": 99}, "rank 4 and alpha 99"),
    ):
        torch.save(content | {"opcod": content["opcod"] | {part: other}}, tmp_path / "other.ckpt")
        with pytest.raises(ModelError, match=f"the checkpoint of a was made .*{said}"):
            freeze_tutors(module.peers, str(tmp_path / "other.ckpt"))


def test_a_teacher_gap_by_hand(monkeypatch):
    """Of q0 all 8 are right, of q1 the first and of q2 none; shown s the self-teacher is right, shown f it is wrong."""

    def again(module, peer, cases, key, *, with_s, with_f):
        return [diagnosis.Turn(c, "", with_s or (not with_f and c.attempt.grade.correct)) for c in cases]

    monkeypatch.setattr(diagnosis, "_again", again)
    of_ann = diagnosis.teacher_gaps(Pair(), QUESTIONS, samples=8)["ann"]
    found = {d: {shown: (g.student, g.teacher, g.count) for shown, g in of.items()} for d, of in of_ann.items()}
    # On a everyone but the only right one on q1 has an s; every second response has an f.
    assert found["a"] == {
        "nothing": (9 / 16, 9 / 16, 16),
        "s": (8 / 15, 1.0, 15),
        "f": (5 / 8, 0.0, 8),
        "s and f": (4 / 7, 1.0, 7),
    }
    assert found["b"]["nothing"] == (0.0, 0.0, 8)
    assert found["b"]["f"] == (0.0, 0.0, 4)
    assert (found["b"]["s"][2], found["b"]["s and f"][2]) == (0, 0)
    assert of_ann["a"]["s"].gap == pytest.approx(7 / 15)


def test_who_answers_again_is_the_self_teacher(tiny_folder):
    sampling = Sampling(max_new_tokens=4)
    base = BaseModel(str(tiny_folder), quantization="none")
    module = CoDistillation([Student("a", "physics")], base=base, lora=LORA, evaluation=sampling)
    module.configure_model()
    (peer,) = module.peers
    for number, role in enumerate(("student", "teacher", "tutor")):
        stir(peer.base, peer.adapter(role), seed=number, spread=0.5)
    asked = []
    cases = [diagnosis.Case(group[0], "s", Feedback("f", "f", Outcome.MATCH)) for group in answered(RIGHT)]
    (turn, *_) = diagnosis._again(module, peer, cases, (0,), with_s=True, with_f=True)
    shown = diagnosis.fit_with(module.chats["a"], QUESTIONS[0], "s", "f", limit=module.context.limit).prompt
    for role in ("student", "teacher"):
        with peer.sampling(role):
            (answer,) = sample(peer.base, [Request(shown, (0, "q0", 0))], sampling, module.chats["a"].ends)
        asked.append(module.chats["a"].text(answer.tokens.tolist()))
    assert asked[0] != asked[1] == turn.again
