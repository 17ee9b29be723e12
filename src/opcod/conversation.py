"""Ask students a question, hear what their peer says to the answer, and what they say then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from opcod.attempts import Attempt, PromptTooLongError, attempt
from opcod.candidates import Candidate, load
from opcod.chat import Chat
from opcod.checkpoint import freeze_tutors
from opcod.codistillation import CoDistillation
from opcod.contexts import fit_with
from opcod.data.questions import Kind, Question
from opcod.data.typography import visible
from opcod.feedback import Feedback
from opcod.peers import Peer
from opcod.prompts import student_messages
from opcod.tutoring import write_feedback

HELP = """A question on one line; for multiple choice give the options behind it: What is heaviest? | iron | gold
/who NAME   ask this student alone, or `all`
/feedback   with or without the peer's feedback
/quit       or Ctrl-D"""


class CommandError(ValueError):
    """A command that is none."""


@dataclass(frozen=True)
class Reply:
    """What came of a question to one student.

    Args:
        student: Who was asked.
        response: What it answered.
        tutor: Its peer; empty where there is none or nobody asked.
        feedback: The peer's, on the response.
        again: What the self-teacher, shown the feedback, answers; None where none was kept.
    """

    student: str
    response: str
    tutor: str = ""
    feedback: Feedback | None = None
    again: str | None = None


class Conversation:
    """Students who are asked questions; what each answers, the next of them gives feedback on.

    Args:
        candidate: Who.
        module: Their module; the bases are loaded onto its device.
        feedback: Whether peers are asked what they make of the responses.
    """

    def __init__(self, candidate: Candidate, module: CoDistillation, *, feedback: bool = True) -> None:
        load(module, candidate)
        freeze_tutors(module.peers, None)
        self.module = module
        self.asked: list[Peer] = list(module.peers)
        self.feedback = feedback and len(module.peers) > 1
        self._count = 0

    def ask(self, question: Question) -> Iterator[Reply]:
        """Everyone who is asked answers in turn, each time by draws of its own."""
        self._count += 1
        for peer in self.asked:
            yield self._reply(peer, question)

    def choose(self, name: str) -> None:
        """Ask one student from now on, or `all`.

        Raises:
            CommandError: If there is no such student.
        """
        names = [peer.name for peer in self.module.peers]
        if name not in [*names, "all"]:
            raise CommandError(f"there is no {name!r}: name {', '.join(names)} or all")
        self.asked = [peer for peer in self.module.peers if name in (peer.name, "all")]

    def _reply(self, peer: Peer, question: Question) -> Reply:
        answered = self._attempt(peer, question)
        if not self.feedback:
            return Reply(peer.name, answered.text)
        peers = self.module.peers
        tutor = peers[(peers.index(peer) + 1) % len(peers)]
        (feedback,) = write_feedback(
            tutor,
            peer,
            [answered],
            chat=self.module.chats[tutor.name],
            sampling=self.module.evaluation,
            anchored=True,
            key=(self.module.seed, "chat", self._count),
        )
        again = None if feedback.text is None else self._attempt(peer, question, feedback.text).text
        return Reply(peer.name, answered.text, tutor.name, feedback, again)

    def _attempt(self, peer: Peer, question: Question, feedback: str | None = None) -> Attempt:
        """The student's answer; with feedback, the self-teacher's."""
        chat = self.module.chats[peer.name]
        with peer.sampling("student" if feedback is None else "teacher"):
            ((answered,),) = attempt(
                peer.base,
                chat,
                [question],
                lambda q: self._prompt(chat, q, feedback),
                samples=1,
                sampling=self.module.evaluation,
                key=(self.module.seed, "chat" if feedback is None else "chat again", peer.name, self._count),
            )
        return answered

    def _prompt(self, chat: Chat, question: Question, feedback: str | None) -> tuple[int, ...]:
        """What the student is asked; with feedback, what the self-teacher is shown.

        Raises:
            PromptTooLongError: If the question is too long for the student.
        """
        if feedback is not None:
            return fit_with(chat, question, None, feedback, limit=self.module.context.limit).prompt
        prompt, limit = chat.prompt(student_messages(question)), self.module.prompt_limit
        if len(prompt) > limit:
            raise PromptTooLongError(f"that takes {len(prompt)} tokens, more than {limit}: ask a shorter question")
        return prompt


def question_of(line: str) -> Question:
    """The question in a line: its text, and behind each `|` an option.

    Raises:
        QuestionError: If there is one option, more than 26, an empty or a repeated one.
    """
    text, *options = (part.strip() for part in line.split("|"))
    kind: Kind = "choice" if options else "text"
    return Question("asked", "any", text, tuple(options), "", kind=kind, keyed=False)


def converse(conversation: Conversation, console: Console, *, interactive: bool) -> None:
    """Read questions and commands until the input ends.

    Args:
        conversation: Who is asked.
        console: Where to.
        interactive: Show a prompt and what can be typed.
    """
    if interactive:
        console.print(Text(f"{_who(conversation)}. /help tells what can be typed."))
    while True:
        try:
            line = console.input("[bold]> [/]" if interactive else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line == "/quit":
            return
        try:
            if line.startswith("/"):
                console.print(Text(_command(conversation, line)))
            elif line:
                with console.status("") if interactive else nullcontext():
                    for reply in conversation.ask(question_of(line)):
                        _show(reply, console)
        except ValueError as error:  # a command or a question that is none, or does not fit
            console.print(Text(visible(str(error)), style="red"))


def _command(conversation: Conversation, line: str) -> str:
    match line.split():
        case ["/help"]:
            return HELP
        case ["/who", name]:
            conversation.choose(name)
        case ["/feedback"]:
            conversation.feedback = not conversation.feedback and len(conversation.module.peers) > 1
        case _:
            raise CommandError(f"{line} is no command; /help tells what can be typed")
    return _who(conversation)


def _who(conversation: Conversation) -> str:
    names = " and ".join(peer.name for peer in conversation.asked)
    return f"Asking {names}, {'with' if conversation.feedback else 'without'} feedback"


def _show(reply: Reply, console: Console) -> None:
    said: Sequence[tuple[str, str]] = [(reply.student, reply.response)]
    if reply.feedback is not None:
        raw = reply.feedback.raw or ""
        said = [*said, (f"{reply.tutor} to {reply.student} ({reply.feedback.outcome.value})", raw)]
    if reply.again is not None:
        said = [*said, (f"{reply.student}, shown that", reply.again)]
    for who, text in said:
        console.print(Text(who, style="bold"))
        lines = "\n".join(map(visible, text.strip().splitlines()))
        console.print(Padding(Text(lines), (0, 0, 1, 2)))
