"""The table of docs/reliability.md holds the measurements of the tests."""

import ast
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import render_table
from ledger import FAULTS, KILLS, injecting, missing, read_ledger, record
from render_table import PAGE, rendered


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIABILITY_LEDGER", str(tmp_path / "ledger.csv"))
    record("full disk", injected=3, survived=3, bytes_lost=0)
    record("a file is truncated", injected=1, survived=1, bytes_lost=0)
    record("full disk", injected=5, survived=4, bytes_lost=7)
    return tmp_path / "ledger.csv"


def test_the_last_measurement_counts(ledger):
    rows = read_ledger(ledger)
    assert list(rows) == ["a file is truncated", "full disk"]
    assert rows["full disk"]["injected"] == "5" and rows["full disk"]["bytes_lost"] == "7"


def test_the_table_replaces_the_old_one(ledger):
    page = PAGE.read_text(encoding="utf-8")
    once = rendered(page, read_ledger(ledger))
    assert "| full disk | workflow | 5 | 4 | 7 |" in once
    assert re.search(r"\nMeasured on \d+ [A-Z][a-z]+ 20\d\d(, commit [0-9a-f]+)?\.\n", once)
    assert "| **all** | | **6** | **5** | **7** |" in once
    assert rendered(once, read_ledger(ledger)) == once
    assert once.split("<!-- table: end -->")[1] == page.split("<!-- table: end -->")[1]


def test_cases_are_added_up_and_each_is_replaced(ledger):
    for case, survived in (("a", 1), ("b", 2), ("a", 3)):
        record("full disk", case, injected=3, survived=survived, bytes_lost=1)
    row = read_ledger(ledger)["full disk"]
    assert [row[key] for key in ("injected", "survived", "bytes_lost")] == ["11", "9", "9"]


def test_a_loss_is_seen(ledger, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("kept", "changed", "gone"):
        (folder / name).write_text(name)
    with pytest.raises(AssertionError, match="11 bytes"), injecting("full disk", kept=folder):
        (folder / "changed").write_text("other")
        (folder / "gone").unlink()
        (folder / "new").write_text("is no loss")
    row = read_ledger(ledger)["full disk"]
    assert [row[key] for key in ("injected", "survived", "bytes_lost")] == ["1", "0", "11"]
    with injecting("full disk", kept=folder):
        (folder / "kept").write_text("for a while")
        (folder / "kept").write_text("kept")
    assert read_ledger(ledger)["full disk"]["survived"] == "1"
    with pytest.raises(ZeroDivisionError), injecting("full disk", kept=folder):
        assert read_ledger(ledger)["full disk"]["survived"] == "0"  # written before
        _ = 1 / 0
    row = read_ledger(ledger)["full disk"]
    assert [row[key] for key in ("injected", "survived", "bytes_lost")] == ["1", "0", "0"]


def test_many_at_once_are_all_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIABILITY_LEDGER", str(tmp_path / "ledger.csv"))
    with ThreadPoolExecutor(8) as pool:
        for fault in FAULTS:
            pool.submit(record, fault, injected=1, survived=1, bytes_lost=0)
    assert set(read_ledger(tmp_path / "ledger.csv")) == set(FAULTS)


def test_a_fault_of_an_old_name_is_left_out(ledger):
    with ledger.open("a") as file:
        file.write("a fault of old,,workflow,1,1,0\n")
    assert "a fault of old" not in read_ledger(ledger)
    ledger.write_text("fault,injected,survived,bytes_lost\nfull disk,1,1,0\n")  # of old columns
    assert read_ledger(ledger) == {}
    with pytest.raises(KeyError):
        record("a fault of no name", injected=1, survived=1, bytes_lost=0)


def injected() -> list[str]:
    """Patterns of the faults that the code of the tests records."""
    tests = Path(__file__).resolve().parents[1]
    files = {*tests.glob("reliability/*.py"), *tests.glob("cluster/*.py")} - {Path(__file__)}
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.args]
    found = []
    for call in calls:
        if getattr(call.func, "id", "") in ("injecting", "record"):
            parts = getattr(call.args[0], "values", [call.args[0]])  # of an f-string
            texts = [getattr(part, "value", "") for part in parts]
            found.append("".join(re.escape(t) if isinstance(t, str) else ".+" for t in texts))
    return [pattern for pattern in found if pattern]


def test_a_whole_run_records_every_fault_and_no_part_of_a_run_is_shown(tmp_path, monkeypatch):
    patterns = injected()
    assert [f for f in FAULTS if not any(re.fullmatch(p, f) for p in patterns)] == []
    assert missing(FAULTS) == missing(FAULTS.keys() - set(KILLS[1:])) == []
    assert missing(FAULTS.keys() - {"full disk", *KILLS}) == ["SIGKILL", "full disk"]
    monkeypatch.setenv("RELIABILITY_LEDGER", str(tmp_path / "ledger.csv"))
    record("full disk", injected=1, survived=1, bytes_lost=0)
    before = PAGE.read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match="SLURM: scancel of a running job"):
        render_table.main()
    assert PAGE.read_text(encoding="utf-8") == before


def test_the_committed_page_shows_all_faults_and_no_loss():
    rows = re.findall(
        r"^\| ([^*|]+) \| ([a-z ]+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE.read_text(), re.M
    )
    found = {fault: through for fault, through, *_ in rows}
    assert missing(found) == [] and found.items() <= FAULTS.items()
    for fault, _, injected, survived, lost in rows:
        assert int(injected) > 0 and injected == survived and lost == "0", fault
