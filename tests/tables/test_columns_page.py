"""The page of columns is what the code says."""

from pathlib import Path

from steering_core.tables.columns import describe_columns

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


def test_the_page_holds_the_table():
    assert describe_columns().strip() in PAGE.read_text(encoding="utf-8")
