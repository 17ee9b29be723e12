"""A report of a run: what is read of its folder, whatever state that is in, and the page that tells it."""

import json
import re

import pytest

from opcod import cli
from opcod.callbacks.samples import NAME as SAMPLES
from opcod.metrics import DIFFICULTIES
from opcod.report.page import write_report
from opcod.report.runs import ReportError, read_run
from report_run import exchange, write_run


def page_of(*folders):
    return write_report(folders).read_text(encoding="utf-8")


def rows_in(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])[
        "rows"
    ]


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = read_run(write_run(tmp_path / "version_0", [exchange(i) for i in range(10)]))
    assert run.outcome is not None
    assert run.outcome.mutual is True
    assert run.outcome.difference("chemist", "physics")[0] == pytest.approx(0.125)
    assert (len(run.validations), len(run.steps), len(run.exchanges), run.tau) == (3, 16, 10, 0.2)
    assert run.warnings == [
        f"round {r}, phase 1, step 3: no right response to any question; take easier questions or more samples"
        for r in (1, 2)
    ]
    assert run.notes == []


def test_the_page_tells_verdict_charts_and_exchanges(tmp_path):
    page = page_of(write_run(tmp_path / "version_0", [exchange(i) for i in range(10)]))
    assert "A mutual Pareto improvement" in page
    assert re.search(r'62\.5 ± 5\.0</td>\s*<td class="number up">\+12\.5 \(\+12\.5 to \+12\.5\)', page)
    assert page.count("data:image/svg+xml;base64") == 2 * 5, "five charts, in light and in dark"
    assert "2 steps: no right response to any question" in page
    assert len(rows_in(page)) == 10
    assert not re.search(r'(src|href)="(?!data:|#)', page), "it needs no other file"


def test_runs_beside_each_other_are_told_apart_by_what_differs(tmp_path):
    folders = [write_run(tmp_path / method / "seed-0", [exchange(1)]) for method in ("opcod", "sdpo")]
    page = page_of(*folders)
    assert "Runs beside each other" in page
    assert "<h3>opcod/seed-0</h3>" in page
    assert "<h3>sdpo/seed-0</h3>" in page
    assert [row["run"] for row in rows_in(page)] == [0, 1]
    assert "What opcod/seed-0 is ahead by at the end" in page
    assert page.count("+0.0 (+0.0 to +0.0)") == 4, "by nothing: they are the same"


def test_what_a_run_is_ahead_by_is_its_own_end_less_the_others(tmp_path):
    one, other = (write_run(tmp_path / name) for name in ("one", "other"))
    (other / "answers.csv").write_text((other / "answers.csv").read_text().replace("0.625", "0.25"))
    runs = read_run(one), read_run(other)
    place = ("chemist", "physics")
    assert [run.gain(place).mean for run in runs] == pytest.approx([0.125, -0.25])
    assert runs[0].ahead(runs[1], place).mean == pytest.approx(0.375)
    assert runs[1].ahead(runs[0], place).mean == pytest.approx(-0.375)
    assert runs[0].ahead(runs[1], ("chemist", "alchemy")) is None


def test_the_page_tells_the_time_and_tokens_of_each_part_of_a_step(tmp_path):
    page = page_of(write_run(tmp_path / "version_0"))
    table = page.partition("Time and tokens of a step")[2].partition("</table>")[0]
    parts = re.findall(r'row">(\w+)</th><td class="number">([\d.]+)</td><td class="number">(\d*)<', table)
    assert parts == [("rollout", "2.00", "100"), ("match", "4.00", "")]


def test_nothing_that_was_written_in_a_run_becomes_html(tmp_path):
    hostile = '</script><img src=x onerror="alert(1)"><!-- \u2028 \x00 <|im_start|>'
    rows = [exchange(0, text=hostile, response=hostile, feedback_raw=hostile, pieces=[hostile], divergence=[1.0])]
    folder = write_run(tmp_path / "<b>run", rows)
    page = page_of(folder)
    assert "<img src=x" not in page
    assert "<b>run" not in page
    [row] = rows_in(page)
    assert row["response"] == hostile


# ---- folders in any state


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_what_holds_no_run_is_refused(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(ReportError, match="run"):
        read_run(tmp_path / "run")


def test_a_folder_above_says_where_the_runs_are(tmp_path):
    write_run(tmp_path / "runs" / "version_3")
    with pytest.raises(ReportError, match=r"there are runs in .*version_3"):
        read_run(tmp_path / "runs")


def test_a_run_that_was_killed_is_shown_as_far_as_it_came(tmp_path):
    folder = write_run(tmp_path / "version_0", [exchange(i) for i in range(3)], ended=False)
    with (folder / SAMPLES).open("a") as file:
        file.write('{"round": 0, "text": "What')
    metrics = (folder / "metrics.csv").read_text().splitlines()
    (folder / "metrics.csv").write_text("\n".join([*metrics[:5], metrics[5] + ",1,2,3", metrics[6][:9]]))
    run = read_run(folder)
    assert run.notes == [
        "2 lines of metrics.csv are cut off or of another version, and are left out.",
        "There is no outcome.json: the run has not ended, or it was stopped.",
        "1 lines of samples.jsonl are cut off or of another version, and are left out.",
    ]
    assert (len(run.exchanges), len(run.steps)) == (3, 3)
    assert "No verdict yet" in page_of(folder)


def test_a_diagnosis_is_not_taken_for_a_run_that_was_stopped(tmp_path):
    write_run(tmp_path / "run", ended=False)
    for name in ("metrics.csv", "samples.jsonl"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    shares = [f"{rate}/{bin}" for rate in ("break", "rescue") for bin in DIFFICULTIES]
    rates = {f"{share}{end}": 0.5 for share in shares for end in ("", "/low", "/high")}
    rates |= {f"{side}/{bin}": 4.0 for side in ("right", "wrong") for bin in DIFFICULTIES}
    made = {"tutee": "a", "tutor": "b", "gap": 0.1, "cognizant": True, "rates": {"all": rates}, "outcomes": {}}
    (tmp_path / "run" / "diagnosis.json").write_text(json.dumps([made]))
    run = read_run(tmp_path / "run")
    assert run.only_diagnosed
    assert not any("stopped" in note for note in run.notes)
    page = page_of(tmp_path / "run")
    assert "A diagnosis: nobody was trained" in page
    assert "No verdict yet" not in page


def test_a_run_without_samples_or_settings(tmp_path):
    folder = write_run(tmp_path / "version_0")
    (folder / "config.yaml").write_text("{ not yaml")
    (folder / "answers.csv").unlink()
    page = page_of(folder)
    assert "There is no samples.jsonl" in page
    assert "config.yaml is missing or cannot be read" in page
    assert rows_in(page) == []
    assert "+12.5 ± 7.1" in page, "standard errors, where there is nothing to pair"


@pytest.mark.parametrize("name", ["outcome.json", "answers.csv", "samples.jsonl", "metrics.csv", "diagnosis.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe\x00", b'{"questions": "test", "initial": 3}'])
def test_files_of_another_version_are_left_out(tmp_path, name, content):
    folder = write_run(tmp_path / "version_0", [exchange(1)])
    (folder / name).write_bytes(content)
    assert "</html>" in page_of(folder)


# ---- the command


def test_the_command_says_where_the_page_is(tmp_path, capsys):
    folder = write_run(tmp_path / "version_0", [exchange(1)])
    cli.main(["report", str(folder)])
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    cli.main(["report", str(folder), "--output", str(tmp_path / "deep" / "page.html")])
    assert (tmp_path / "deep" / "page.html").is_file()


def test_a_wrong_folder_is_a_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", str(tmp_path / "nowhere")])
    assert stopped.value.code == 1
    assert "there is no folder" in capsys.readouterr().err
