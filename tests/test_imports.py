"""Imports go one way, without circles, and no stage waits for libraries that only others need."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NO_MODEL = [
    "activation_manifest.py",
    "answer.py",
    "correlate_features.py",
    "experiment_page.py",
    "features_page.py",
    "fit_directions.py",
    "solve_directions.py",
    "fit_probes.py",
    "frontier_figure.py",
    "generations_page.py",
    "matched.py",
    "matched_figure.py",
    "norm_matched.py",
    "norm_matched_figure.py",
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


def test_the_workflow_itself_starts_without_torch_and_statistics():
    """Each dry run, and each job on a cluster, reads the rules anew."""
    rules = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
    text = "\n".join(path.read_text("utf-8") for path in rules)
    modules = sorted(set(re.findall(r"^from (steering_core[\w.]*) import", text, flags=re.M)))
    assert len(modules) > 10
    lines = [f"import {name}" for name in modules]
    slow = {"torch", "transformers", "scipy.stats", "sklearn"}
    lines += ["import sys", f"print(*{slow} & set(sys.modules))"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == []


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names that code imports, without those that only a type checker sees."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def import_graph(files: dict[str, str]) -> dict[str, set[str]]:
    """Return the modules that each module imports, from their texts by dotted name."""
    graph: dict[str, set[str]] = {}
    for name, text in files.items():
        names = set(imported(ast.parse(text)))
        names |= {found.rpartition(".")[0] for found in names}  # `from module import name`
        graph[name] = (names & files.keys()) - {name}
    return graph


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = {}
    for path in (ROOT / "steering_core").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__init__":  # these only re-export
            files[".".join(parts)] = path.read_text("utf-8")
    return import_graph(files)


def order_of_contributing() -> list[set[str]]:
    """Return the packages in the order that CONTRIBUTING.md gives, those at one place together."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (flow,) = re.findall(r"\*\*Flow\.\*\*[^`]*`([^`]*)`", text)
    return [set(re.findall(r"\w+", place)) for place in flow.split("→")]


def against_the_flow(graph: dict[str, set[str]], order: list[set[str]]) -> list[str]:
    """Return the imports between packages that do not go to the left of ``order``."""
    place = {package: i for i, packages in enumerate(order) for package in packages}
    wrong = []
    for name, imports in graph.items():
        own = name.split(".")[1]
        for other in sorted(imports):
            package = other.split(".")[1]
            if package != own and own != "early_checks" and place[package] >= place[own]:
                wrong.append(f"{name} imports {other}")
    return wrong


def test_packages_import_only_from_packages_to_their_left(graph):
    order = order_of_contributing()
    packages = {name.split(".")[1] for name in graph}
    assert set().union(*order) | {"early_checks"} == packages
    assert against_the_flow(graph, order) == []
    checks = {name for name in graph if name.startswith("steering_core.early_checks.")}
    users = [name for name, imports in graph.items() if imports & checks and name not in checks]
    assert len(checks) > 2 and users == []


def test_modules_do_not_import_each_other(graph):
    assert len(graph) > 50
    list(TopologicalSorter(graph).static_order())


def test_arrows_and_circles_are_found():
    files = {
        "steering_core.a.one": "import steering_core.b.two\n",
        "steering_core.b.two": "def f():\n    from steering_core.b import three\n",
        "steering_core.b.three": "from steering_core.b.two import f\n",
        "steering_core.c": "if TYPE_CHECKING:\n    import steering_core.d\n",
        "steering_core.d": "from steering_core.c import x\n",
    }
    graph = import_graph(files)
    assert graph["steering_core.c"] == set()
    wrong = ["steering_core.a.one imports steering_core.b.two"]
    assert against_the_flow(graph, [{"a"}, {"b"}, {"c"}, {"d"}]) == wrong
    assert against_the_flow(graph, [{"a", "b"}, {"c"}, {"d"}]) == wrong
    assert against_the_flow(graph, [{"b"}, {"a"}, {"c"}, {"d"}]) == []
    with pytest.raises(CycleError):
        list(TopologicalSorter(graph).static_order())


def test_contributing_names_files_that_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[\w/.]*)`", text)
    assert len(named) > 25
    places = (ROOT, ROOT / "steering_core")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_contributing_draws_every_package():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.split("```")[1]
    packages = {path.parent.name for path in (ROOT / "steering_core").glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/", picture, flags=re.M)) == packages
