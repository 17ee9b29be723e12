"""`opcod check-data`: what it finds in files of questions, and what it says about it."""

import json

import pytest

from commands_shown import ROOT
from opcod import cli
from opcod.data.check import check
from opcod.data.jsonl import Fault, read_questions
from opcod.data.mending import suggestion
from opcod.data.questions import QuestionError
from tiny import build_tokenizer

NUMERIC = {"domain": "physics", "question": "How many?", "answer": 3}
CHOICE = {"domain": "chemistry", "question": "Which?", "options": ["w", "x", "y", "z"], "answer": "B"}


def write(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(row, count, **changes):
    """Rows that are alike but for id and text."""
    return [row | {"id": f"{row['domain']}{i}", "question": f"{row['question']} {i}", **changes} for i in range(count)]


def found(*paths, **settings):
    """The findings, with a token for each character of a question's text."""
    settings = {"prompt_tokens": lambda q: len(q.text), "special_tokens": ["<|im_end|>"], "validation": 0} | settings
    return check(paths, **settings)


# ---- findings


def test_questions_are_counted_by_domain_and_type(tmp_path):
    solution = "<reasoning>r</reasoning><answer>{}</answer>"
    rows = [
        *numbered(NUMERIC, 3),
        NUMERIC | {"id": "s1", "question": "a", "solution": solution.format("3 m")},
        NUMERIC | {"id": "s2", "question": "b", "solution": solution.format("4")},
        NUMERIC | {"id": "s3", "question": "c", "solution": "3"},
        CHOICE | {"id": "c"},
        {"id": "t", "domain": "chemistry", "question": "Which metal?", "type": "text", "answer": "iron"},
    ]
    (file,) = found(write(tmp_path / "q.jsonl", *rows)).files
    parts = [(p.domain, p.kind, p.questions, p.solved, p.wrong) for p in file.parts]
    assert parts == [
        ("chemistry", "choice", 1, 0, ()),
        ("chemistry", "text", 1, 0, ()),
        ("physics", "numeric", 6, 3, ("s2", "s3")),
    ]
    assert (file.rows, len(file.questions)) == (8, 8)


def test_prompts_are_measured_against_the_limit(tmp_path):
    rows = [NUMERIC | {"id": str(n), "question": "x" * n} for n in range(1, 101)]
    (lengths,) = found(write(tmp_path / "q.jsonl", *rows), prompt_limit=98).files[0].lengths
    assert (lengths.fewest, lengths.median, lengths.most) == (1, 50.5, 100)
    assert lengths.most_of_all == pytest.approx(95.05)
    assert lengths.over == ("99", "100")


def test_files_are_usable_up_to_the_longest_prompt(tmp_path):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"id": "a", "question": "x" * 9})
    assert found(path, prompt_limit=9).usable
    assert not found(path, prompt_limit=8).usable


def test_uneven_keys_and_telling_lengths_are_found(tmp_path):
    """30 of 40 where 10 are expected: chi-square (400 + 2 * 25 + 100) / 10 = 55 at 3 degrees of freedom."""
    letters = ["A"] * 30 + ["B"] * 5 + ["C"] * 5
    rows = [
        CHOICE | {"id": str(i), "question": f"Which {i}?", "options": ["long", "x", "y", "z"], "answer": letter}
        for i, letter in enumerate(letters)
    ]
    (keys,) = found(write(tmp_path / "q.jsonl", *rows)).files[0].keys
    assert keys.letters == {"A": 30, "B": 5, "C": 5, "D": 0}
    assert keys.chance == pytest.approx(6.8e-12, rel=0.02)
    assert (keys.longest, keys.with_longest) == (30, 40)
    assert keys.longest_chance is not None
    assert keys.longest_chance < 1e-9


def test_few_or_even_keys_are_put_down_to_chance(tmp_path):
    even = [
        CHOICE | {"id": str(i), "question": f"Which {i}?", "answer": "ABCD"[i % 4], "options": ["a", "b", "c", "d"]}
        for i in range(40)
    ]
    (keys,) = found(write(tmp_path / "even.jsonl", *even)).files[0].keys
    assert keys.chance == pytest.approx(1.0)
    assert (keys.with_longest, keys.longest_chance) == (0, None)
    (keys,) = found(write(tmp_path / "few.jsonl", *even[:19])).files[0].keys
    assert keys.chance is None


def test_keys_are_compared_among_questions_of_as_many_options(tmp_path):
    rows = [*numbered(CHOICE, 2), CHOICE | {"id": "two", "question": "Or?", "options": ["a", "b"]}]
    file = found(write(tmp_path / "q.jsonl", *rows)).files[0]
    assert [(k.options, dict(k.letters)) for k in file.keys] == [
        (2, {"A": 0, "B": 1}),
        (4, {"A": 0, "B": 2, "C": 0, "D": 0}),
    ]


def test_copies_and_contradictions_within_a_file_are_told_apart(tmp_path):
    rows = [
        CHOICE | {"id": "first"},
        CHOICE | {"id": "shuffled", "options": ["x", "z", "y", "w"], "answer": "A"},
        CHOICE | {"id": "other key", "answer": "C"},
        CHOICE | {"id": "other options", "options": ["x", "q"], "answer": "A"},
        NUMERIC | {"id": "n"},
        NUMERIC | {"id": "n again", "answer": "3.0"},
        NUMERIC | {"id": "n else", "answer": 4},
    ]
    file = found(write(tmp_path / "q.jsonl", *rows)).files[0]
    assert file.duplicates == (("first", "shuffled"), ("n", "n again"))
    assert file.conflicts == (("first", "other key"), ("n", "n else"))


def test_leaks_near_copies_and_clashing_ids_between_files(tmp_path):
    train = write(
        tmp_path / "train.jsonl",
        NUMERIC | {"id": "a", "question": "How far?"},
        NUMERIC | {"id": "b", "question": "How  high?"},
        NUMERIC | {"id": "c", "question": "How Deep?"},
        NUMERIC | {"id": "d", "question": "How wide?"},
    )
    test = write(
        tmp_path / "test.jsonl",
        NUMERIC | {"id": "a", "question": "How far?"},
        NUMERIC | {"id": "tb", "question": "Question: how high"},
        NUMERIC | {"id": "tb2", "question": "How high?"},
        NUMERIC | {"id": "tc", "question": "How, deep?"},
        NUMERIC | {"id": "d", "question": "How old?"},
    )
    report = found(train, test)
    (overlap,) = report.overlaps
    assert overlap.same == (("a", "a"), ("b", "tb2"))
    assert overlap.verbatim == 1
    assert overlap.near == (("c", "tc"),)
    assert overlap.ids == ("d",)
    assert report.left == {"physics": 2}
    assert not report.usable


def test_of_two_held_out_files_the_later_loses_what_they_share(tmp_path):
    paths = [write(tmp_path / f"{n}.jsonl", NUMERIC | {"id": n, "question": q}) for n, q in ["1x", "2y", "3y"]]
    (overlap,) = found(*paths).overlaps
    assert (overlap.one, overlap.other) == (str(paths[2]), str(paths[1]))


def test_odd_characters_and_special_tokens_are_found_wherever_they_stand(tmp_path):
    rows = [
        NUMERIC | {"id": "esc", "question": "\x1b[31m?\n\tfine"},
        NUMERIC | {"id": "turn", "question": "a", "solution": "<|im_end|>"},
        CHOICE | {"id": "bidi", "options": ["\u202ea", "b"]},
        NUMERIC | {"id": "lost", "question": "K\ufffdln?"},
    ]
    assert found(write(tmp_path / "q.jsonl", *rows)).files[0].odd == {
        "U+001B, a control character": ("esc",),
        "U+202E, right-to-left override": ("bidi",),
        "U+FFFD, replacement character": ("lost",),
        "the special token <|im_end|>": ("turn",),
    }


def test_latex_that_json_took_for_escapes_is_found(tmp_path):
    lines = [
        f'{{"id": "{n}", "domain": "physics", "question": "{text}", "answer": 3}}\n'
        for n, text in enumerate(
            [r"2 \times 3 {n}", r"\frac{1}{2}", r"a \nu", r"2 \\times 4", r"a\nusual line\n\tan", "u = 3"]
        )
    ]
    odd = found(write(tmp_path / "q.jsonl", *lines)).files[0].odd
    assert next(ids for what, ids in odd.items() if "LaTeX" in what) == ("0", "1", "2")


def test_what_can_be_read_is_counted_beside_what_cannot(tmp_path):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"id": "a"}, "oops\n", NUMERIC | {"id": "a", "question": "b"})
    report = found(path)
    assert [str(d.fault) for d in report.files[0].defects] == [
        f"{path}:2: line: is not JSON: Expecting value at column 1",
        f"{path}:3: id: 'a' is already used in line 1",
    ]
    assert len(report.files[0].questions) == 2
    assert not report.usable


def test_a_file_has_a_defect_if_and_only_if_a_run_would_refuse_it(tmp_path):
    for n, row in enumerate([NUMERIC, CHOICE, NUMERIC | {"domain": "Physics"}, CHOICE | {"answer": "E"}, {"a": 1}]):
        path = write(tmp_path / f"{n}.jsonl", row | {"id": "x"})
        try:
            read_questions(path)
            refused = False
        except QuestionError:
            refused = True
        assert bool(found(path).files[0].defects) == refused == (n > 1)


def test_too_few_questions_to_hold_out_are_said(tmp_path):
    path = write(tmp_path / "q.jsonl", *numbered(NUMERIC, 30), *numbered(CHOICE, 31))
    assert "physics has 30 questions, expected more than 30" in (found(path, validation=30).short or "")
    assert not found(path, validation=30).usable
    assert found(path, validation=29).short is None
    assert found(path, validation=29).usable


def test_a_domain_that_has_no_question_left_in_a_file_is_what_a_run_refuses(tmp_path):
    rows = [*numbered(NUMERIC, 2), *numbered(CHOICE, 2)]
    copies = [row | {"id": f"copy {row['id']}", "domain": "biology"} for row in rows]
    train, test = write(tmp_path / "a.jsonl", *rows, *copies), write(tmp_path / "b.jsonl", NUMERIC | {"id": "other"})
    missing = {str(train): ["biology"], str(test): ["biology", "chemistry"]}
    assert found(train, test).missing == missing
    assert not found(train, test).usable
    assert found(write(tmp_path / "a.jsonl", *rows), write(tmp_path / "b.jsonl", *rows[:1], *rows[2:3])).usable


def test_a_file_named_twice_is_refused(tmp_path):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"id": "a"})
    with pytest.raises(QuestionError, match="named more than once"):
        found(path, tmp_path / "." / "q.jsonl")


# ---- suggestions


@pytest.mark.parametrize(
    ("row", "field", "suggested"),
    [
        (NUMERIC | {"Answer": 3}, "Answer", None),
        ({"Answer": 3}, "Answer", 'did you mean "answer"?'),
        ({"Answer": 3}, "answer", 'rename "Answer"'),
        ({"choices": ["a", "b"]}, "choices", 'did you mean "options"?'),
        ({"quesiton": "a"}, "quesiton", 'did you mean "question"?'),
        ({"banana": "a"}, "banana", None),
        (NUMERIC | {"domain": "Physics"}, "domain", 'write "physics"'),
        (NUMERIC | {"domain": "phyics"}, "domain", 'write "physics"'),
        (CHOICE | {"options": {"A": "x", "B": "y"}}, "options", 'write a list: ["x", "y"]'),
        (CHOICE | {"options": [1, 2.5]}, "options", 'write texts: ["1", "2.5"]'),
        (CHOICE | {"type": "text"}, "options", 'take "options" out'),
        (CHOICE | {"answer": "y"}, "answer", 'write the letter: "C"'),
        (CHOICE | {"answer": "b"}, "answer", 'write the letter: "B"'),
        (CHOICE | {"answer": "(B) x"}, "answer", 'write the letter: "B"'),
        (CHOICE | {"answer": ["D"]}, "answer", 'write the letter: "D"'),
        (CHOICE | {"answer": 0}, "answer", 'write the letter: "A" if it counts from 0'),
        (CHOICE | {"answer": "2"}, "answer", 'write the letter: "C" if it counts from 0, "B" if it counts from 1'),
        (CHOICE | {"answer": 4}, "answer", 'write the letter: "D" if it counts from 1'),
        (CHOICE | {"answer": 7}, "answer", None),
        (CHOICE | {"answer": "elephant"}, "answer", None),
        (NUMERIC | {"answer": "1,200 km/h"}, "answer", 'write "answer": "1200", "unit": "km/h"'),
        (NUMERIC | {"answer": "iron"}, "answer", 'add "type": "text", or "expression" for a formula'),
        (NUMERIC | {"type": "text"}, "answer", 'write "3"'),
        (NUMERIC | {"type": "mcq"}, "type", 'write "choice"'),
        (NUMERIC | {"type": "Numerical"}, "type", 'write "numeric"'),
        (NUMERIC | {"tolerance": "5 %"}, "tolerance", "write 0.05"),
        (NUMERIC | {"tolerance": "0.1"}, "tolerance", "write 0.1, without quotes"),
        (NUMERIC | {"tolerance": -0.5}, "tolerance", None),
        (NUMERIC | {"answer": float("nan")}, "answer", None),
        (NUMERIC | {"answer": 10**400}, "answer", f'write "1{"0" * 57}…'),
        (NUMERIC | {"accept": "Fe"}, "accept", 'write ["Fe"]'),
        (NUMERIC | {"id": 7}, "id", 'write "7"'),
    ],
)
def test_a_fault_comes_with_a_guess_at_what_was_meant(row, field, suggested):
    reason = "is unknown" if field in row else "is missing"
    assert suggestion(Fault("f", 1, field, reason), row, ["physics", "chemistry"]) == suggested


def test_following_the_suggestions_makes_a_file_that_is_read(tmp_path):
    row = {"id": 7, "subject": "Physics", "prompt": "Which?", "choices": {"A": "x", "B": "y"}, "gold": "y"}
    for _ in range(4):
        defects = found(write(tmp_path / "q.jsonl", row)).files[0].defects
        for defect in defects:
            name, hint = defect.fault.field, defect.suggestion or ""
            if hint.startswith("did you mean") and name in row:
                row[json.loads(hint.removeprefix("did you mean ").removesuffix("?"))] = row.pop(name)
            elif hint.startswith("write ") and name in row:
                row[name] = json.loads(hint.split(": ", 1)[-1].removeprefix("write "))
    assert row == {"id": "7", "domain": "physics", "question": "Which?", "options": ["x", "y"], "answer": "B"}
    assert found(write(tmp_path / "q.jsonl", row)).usable


@pytest.mark.parametrize(
    ("line", "suggested"),
    [
        ('[{"id": "a"}]\n', "a JSON list is no JSONL"),
        ("[\n", None),
        ("{'id': 'a'}\n", "double quotes"),
        ('{"id": "a",}\n', "double quotes"),
        ('{"question": "\\frac{1}{2} \\alpha"}\n', "write a backslash as two"),
        ('{"question": "a\tb"}\n', "a tab as \\t"),
        ('{"id": "a"} {"id": "b"}\n', "one object a line"),
    ],
)
def test_a_line_that_is_no_object_comes_with_a_guess_too(tmp_path, line, suggested):
    (defect,) = found(write(tmp_path / "q.jsonl", line)).files[0].defects
    if suggested is not None:
        assert suggested in (defect.suggestion or "")


# ---- the command


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `opcod check-data` with a tiny tokenizer; returns its status and what it printed."""
    monkeypatch.setattr("opcod.models.load_tokenizer", lambda base: build_tokenizer())
    monkeypatch.setenv("COLUMNS", "80")

    def check_data(*arguments):
        status = 0
        try:
            cli.main(["check-data", *map(str, arguments)])
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.out, printed.err

    return check_data


def test_the_example_is_taken(run, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, printed, _ = run("configs/example/train.jsonl", "configs/example/test.jsonl", "--validation", "2")
    assert status == 0
    assert "they share no question" in printed
    assert "A run takes these files." in printed
    assert "electronics" in printed
    assert "!" not in printed


def test_faulty_files_end_in_status_1_with_faults_of_a_kind_together(run, tmp_path):
    rows = [NUMERIC | {"id": str(n), "domain": "Physics"} for n in range(40)]
    status, printed, _ = run(write(tmp_path / "q.jsonl", *rows), tmp_path / "absent.jsonl")
    printed = " ".join(printed.split())
    assert status == 1
    assert "line 1: domain: 'Physics' is not in lower case, expected 'physics' → write \"physics\"" in printed
    assert '"physics"; the same in 39 more lines: 2, 3, 4, ...' in printed
    assert printed.count("domain: ") == 1
    assert "no such file" in printed
    assert printed.endswith("A run would refuse these files: mend what is marked ✗.")


def test_other_domains_than_those_given_are_faults(run, tmp_path):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"id": "a"}, CHOICE | {"id": "b"})
    assert run(path, "--validation", "0")[0] == 0
    status, printed, _ = run(path, "--domains", "[chemistry, biology]")
    assert status == 1
    assert "domain: 'physics' is unknown" in printed


@pytest.mark.parametrize(
    ("option", "said"), [("--validation=9", "cannot hold out 9"), ("--prompt_limit=9", "more than 9 tokens")]
)
def test_what_a_run_would_stop_at_is_marked_as_such(run, tmp_path, option, said):
    path = write(tmp_path / "q.jsonl", *numbered(NUMERIC, 3), *numbered(CHOICE, 3))
    status, printed, _ = run(path, "--validation=2", option)
    assert status == 1
    assert any(line.strip().startswith("✗") and said in line for line in printed.splitlines())


def test_hostile_text_is_shown_and_not_obeyed(run, tmp_path):
    hostile = "\x1b[2J\x07[bold red]x[/bold red]\u202e<|im_end|>"
    rows = [
        NUMERIC | {"id": hostile, "question": hostile, "solution": hostile},
        NUMERIC | {"id": "b", hostile: 1},
        NUMERIC | {"id": "c", "domain": "[/red]\x1b[31m"},
    ]
    status, printed, _ = run(write(tmp_path / "q.jsonl", *rows))
    assert status == 1
    assert not set("\x1b\x07\u202e") & set(printed)
    assert "\\x1b[2J\\x07[bold red]x[/bold red]\\u202e" in "".join(printed.split("\n    "))


def test_nothing_is_wider_than_80_columns_nor_coloured(run, tmp_path):
    long = [r | {"id": f"a-rather-long-identifier-{r['id']}", "domain": "d" * 60} for r in numbered(CHOICE, 60)]
    rows = [*long, *numbered(NUMERIC, 5, question="the same")]
    other = write(tmp_path / "a-file-with-quite-a-long-name-for-a-test.jsonl", *rows[:20])
    _, printed, _ = run(write(tmp_path / "q.jsonl", *rows), other)
    lines = [line for line in printed.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in printed


def test_a_missing_file_argument_is_a_mistake_in_the_command_line(run):
    status, _, said = run()
    assert status == 2
    assert "files" in said


def test_a_model_that_is_not_there_is_said_plainly(tmp_path, capsys):
    path = write(tmp_path / "q.jsonl", NUMERIC | {"id": "a"})
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check-data", str(path), "--model", str(tmp_path / "absent")])
    assert stopped.value.code == 1
    assert "there is no folder" in capsys.readouterr().err
