"""Expressions: what is read, what is equal, and what must not hold up a run."""

import importlib.util
import os
import signal
import threading
import time

import pytest

from opcod import expressions
from opcod.expressions import read_expression, same_expression

pytest.importorskip("math_verify")


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("x^2 + 2x + 1", "(x+1)^2"),
        ("\\frac{1}{2} m v^2", "m v^2 / 2"),
        ("\\frac{1}{2} m v^2", "0.5*m*v**2"),
        ("\\frac{1}{2} m v^2", "$\\frac{m v^{2}}{2}$"),
        ("\\frac{\\sqrt{2}}{2}", "1/sqrt(2)"),
        ("\\sqrt{\\frac{x+1}{2}}", "sqrt((x+1)/2)"),
        ("e^{-(x+1)}", "e^(-(x+1))"),
        ("e^{-x}", "exp(-x)"),
        ("2\\pi", "2π."),
        ("x^{10}", "x^10"),
        ("x²", "\\(x^2\\)"),
        ("6.02e23", "6.02 \\times 10^{23}"),
        ("2·10⁻³", "0.002"),
        ("\\sin^2 x + \\cos^2 x", "1"),
        ("\\frac{GMm}{r^2}", "GmM/r^2"),
        ("\\{1, 2\\}", "2, 1"),
        ("y = 2x + 1", "2x + 1"),
        ("x < 3", "3 > x"),
        ("\\alpha/2", "α/2"),
    ],
)
def test_equal_in_another_spelling(key, answer):
    assert same_expression(key, answer)


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("x^2", "2x"),
        ("x", "-x"),
        ("V", "v"),
        ("\\frac{GMm}{r^2}", "G m^2/r^2"),
        ("[0,1)", "[0,1]"),
        ("2", "2 or 3"),
        ("2", "\\pm 2"),
        ("x < 3", "x < 4"),
        ("\\pi", "3.14"),
        ("mc^2", "c^2"),
    ],
)
def test_what_differs_is_not_equal(key, answer):
    assert not same_expression(key, answer)


@pytest.mark.parametrize("text", ["", "(", "\\frac{1", "x^2 +", "$1$ or $2$", "a$b", "x.__class__", "x" * 1001])
def test_what_is_no_single_expression_is_not_read(text):
    assert read_expression(text) is None


def test_equal_wrong_answers_read_the_same():
    assert read_expression("x + 1") == read_expression("$1+x$") == read_expression("\\left(x+1\\right)")


def test_code_in_an_answer_is_not_run(tmp_path):
    target = tmp_path / "written"
    for text in (f"__import__('pathlib').Path('{target}').touch()", f"\\text{{open('{target}','w')}}"):
        read_expression(text)
    assert not target.exists()


def test_what_has_no_end_is_given_up_and_the_next_answer_is_graded():
    """`(9^9)!` is 370 million factors long; the process is ended over it, and another one started."""
    begun = time.monotonic()
    assert not same_expression("(9^9)!", "3")
    assert time.monotonic() - begun < 90
    assert same_expression("y^2 - 1", "(y-1)(y+1)")


def test_it_works_outside_the_main_thread():
    found = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(same_expression(f"z^2 - {n * n}", f"(z-{n})(z+{n})")))
        for n in range(2, 8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 6


def test_a_process_that_was_killed_in_between_is_replaced():
    assert same_expression("w + w", "2w")
    assert expressions._PROCESS.running is not None
    expressions._PROCESS.running.kill()
    expressions._PROCESS.running.wait()
    assert same_expression("w + w + w", "3w")


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(expressions, "_PROCESS", expressions._Process())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'opcod\[math\]'"):
        read_expression("not + asked + before")


def kill_while_it_grades(times):
    """Kill the process, and those that take its place, each before it can reply; returns the thread that does it."""
    stopped = expressions._PROCESS.running
    os.kill(stopped.pid, signal.SIGSTOP)
    start = expressions._PROCESS._start

    def started():
        process = start()
        if killed["count"] < times:
            os.kill(process.pid, signal.SIGSTOP)
            threading.Timer(0.2, kill, [process]).start()
        return process

    def kill(process):
        killed["count"] += 1
        process.kill()

    killed = {"count": 0}
    threading.Timer(0.2, kill, [stopped]).start()
    return started


def test_an_answer_over_which_the_process_was_killed_is_graded_by_another(monkeypatch):
    assert same_expression("x", "x")  # there is one
    monkeypatch.setattr(expressions._PROCESS, "_start", kill_while_it_grades(1))
    assert same_expression("a + 2b", "2b + a")


def test_a_process_that_is_killed_time_and_again_ends_the_run(monkeypatch):
    assert same_expression("x", "x")
    monkeypatch.setattr(expressions._PROCESS, "_start", kill_while_it_grades(9))
    with pytest.raises(RuntimeError, match="was killed 3 times over one answer"):
        same_expression("a + 3b", "3b + a")
    monkeypatch.undo()
    assert same_expression("a + 3b", "3b + a")


def test_what_schedulers_send_to_a_whole_group_does_not_end_it():
    assert same_expression("x", "x")
    process = expressions._PROCESS.running
    process.send_signal(signal.SIGTERM)
    assert same_expression("a + 4b", "4b + a")
    assert expressions._PROCESS.running is process
