"""The report of the benchmarks: what a tiny run finds stands in the page, and nothing of the machine's owner."""

from __future__ import annotations

import platform
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.report.chart import Bar, bars
from benchmarks.report.machine import conditions
from benchmarks.report.page import added, write
from benchmarks.report.plan import TINY, in_process
from benchmarks.report.results import Results, summary
from benchmarks.report.subjects import BARE, GUARD, PASSED, SUBJECTS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_a_tiny_run_fills_the_page(tmp_path: Path) -> None:
    """A worker in a process of its own measures; what it finds is saved, and the page is written from that alone."""
    measured = Results(conditions())
    said: list[str] = []
    in_process(measured, TINY, said.append, [GUARD])
    measured.save(tmp_path / "raw" / "results.json")
    results = Results.load(tmp_path / "raw" / "results.json")
    page, *pictures = write(results, tmp_path)
    text = page.read_text("utf-8")
    assert results.tables == measured.tables
    assert set(results.tables[f"message/{GUARD}"]) == {BARE, PASSED, GUARD}
    assert len(results.tables[f"message/{GUARD}"][GUARD]) == TINY.rounds
    assert f"| {GUARD} |" in text
    assert {picture.name for picture in pictures} == {
        "per-message.svg",
        "per-connection.svg",
        "memory-of-an-idle-connection.svg",
    }
    assert all(f"(benchmarks/{picture.name})" in text for picture in pictures)
    assert len(said) == TINY.rounds + 1


def test_added_is_in_units_of_the_pass_through() -> None:
    """What a subject adds to the bare application is divided by what the pass-through adds, round by round."""
    series = {BARE: [100.0, 200.0, 100.0], PASSED: [200.0, 400.0, 150.0], GUARD: [300.0, 500.0, 250.0]}
    assert added(Results({}, {f"message/{GUARD}": series}), GUARD) == (2.0, 1.5, 3.0)


def test_a_summary_is_the_median_with_its_quartiles() -> None:
    """Outliers do not move it."""
    assert summary([9.0, 1.0, 2.0, 3.0, 1000.0]) == (3.0, 2.0, 9.0)


def test_the_same_results_give_the_same_bytes() -> None:
    """A picture is well-formed, holds every label and value, and has colours for a dark page."""
    found = [Bar("a <b>", 1.5, 1.25, 1.75, "ours"), Bar("theirs", 400.0, 380.0, 410.0, "theirs")]
    picture = bars("Title", "note", found, log=True, budget=1.5)
    assert picture == bars("Title", "note", found, log=True, budget=1.5)
    words = {element.text for element in ET.fromstring(picture).iter() if element.tag.endswith("text")}
    assert {"Title", "note", "a <b>", "1.5", "theirs", "400"} <= words
    assert "prefers-color-scheme: dark" in picture


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("budget", [None, 1.5])
@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_picture_of_nothing_above_0_has_no_bar(value: float, budget: float | None, log: bool) -> None:
    """Noise may hide what a short run measures."""
    picture = ET.fromstring(bars("Title", "note", [Bar("a", value, value - 1, value, "ours")], log=log, budget=budget))
    (bar,) = (element for element in picture.iter() if element.get("class") == "ours")
    assert bar.get("width") == "1.0"


def test_a_round_in_which_the_pass_through_added_nothing_does_not_count() -> None:
    """Nothing is divided by it."""
    series = {BARE: [100.0, 100.0], PASSED: [100.0, 200.0], GUARD: [150.0, 300.0]}
    assert added(Results({}, {f"message/{GUARD}": series}), GUARD) == (2.0, 2.0, 2.0)
    assert added(Results({}, {f"message/{GUARD}": {name: one[:1] for name, one in series.items()}}), GUARD) is None


def test_conditions_name_no_host() -> None:
    """Neither the name of the machine nor a folder of its user is told."""
    told = str(conditions())
    assert platform.node() not in told
    assert str(Path.home()) not in told


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_committed_page_has_every_subject(name: str) -> None:
    """The page in the repository is that of a full run."""
    rows = re.findall(r"^\| (.+?) \|", (DOCS / "benchmarks.md").read_text("utf-8"), re.MULTILINE)
    assert name in rows or name in (BARE, PASSED)


def test_the_committed_page_shows_pictures_that_are_there() -> None:
    """Every picture that the page shows is committed, and no other."""
    shown = re.findall(r"\(benchmarks/([^)]+)\)", (DOCS / "benchmarks.md").read_text("utf-8"))
    assert sorted(shown) == sorted(path.name for path in (DOCS / "benchmarks").iterdir())
