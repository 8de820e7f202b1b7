"""Stages are many and short: none waits for libraries that only others need."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NO_MODEL = [
    "activation_manifest.py",
    "correlate_features.py",
    "features_page.py",
    "fit_directions.py",
    "solve_directions.py",
    "fit_probes.py",
    "frontier_figure.py",
    "generations_page.py",
    "norm_matched.py",
    "pareto.py",
    "pareto_figure.py",
    "pick_layer.py",
    "probe_effects.py",
    "products.py",
    "provenance.py",
    "solve.py",
    "sweep_figure.py",
]
MODELS = ["transformers", "sae_lens", "transformer_lens", "datasets", "huggingface_hub"]


@pytest.mark.parametrize(
    ("scripts", "without"),
    [
        (NO_MODEL, MODELS),
        (["correlate_features.py", "fit_probes.py", "pareto_figure.py"], ["torch"]),
        # A tokenizer, and a model only where its own module is taken up.
        (["examples.py", "judge.py"], ["transformers.modeling_utils", "datasets", "sae_lens"]),
        (["generate.py", "divergence.py"], ["sklearn", "sae_lens", "datasets", "altair"]),
    ],
)
def test_what_importing_the_code_of_stages_leaves_out(scripts: list[str], without: list[str]):
    trees = [ast.parse((ROOT / "workflow_scripts" / name).read_text("utf-8")) for name in scripts]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    lines = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    lines += ["import sys", f"print(*sorted(set({without!r}) & set(sys.modules)))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == []


def test_the_workflow_itself_starts_without_torch():
    """Each dry run, and each job on a cluster, reads the rules anew."""
    rules = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
    text = "\n".join(path.read_text("utf-8") for path in rules)
    modules = sorted(set(re.findall(r"^from (steering_core[\w.]*) import", text, flags=re.M)))
    assert len(modules) > 10
    lines = [f"import {name}" for name in modules]
    lines += ["import sys", "print(*{'torch', 'transformers'} & set(sys.modules))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == []
