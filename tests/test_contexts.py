"""Contexts: who has one, and what it takes to make it."""

import pytest
import torch

from opcod.attempts import Attempt
from opcod.chat import Chat
from opcod.contexts import ContextSettings, build_contexts
from opcod.drafts import Response
from opcod.feedback import Feedback, Outcome
from opcod.grading import Grade
from opcod.prompts import teacher_messages
from tiny import QUESTION

NONE = Feedback(None, None, Outcome.FB_NONE)


def attempt(sample, right):
    empty = Response(torch.tensor([], dtype=torch.long), torch.tensor([]), True)
    return Attempt(QUESTION, sample, (), empty, f"It is {sample}.", Grade(right, True, "A"))


@pytest.fixture
def made(chat, monkeypatch):
    """The prompts that were made."""
    made = []
    real = Chat.prompt
    monkeypatch.setattr(Chat, "prompt", lambda self, messages: made.append(real(self, messages)) or made[-1])
    return made


def test_without_s_and_f_there_is_no_context_and_no_prompt_is_made(chat, made):
    group = [attempt(0, False), attempt(1, False)]
    assert build_contexts([group], [[NONE, NONE]], chat, ContextSettings(limit=1)) == ([], 0)
    assert made == []


def test_a_context_that_fits_is_made_once(chat, made):
    group = [attempt(0, True), attempt(1, False)]
    (context,), cut = build_contexts([group], [[NONE, NONE]], chat, ContextSettings())
    assert made == [context.prompt]
    assert (context.attempt, context.solution, context.feedback, cut) == (group[1], "It is 0.", None, 0)
    assert context.prompt == chat.prompt(teacher_messages(QUESTION, "It is 0.", None))


@pytest.mark.parametrize(
    ("own", "shown"),
    [(False, ["It is 1.", "It is 2.", "It is 1.", "It is 1."]), (True, ["It is 1."] * 4)],
)
def test_s_is_the_earliest_right_response_and_ones_own_only_if_that_is_asked_for(chat, own, shown):
    group = [attempt(sample, sample in (1, 2)) for sample in range(4)]
    contexts, _ = build_contexts([group], [[NONE] * 4], chat, ContextSettings(own_solution=own))
    assert [context.attempt for context in contexts] == group
    assert [context.solution for context in contexts] == shown


def test_a_lone_right_response_is_its_own_s_only_if_that_is_asked_for(chat):
    group = [attempt(0, True)]
    assert build_contexts([group], [[NONE]], chat, ContextSettings()) == ([], 0)
    (context,), _ = build_contexts([group], [[NONE]], chat, ContextSettings(own_solution=True))
    assert context.solution == "It is 0."


def test_what_is_cut_away_whole_is_counted_as_well(chat):
    group = [attempt(0, True), attempt(1, False)]
    feedback = Feedback("So.", "So.", Outcome.MATCH)
    bare = len(chat.prompt(teacher_messages(QUESTION, None, None)))
    contexts, cut = build_contexts([group], [[feedback, feedback]], chat, ContextSettings(limit=bare))
    assert contexts == []
    assert cut == 2 * len(chat.tokenize("So.")) + len(chat.tokenize("It is 0."))


@pytest.mark.parametrize(
    ("settings", "shown"),
    [({}, ("It is 0.", "So.")), ({"solution": False}, (None, "So.")), ({"feedback": False}, ("It is 0.", None))],
    ids=str,
)
def test_no_more_is_shown_than_the_settings_allow(chat, settings, shown):
    group, feedback = [attempt(0, True), attempt(1, False)], Feedback("So.", "So.", Outcome.MATCH)
    (context,), _ = build_contexts([group], [[NONE, feedback]], chat, ContextSettings(**settings))
    assert (context.solution, context.feedback) == shown
    assert context.prompt == chat.prompt(teacher_messages(QUESTION, *shown))
    neither = ContextSettings(solution=False, feedback=False)
    assert build_contexts([group], [[NONE, feedback]], chat, neither) == ([], 0)
