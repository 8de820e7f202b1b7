"""What each stage asks a cluster for, by dry runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.resources import Resources
from snakemake_executor_plugin_slurm.utils import set_gres_string

from steering_core.runtime.memory import read_sizes

ROOT = Path(__file__).resolve().parents[2]
MODEL_STAGES = {
    *("cache_activations", "cache_prompts", "encode_features", "generate", "divergence", "judge"),
    *("estimate_fisher", "likelihood_gradient", "guard_direction", "train_lora"),
    *("corrsteer_select", "corrsteer_validate", "corrsteer_answer", "corrsteer_fine_tune"),
    *("corrsteer_sparse_methods", "corrsteer_elsewhere", "elsewhere_text"),
    *("cache_training_activations", "train_sae"),
}
#: Stages that solve, fit and tabulate: on nodes without a GPU.
OTHER_STAGES = {
    *(
        "solve",
        "solve_directions",
        "solve_prompts",
        "prompts",
        "sweep_layers",
        "fit_probes",
        "fit_directions",
        "correlate_features",
    ),
    *(
        "pareto",
        "provenance",
        "products",
        "corrsteer_plan",
        "corrsteer_report",
        "corrsteer_provenance",
    ),
}


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def requests(request, tmp_path_factory):
    """(device, what each rule of the demo and of a CorrSteer experiment asks for)."""
    directory = tmp_path_factory.mktemp("plan")
    (directory / "resources").symlink_to(ROOT / "resources")
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    programs = config["experiments"]["demo"]["settings"]["programs"]
    toxicity = {"direction": "contrastive", "concept": "resources/concepts/toxicity.yaml"}
    programs["guarded_qp"]["guards"].append({**toxicity, "kappa": 0.5})
    plan = {"experiment": "demo_praise_all", "arm": "corrsteer_p"}  # its layers are validated
    config["experiments"]["demo"]["settings"]["plans"] = {"praised": plan}
    (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(directory)),
            *("--workflow-profile", str(ROOT / "profiles" / "slurm")),
            *("results/demo/products.json", "results/gemma2b_mmlu/provenance.json"),
            *("--config", f"device={request.param}", "methods=[no_steering,qp_optimal,lora]"),
            *("sparse_methods={methods: [qp_optimal]}", "fine_tuning={method: lora}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    # What refuses unknown files takes none of these for one.
    assert "unknown_target" not in done.stdout + done.stderr
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
    assert MODEL_STAGES | OTHER_STAGES <= set(found)
    for rule, resources in found.items():
        assert resources["mem_mb"] >= 1000 and resources["runtime"] >= 10, rule


def test_only_stages_that_run_a_model_ask_for_a_gpu(requests):
    device, found = requests
    asking = {rule for rule, resources in found.items() if resources.get("gpu", 0) > 0}
    assert asking == (MODEL_STAGES if device == "cuda" else set())


def test_the_profile_names_every_stage_that_asks_for_a_gpu():
    asking = {
        rule.split(":", 1)[0]
        for file in (ROOT / "rules").glob("*.smk")
        for rule in re.split(r"^rule ", file.read_text(encoding="utf-8"), flags=re.M)[1:]
        if re.search(r"^ +gpu=", rule, flags=re.M)
    }
    profile = (ROOT / "profiles" / "slurm" / "config.yaml").read_text(encoding="utf-8")
    named = re.findall(r"^#   (\w+): \{slurm_partition: gpu\}$", profile, flags=re.M)
    assert MODEL_STAGES < asking  # no dry run here plans the others
    assert sorted(named) == sorted(asking)


def test_memory_and_time_of_every_rule_grow_with_the_attempt():
    """Also of rules that no dry run plans; the real cluster shows that a retry asks for more."""
    lacking = []
    for file in (ROOT / "rules").glob("*.smk"):
        text = file.read_text(encoding="utf-8")
        for rule in re.split(r"^rule ", text, flags=re.M)[1:]:
            asks = "mem_mb=" in rule or "runtime=" in rule  # else the profile's default holds
            if asks and not ("mem_mb=megabytes(" in rule and "runtime=minutes(" in rule):
                lacking.append(rule.split(":", 1)[0])
    assert lacking == []


@pytest.mark.parametrize("profile", ["default", "slurm", "cluster-generic"])
def test_the_default_resources_of_every_profile_grow_with_the_attempt(profile):
    path = ROOT / "profiles" / profile / "config.yaml"
    defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["default-resources"]
    for name, first in {"mem_mb": 4000, "runtime": 60}.items():
        asked = Resources.parse([f"{name}={defaults[name]}"], allow_expressions=True)[name]
        grown = [
            asked.evaluate(
                **{"wildcards": None, "input": [], "attempt": attempt, "threads": 1},
                **{"rulename": "any", "async_run": None},
            ).value
            for attempt in (1, 2, 3)
        ]
        assert grown == [first, 2 * first, 4 * first]


@pytest.mark.parametrize(("gpu", "asked"), [(0, ""), (1, " --gpus=1")])
def test_slurm_is_asked_for_the_gpu(gpu, asked):
    """By the plugin that the profile uses: `gpu` is the resource that becomes --gpus."""
    assert set_gres_string(SimpleNamespace(resources={"gpu": gpu})) == asked


@pytest.mark.parametrize("threads", [None, "1"])
def test_what_was_fetched_says_how_much_memory_and_how_many_cores(tmp_path, threads):
    """In both halves; with STEERING_THREADS=1 every job has one core."""
    described = {
        "model": {"id": "m", "dtype": "bfloat16"},
        "shape": {"d_model": 2000},
        "saes": [{"d_sae": 1000}, {"d_sae": 16000}],
        "parameters": {"model": 2_000_000_000, "judges": 100_000_000},
    }
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    for name in ("gpt2_sst2", "gemma2b_mmlu/corrsteer"):
        (tmp_path / "results" / name).mkdir(parents=True)
        fetched = tmp_path / "results" / name / "resources.json"
        fetched.write_text(json.dumps(described), encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2"),
            *("--directory", str(tmp_path)),
            *("results/gpt2_sst2/judged.parquet", "results/gemma2b_mmlu/corrsteer.csv"),
        ],
        cwd=ROOT,
        env={**os.environ, **({"STEERING_THREADS": threads} if threads else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    plan = done.stdout + done.stderr
    assert done.returncode == 0, plan[-3000:]
    jobs = {job.split(":", 1)[0]: job for job in re.split(r"^(?:local)?rule ", plan, flags=re.M)}
    sizes = read_sizes(fetched)
    for rule, times in {
        "generate": {"model": 1.5, "sae": 2},
        "corrsteer_select": {"model": 1.5, "saes": 1, "judges": 1.5},
    }.items():
        assert f"mem_mb={sizes.megabytes(**times)}," in jobs[rule], rule
        assert ("threads: 2" in jobs[rule]) == (threads is None), rule
    if threads:
        assert "threads: 2" not in plan
