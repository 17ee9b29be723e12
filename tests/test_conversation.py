"""Students asked in the terminal: who answers, what the peer says, what is done with what is typed."""

import io
import sys

import pytest
import torch
from rich.console import Console

from opcod import cli
from opcod.candidates import Candidate, together
from opcod.contexts import ContextSettings
from opcod.conversation import Conversation, converse, question_of
from opcod.data.questions import QuestionError
from opcod.feedback import Feedback, Outcome
from opcod.models import BaseModel, ModelError
from opcod.peers import Lora
from opcod.prompts import student_messages, teacher_messages
from opcod.rollout import Sampling
from opcod.students import Student
from test_codistillation import module_of
from test_rollout import watched_keys
from tiny import LORA, stir


@pytest.fixture
def conversation(tiny_folder):
    base = BaseModel(str(tiny_folder), quantization="none", dtype="float32")
    students = (Student("ann", "physics", base=base), Student("ben", "chemistry", base=base))
    module = module_of(tiny_folder, students, evaluation=Sampling(max_new_tokens=8))
    return Conversation(Candidate("both", students, LORA), module)


def typed(conversation, monkeypatch, *lines):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
    converse(conversation, Console(file=out, width=200), interactive=False)
    return out.getvalue()


def test_everyone_answers_and_is_told_what_the_peer_makes_of_it(conversation):
    replies = list(conversation.ask(question_of("Which is longest? | 1 m | 2 m")))
    assert [(r.student, r.tutor) for r in replies] == [("ann", "ben"), ("ben", "ann")]
    assert all(r.response and r.feedback.raw for r in replies)
    assert all((r.again is None) == (r.feedback.outcome is not Outcome.MATCH) for r in replies)


def test_of_three_the_next_one_says_what_it_makes_of_an_answer(tiny_folder):
    base = BaseModel(str(tiny_folder), quantization="none", dtype="float32")
    students = tuple(Student(name, "physics", base=base) for name in ("ann", "ben", "cal"))
    module = module_of(tiny_folder, students, evaluation=Sampling(max_new_tokens=4))
    talk = Conversation(Candidate("three", students, LORA), module)
    talk.choose("all")
    replies = list(talk.ask(question_of("Which is longest?")))
    assert [(r.student, r.tutor) for r in replies] == [("ann", "ben"), ("ben", "cal"), ("cal", "ann")]


def test_peers_say_what_they_make_of_it_as_they_are(tiny_folder):
    """A checkpoint holds the tutor as it was when the last round began."""
    base = BaseModel(str(tiny_folder), quantization="none", dtype="float32")
    students = (Student("ann", "physics", base=base), Student("ben", "chemistry", base=base))
    module = module_of(tiny_folder, students)
    module.configure_model()
    for peer in module.peers:
        stir(peer.base, peer.adapter("student"), seed=1)
    for peer in Conversation(Candidate("both", students, LORA), module).module.peers:
        tutor, student = peer.parameters("tutor"), peer.parameters("student")
        assert all(torch.equal(one, other) for one, other in zip(tutor, student, strict=True))


def test_asked_again_it_draws_again(conversation):
    once, twice = (next(conversation.ask(question_of("Why?"))).response for _ in range(2))
    assert once != twice


def test_kept_feedback_is_shown_to_the_self_teacher(conversation, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "opcod.tutoring.judge",
        lambda raw, question, anchored: Feedback(raw, "Mind the length.", Outcome.MATCH),
    )
    real = conversation.module.peers[0].base.sampling

    def sampling(name):
        shown.append(name)
        return real(name)

    monkeypatch.setattr(conversation.module.peers[0].base, "sampling", sampling)
    conversation.choose("ann")
    (reply,) = conversation.ask(question_of("Which is longest?"))
    assert reply.again
    assert shown == ["ann_student", "ben_tutor", "ann_teacher"]


def test_a_question_that_just_fits_is_answered_again_with_feedback(conversation, monkeypatch):
    """The self-teacher, who is shown more, has a limit of its own, as in training."""
    question, chat = question_of("Which is longest? | 1 m | 2 m"), conversation.module.chats["ann"]
    monkeypatch.setattr(
        "opcod.tutoring.judge",
        lambda raw, question, anchored: Feedback(raw, "Mind the length. " * 100, Outcome.MATCH),
    )
    conversation.module.prompt_limit = len(chat.prompt(student_messages(question)))
    conversation.module.context = ContextSettings(limit=len(chat.prompt(teacher_messages(question, None, "Mind the"))))
    conversation.choose("ann")
    (reply,) = conversation.ask(question)
    assert reply.again


def test_no_two_draws_share_a_key(conversation, monkeypatch):
    keys = watched_keys(monkeypatch, "tutoring", "attempts")
    monkeypatch.setattr("opcod.tutoring.judge", lambda raw, question, anchored: Feedback(raw, "f", Outcome.MATCH))
    list(conversation.ask(question_of("Why?")))
    assert len(set(keys)) == len(keys) == 2 * 3


def test_commands_choose_who_is_asked_and_whether_the_peer_is(conversation, monkeypatch):
    said = typed(conversation, monkeypatch, "/who ben", "/feedback", "Why?", "/quit", "Why?")
    assert said.splitlines()[:2] == ["Asking ben, with feedback", "Asking ben, without feedback"]
    assert said.count("ben\n") == 1
    assert " to ben" not in said
    assert "/who NAME" in typed(conversation, monkeypatch, "/help")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/dance", "/dance is no command"),
        ("/who", "/who is no command"),
        ("/who carl", "there is no 'carl': name ann, ben or all"),
        ("Why? | one", "options: holds 1, expected 2 to 26"),
        ("| a | b", "question: is empty"),
        ("long " * 3000, "tokens, more than 2048: ask a shorter question"),
        ("/\x1b[31m", r"/\x1b[31m is no command"),
    ],
)
def test_a_mistake_is_said_and_the_talk_goes_on(line, said, conversation, monkeypatch):
    out = typed(conversation, monkeypatch, line, "/who ann")
    assert said in out
    assert "Asking ann" in out


def test_what_models_say_cannot_command_the_terminal(conversation, monkeypatch):
    monkeypatch.setattr("opcod.chat.Chat.text", lambda self, tokens: "\x1b]0;owned\x07 <b>[red]x[/red]\nnext")
    out = typed(conversation, monkeypatch, "Why?")
    assert "\x1b" not in out
    assert r"\x1b]0;owned\x07 <b>[red]x[/red]" in out
    assert "  next" in out


def test_a_question_in_a_line():
    free, choice = question_of("Why?"), question_of("Why | a | b |  c ")
    assert (free.kind, free.keyed) == ("text", False)
    assert choice.options == ("a", "b", "c")
    with pytest.raises(QuestionError):
        question_of(" | ")


def test_who_can_be_asked_together():
    ann, ben = Student("ann", "x", "some"), Student("ben", "x", "some")
    one = Candidate("one", (ann,), Lora(4))
    assert together([one]) is one
    assert [s.name for s in together([one, Candidate("two", (ben,), Lora(4))]).students] == ["ann", "ben"]
    three = [one, Candidate("two", (ben,), Lora(4)), Candidate("three", (Student("cal", "x", "some"),), Lora(4))]
    assert [s.name for s in together(three).students] == ["ann", "ben", "cal"]
    with pytest.raises(ModelError, match="name different ones"):
        together([one, one])
    with pytest.raises(ModelError, match="different shapes"):
        together([one, Candidate("two", (ben,), Lora(8))])


def test_the_command_asks_a_model(tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\n"))
    cli.main(["chat", str(tiny_folder), "--base.quantization=none", "--sampling.max_new_tokens=4", "--device=cpu"])
    assert capsys.readouterr().out.startswith("tiny_llama\n")
    with pytest.raises(SystemExit):
        cli.main(["chat", str(tiny_folder), "--base.quantization=none", "--student=ann", "--device=cpu"])
    assert "there is no 'ann': name tiny_llama or all" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(tiny_folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["chat", str(tiny_folder), "--base.quantization=none", "--device=cuda:99"])
    assert stopped.value.code == 1
    assert "there is no device cuda:99" in capsys.readouterr().err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as Python reads a terminal, by the locale
def test_bytes_that_are_no_text_are_asked_as_what_they_are_not(errors, tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Why \xff?\n"), "utf-8", errors))
    cli.main(["chat", str(tiny_folder), "--base.quantization=none", "--sampling.max_new_tokens=4", "--device=cpu"])
    assert capsys.readouterr().out.startswith("tiny_llama\n")
