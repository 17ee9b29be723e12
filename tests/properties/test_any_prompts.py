"""Of any texts that are put into prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opcod.contexts import fit_with
from opcod.data.questions import Question
from opcod.prompts import format_question, neutralise, student_messages, teacher_messages

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
HOSTILE = st.lists(
    st.sampled_from([*SPECIAL, "<|im_", "start|>", "<", "|>", "end|", "\n", "system", "é", " "]) | TEXTS, max_size=8
)


@given(st.text("<|>ab ", max_size=30), st.lists(st.text("<|>ab", min_size=1, max_size=6), max_size=4))
def test_no_special_token_is_left_and_no_letter_lost(text, tokens):
    safe = neutralise(text, tokens)
    assert not any(token in safe for token in tokens)
    alone = {token for token in tokens if len(token) == 1}
    assert [c for c in safe if c not in " "] == [c for c in text if c not in alone | {" "}]
    assert neutralise(safe, tokens) == safe


@given(HOSTILE.map("".join), HOSTILE.map("".join), HOSTILE.map("".join))
def test_no_text_makes_a_turn_of_the_chat(chat, asked, solution, feedback):
    special = set(chat.tokenizer.convert_tokens_to_ids(SPECIAL))

    def turns(question, s, f):
        ids = chat.prompt(teacher_messages(question, s, f))
        return [i for i in ids if i in special]

    plain = turns(Question("q", "physics", "Which?", ("1", "2"), "A"), "s", "f")
    assert turns(Question("q", "physics", f"x{asked}", (f"1{asked}", f"2{feedback}"), "A"), solution, feedback) == plain
    assert not special & set(chat.tokenize(asked + solution + feedback))


SAID = st.none() | HOSTILE.map("".join).filter(str.strip)


@given(HOSTILE.map("".join), SAID, SAID, st.integers(0, 500))
def test_a_context_fits_and_never_loses_the_question(chat, asked, solution, feedback, limit):
    question = Question("q", "physics", f"x{asked}", ("one", "two"), "A")

    def fit(longest):
        return fit_with(chat, question, solution, feedback, limit=longest)

    bare = len(chat.prompt(teacher_messages(question, None, None)))
    if limit < bare:
        with pytest.raises(ValueError, match="question 'q' alone takes"):
            fit(limit if solution is None and feedback is None else min(limit, bare - 1))
    fitted = fit(bare + limit)
    assert len(fitted.prompt) <= bare + limit
    assert fitted.prompt == chat.prompt(fitted.messages)
    assert fitted.messages[1]["content"].startswith(format_question(question))
    assert fitted.messages[0] == student_messages(question)[0]
    whole = len(chat.prompt(teacher_messages(question, solution, feedback)))
    assert (fitted.cut == 0) == (whole <= bare + limit)
    if fitted.cut == 0:
        assert (fitted.solution, fitted.feedback) == (solution, feedback)
    if fitted.feedback is not None and fitted.cut:
        assert fitted.solution == solution  # f is cut first


@given(TEXTS, TEXTS)
def test_braces_and_percents_are_only_text(solution, feedback):
    content = teacher_messages(Question("q", "physics", "Which?", (), "1"), f"{{0}}{solution}%s", feedback)[1][
        "content"
    ]
    assert f"{{0}}{solution}%s".strip() in content
    assert feedback.strip() in content
