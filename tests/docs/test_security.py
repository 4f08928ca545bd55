"""What docs/security.md claims: every test that it names exists, and every claim names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
HEADS = ("| claim | test |", "| what | bound | test |", "| surface | option | test |")


def rows(head: str) -> list[str]:
    """Give the rows of every table with this head."""
    tables = PAGE.split(f"{head}\n")[1:]
    return [row for table in tables for row in table.partition("\n\n")[0].splitlines()[1:]]


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)), ids=lambda value: str(value).rpartition("/")[2])
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    """In the file that is said, at its top level, where pytest collects it."""
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("head", HEADS)
def test_every_claim_names_a_test(head: str) -> None:
    """In its last cell, and nothing else stands there."""
    assert len(rows(head)) > 3
    for row in rows(head):
        assert re.fullmatch(r"(`tests/[\w/]+\.py::test_\w+`(, )?)+", row.split("|")[-2].strip()), row


def test_the_links_of_the_policy_lead_somewhere() -> None:
    """SECURITY.md names files and a heading of the repository."""
    for target, heading in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", (ROOT / "SECURITY.md").read_text()):
        page = (ROOT / target).read_text()
        names = [line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")]
        assert not heading or heading in names
