"""The files that benchmarks write, and the lines that pages show. Nothing is timed here."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import render, table
from benchmarks.table import Line, Times, at_least, at_most, report


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    """Return a function that reports lines and gives (status, table, standard error)."""
    monkeypatch.setattr(table, "FOLDER", tmp_path)

    def write(*lines):
        status = report(lines, "some", "tiny model")
        return status, pd.read_csv(tmp_path / "some.csv"), capsys.readouterr().err

    return write


def test_ratios_are_speeds_or_costs():
    assert at_least("a", ours=2.0, reference=3.0, least=1.5) == Line(
        "a", 2.0, 3.0, 1.5, ">= 1.5", True
    )
    assert not at_least("a", 2.0, 2.9, 1.5).met
    assert at_most("a", ours=3.0, reference=2.0, most=1.5).met
    assert not at_most("a", 3.1, 2.0, 1.5).met


def test_the_spread_is_that_of_the_ratio_within_a_round(written):
    ours, reference = Times(1.0, [1.0, 2.0]), Times(0.9, [1.1, 0.9])
    fast, dear = at_least("a", ours, reference, 0.5), at_most("b", ours, reference, 5)
    assert (fast.ratio, fast.lowest, fast.highest) == (0.9, 0.45, 1.1)
    assert (dear.lowest, dear.highest) == (1.0 / 1.1, 2.0 / 0.9)
    assert at_least("c", Times(1.0, [1.0]), reference, 0.5).lowest is None  # not of one run
    _, rows, _ = written(fast, at_least("d", 1.0, 2.0, 1.5))
    assert rows["lowest"].isna().tolist() == [False, True]
    assert "| a | 0.9 (0.45 to 1.1) | ≥ 0.5 | yes |" in render.rendered_rows(rows)


def test_every_row_says_machine_versions_and_run(written):
    status, rows, error = written(at_least("a", 1.0, 2.0, 1.5), Line("b", 1.0, 2.0, 2.0))
    assert status == 0 and error == ""
    assert rows[["machine", "versions", "date", "run"]].notna().all(axis=None)
    assert "cores" in rows["machine"][0] and "torch" in rows["versions"][0]
    assert rows["met"].isna().tolist() == [False, True]


def test_the_pages_show_every_benchmark():
    files = (render.ROOT / "benchmarks").glob("bench_*.py")
    assert {*render.ORDER} == {file.stem.removeprefix("bench_") for file in files}


def test_a_missed_line_fails_and_is_named(written):
    status, _, error = written(at_least("slow one", 2.0, 2.0, 1.5))
    assert status == 1 and "FAILED slow one: 1, not >= 1.5" in error


@pytest.mark.parametrize("number", [float, np.float64])
def test_a_missed_ratio_of_any_float_fails(written, number):
    """Means are numpy's floats, and so were verdicts: none of them *is* False."""
    assert report([at_least("slow", number(2.0), number(1.0), 0.9)], "bench", "run") == 1
    assert report([at_most("dear", number(2.0), number(1.0), 1.1)], "bench", "run") == 1


def test_the_required_table_shows_only_lines_with_a_requirement(written):
    _, rows, _ = written(
        at_least("fast", 1.0, 2000.4, 1000),
        at_most("large", 3.0, 2.0, 1.3),
        Line("memory", 1.5, None, None, "< 2", True, unit="GB"),
        Line("small", 1.5, None, None, "< 2", None, unit="GB"),
        Line("by the way", 1.0, 2.0, 2.0),
    )
    page = f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n"
    new = render.rendered(page, render.rendered_table({"some": rows}))
    lines = new.splitlines()
    assert "| fast | 2 000 | ≥ 1000 | yes |" in lines
    assert "| large | 1.5 | ≤ 1.3 | **no** |" in lines
    assert "| memory | 1.5 GB | < 2 | yes |" in lines
    assert "| small | 1.5 GB | < 2 | not judged |" in lines
    assert "by the way" not in new and "old" not in new
    assert lines[0] == "before" and lines[-1] == "after"
    assert render.rendered(new, render.rendered_table({"some": rows})) == new


def test_the_readme_shows_the_headlines_with_their_machine(written):
    _, rows, _ = written(
        at_least(render.HEADLINES[1], 1.0, 2.0, 1.5), at_least("another", 1.0, 2.0, 1.5)
    )
    lines = render.rendered_headlines({"some": rows, "none of them": rows[1:]}).splitlines()
    assert f"| {render.HEADLINES[1]} | 2 | ≥ 1.5 | yes |" in lines
    assert not any("another" in line or "none of them" in line for line in lines)
    assert f"- {rows['machine'][0]}; {rows['date'][0]}; {rows['versions'][0]}" in lines


def test_the_benchmarks_still_measure_the_headlines():
    """A renamed line must not leave the README without its row."""
    page = render.DETAILS.read_text(encoding="utf-8")
    for name in render.HEADLINES:
        assert f"| {name} | " in page


def test_details_show_both_sides_and_the_note(written):
    _, rows, _ = written(
        at_least("fast", 1.0, 2000.4, 1000, note="in part"),
        Line("alone", 0.5, None, None, unit="GB"),
    )
    lines = render.rendered_details({"floor": rows}).splitlines()
    assert lines[0].startswith("| floor | ours | floor | ratio")
    assert "| fast | 1 s | 2 000 s | 2 000 | in part |" in lines
    assert "| alone | 0.5 GB |  |  |  |" in lines


@pytest.mark.parametrize("page", [render.PAGE, render.DETAILS])
def test_both_pages_have_their_marks_once(page):
    text = page.read_text(encoding="utf-8")
    assert text.count(render.BEGIN) == text.count(render.END) == 1


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """Two pages with the marks of the tables, and an empty folder of results."""
    files = tmp_path / "README.md", tmp_path / "performance.md"
    for file in files:
        file.write_text(f"# {file.name}\n{render.BEGIN}\nold\n{render.END}\nafter\n")
    for module, name, value in (
        (render, "PAGE", files[0]),
        (render, "DETAILS", files[1]),
        (render, "FOLDER", tmp_path),
        (table, "FOLDER", tmp_path),
    ):
        monkeypatch.setattr(module, name, value)
    return files


def test_the_command_writes_both_pages_from_the_benchmarks_that_were_run(pages):
    report([at_least(render.HEADLINES[1], 1.0, 2.0, 0.9)], "caching", "small model")
    report([Line("judge", 2.0, 1.0, 2.0)], "floor", "small model")
    render.main()
    readme, details = (page.read_text() for page in pages)
    assert f"| {render.HEADLINES[1]} | 2 | ≥ 0.9 | yes |" in readme and "judge" not in readme
    assert f"| {render.HEADLINES[1]} | 2 | ≥ 0.9 | yes |" in details
    assert "| judge | 2 s | 1 s | 2 |  |" in details and "memory" not in details
    assert details.startswith("# performance.md\n") and details.endswith("\nafter\n")
    assert "old" not in readme + details


def test_without_results_the_command_says_what_to_run(pages):
    with pytest.raises(SystemExit, match="make bench"):
        render.main()
    assert all("old" in page.read_text() for page in pages)
