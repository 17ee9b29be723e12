"""Each figure from the CSV files of the runs that are published with the code."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from commands_shown import ROOT
from opcod import cli
from opcod.report.figures import (
    COLOURS,
    FIGURES,
    broken,
    draw,
    gains,
    gap_and_gain,
    outcomes,
    seconds,
    trajectories,
)

STORED = ROOT / "docs" / "results" / "reproduce-tiny"
METHODS = ("opcod", "sdpo", "grpo")
SHOWN = {
    "gains": METHODS,
    "trajectories": METHODS,
    "outcomes": ("opcod", "one-way"),  # nobody is tutored by the other methods
    "seconds": METHODS,
    "break-rates": ("cognizant tutor", "incognizant tutor", "published"),
    "gaps-and-gains": ("physicist on physics", "materials_scientist on physics"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return folder, draw(STORED, folder)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_renders_with_all_methods(name, drawn):
    folder, written = drawn
    svg, png = (folder / f"materials-physics-{name}.{kind}" for kind in ("svg", "png"))
    assert {svg, png} <= set(written)
    text = svg.read_text(encoding="utf-8")
    assert all(word in text for word in SHOWN[name])
    with Image.open(png) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert sum(tuple(bytes.fromhex(c[1:])) in colours for c in COLOURS) >= 2


def test_the_only_round_of_a_run_is_shown_once():
    rows = [("opcod", 0, f"feedback/ann/count/{outcome}", n) for outcome, n in (("match", 3.0), ("no_match", 1.0))]
    figure = outcomes(pd.DataFrame(rows, columns=["method", "round", "name", "value"]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["opcod, only round"]


def frame(columns, *rows):
    return pd.DataFrame(rows, columns=columns.split())


def test_gains_go_from_the_mean_before_to_the_mean_after():
    scores = frame(
        "method seed student domain end avg",
        ("opcod", 0, "ann", "x", "initial", 0.2),
        ("opcod", 1, "ann", "x", "initial", 0.4),
        ("opcod", 0, "ann", "x", "final", 0.5),
        ("opcod", 1, "ann", "x", "final", 0.9),
    )
    way, before, after, seeds = gains(scores).axes[0].lines
    assert list(way.get_xdata()) == pytest.approx([30, 70])
    assert (list(before.get_xdata()), list(after.get_xdata())) == ([pytest.approx(30)], [pytest.approx(70)])
    assert (before.get_markerfacecolor(), after.get_markerfacecolor()) == ("white", COLOURS[0])
    assert list(seeds.get_xdata()) == pytest.approx([50, 90])


def test_break_and_rescue_rates_are_of_all_responses_together():
    rates = frame(
        "domain difficulty cognizant right break wrong rescue",
        ("all", "all", True, 10, 0.1, 4, 0.25),
        ("all", "all", True, 30, 0.5, 0, None),
        ("all", "all", False, 20, 0.2, 2, 1.0),
        ("x", "all", True, 99, 1.0, 99, 1.0),  # is in `all` already
    )
    breaks, rescues = broken(rates).axes
    assert [bar.get_height() for bar in breaks.patches] == pytest.approx([100 * 16 / 40, 20])
    assert [bar.get_height() for bar in rescues.patches] == pytest.approx([25, 100])
    assert [text.get_text() for text in breaks.texts] == ["of 40", "of 20"]
    published = [y for line in breaks.lines for y in line.get_ydata()]
    assert published == [2.77, 6.53]


def test_seconds_are_told_apart_by_whether_the_tutor_spoke():
    steps = frame(
        "method seed step name value",
        *(("opcod", 0, step, f"seconds/{part}", value) for step, part, value in ((0, "rollout", 2), (0, "match", 6))),
        *(("opcod", 0, step, "seconds/rollout", value) for step, value in ((1, 3), (2, 5))),
        ("opcod", 0, 0, "train/ann/feedback_kept", 0.0),
        ("opcod", 1, 1, "train/ann/feedback_kept", 1.0),  # of another seed
    )
    (axis,) = seconds(steps).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["opcod, with feedback", "opcod, without feedback"]
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axis.containers}
    assert widths == {"rollout": [2, 4], "match": [6, 0]}


def test_a_gain_is_drawn_over_the_gap_before_training():
    key = "method seed student domain"
    gaps = frame(
        f"{key} end shown alone as_teacher",
        ("opcod", 0, "ann", "x", "initial", "s and f", 0.25, 0.75),
        ("opcod", 0, "ann", "x", "initial", "s", 0.25, 0.3),
        ("opcod", 0, "ann", "x", "final", "s and f", 0.5, 0.4),
        ("opcod", 1, "ann", "x", "initial", "s and f", 0.1, 0.1),  # which has no scores
    )
    scores = frame(f"{key} end avg", ("opcod", 0, "ann", "x", "initial", 0.3), ("opcod", 0, "ann", "x", "final", 0.4))
    dots, *_ = gap_and_gain(gaps, scores).axes[0].lines
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([pytest.approx(50)], [pytest.approx(10)])


def test_runs_of_different_students_and_domains_are_drawn_beside_each_other():
    runs = {"alone": {"ann": "xy"}, "pair": {"ann": "xy", "ben": "xy"}, "other": {"cal": "xz"}}
    rows = [
        (run, 0, f"validation/{student}/{domain}/avg", 0.5)
        for run, students in runs.items()
        for student, domains in students.items()
        for domain in domains
    ]
    figure = trajectories(pd.DataFrame(rows, columns=["method", "round", "name", "value"]))
    drawn = {
        (axis.get_title(), axis.get_xlabel()[0], line.get_label())
        for axis in figure.axes
        for line in axis.lines
        if line.get_label() in runs and len(line.get_xydata()) and np.isfinite(line.get_xydata()).all()
    }
    assert drawn == {("ann", "x", "alone"), ("ann", "x", "pair"), ("ben", "x", "pair"), ("cal", "x", "other")}
    assert [text.get_text() for text in figure.axes[2].get_legend().get_texts()] == list(runs)


def test_where_nobody_was_right_no_gap_is_drawn():
    who = {"method": "opcod", "seed": 0, "student": "ann", "domain": "x"}
    gaps = pd.DataFrame([who | {"end": "initial", "shown": "s and f", "alone": None, "as_teacher": None}], dtype=object)
    scores = pd.DataFrame([who | {"end": end, "avg": 0.0} for end in ("initial", "final")])
    assert gap_and_gain(gaps.astype({"alone": float, "as_teacher": float}), scores) is None


def test_the_same_runs_give_the_same_picture(drawn, tmp_path):
    folder, _ = drawn
    draw(STORED, tmp_path)
    for path in tmp_path.glob("*.svg"):
        assert path.read_bytes() == (folder / path.name).read_bytes()
    assert not plt.get_fignums(), "a figure was left open"


def test_drawing_leaves_a_notebooks_backend_alone():
    code = (
        "import matplotlib; matplotlib.use('svg'); import opcod.report.figures; "
        "print(matplotlib.get_backend(auto_select=False))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["svg"]


def test_one_command_makes_figures_and_tables(tmp_path, capsys):
    cli.main(["figures", f"--runs={STORED}", f"--output={tmp_path}"])
    printed = capsys.readouterr().out.splitlines()
    assert set(printed) == {str(path) for path in tmp_path.iterdir()}
    assert (tmp_path / "tables.md").read_text(encoding="utf-8") == (STORED / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("others", [None, "", "name,points\nann,3\n"])
def test_a_folder_without_runs_is_refused(others, tmp_path, capsys):
    if others is not None:
        (tmp_path / "scores.csv").write_text(others)
    with pytest.raises(SystemExit) as ended:
        cli.main(["figures", f"--runs={tmp_path}"])
    assert ended.value.code == 1
    assert "give the folder that `opcod reproduce` wrote" in capsys.readouterr().err
