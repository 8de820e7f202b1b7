"""A concept set of AxBench becomes tables, concept files and experiments of this workflow."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from steering_core.config.methods import DEFAULT_METHODS, LORA
from steering_core.config.resolve import resolve
from steering_core.data.axbench import (
    COLUMNS,
    EVALUATION,
    PAIRS,
    QUERIES,
    TRAIN,
    main,
    read_concepts,
    write_experiments,
)
from steering_core.data.columns import normal_form
from steering_core.data.concept import read_concept
from steering_core.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "axbench"


def rows(concept_id: int, n: int, what: str) -> pd.DataFrame:
    concept = "EEEEE" if concept_id < 0 else f"idea {concept_id}"
    return pd.DataFrame(
        {
            "input": [f"{what} question {i} of {concept_id}?" for i in range(n)],
            "output": [f"{what} answer {i} of {concept_id}." for i in range(n)],
            "output_concept": concept,
            "category": "negative" if concept_id < 0 else "positive",
            "concept_id": concept_id,
        }
    )


@pytest.fixture
def concept_set(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    train = pd.concat([rows(-1, 40, "train"), rows(0, 30, "train"), rows(3, 30, "train")])
    train.to_parquet(folder / TRAIN)
    asked = pd.concat([rows(0, 30, "test"), rows(0, 5, "train"), rows(0, 30, "test")])
    asked.to_parquet(folder / EVALUATION)
    return folder


def test_each_concept_has_its_texts_against_ordinary_ones(concept_set: Path):
    found = read_concepts(concept_set, n_prompts=8, n_validation_prompts=4)
    assert [(one.concept_id, one.concept) for one in found] == [(0, "idea 0"), (3, "idea 3")]
    for one in found:
        assert one.rows["label"].value_counts().to_dict() == {0: 10, 1: 10}
        shown = one.rows["text"].str.contains(f"of {one.concept_id}.", regex=False)
        assert (shown == (one.rows["label"] == 1)).all()


def test_no_instruction_to_which_texts_are_generated_was_trained_on(concept_set: Path):
    trained = set(map(normal_form, pd.read_parquet(concept_set / TRAIN)["input"]))
    for one in read_concepts(concept_set, n_prompts=8, n_validation_prompts=4):
        asked = [*one.texts["prompts"], *one.texts["validation_prompts"], *one.texts["queries"]]
        assert len(set(asked)) == 8 + 4 + QUERIES == len(asked)
        assert not trained & set(map(normal_form, asked))


def test_texts_of_contrastive_pairs_are_no_rows(concept_set: Path):
    for one in read_concepts(concept_set, n_prompts=8, n_validation_prompts=4):
        pairs = [text for pair in one.texts["contrast"] for text in pair.values()]
        assert len(pairs) == 2 * PAIRS and not set(pairs) & set(one.rows["text"])


def test_what_is_written_is_read_by_the_workflow(concept_set: Path, tmp_path: Path):
    found = read_concepts(concept_set, n_prompts=8, n_validation_prompts=4)
    path = write_experiments(found, tmp_path / "out", "demo")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(written["experiments"]) == ["axbench_0", "axbench_3"]
    for name, task in written["tasks"].items():
        concept = read_concept(task["concept"])
        assert len(concept.prompts) == 8, name
        # A persona stands directly before a query or a prompt.
        assert concept.personas.positive.endswith(". ") and concept.personas.negative[-1] == " "
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    whole["tasks"] |= written["tasks"]
    whole["experiments"] |= written["experiments"]
    assert resolve(whole, "axbench_3").settings.n_prompts == 8
    assert LORA not in resolve(whole, "axbench_3").settings.methods


def test_the_command_writes_the_concepts_it_is_asked_for(concept_set: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    sizes = ["--prompts", "8", "--validation-prompts", "4", "--concepts", "3"]
    main([str(concept_set), "--model", "demo", "--out", str(out), *sizes])
    assert capsys.readouterr().out.strip() == str(out / "config.yaml")
    assert sorted(path.name for path in out.iterdir()) == [
        "axbench_3.parquet", "axbench_3.yaml", "config.yaml",
    ]  # fmt: skip
    main([str(concept_set), "--model", "demo", "--out", str(out), *sizes, "--lora"])
    (task,) = yaml.safe_load((out / "config.yaml").read_text())["tasks"].values()
    assert task["settings"]["methods"] == [*DEFAULT_METHODS, LORA]
    with pytest.raises(SystemExit):
        main([str(concept_set), "--model", "demo", "--out", str(out), *sizes[:-1], "7"])


def test_a_key_in_the_address_of_the_judge_is_written_nowhere(concept_set: Path, tmp_path: Path):
    out = tmp_path / "out"
    sizes = ["--prompts", "8", "--validation-prompts", "4", "--concepts", "3"]
    asks = ["--judge-url", "https://user:sk-secret@judge.example/v1", "--judge-model", "big"]
    with pytest.raises(ConfigError, match="without a user, a password") as error:
        main([str(concept_set), "--model", "demo", "--out", str(out), *sizes, *asks])
    assert "sk-secret" not in str(error.value) and not out.exists()


def test_a_missing_file_or_column_and_too_few_instructions_are_errors(
    concept_set: Path, tmp_path: Path
):
    with pytest.raises(DataError, match="ask for fewer prompts"):
        read_concepts(concept_set, n_prompts=80, n_validation_prompts=4)
    with pytest.raises(DataError, match="is missing"):
        read_concepts(tmp_path, n_prompts=8, n_validation_prompts=4)
    pd.read_parquet(concept_set / TRAIN).drop(columns=COLUMNS[2]).to_parquet(concept_set / TRAIN)
    with pytest.raises(DataError, match="output_concept"):
        read_concepts(concept_set, n_prompts=8, n_validation_prompts=4)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public concept sets are not beside this tree")
@pytest.mark.parametrize("name", ["concept10_2b_l10", "concept10_2b_l20"])
def test_the_published_sets_are_read(name: str, tmp_path: Path):
    found = read_concepts(SHARED / name, n_prompts=50, n_validation_prompts=20)
    assert [one.concept_id for one in found] == list(range(10))
    path = write_experiments(found[:1], tmp_path, "demo")
    task = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]["axbench_0"]
    assert len(read_concept(task["concept"]).contrast) == PAIRS
