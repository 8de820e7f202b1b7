"""From a row of a result to the code, configuration, revisions and libraries behind it."""

import pandas as pd
import pytest
from tiny_demo import ROOT, finished_demo

from steering_core.code_digest import code_digest
from steering_core.provenance import json_digest, library_versions, short_digests
from steering_core.storage.json import read_json

EXPERIMENTS = ("demo", "tiny_praise")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_row_of_a_table_names_its_experiment(experiment):
    tables = sorted((finished_demo() / "results" / experiment).glob("*.csv"))
    assert tables
    for path in tables:
        assert set(pd.read_csv(path)["experiment"]) == {experiment}, path.name


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_names_all_that_its_rows_come_from(experiment):
    found = read_json(finished_demo() / "results" / experiment / "provenance.json")
    assert found["experiment"] == experiment
    assert found["config_sha256"] == json_digest(found["config"])
    assert found["code_sha256"] == json_digest(found["code"])
    for script, digest in found["code"].items():
        assert digest == code_digest(ROOT / "workflow_scripts" / script), script
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
