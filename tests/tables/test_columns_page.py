"""The page of columns is what the code says."""

from pathlib import Path

import pytest

from steering_core.tables.column import describe
from steering_core.tables.columns import PARETO_COLUMNS
from steering_core.tables.feature_columns import FEATURE_COLUMNS
from steering_core.tables.frontier_columns import FRONTIER_COLUMNS, KNOT_COLUMNS
from steering_core.tables.norm_matched_columns import NORM_MATCHED_COLUMNS
from steering_core.tables.sweep_columns import SWEEP_COLUMNS
from steering_core.tables.variant_columns import VARIANT_COLUMNS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("pareto.csv", PARETO_COLUMNS),
        ("variants.csv", VARIANT_COLUMNS),
        ("norm_matched.csv", NORM_MATCHED_COLUMNS),
        ("frontier.csv", FRONTIER_COLUMNS),
        ("frontier_knots.csv", KNOT_COLUMNS),
        ("features.csv", FEATURE_COLUMNS),
        ("sweep.csv", SWEEP_COLUMNS),
    ],
)
def test_the_page_holds_the_table(name, columns):
    sections = PAGE.read_text(encoding="utf-8").split("# Columns of ")
    section = next(text for text in sections if text.startswith(f"{name}\n"))
    assert describe(columns).strip() in section
