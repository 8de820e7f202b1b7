"""A table is written with the columns and types of its schema, and the same bytes each time."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steering_core.storage.parquet import (
    one_below_the_other,
    table_digest,
    table_made_once,
    write_parquet,
)

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("tokens", pa.list_(pa.int32())),
    ]
)


@pytest.fixture
def rows() -> pd.DataFrame:
    columns = {
        "tokens": [[1, 2], None],
        "other": [0.5, 1.5],
        "label": [1, None],
        "name": ["a", "b"],
    }
    return pd.DataFrame(columns, index=[7, 3])


def test_a_schema_gives_columns_order_and_types(tmp_path, rows):
    write_parquet(tmp_path / "a", rows, SCHEMA)
    table = pq.read_table(tmp_path / "a")
    assert table.schema.names == SCHEMA.names and table.schema.metadata is None
    assert [field.type for field in table.schema] == [field.type for field in SCHEMA]
    assert table.to_pylist() == [
        {"name": "a", "label": 1, "tokens": [1, 2]},
        {"name": "b", "label": None, "tokens": None},
    ]


def test_without_a_schema_rows_are_read_back_unchanged_except_for_the_index(tmp_path, rows):
    write_parquet(tmp_path / "a", rows[["other", "name", "label"]])
    found = pd.read_parquet(tmp_path / "a")
    pd.testing.assert_frame_equal(found, rows[["other", "name", "label"]].reset_index(drop=True))


def test_an_arrow_table_is_written_as_it_is(tmp_path):
    table = pa.table({"x": pa.array([1, 2], pa.int8())})
    write_parquet(tmp_path / "a", table)
    assert pq.read_table(tmp_path / "a").equals(table, check_metadata=True)


def test_the_same_rows_give_the_same_bytes(tmp_path, rows):
    for name in ("a", "b"):
        write_parquet(tmp_path / name, rows, SCHEMA)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"label": [1, 1000]}, pa.ArrowException),  # too large for its type
        ({"name": ["a", 2]}, pa.ArrowException),
        ({"name": None}, ValueError),
    ],
)
def test_what_does_not_fit_leaves_the_old_file(tmp_path, rows, wrong, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error):
        write_parquet(tmp_path / "a", rows.assign(**wrong), SCHEMA)
    with pytest.raises(KeyError, match="tokens"):
        write_parquet(tmp_path / "a", rows.drop(columns="tokens"), SCHEMA)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_the_digest_of_a_table_is_of_its_values_and_names(tmp_path, rows):
    table = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    pq.write_table(pa.concat_tables([table] * 3), tmp_path / "a", row_group_size=1)
    found = table_digest(pq.read_table(tmp_path / "a"))
    assert found == table_digest(pa.concat_tables([table] * 3).combine_chunks())
    assert found != table_digest(table) != table_digest(table.rename_columns(["a", "b", "c"]))
    assert table_digest(table) != table_digest(table.take([1, 0]))
    nan = pa.table({"x": [float("nan"), 1.0]})
    assert table_digest(nan) != table_digest(pa.table({"x": [None, 1.0]}))
    with pytest.raises(TypeError):
        table_digest(pa.table({"x": [b"bytes"]}))


def test_the_table_of_a_method_is_made_once_and_says_whose_it_is(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"x": [1, 2]})

    first = table_made_once(tmp_path, "a", {"code": "c"}, make)
    assert first["method"].to_pylist() == ["a", "a"]
    assert table_made_once(tmp_path, "a", {"code": "c"}, make).equals(first) and len(made) == 1
    table_made_once(tmp_path, "a", {"code": "d"}, make)
    assert len(made) == 2
    own = pd.DataFrame({"y": [3.0], "method": ["b"]})
    second = table_made_once(tmp_path, "b", {}, lambda: own)
    assert second.column_names == ["y", "method"]
    whole = one_below_the_other([first, second])
    assert whole["method"].to_pylist() == ["a", "a", "b"]
    assert whole["x"].to_pylist() == [1, 2, None] and whole["y"].to_pylist() == [None, None, 3.0]
    with pytest.raises(pa.ArrowException):
        table_made_once(tmp_path, "c", {}, make, pa.schema([pa.field("x", pa.string())]))
    assert not (tmp_path / "c.parquet").exists()
