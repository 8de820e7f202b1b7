"""Files of odd forms: the texts are read as they are written, or the error names the line."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steering_core.config.task import Task
from steering_core.data.labelled import fetch_labelled, labelled_rows, read_table
from steering_core.data.sources import csv_columns, numbers_from_text, read_file
from steering_core.errors import DataError
from steering_core.storage.parquet import write_parquet


def read(folder: Path, name: str, content: str | bytes, **change) -> list[tuple[str, int]]:
    """Texts and labels that a task reads from a file, before and after it was fetched."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    names = {"text": "text", "label": "label", "concept": "c.yaml", **change}
    task = Task(dataset=str(path), **names)
    rows = labelled_rows(read_table(task), task)
    fetched, _ = fetch_labelled(task)
    write_parquet(folder / "fetched.parquet", fetched)  # as the fetch stage does
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "fetched.parquet"), rows)
    return list(zip(rows["text"], rows["label"].tolist(), strict=True))


CSV = {
    "zeros and decimals": ("text,label\n007,0\n008,1\n1.50,0\n", ["007", "008", "1.50"]),
    "zeros": ("text,label\n007,0\n008,1\n009,0\n", ["007", "008", "009"]),
    "long numbers": (
        "text,label\n12345678901234567890,0\n1e5,1\n",
        ["12345678901234567890", "1e5"],
    ),
    "case": ("text,label\nTRUE,0\nfalse,1\n", ["TRUE", "false"]),
    "words of no value": ("text,label\nNA,0\nnull,1\nnan,0\n", ["NA", "null", "nan"]),
    "quotes, commas and line ends": (
        'text,label\r\n"a, ""b""\r\nc",0\r\n"d",1\r\n',
        ['a, "b"\r\nc', "d"],
    ),
    "a quote inside": ('text,label\na "b,0\nc",1\nd,0\n', ['a "b', 'c"', "d"]),
    "byte-order mark": (b"\xef\xbb\xbftext,label\na,0\nb,1\n", ["a", "b"]),
    "carriage returns": ("text,label\ra,0\rb,1\r", ["a", "b"]),
    "empty lines": ("text,label\n\na,0\n\nb,1\n\n", ["a", "b"]),
    "separators of Unicode": ("text,label\na\u2028\x85x,0\nb,1\n", ["a\u2028\x85x", "b"]),
    "an empty text": ("text,label\n,0\na,0\nb,1\n", ["a", "b"]),
    "a long text": (f"text,label\n{'x' * 200_000},0\nb,1\n", ["x" * 200_000, "b"]),
}


@pytest.mark.parametrize("case", CSV)
def test_texts_of_a_csv_file_are_as_they_are_written(tmp_path: Path, case: str):
    content, texts = CSV[case]
    assert [text for text, _ in read(tmp_path, "d.csv", content)] == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nhello,world,0\nfoo,bar,1\nx,y,0\n", "line 2 has 3 fields, the header has 2"),
        ("text,label\na,0\nb,c,1\n", r"line 3 has 3 fields.*'b,c,1'.*double quotes"),
        ("text,label\na,0\nb\n", "line 3 has 1 fields, the header has 2: 'b'"),
        ('text,label\n"a\nb",c,0\nd,1\n', "lines 2 to 3 has 3 fields"),
        ('text,label\n"a,0\nc,1\nd,0\n', "starts in line 2 has a double quote that does not fit"),
        ('text,label\n"a"b,0\nc,1\n', "starts in line 2 has a double quote"),
        ("text;label\na;0\nb;1\n", r"no column 'text'; it has \['text;label'\].*by commas"),
        ("text, label\na,0\nb,1\n", "no column 'label'; it has .*' label'"),
        ("a,0\nb,1\n", r"no column 'text'; it has \['a', '0'\]"),
        ("text,label,text\na,0,b\nc,1,d\n", "two columns 'text'"),
        ("", "it is empty"),
        ("text,label\n", "has no rows"),
        ("text,label\na,0\nb,1\n".encode("utf-16"), "Save it as UTF-8"),
        ("text,label\ncafé,0\nb,1\n".encode("latin-1"), "Save it as UTF-8"),
    ],
    ids=str,
)
def test_a_csv_file_that_does_not_fit_is_an_error_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
):
    with pytest.raises(DataError, match=message):
        read(tmp_path, "d.csv", content)


@pytest.mark.parametrize(
    ("labels", "change", "expected"),
    [
        (["0", "1"], {}, [0, 1]),
        (["True", "FALSE"], {}, [1, 0]),
        (["1.0", "0.0"], {}, [1, 0]),
        (["0.2", "7e-1"], {"threshold": 0.5}, [0, 1]),
        (["1", "2"], {"positive_label": 2}, [0, 1]),
        (["1", "2"], {"positive_label": "2"}, [0, 1]),
        (["1", "0"], {"positive_label": 1.0}, [1, 0]),
        (["TRUE", "FALSE"], {"positive_label": "FALSE"}, [0, 1]),
        (["yes", "no"], {"positive_label": "yes"}, [1, 0]),
        (["nan", "inf"], {"positive_label": "inf"}, [0, 1]),
        (["01", "00"], {"positive_label": "01"}, [1, 0]),
    ],
    ids=str,
)
def test_labels_of_a_csv_file(tmp_path: Path, labels: list, change: dict, expected: list):
    content = "text,label\n" + "".join(f"t{i},{label}\n" for i, label in enumerate(labels))
    assert [label for _, label in read(tmp_path, "d.csv", content, **change)] == expected


@pytest.mark.parametrize(
    ("labels", "change", "message"),
    [
        ([" pos", "neg"], {"positive_label": "pos"}, r"label has \[' pos', 'neg'\]"),
        (["yes", "no"], {}, r"label gives \['no', 'yes'\]. Set `positive_label`"),
        (["00", "01"], {}, r"label gives \['00', '01'\]"),
        (["0.2", "nan"], {"threshold": 0.5}, "no score to cut"),
        (["0.2", ""], {"threshold": 0.5}, "label: 1 rows have none, the first is row 1"),
        (["1.2.3", "0"], {}, "two classes"),
    ],
    ids=str,
)
def test_labels_of_a_csv_file_that_do_not_serve(
    tmp_path: Path, labels: list, change: dict, message: str
):
    content = "text,label\n" + "".join(f"t{i},{label}\n" for i, label in enumerate(labels))
    with pytest.raises(DataError, match=message):
        read(tmp_path, "d.csv", content, **change)


def test_a_directory_of_csv_files_is_read_as_its_files_would_be(tmp_path: Path):
    (tmp_path / "d").mkdir()
    train, test = tmp_path / "d" / "train.csv", tmp_path / "d" / "test.csv"
    train.write_text("text,label\n007,0\n1.50,1\n")
    test.write_text("text,label\nTRUE,False\nNA,True\n,True\n")
    task = Task(dataset=str(tmp_path / "d"), text="text", label="label", concept="c")
    for split, texts in (("train", ["007", "1.50"]), ("test", ["TRUE", "NA"])):
        chosen = task.model_copy(update={"split": split})
        rows = labelled_rows(read_table(chosen), chosen)
        assert rows["text"].tolist() == texts and rows["label"].tolist() == [0, 1]
    train.write_text("text,label\nhello,world,0\nfoo,bar,1\n")
    with pytest.raises(DataError, match=r"train.csv cannot be read: line 2 has 3 fields"):
        read_table(task)
    train.write_text("texts,label\na,0\nb,1\n")
    assert csv_columns(task.dataset) is None  # as of two subsets


JSON = {
    "byte-order mark": (
        b'\xef\xbb\xbf{"text":"a","label":0}\n{"text":"b","label":1}\n',
        ["a", "b"],
    ),
    "carriage returns": ('{"text":"a","label":0}\r\n{"text":"b","label":1}\r\n', ["a", "b"]),
    "separators of Unicode": (
        '{"text":"a\u2028x","label":0}\n{"text":"b\\nc","label":1}\n',
        ["a\u2028x", "b\nc"],
    ),
    "empty lines": ('\n{"text":"a","label":0}\n\n{"text":"b","label":1}\n\n', ["a", "b"]),
    "a missing text": (
        '{"text":"a","label":0}\n{"text":NaN,"label":1}\n{"label":1}\n{"text":"z","label":1}\n',
        ["a", "z"],
    ),
    "numbers written as texts": (
        '{"text":"007","label":0}\n{"text":"1e5","label":1}\n{"text":"2020-01-01","label":1}\n',
        ["007", "1e5", "2020-01-01"],
    ),
}


@pytest.mark.parametrize("case", JSON)
def test_texts_of_a_json_lines_file_are_as_they_are_written(tmp_path: Path, case: str):
    content, texts = JSON[case]
    assert [text for text, _ in read(tmp_path, "d.jsonl", content)] == texts


@pytest.mark.parametrize("column", ["modified", "posted_at", "timestamp", "date"])
def test_no_column_of_a_json_lines_file_is_taken_for_a_date(tmp_path: Path, column: str):
    content = f'{{"{column}":"2020","label":0}}\n{{"{column}":"1984","label":1}}\n'
    assert read(tmp_path, "d.jsonl", content, text=column) == [("2020", 0), ("1984", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text":"a","label":0},{"text":"b","label":1}]', "line 1 is not an object.*no list"),
        ('[\n{"text":"a","label":0}\n]', "line 1 is not JSON"),
        ('{"text":"a","label":0}\n"b"\n', "line 2 is not an object: '\"b\"'"),
        ('{"text":"a","label":0}\n{"text":\n', "line 2 is not JSON"),
        ("[" * 10_000 + "\n", "cannot be read"),
        ('{"text":"a","label":0}\n{"text":"\\ud83d","label":1}\n', "line 2 cannot be written"),
        ("", "it is empty"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_json_lines_file_is_an_error_with_its_line(
    tmp_path: Path, content: str, message: str
):
    with pytest.raises(DataError, match=message):
        read(tmp_path, "d.jsonl", content)


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])), st.text('01.,"\n ', min_size=1)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_pandas_writes_to_a_csv_file_is_read_back(tmp_path_factory, rows: list):
    path = tmp_path_factory.mktemp("csv") / "d.csv"
    table = pd.DataFrame(rows, columns=["text", "other"], dtype=object)
    table["text"] = table["text"].str.replace("\r", " ")  # pandas quotes it in some versions only
    table.to_csv(path, index=False)
    assert read_file(path).fillna("").to_numpy().tolist() == table.to_numpy().tolist()


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["1", "-2"], [1, -2]),
        (["true", "False"], [True, False]),
        (["0.5", "1e-3"], [0.5, 1e-3]),
        (["01", "2"], ["01", "2"]),
        (["nan", "1"], ["nan", "1"]),
        (["a", "1"], ["a", "1"]),
    ],
    ids=str,
)
def test_only_a_column_of_numbers_becomes_numbers(written: list, expected: list):
    assert numbers_from_text(pd.Series(written, dtype=object)).tolist() == expected
