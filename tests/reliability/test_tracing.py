"""From a row of a result to the code, configuration, revisions and libraries behind it."""

import shutil

import pandas as pd
import pytest
from tiny_demo import ROOT, finished_demo

from steering_core.runtime.digest import code_digest
from steering_core.runtime.provenance import library_versions, short_digests
from steering_core.storage.files import read_json
from steering_core.storage.integrity import json_digest

EXPERIMENTS = ("demo", "tiny_praise")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_row_of_a_table_names_its_experiment(experiment):
    tables = sorted((finished_demo() / "results" / experiment).glob("*.csv"))
    assert tables
    filled = 0
    for path in tables:
        named = set(pd.read_csv(path)["experiment"])
        assert named <= {experiment}, path.name  # a table may have no rows
        filled += bool(named)
    assert filled


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_names_all_that_its_rows_come_from(experiment, tmp_path):
    found = read_json(finished_demo() / "results" / experiment / "provenance.json")
    assert found["experiment"] == experiment
    assert found["config_sha256"] == json_digest(found["config"])
    assert found["code_sha256"] == json_digest(found["code"])
    for script, digest in found["code"].items():
        # Snakemake digests a copy of its own, whose folder is not in the digest.
        copy = shutil.copy(ROOT / "workflow_scripts" / script, tmp_path)
        assert digest == code_digest(copy), script
    sources = found["sources"]
    revisions = [sources["model"]["revision"], sources["sae_revision"]]
    revisions.append(sources["dataset"]["revision"])
    assert all(revision.startswith("sha256:") for revision in revisions)  # all are local here
    assert found["libraries"] == library_versions() and found["python"]


def test_rows_and_cache_carry_what_they_were_made_from():
    results = finished_demo() / "results/demo"
    found = read_json(results / "provenance.json")
    table = pd.read_csv(results / "pareto.csv")
    for column, digest in short_digests(found).items():
        assert set(table[column]) == {digest}
    manifest = read_json(results / "activations/manifest.json")
    for name in ("model", "sae_revision", "dataset", "versions"):
        assert manifest[name] == found["sources"][name]
