"""The costs of stages, added up from the files that Snakemake writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from steering_core.errors import StorageError
from steering_core.tables.stages import stage_costs

ROOT = Path(__file__).resolve().parents[2]
HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(folder, name, seconds, rss, cpu):
    path = folder / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{rss}\t1\t1\t1\t0.0\t0.0\t9.0\t{cpu}\n")


def test_jobs_of_a_stage_are_added_and_the_largest_memory_counts(tmp_path):
    write(tmp_path, "generate-qp_optimal", 3.0, 500.5, 2.5)
    write(tmp_path, "generate-no_steering", 4.0, 700.0, 3.5)
    write(tmp_path, "solve", 9.0, 100.0, 8.0)
    write(tmp_path, "pick_layer", 0.2, "NA", "NA")  # too short to be looked at
    costs = stage_costs(tmp_path).set_index("stage")
    assert costs.index.tolist() == ["solve", "generate", "pick_layer"]
    assert costs.loc["generate"].tolist() == [2, 7.0, 6.0, 700.0]
    assert costs.loc["pick_layer", "seconds"] == 0.2
    assert np.isnan(costs.loc["pick_layer", ["cpu_seconds", "peak_mb"]].astype(float)).all()


def test_no_files_or_damaged_ones(tmp_path):
    with pytest.raises(StorageError, match="run the experiment first"):
        stage_costs(tmp_path)
    write(tmp_path, "solve", "abc", 1, 1)
    with pytest.raises(StorageError, match=r"solve\.tsv"):
        stage_costs(tmp_path)
    (tmp_path / "benchmarks" / "solve.tsv").write_text("")
    with pytest.raises(StorageError, match=r"solve\.tsv"):
        stage_costs(tmp_path)


def test_every_stage_is_measured():
    """Every rule that runs a script, under the name of the rule."""
    rules = [
        rule
        for file in sorted((ROOT / "rules").glob("*.smk"))
        for rule in re.split(r"(?m)^(?=rule |use rule )", file.read_text("utf-8"))
        if rule.startswith("use rule ") or (rule.startswith("rule ") and "\n    script:" in rule)
    ]
    assert len(rules) > 30
    for rule in rules:
        name = re.match(r"(?:rule|use rule \w+ as) (\w+)", rule)[1]
        assert re.search(rf'\n    benchmark:\n        "[^"]+/benchmarks/{name}[-.][^"]*"', rule), (
            name
        )
