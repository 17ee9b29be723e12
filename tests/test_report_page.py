"""The report's page in a real browser: filters, keys, a narrow screen, hostile text, thousands of exchanges."""

import json
import os
import re
import shutil

import pytest

from opcod.report.page import write_report
from report_run import exchange, write_run

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [  # nothing is fetched, and a container has no sandbox
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = '</script><img src=x onerror="window.broken = 1"><script>window.broken = 1</script>'


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: install Debian's `chromium`, or name one in CHROMIUM")
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page about 24 exchanges, two of which would take the page over."""
    rows = [exchange(i) for i in range(24)]
    rows[1] |= {"text": HOSTILE, "response": HOSTILE, "feedback_raw": HOSTILE, "pieces": [HOSTILE], "divergence": [1.0]}
    rows[2] |= {"response": HOSTILE, "options": [HOSTILE, "that"], "solution_shown": HOSTILE}
    del rows[2]["pieces"], rows[2]["divergence"]
    return write_report([write_run(tmp_path_factory.mktemp("runs") / "version_0", rows)])


@pytest.fixture
def open_page(browser):
    """Opens a page; what went wrong in it fails the test."""
    contexts, faults = [], []

    def opened(path, **settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else faults.append(request.url),
        )
        page.goto(path.resolve().as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def count(page):
    return page.locator("#count").inner_text()


def test_filters_narrow_the_exchanges_down_and_back(open_page, report):
    page = open_page(report)
    assert count(page) == "24 of 24 exchanges"
    page.get_by_label("tutee").select_option("chemist")
    assert count(page) == "12 of 24 exchanges"
    page.get_by_label("response", exact=True).select_option("wrong")
    assert count(page) == "4 of 24 exchanges"
    assert page.locator("#detail h4", has_text="Response of chemist: wrong").count() == 1
    page.get_by_label("text").fill("THING 15")
    assert count(page) == "1 of 24 exchanges"
    page.get_by_label("text").fill("no such thing")
    assert count(page) == "0 of 24 exchanges"
    assert page.locator("#detail").inner_text() == ""
    page.get_by_label("text").fill("")
    page.get_by_label("tutee").select_option("all")
    page.get_by_label("response", exact=True).select_option("all")
    assert count(page) == "24 of 24 exchanges"


def test_what_feedback_broke_or_rescued_can_be_picked_out(open_page, tmp_path):
    training = [exchange(place) for place in range(3)]
    turned = [
        {
            k: v
            for k, v in exchange(n).items()
            if k not in ("round", "phase", "step", "distilled", "pieces", "divergence")
        }
        | {"flip": flip, "again": f"Now it is that, {flip}."}
        for n, flip in enumerate(("broken", "rescued", "neither", "rescued"))
    ]
    write_run(tmp_path / "run", training)
    (tmp_path / "run" / "diagnosis.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned))
    page = open_page(write_report([tmp_path / "run"]))
    assert count(page) == "7 of 7 exchanges"
    page.get_by_label("flipped").select_option("rescued")
    assert count(page) == "2 of 7 exchanges"
    detail = page.locator("#detail").inner_text()
    assert "answers again: rescued by feedback" in detail
    assert "Now it is that, rescued." in detail
    assert page.locator("#list li", has_text="diagnosis, rescued by feedback").count() == 2
    page.get_by_label("flipped").select_option("all")
    page.get_by_label("round").select_option("diagnosis")
    assert count(page) == "4 of 7 exchanges"


def test_the_keys_move_through_the_list(open_page, report):
    page = open_page(report)
    chosen = page.locator('#list [aria-selected="true"]')
    page.locator("#list").focus()
    for key, index in (
        ("ArrowDown", 1),
        ("j", 2),
        ("k", 1),
        ("End", 23),
        ("ArrowDown", 23),
        ("PageUp", 15),
        ("Home", 0),
    ):
        page.keyboard.press(key)
        assert chosen.get_attribute("id") == f"exchange-{index}"
        assert page.locator("#list").get_attribute("aria-activedescendant") == f"exchange-{index}"
        assert chosen.is_visible()
    page.locator("#list li", has_text="What is thing 3?").click()
    assert "What is thing 3?" in page.locator("#detail").inner_text()


def test_tokens_are_shaded_by_their_divergence(open_page, report):
    page = open_page(report)
    tokens = page.locator("#detail .tokens span")
    assert tokens.all_inner_texts() == ["It", " is", " this", "."]
    assert [token.get_attribute("title") for token in tokens.all()] == ["0 nats", "0.5 nats", "2 nats", "0.1 nats"]
    shades = tokens.evaluate_all("spans => spans.map(span => getComputedStyle(span).backgroundColor)")
    opacity = [float(shade.rpartition(",")[2].rstrip(")")) for shade in shades]
    assert opacity == [
        0.0,
        pytest.approx(0.375, abs=0.01),
        pytest.approx(0.75, abs=0.01),
        pytest.approx(0.17, abs=0.01),
    ]


def test_hostile_text_stays_text(open_page, report):
    page = open_page(report)
    page.locator("#list").focus()
    for _ in range(2):
        page.keyboard.press("ArrowDown")
        assert HOSTILE in page.locator("#detail").inner_text()
    assert page.evaluate("window.broken") is None
    assert page.locator("#detail img, #list img").count() == 0


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_side_of_the_screen(open_page, report, width, scheme):
    page = open_page(report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    style = page.evaluate("() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }")
    ground, ink = (sum(map(int, re.findall(r"\d+", colour))) for colour in style)
    assert (ground > ink) == (scheme == "light")


def test_thousands_of_exchanges_stay_smooth(open_page, tmp_path):
    rows = [exchange(i, response="It is this, I think. " * 40) for i in range(5000)]
    page = open_page(write_report([write_run(tmp_path / "version_0", rows)]))
    assert count(page) == "5000 of 5000 exchanges"
    slowest = page.evaluate(
        """() => {
            const list = document.getElementById("list"), took = [];
            const timed = (act) => { const start = performance.now(); act(); took.push(performance.now() - start); };
            for (let i = 1; i <= 50; i++)
                timed(() => { list.scrollTop = i * 5000; list.dispatchEvent(new Event("scroll")); list.offsetHeight; });
            const text = document.querySelector("input[name=text]"), typing = new Event("input", { bubbles: true });
            for (const typed of ["t", "th", "thing 4", "thing 49"])
                timed(() => { text.value = typed; text.dispatchEvent(typing); list.offsetHeight; });
            return Math.max(...took);
        }"""
    )
    assert slowest < 500, "milliseconds of one scroll or key on a slow machine"
    assert page.locator("#list li").count() < 100, "only what is in view is in the page"
    assert count(page) == "111 of 5000 exchanges"
