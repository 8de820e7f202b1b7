"""What each stage asks a cluster for, by dry runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL_STAGES = {"cache_activations", "encode_features", "generate", "divergence", "judge"}


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def requests(request, tmp_path_factory):
    """(device, what each rule of the demo asks for)."""
    directory = tmp_path_factory.mktemp("plan")
    for name in ("config.yaml", "resources"):
        (directory / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(directory)),
            *("--workflow-profile", str(ROOT / "profiles" / "slurm")),
            *("results/demo/provenance.json", "--config", f"device={request.param}"),
            "methods=[no_steering,qp_optimal]",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    found: dict[str, dict[str, int]] = {}
    rule = ""
    for line in (done.stdout + done.stderr).splitlines():
        if started := re.match(r"\s*(?:local)?rule (\w+):", line):
            rule = started[1]
        elif line.strip().startswith("resources:"):
            found[rule] = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)\b", line)}
    return request.param, found


def test_every_stage_asks_for_memory_and_time(requests):
    _, found = requests
    assert MODEL_STAGES | {"solve", "fit_probes", "pareto", "provenance"} <= set(found)
    for rule, resources in found.items():
        assert resources["mem_mb"] >= 1000 and resources["runtime"] >= 10, rule


def test_only_stages_that_run_a_model_ask_for_a_gpu(requests):
    device, found = requests
    asking = {rule for rule, resources in found.items() if resources.get("gpu", 0) > 0}
    assert asking == (MODEL_STAGES if device == "cuda" else set())
