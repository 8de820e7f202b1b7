"""Odd data and hostile configuration: an answer or one error of ours, and nothing unsafe."""

import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steering_core.activations.cache import cache_activations
from steering_core.activations.features import read_features
from steering_core.activations.manifest import write_manifest
from steering_core.activations.reader import ActivationCache
from steering_core.config.corrsteer_resolve import load_corrsteer
from steering_core.config.resolve import load_config, resolve
from steering_core.config.task import Task
from steering_core.corrsteer.read_items import _items
from steering_core.corrsteer.tasks import TASKS
from steering_core.data.examples import read_examples, write_examples
from steering_core.data.labelled import labelled_rows
from steering_core.errors import ConfigError, DataError, SteeringError
from steering_core.models.site import Site
from steering_core.storage.arrays import load_arrays
from steering_core.storage.files import read_json

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
TASK = Task(dataset="x.parquet", text="text", label="label", concept="c.yaml")

ODD = st.sampled_from(
    [
        "",
        "   ",
        "\0",
        "a\0b",
        "\u202eabc",
        "שלום עולם",
        "🙂👩‍👩‍👧",
        "x" * 2**20,
        "\ufeff",
        "\n\n",
        "NA",
    ]
)
TEXTS = st.one_of(ODD, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
LABELS = st.one_of(
    st.sampled_from([0, 1, 0.0, 1.0, True, False, float("nan"), None, "1", 2, -1, float("inf")])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXTS, LABELS), max_size=12))
def test_any_table_gives_clean_rows_or_one_error(rows):
    table = pd.DataFrame(rows, columns=["text", "label"])
    try:
        found = labelled_rows(table, TASK)
    except DataError as error:
        assert str(error)
        return
    assert set(found["label"]) == {0, 1} and found["label"].dtype.kind == "i"
    assert found["example_id"].is_unique
    assert (found["text"].str.strip() != "").all()
    # Duplicates share a group, so they cannot be on both sides of a split.
    assert (found.groupby("text")["group"].nunique() == 1).all()


SITE = Site(layer=1, stream="post", centred=False, prepend_bos=True)
HEADER = {"sites": [{"hook_name": SITE.hook_name}]}


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_any_text_goes_through_files_and_model_as_it_is_or_is_one_error(tiny, texts):
    names = [f"e{i}" for i in range(len(texts))]
    rows = pd.DataFrame({"example_id": names, "text": texts, "label": None, "group": names})
    rows = rows.assign(split="train", n_tokens=1, truncated=False)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_examples(folder / "examples.parquet", rows)
        read = read_examples(folder / "examples.parquet")
        assert read["text"].tolist() == texts
        part, manifest = folder / "part.parquet", folder / "manifest.json"
        try:
            cache_activations(
                tiny, read, [SITE], part, max_tokens=16, batch_tokens=64, metadata=HEADER
            )
        except DataError as error:
            assert "has no tokens" in str(error) and len(str(error)) < 300
            assert not part.exists()
            return
        write_manifest([part], manifest, len(texts))
        assert np.isfinite(ActivationCache(manifest).matrix(SITE.hook_name, names)).all()


@pytest.mark.parametrize(
    ("labels", "named"),
    [([1, 1, 1, 1], "two classes"), ([0, 1, float("nan"), 1], "row 2"), ([0, 1, 2, 3], "classes")],
)
def test_labels_that_cannot_serve(labels, named):
    table = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": labels})
    with pytest.raises(DataError, match=named):
        labelled_rows(table, TASK)


CELLS = st.one_of(ODD, LABELS, st.sampled_from(["A", "safe", "ambig", ["a", "b"], [], {}, 1e300]))
COLUMNS = (
    *("question", "choices", "answer", "options", "context", "context_condition", "label"),
    *("ans0", "ans1", "ans2", "problem", "prompt"),
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(TASKS)), st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELLS)))
def test_any_row_of_a_task_is_an_item_or_one_error(task, row):
    table = pd.DataFrame({column: pd.Series([cell], dtype=object) for column, cell in row.items()})
    try:
        items = _items(table, TASKS[task].read, "test", "test", task)
    except DataError as error:
        assert f"task {task} cannot read test:0" in str(error)
        return
    for _, _, prompt, gold, _, letters in items:
        assert isinstance(prompt, str) and isinstance(gold, str)
        assert not letters or gold in letters


@pytest.mark.parametrize("answer", [-1, 4, float("nan"), None])
def test_an_answer_that_is_none_of_the_choices(answer):
    table = pd.DataFrame({"question": ["q"], "choices": [["a", "b", "c", "d"]]})
    table["answer"] = pd.Series([answer], dtype=object)
    with pytest.raises(DataError, match="task mmlu cannot read test:0"):
        _items(table, TASKS["mmlu"].read, "test", "test", "mmlu")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS = [
    (section, key)
    for section in ("settings", "models", "tasks", "experiments", "demo_world")
    for key in [*CONFIG[section], "unknown"]
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PATHS), VALUES)
def test_any_configuration_is_taken_or_refused_in_our_words(where, value):
    section, key = where
    raw = {**CONFIG, section: {**CONFIG[section], key: value}}
    try:
        load_config(raw)
    except ConfigError as error:
        assert section.rstrip("s") in str(error) or str(key) in str(error)


CORRSTEER_PATHS = [
    (section, key)
    for section in ("settings", "models", "tasks", "experiments", "ablations")
    for key in [*CONFIG["corrsteer"][section], "unknown"]
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CORRSTEER_PATHS), VALUES)
def test_any_configuration_of_corrsteer_is_taken_or_refused_in_our_words(where, value):
    section, key = where
    raw = CONFIG["corrsteer"]
    try:
        load_corrsteer({**CONFIG, "corrsteer": {**raw, section: {**raw[section], key: value}}})
    except ConfigError as error:
        assert section.rstrip("s") in str(error) or str(key) in str(error)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/x", ".", "..", "a\n", "a\0", "", "-x", "a b"]
)
@pytest.mark.parametrize("section", ["models", "tasks", "experiments"])
def test_no_name_leads_out_of_the_results_directory(section, name):
    first = next(iter(CONFIG[section].values()))
    with pytest.raises(ConfigError):
        load_config({**CONFIG, section: {**CONFIG[section], name: first}})
    with pytest.raises(ConfigError):
        resolve(CONFIG, name)


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "a\n", ""])
@pytest.mark.parametrize("section", ["models", "tasks", "experiments", "arms"])
def test_no_name_of_corrsteer_leads_out_of_the_results_directory(section, name):
    corrsteer = CONFIG["corrsteer"]
    if section == "arms":
        changed = {**corrsteer, "settings": {**corrsteer["settings"], "arms": {name: {}}}}
    else:
        first = next(
            iter(corrsteer.get(section, {"x": {"model": "gemma2b", "task": "mmlu"}}).values())
        )
        changed = {**corrsteer, section: {**corrsteer.get(section, {}), name: first}}
    with pytest.raises(ConfigError):
        load_corrsteer({**CONFIG, "corrsteer": changed})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_our_words(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(content)
    for read in (read_json, load_arrays, lambda p: list(read_features(p))):
        try:
            read(path)
        except SteeringError as error:
            assert "file" in str(error)


FORBIDDEN = {
    "pickle": r"\bpickle\b|joblib|\bdill\b|allow_pickle\s*=\s*True|\.(?:pkl|pt|pth)\b",
    "code of a repository": r"trust_remote_code\s*=\s*True|\btorch\.load\(|torch\.save\(",
    "unsafe YAML": r"yaml\.(?:load|unsafe_load|full_load)\(",
    "evaluation of text": r"(?<![\w.])(?:eval|exec)\(|os\.system\(|shell\s*=\s*True",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_code_has_no(what):
    found = []
    for folder in ("steering_core", "workflow_scripts", "rules"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".smk"):
                for number, line in enumerate(path.read_text().splitlines(), start=1):
                    if re.search(FORBIDDEN[what], line) and "never pickle" not in line.lower():
                        found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_every_script_runs_as_a_job():
    """The wrapper checks inputs, seals outputs, fixes threads and, but for the fetch stages, cuts
    the network off; none may go without it."""
    for path in (ROOT / "workflow_scripts").glob("*.py"):
        fetches = "fetch" in path.stem or path.stem == "elsewhere_texts"
        call = "with job(snakemake, network=True):" if fetches else "with job(snakemake):"
        assert call in path.read_text(), path.name
