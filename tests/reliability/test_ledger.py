"""The table of docs/reliability.md is what the tests measured."""

import re

import pytest
from ledger import read_ledger, record
from render_table import PAGE, rendered


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIABILITY_LEDGER", str(tmp_path / "ledger.csv"))
    record("kill, hard", injected=3, survived=3, bytes_lost=0)
    record("a flip", injected=1, survived=1, bytes_lost=0)
    record("kill, hard", injected=5, survived=4, bytes_lost=7)
    return tmp_path / "ledger.csv"


def test_the_last_measurement_counts(ledger):
    rows = read_ledger(ledger)
    assert list(rows) == ["a flip", "kill, hard"]
    assert rows["kill, hard"]["injected"] == "5" and rows["kill, hard"]["bytes_lost"] == "7"


def test_the_table_replaces_the_old_one(ledger):
    page = PAGE.read_text(encoding="utf-8")
    once = rendered(page, read_ledger(ledger))
    assert "| kill, hard | 5 | 4 | 7 |" in once and "| **all** | **6** | **5** | **7** |" in once
    assert rendered(once, read_ledger(ledger)) == once
    assert once.split("<!-- table: end -->")[1] == page.split("<!-- table: end -->")[1]


def test_the_committed_page_shows_faults_and_no_loss():
    rows = re.findall(r"^\| ([^*|]+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.M)
    assert len(rows) >= 15
    for fault, injected, survived, lost in rows:
        assert int(injected) > 0 and injected == survived and lost == "0", fault
