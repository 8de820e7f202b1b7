"""Models whose SAEs the rules train."""

import pytest
from small_config import small

from steering_core.config.corrsteer_resolve import load_trained, resolve_corrsteer
from steering_core.config.resolve import resolve
from steering_core.errors import ConfigError

TRAIN = {
    **{"layers": [1, 3], "d_sae": 8, "k": 2, "tokens": 10_000},
    "texts": [{"dataset": "d.csv", "text": "t"}],
}


def configured() -> dict:
    raw = small()
    raw["models"]["m"]["sae"] = {"train": dict(TRAIN)}
    return raw


def test_the_stages_read_the_saes_from_their_path():
    found = resolve(configured(), "e").model.sae
    assert found.path == "results/models/m/sparse_autoencoders/layer_{layer}"
    assert found.by_layer and found.train.layers == [1, 3]


def test_a_name_in_both_parts_is_one_model():
    raw = configured()
    raw["corrsteer"] = {"models": {"m": dict(raw["models"]["m"])}, "tables_model": "m"}
    assert list(load_trained(raw)) == ["m"]
    raw["corrsteer"]["models"]["m"]["sae"] = {"train": {**TRAIN, "k": 3}}
    with pytest.raises(ConfigError, match=r"models\.m and corrsteer\.models\.m"):
        load_trained(raw)


def test_a_model_of_corrsteer_without_an_id_is_that_of_the_same_name():
    raw = configured()
    raw["models"]["m"]["settings"] = {"layer": 3}
    raw["corrsteer"] = {
        "models": {"m": {"settings": {"batch_rows": 2}}},
        "tasks": {"t": {"task": "mmlu"}},
        "tables_model": "m",
    }
    found = resolve_corrsteer(raw, "m_t")
    assert found.model.id == "org/m" and found.settings.batch_rows == 2
    assert found.model.sae.path == resolve(raw, "e").model.sae.path
    # Other sizes need to be said once.
    raw["models"]["m"]["sae"]["train"]["k"] = 3
    assert load_trained(raw)["m"].sae.train.k == 3
    raw["corrsteer"]["models"] = {"n": {"settings": {}}}
    with pytest.raises(ConfigError, match=r"models\.n\.id: is missing"):
        load_trained(raw)


def test_all_layers_are_those_that_are_trained():
    """Else an SAE that an earlier configuration left behind would be read."""
    assert resolve(configured(), "e").settings.layers == [1, 3]
    raw = configured()
    raw["models"]["m"]["sae"]["train"]["layers"] = [3, 0]
    raw["corrsteer"] = {
        "models": {"m": dict(raw["models"]["m"])},
        "tasks": {"t": {"task": "mmlu"}},
        "tables_model": "m",
    }
    assert resolve_corrsteer(raw, "m_t").settings.layers == [3]
    raw["corrsteer"]["settings"] = {"layers": [0, 3]}
    assert resolve_corrsteer(raw, "m_t").settings.layers == [0, 3]
    raw["corrsteer"]["settings"] = {"layers": [2]}
    with pytest.raises(ConfigError, match=r"layer 2 is not among sae.train.layers: \[0, 3\]"):
        resolve_corrsteer(raw, "m_t")


@pytest.mark.parametrize("wrong", [{"layers": [1, 2]}, {"layer": 2}])
def test_a_layer_that_is_not_trained_is_refused(wrong):
    raw = configured()
    raw["experiments"]["e"]["settings"] = wrong
    with pytest.raises(ConfigError, match=r"e: layer 2 is not among sae.train.layers: \[1, 3\]"):
        resolve(raw, "e")


def test_train_stands_alone():
    raw = configured()
    raw["models"]["m"]["sae"]["path"] = "x/{layer}"
    with pytest.raises(ConfigError, match="leave out release, id and path"):
        resolve(raw, "e")
