"""Departures from the published optimal sparse steering that only a stage could bring back.

The numbers are those of ``test_deviations_optimal_sparse_steering.py``. The rows of every split
differ along an axis of their own, so what a stage has fitted shows on which split it was.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from stage_scripts import run_stage
from workflow_rules import Rules, parse

from steering_core.activations import features, reader
from steering_core.config.methods import settings_of
from steering_core.config.schema import Settings
from steering_core.data.examples import write_examples
from steering_core.methods import variants
from steering_core.methods.base import read_direction
from steering_core.models import sae_source, sparse_autoencoder
from steering_core.optimize.path import SteeringPath
from steering_core.probes.linear_probe import LinearProbe
from steering_core.statistics.correlation import StreamingCorrelation
from steering_core.storage.arrays import load_arrays, save_decoder
from steering_core.storage.files import write_json

SPLITS = ("train", "validation", "test", "evaluation", "contrast", "persona")
AXIS = {split: axis for axis, split in enumerate(SPLITS)}
WIDTH, ROWS = 8, 160
SITE = {"layer": 1, "hook_name": "hook", "stream": "post", "centred": False, "prepend_bos": True}
PROBES = {"seed": 0, "probe_folds": 2, "probe_regularisation": [0.1]}


def table() -> pd.DataFrame:
    rows = pd.DataFrame(
        [(f"{split}:{i}", split, i % 2) for split in SPLITS for i in range(ROWS)],
        columns=["example_id", "split", "label"],
    )
    extra = {"text": rows["example_id"], "group": rows["example_id"], "n_tokens": 1}
    return rows.assign(**extra, truncated=False)


class Recorded:
    """Residuals and features of the ids asked for; notes the splits they are of."""

    def __init__(self):
        self.asked: list[str] = []

    def matrix(self, hook: str, ids) -> np.ndarray:
        self.asked += [name.split(":")[0] for name in ids]
        found = np.random.default_rng(0).normal(size=(len(ids), WIDTH)) * 0.2
        for row, name in enumerate(ids):
            split, number = name.split(":")
            found[row, AXIS[split]] += 2 * (int(number) % 2) - 1
        return found

    def features(self, path, ids) -> sparse.csr_matrix:
        """Feature k fires in the rows of split k, for label 1."""
        return sparse.csr_matrix(np.maximum(self.matrix("", ids), 0))

    def splits(self) -> set[str]:
        found, self.asked = set(self.asked), []
        return found


@pytest.fixture
def recorded(monkeypatch) -> Recorded:
    cache = Recorded()
    monkeypatch.setattr(reader, "ActivationCache", lambda *files: cache)
    monkeypatch.setattr(features, "feature_matrix", cache.features)
    ids = table()["example_id"].tolist()
    monkeypatch.setattr(
        features, "read_features", lambda path: iter([(ids, cache.features(path, ids))])
    )
    monkeypatch.setattr(sae_source, "pinned_sae", lambda model, resources: model.sae)
    sae = SimpleNamespace(decoder=np.eye(WIDTH))
    monkeypatch.setattr(sparse_autoencoder, "load_sae", lambda *args, **kwargs: sae)
    return cache


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    names = ("examples", "resources", "layer", "manifest", "features", "decoder", "path")
    found = {name: tmp_path / f"{name}.file" for name in names}
    write_examples(found["examples"], table())
    write_json(found["resources"], {"saes": [SITE]})
    write_json(found["layer"], SITE)
    save_decoder(found["decoder"], np.eye(WIDTH), "sae")
    found["paths"] = [found.pop("path")]
    found["inputs"] = found["examples"]
    return found


@pytest.fixture
def probes(files, recorded, tmp_path) -> dict[str, Path]:
    made = {name: tmp_path / f"{name}.made" for name in ("probe", "evaluation_probe", "report")}
    run_stage("fit_probes.py", tmp_path, input=files, output=made, params={"settings": PROBES})
    return made


def main_axis(vector: np.ndarray) -> str:
    """The split along whose axis a vector points, clearly."""
    size = np.abs(vector)
    assert np.sort(size)[-1] > 2 * np.sort(size)[-2]
    return SPLITS[int(size.argmax())]


def test_03_programs_meet_directions_at_equal_norm_on_test_rows(files, probes, recorded, tmp_path):
    """Published: solutions times α = 5 against unit vectors times α."""
    correlation = {"correlation": tmp_path / "correlation.safetensors"}
    run_stage("correlate_features.py", tmp_path, input=files, output=correlation, params={})
    methods = ["no_steering", "caa_mean_diff", "random_direction", "qp_optimal", "qp_adaptive"]
    settings = {**Settings().model_dump(), "methods": methods, "bootstrap_resamples": 50}
    given = {"settings": settings, "target_class": 1}
    made = {**files, **probes, **correlation, "probes": tmp_path / "report.json"}
    write_json(made["probes"], {})
    directions = {"directions": tmp_path / "directions.safetensors"}
    run_stage("fit_directions.py", tmp_path, input=made, output=directions, params=given)
    made |= directions
    of_qp = {"path": tmp_path / "path.made", "solutions": tmp_path / "qp.parquet"}
    outputs = {
        "directions": ("solve_directions.py", {"solutions": tmp_path / "directions.parquet"}),
        "qp": ("solve.py", of_qp),
    }
    for family, (script, output) in outputs.items():
        own = {**given, "settings": settings_of(family, Settings(**settings))}
        run_stage(script, tmp_path, input=made, output=output, params=own)
    made["paths"] = [of_qp["path"]]
    made["solutions"] = [output["solutions"] for _, output in outputs.values()]
    recorded.splits()
    output = {"table": tmp_path / "norm_matched.csv"}
    run_stage("norm_matched.py", tmp_path, input=made, output=output, params=given, experiment="e")
    assert recorded.splits() == {"test"}
    got = pd.read_csv(output["table"])
    assert set(got["method"]) == {"qp_optimal"}
    assert set(got["direction"]) == {"caa_mean_diff", "random_direction"}
    assert len(got) == 2 * len(settings["qp_tau"]) * len(settings["qp_lambda"])
    # One norm, whatever it is compared with.
    assert (got.groupby(["strength_name", "strength"])["residual_norm_mean"].nunique() == 1).all()


def test_09_the_probe_that_judges_is_fitted_on_rows_of_its_own(probes, recorded):
    """Published: the score counts the constraints that the program itself enforces."""
    axes = {k: main_axis(LinearProbe.load(probes[k]).weight_vector) for k in list(probes)[:2]}
    assert axes == {"probe": "train", "evaluation_probe": "evaluation"}
    assert recorded.splits() == {"train", "evaluation", "validation"}


def test_10_the_layer_is_chosen_on_training_rows(files, recorded, tmp_path):
    """Published: the sweep fits on train and test together."""
    model = {"id": "m", "sae": {"path": "p/{layer}"}}
    output = {"sweep": tmp_path / "sweep.csv"}
    params = {"settings": PROBES, "model": model}
    run_stage(
        "sweep_layers.py", tmp_path, input=files, output=output, params=params, experiment="e"
    )
    assert recorded.splits() == {"train"}


def test_10_correlations_and_directions_are_of_training_rows_and_of_the_concept(
    files, recorded, tmp_path
):
    """Published: RepE is fitted on the queries that it is evaluated on."""
    output = {"correlation": tmp_path / "correlation.safetensors"}
    run_stage("correlate_features.py", tmp_path, input=files, output=output, params={})
    arrays, _ = load_arrays(output["correlation"])
    found = StreamingCorrelation.from_arrays(arrays).result().correlation
    assert main_axis(np.nan_to_num(found)) == "train"
    recorded.splits()
    methods = ["no_steering", "caa_mean_diff", "caa_contrastive", "caa_repe", "topk_features"]
    directions = tmp_path / "directions.safetensors"
    run_stage(
        "fit_directions.py",
        tmp_path,
        input={**files, **output},
        output={"directions": directions},
        params={"settings": {"seed": 0, "methods": methods, "topk": 1}, "target_class": 1},
    )
    axes = [main_axis(read_direction(directions, name)[0].vector) for name in methods[1:]]
    assert axes == ["train", "contrast", "persona", "train"]
    assert recorded.splits() == {"train", "contrast", "persona"}


def test_10_subspace_and_box_of_the_variants_are_of_training_rows(
    files, probes, recorded, tmp_path, monkeypatch
):
    """What bounds a solution and what it aims at is learned before test rows are seen."""
    given = {}
    rows = pd.DataFrame(columns=list(variants.COLUMNS))
    monkeypatch.setattr(variants, "VariantPrograms", lambda **parts: SimpleNamespace(**parts))
    monkeypatch.setattr(variants, "solve_variants", lambda p, *_: given.update(vars(p)) or rows)
    monkeypatch.setattr(
        "steering_core.optimize.working_set.variants.VariantPrograms", SimpleNamespace
    )
    monkeypatch.setattr(SteeringPath, "load", lambda *args: None)
    recorded.splits()
    chosen = {"seed": 0, "subspace_components": 5, "subspace_directions": 1, "variant_rows": 6}
    run_stage(
        "solve_variants.py",
        tmp_path,
        input={**files, **probes},
        output={"solutions": tmp_path / "variants.parquet"},
        params={"settings": {**Settings().model_dump(), **chosen}, "target_class": 1},
    )
    assert main_axis(given["subspace"].directions[0]) == "train"
    assert SPLITS[int(given["largest"].argmax())] == "train"
    # The unit of the margin is the size of the logit on validation rows.
    assert len(given["residuals"]) == 6 and recorded.splits() == {"train", "validation", "test"}


@pytest.fixture(scope="module")
def rules() -> Rules:
    return parse()


def test_14_results_of_another_seed_or_layer_are_stale(rules):
    """Published: result names omit seed and layer, so results of two are mixed."""
    stale = {"examples", "sweep_layers", "fit_probes", "fit_directions", "generate", "pareto"}
    assert rules.stale(seed=7) == stale | {
        "estimate_fisher",
        "train_lora",
        "solve_variants",
        "variants_table",
        "norm_matched",
        "provenance",
        "matched",
        "dose",
        "ratings_table",
        "elsewhere",
        "elsewhere_texts",
        "price",
        "layer_effect",
        "differences",
        "guards",
    }
    assert rules.stale(layer=1) == {"fetch", "pick_layer", "provenance"}
    qp, socp = (
        {f"{rule}-{name}" for rule in ("solve", "solve_prompts")} for name in ("qp", "socp")
    )
    families = {"qp_tau": qp, "qp_lambda": qp, "socp_tau": socp, "socp_epsilon": socp}
    families["strengths"] = {"solve_directions", "solve_directions_prompts"}
    for setting, stale in families.items():
        assert rules.stale(**{setting: [0.7]}) == stale | {"provenance"}, setting
