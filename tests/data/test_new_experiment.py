"""The template is a whole experiment: it loads, and every role of the concept is explained."""

import json
import re
from pathlib import Path

import pytest
import yaml

from steering_core.config.resolve import resolve
from steering_core.data.concept import Concept, check_prompts, read_concept
from steering_core.data.new_experiment import main, write_experiment
from steering_core.early_checks import check_before_any_job
from steering_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def merged(file: Path) -> dict:
    """The configuration as Snakemake merges it with a file of further settings."""
    raw = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    for section, entries in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        raw[section] = {**raw[section], **entries}
    return raw


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_experiment("mine")


def test_the_configuration_is_read_as_it_stands(files):
    found = resolve(merged(files[0]), "mine")
    assert (found.model.id, found.task.text, found.task.label) == ("org/model", "text", "label")
    assert found.task.concept == str(files[1])


def test_the_concept_file_has_every_role_explained_and_enough_prompts(files):
    texts = read_concept(files[1])
    check_prompts(texts, resolve(merged(files[0]), "mine").settings)
    written = files[1].read_text(encoding="utf-8")
    for role in Concept.model_fields:
        if role not in ("concept", "description"):
            assert re.search(rf"^# .*\n{role}:$", written, flags=re.M), role


def test_every_key_in_a_comment_is_a_key_of_the_schema(files):
    raw = files[0].read_text(encoding="utf-8")
    task = resolve(merged(files[0]), "mine").task
    optional = set(re.findall(r"^    # (\w+):", raw, flags=re.M)) - {"dtype"}
    assert optional and optional <= set(type(task).model_fields)


def test_what_is_still_to_be_filled_in_is_listed_at_once(files):
    with pytest.raises(ConfigError) as caught:
        found = resolve(merged(files[0]), "mine")
        check_before_any_job(found, found.task.dataset, lambda path: False)
    listed = "\n".join(caught.value.problems)
    assert "data/texts.csv" in listed and "saes/layer_" in listed


def test_the_columns_of_a_csv_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("reviews.csv").write_text("id,review,sentiment\n1,fine,pos\n", encoding="utf-8")
    files = write_experiment("mine", data="reviews.csv", model="models/m", sae="s/{layer}")
    found = resolve(merged(files[0]), "mine")
    assert (found.task.text, found.task.label) == ("review", "sentiment")
    assert (found.model.id, found.model.sae.path) == ("models/m", "s/{layer}")
    assert "the file has id, review, sentiment" in files[0].read_text(encoding="utf-8")


def test_two_names_of_classes_are_read_from_a_csv(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"text {i},{'good' if i % 2 else 'bad: very'}\n" for i in range(6))
    Path("rows.csv").write_text("text,label\n" + rows, encoding="utf-8")
    files = write_experiment("mine", data="rows.csv")
    assert resolve(merged(files[0]), "mine").task.positive_label == "good"
    assert 'the file has "bad: very" and "good"' in files[0].read_text(encoding="utf-8")
    Path("rows.csv").write_text("text,label\na,0\nb,1\n", encoding="utf-8")
    files = write_experiment("other", data="rows.csv")
    assert resolve(merged(files[0]), "other").task.positive_label is None


def test_saes_that_do_not_exist_yet_are_trained_at_the_size_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for sizes in (
        {"n_layer": 4, "n_embd": 8},
        {"text_config": {"num_hidden_layers": 4, "hidden_size": 8}},
    ):
        Path("model/config.json").write_text(json.dumps(sizes), encoding="utf-8")
        name = "a" if "n_layer" in sizes else "b"
        file, _ = write_experiment(name, model="./model", sae="train")
        training = resolve(merged(file), name).model.sae.train
        assert (training.layers, training.d_sae) == ([2], 32)
    file, _ = write_experiment("hub", model="org/model", sae="train")
    assert resolve(merged(file), "hub").model.sae.train.d_sae == 4 * 768
    assert file.read_text().count("THIS IS FOR GPT-2") == 2  # layers and features
    assert resolve(merged(file), "hub").settings.chat_template is False
    file, _ = write_experiment("there", model="./model")
    assert "GPT-2" not in file.read_text()
    assert resolve(merged(file), "there").settings.chat_template == "auto"


def test_nothing_is_overwritten_and_names_are_names(files):
    with pytest.raises(ConfigError, match=r"mine\.yaml exists: delete it"):
        write_experiment("mine")
    with pytest.raises(ConfigError, match="no name of an experiment"):
        write_experiment("../mine")


def test_the_command_says_what_to_run_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["other", "--out", "here"])
    said = capsys.readouterr().out
    assert "snakemake -n results/other/index.html --configfile here/other.yaml" in said
    with pytest.raises(SystemExit):
        main(["other", "--out", "here"])
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["toxicity", "sst2", "gpt2", "demo"])
def test_a_name_of_the_shipped_configuration_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text((ROOT / "config.yaml").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match=rf"config.yaml has \w+\.{name}.*my_{name}"):
        write_experiment(name)
    assert not Path("experiments").exists()


@pytest.mark.parametrize("name", ["off", "no", "null", "true", "1e3", "a b"])
def test_a_name_that_yaml_reads_as_a_value_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no name of an experiment"):
        write_experiment(name)


def test_values_that_yaml_would_read_otherwise_are_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("it's #1: x.csv").write_text('text,"a: #b\nc",label\nfine,1,0\n', encoding="utf-8")
    file, _ = write_experiment(
        "mine", data="it's #1: x.csv", model="my models/m #2", sae="a'b/{layer}"
    )
    found = resolve(merged(file), "mine")
    assert (found.task.dataset, found.model.id) == ("it's #1: x.csv", "my models/m #2")
    assert found.model.sae.path == "a'b/{layer}"
    assert found.task.concept == "experiments/mine_concept.yaml"
