"""Every result can be traced to code, configuration, revisions and versions."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from workflow_rules import JOB, parse

from steering_core.runtime.provenance import product_digests, provenance, short_digests
from steering_core.storage.integrity import content_digest, json_digest

ROOT = Path(__file__).resolve().parents[2]

RESOURCES = {
    "model": {"id": "m", "revision": "a" * 40, "dtype": "float32"},
    "saes": [{"name": "s"}],
    "sae_revision": "b" * 40,
    "dataset": {"id": "d", "revision": "c" * 40},
    "classifier": None,
    "versions": {"torch": "1"},
}
CONFIG = {"model": {"id": "m"}, "task": {"dataset": "d"}, "settings": {"seed": 0}}


@pytest.fixture
def product(tmp_path):
    path = tmp_path / "pareto.csv"
    path.write_text("a\n")
    return path


def test_names_everything_a_result_depends_on(product):
    found = provenance("e", CONFIG, RESOURCES, {"solve.py": "0123"}, [product], [product])
    assert found["experiment"] == "e"
    assert found["sources"]["model"]["revision"] == "a" * 40
    assert found["sources"]["sae_revision"] == "b" * 40
    assert found["sources"]["dataset"]["revision"] == "c" * 40
    assert found["sources"]["versions"] == {"torch": "1"}
    assert found["code"] == {"solve.py": "0123"}
    assert found["files"] == found["products"]
    assert {"torch", "transformers", "sae-lens", "numpy"} <= set(found["libraries"])
    assert len(found["products"]["pareto.csv"]) == 64
    json.dumps(found, allow_nan=False)


def test_changes_with_what_it_describes(product):
    first = provenance("e", CONFIG, RESOURCES, {}, products=[product])
    assert first == provenance("e", CONFIG, RESOURCES, {}, products=[product])
    product.write_text("b\n")
    assert (
        provenance("e", CONFIG, RESOURCES, {}, products=[product])["products"] != first["products"]
    )
    other = {**CONFIG, "settings": {"seed": 1}}
    assert json_digest(other) != json_digest(CONFIG)
    assert json_digest(dict(reversed(CONFIG.items()))) == json_digest(CONFIG)


def test_row_digests_depend_only_on_configuration_and_code(product, monkeypatch):
    codes = {"solve.py": "0123", "judge.py": "4567"}
    first = provenance("e", CONFIG, RESOURCES, codes)
    carried = short_digests(first)
    monkeypatch.setattr("platform.system", lambda: "Elsewhere")
    monkeypatch.setattr("steering_core.runtime.provenance.git_commit", lambda directory: None)
    again = provenance("e", CONFIG, {}, dict(reversed(codes.items())), [product])
    assert again["machine"] != first["machine"] and short_digests(again) == carried
    for name in ("config_sha256", "code_sha256"):
        assert carried[name] == f"sha256:{first[name][:12]}"
    other = provenance("e", CONFIG, RESOURCES, {**codes, "solve.py": "89ab"})
    assert short_digests(other)["code_sha256"] != carried["code_sha256"]
    assert short_digests(other)["config_sha256"] == carried["config_sha256"]


def test_products_name_the_rows_they_come_from(product):
    first = provenance("e", CONFIG, RESOURCES, {"solve.py": "0123"})
    found = product_digests(first, {"page.py": "4567"}, [product])
    assert found == {
        "experiment": "e",
        **short_digests(first),
        "code": {"page.py": "4567"},
        "products": {"pareto.csv": content_digest(product)},
    }


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The scripts that each of two targets of the demo comes from."""
    directory = tmp_path_factory.mktemp("plan")
    for name in ("config.yaml", "resources"):
        (directory / name).symlink_to(ROOT / name)
    script = {rule.name: Path(rule.script).name for rule in parse().rules if rule.script}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--rulegraph", "--directory", str(directory)),
            *("results/demo/products.json", "--config"),
            "methods=[no_steering,qp_optimal,prompting]",
        ],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = dict(re.findall(r'(\d+)\[ *label *= *"(\w+)"', done.stdout))
    edges = re.findall(r"(\d+) -> (\d+)", done.stdout)

    def behind(number: str) -> set[str]:
        return {number}.union(*(behind(source) for source, target in edges if target == number))

    target = {"pareto": "pareto.csv", "products": "products.json"}
    return {
        target[rule]: {script[names[n]] for n in behind(number)}
        for number, rule in names.items()
        if rule in target
    }


def test_requesting_a_table_also_makes_its_provenance_with_all_code_digests(planned, listed):
    assert "provenance.py" in planned["pareto.csv"]
    assert planned["pareto.csv"] == listed["pareto.csv"]


def test_the_code_of_every_product_is_named(planned, listed):
    assert planned["products.json"] == listed["pareto.csv"] | listed["products.json"]


@pytest.fixture(scope="module")
def listed():
    """The scripts whose digests the two targets of the demo hold."""
    rules = {rule.name: rule for rule in parse().rules}
    return {
        target: set(rules[rule].params["codes"](JOB))
        for target, rule in {"pareto.csv": "provenance", "products.json": "products"}.items()
    }
