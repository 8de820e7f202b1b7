import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from table_data import pareto_table

from steering_core.tables import columns
from steering_core.tables.columns import describe, made_table, tables, validate_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"
PARETO_COLUMNS, PARETO_NAMES = tables()["pareto"].columns, tables()["pareto"].names


def validate_pareto(df: pd.DataFrame) -> None:
    validate_table(df, "pareto")


def test_columns_are_distinct_and_described() -> None:
    assert len(set(PARETO_NAMES)) == len(PARETO_NAMES) == 109
    assert PARETO_NAMES[0] == "experiment" and PARETO_NAMES[-1] == "warnings"
    assert all(column.unit and column.meaning for column in PARETO_COLUMNS)
    assert not any("|" in column.meaning + column.unit for column in PARETO_COLUMNS)


def test_every_interval_has_both_ends() -> None:
    lows = {name.removesuffix("_low") for name in PARETO_NAMES if name.endswith("_low")}
    highs = {name.removesuffix("_high") for name in PARETO_NAMES if name.endswith("_high")}
    assert lows == highs and len(lows) == 26


def test_a_good_table_passes_also_after_csv() -> None:
    df = pareto_table()
    validate_pareto(df)
    validate_pareto(pd.read_csv(io.StringIO(df.to_csv(index=False))))


@pytest.mark.parametrize("column", ["kl_mean", "warnings"])
def test_missing_column_is_named(column: str) -> None:
    with pytest.raises(ValueError, match=rf"missing columns .*{column}"):
        validate_pareto(pareto_table().drop(columns=column))


def test_unknown_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown columns .*speed"):
        validate_pareto(pareto_table().assign(speed=1.0))


def test_order_matters() -> None:
    df = pareto_table()
    with pytest.raises(ValueError, match="column 0 is 'warnings', should be 'experiment'"):
        validate_pareto(df[["warnings", *df.columns[:-1]]])


def test_repeated_row_is_an_error_even_without_strength() -> None:
    df = pareto_table()
    with pytest.raises(ValueError, match=r"2 rows repeat .*no_steering"):
        validate_pareto(pd.concat([df, df.iloc[:1]]))


def test_same_strength_in_another_experiment_is_fine() -> None:
    df = pareto_table()
    validate_pareto(pd.concat([df, df.assign(experiment="other")]))


def test_a_table_of_no_experiment_repeats_no_row_either() -> None:
    rows = [{"layer": 1, "accuracy": 0.5, "n": 2}, {"layer": 2, "accuracy": 0.5, "n": 2}]
    assert made_table(rows, "plans/{arm}.validation")["layer"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="repeat"):
        made_table([rows[0], rows[0]], "plans/{arm}.validation")


def test_made_rows_get_all_columns_in_order() -> None:
    made = made_table([{"n": 3, "layer": 1, "accuracy": 0.5}], "plans/{arm}.validation")
    assert list(made) == ["layer", "accuracy", "n"]
    with pytest.raises(ValueError, match="accuracy has empty cells"):
        made_table([{"layer": 1, "n": 3}], "plans/{arm}.validation")


def test_empty_cell_where_never_empty() -> None:
    df = pareto_table()
    df.loc[2, "n_solved"] = np.nan
    with pytest.raises(ValueError, match="n_solved has empty cells"):
        validate_pareto(df)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [("kl_mean", "0.1", "number"), ("on_frontier", "yes", "flag"), ("method", 3, "text")],
)
def test_wrong_kind_is_named(column: str, value: object, kind: str) -> None:
    df = pareto_table().astype({column: object})
    df.loc[1, column] = value
    with pytest.raises(ValueError, match=f"{column} must be a {kind}"):
        validate_pareto(df)


def test_markdown_has_a_row_per_column() -> None:
    lines = describe(PARETO_COLUMNS).splitlines()
    assert len(lines) == len(PARETO_NAMES) + 2
    assert all(line.count("|") == 5 for line in lines)
    assert any(line.startswith("| `kl_mean` | nats per token |") for line in lines)


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.name)
def test_every_table_is_described_whole(table) -> None:
    assert len(set(table.names)) == len(table.names)
    assert set(table.key) <= set(table.names)
    # A table of an experiment begins with its name; a published table with that of the cell.
    assert "experiment" not in table.names[1:] or table.name == "corrsteer_{table}"
    for column in table.columns:
        assert column.unit and column.meaning and "|" not in column.meaning + column.unit
        assert column.kind in ("text", "number", "flag")


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.name)
def test_the_page_of_columns_is_rendered_from_the_descriptions(table) -> None:
    page = PAGE.read_text(encoding="utf-8")
    section = next(
        text for text in page.split("# Columns of ") if text.startswith(f"{table.name}.csv\n")
    )
    assert describe(table.columns).strip() in section
    assert columns.rendered_page(page) == page


def test_a_page_with_an_old_table_is_renewed() -> None:
    old = "text\n\n# Columns of sweep.csv\n\nabout\n\n| column |\n|---|\n| `old` |\n\nend\n"
    new = columns.rendered_page(old)
    assert "`old`" not in new and describe(tables()["sweep"].columns) in new
    assert new.startswith("text\n\n# Columns of sweep.csv\n\nabout\n") and new.endswith("\nend\n")
