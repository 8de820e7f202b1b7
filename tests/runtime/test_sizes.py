"""What a job asks of a machine grows with its model, its SAEs and its judges."""

import json

import pytest

from steering_core.runtime.sizes import BASE, read_sizes, sizes_of

RESOURCES = {
    "model": {"id": "m", "dtype": "bfloat16"},
    "shape": {"d_model": 2000},
    "saes": [{"d_sae": 1000}, {"d_sae": 16000}],
    "parameters": {"model": 2_000_000_000, "judges": 100_000_000},
}


def test_sizes_in_memory():
    sizes = sizes_of(RESOURCES)
    assert (sizes.model, sizes.weights32, sizes.judges) == (4000, 8000, 400)
    assert (sizes.sae, sizes.saes) == (256, 272)
    assert sizes.megabytes() == BASE
    assert sizes.megabytes(model=1.5, sae=2, judges=1) == BASE + 6000 + 512 + 400
    assert sizes.megabytes(weights32=5, saes=1) == BASE + 40_000 + 272
    assert sizes_of({**RESOURCES, "model": {"dtype": "float32"}}).model == 8000


@pytest.mark.parametrize(("parameters", "cores"), [(10_000_000, 1), (124_000_000, 2)])
def test_a_small_model_keeps_one_core_busy(parameters, cores):
    assert sizes_of({**RESOURCES, "parameters": {"model": parameters, "judges": 0}}).cores == cores


@pytest.mark.parametrize("content", [None, "", "{", "{}", json.dumps({**RESOURCES, "saes": []})])
def test_what_was_not_fetched_or_is_of_before_has_no_sizes(tmp_path, content):
    path = tmp_path / "resources.json"
    if content is not None:
        path.write_text(content)
    assert read_sizes(path) is None


def test_what_was_fetched_is_read(tmp_path):
    (tmp_path / "resources.json").write_text(json.dumps(RESOURCES))
    assert read_sizes(tmp_path / "resources.json") == sizes_of(RESOURCES)
