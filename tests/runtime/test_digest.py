"""A stage is rerun when a module it uses changes, and only then."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import steering_core
from steering_core.runtime import digest
from steering_core.runtime.digest import used_modules

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "workflow_scripts").glob("*.py"))
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "steering_core").rglob("*.py")
)
LEFT_OUT = {f for name in digest._WITHOUT_RESULTS for f in (ROOT / "steering_core").glob(name)}
_PYTHON_ONLY = shutil.ignore_patterns("__pycache__", "*.pyc")


class Tree:
    """A copy of the repository's code that can be edited."""

    def __init__(self, root: Path):
        self.root = root
        self._unedited: dict[str, str] | None = None

    def _fresh(self) -> ModuleType:
        """The copied module, by path and anew: it caches what it has read."""
        file = self.root / "steering_core/runtime/digest.py"
        spec = importlib.util.spec_from_file_location("copied_digest", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def digests(self) -> dict[str, str]:
        module = self._fresh()
        scripts = sorted((self.root / "workflow_scripts").glob("*.py"))
        return {script.name: module.code_digest(script) for script in scripts}

    def users(self) -> dict[str, set[str]]:
        """The scripts that use each module."""
        module = self._fresh()
        users: dict[str, set[str]] = {}
        for script in sorted((self.root / "workflow_scripts").glob("*.py")):
            for file in module.used_modules(script):
                users.setdefault(file.relative_to(self.root).as_posix(), set()).add(script.name)
        return users

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self._unedited = None

    def changed_by(self, name: str) -> set[str]:
        """The scripts whose digest changes when a file gets another line; it is restored."""
        before = self._unedited = self._unedited or self.digests()
        file = self.root / name
        original = file.read_bytes()
        file.write_bytes(original + b"\nEDITED = 1\n")
        after = self.digests()
        file.write_bytes(original)
        return {script for script in before if before[script] != after[script]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """All code of the project; what a test edits, it restores."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("steering_core", "workflow_scripts"):
        shutil.copytree(ROOT / folder, root / folder, ignore=_PYTHON_ONLY)
    return Tree(root)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Tree]:
    """A package of a few modules, so that every kind of import can be tried."""
    tree = Tree(tmp_path)
    (tmp_path / "steering_core/runtime").mkdir(parents=True)
    shutil.copy(ROOT / "steering_core/runtime/digest.py", tmp_path / "steering_core/runtime")
    tree.write("steering_core/__init__.py", '"""Top."""\n')
    tree.write("steering_core/low.py", "")
    tree.write("steering_core/other.py", "")
    tree.write(
        "steering_core/sub/__init__.py",
        "from steering_core.sub.a import A\nfrom steering_core.sub.b import B as C\n",
    )
    tree.write("steering_core/sub/a.py", "from steering_core.low import x\nA = 1\n")
    tree.write("steering_core/sub/b.py", "B = 1\n")
    yield tree


def test_modules_and_scripts_were_found():
    assert len(SCRIPTS) > 20 and len(MODULES) > 80


def test_an_edit_reruns_exactly_the_scripts_that_use_the_module(tree: Tree):
    users = tree.users()
    for module in ("optimize/knots", "methods/programs", "data/build", "statistics/bootstrap"):
        name = f"steering_core/{module}.py"
        assert tree.changed_by(name) == users[name] != set(SCRIPTS)


@pytest.mark.parametrize(
    ("module", "reruns", "leaves"),
    [
        (
            "optimize/homotopy.py",
            {"solve.py"},
            {"cache_activations.py", "fit_probes.py", "fit_directions.py", "judge.py", "pareto.py"},
        ),
        (
            "optimize/working_set/bounds.py",
            {"solve_variants.py"},
            {"solve.py", "variants_table.py"},
        ),
        ("data/labelled.py", {"fetch.py"}, {"examples.py", "cache_activations.py", "solve.py"}),
        (
            "models/sae_source.py",
            {"fetch.py", "corrsteer_fetch.py", "encode_features.py"},
            {"examples.py", "cache_activations.py", "generate.py", "corrsteer_examples.py"},
        ),
        (
            "hub/revisions.py",
            {"fetch.py", "encode_features.py"},
            {"cache_activations.py", "generate.py", "judge.py"},
        ),
        ("data/build.py", {"examples.py"}, {"fetch.py", "solve.py", "generate.py"}),
        ("corrsteer/examples.py", {"corrsteer_examples.py"}, {"corrsteer_fetch.py", "examples.py"}),
        ("corrsteer/plan.py", {"corrsteer_plan.py"}, {"corrsteer_select.py"}),
        ("corrsteer/report.py", {"corrsteer_report.py"}, {"corrsteer_answer.py"}),
        ("optimize/path.py", {"solve.py"}, {"solve_directions.py", "corrsteer_examples.py"}),
        ("methods/fixed_solutions.py", {"solve_directions.py"}, {"generate.py", "pareto.py"}),
        (
            "generation/sampling.py",
            {"generate.py", "corrsteer_answer.py"},
            {"solve.py", "examples.py", "pareto.py", "corrsteer_examples.py", "corrsteer_plan.py"},
        ),
        ("metrics/judges.py", {"judge.py", "corrsteer_answer.py"}, {"fetch.py", "generate.py"}),
        ("activations/cache.py", {"cache_activations.py"}, {"generate.py", "encode_features.py"}),
        ("statistics/bootstrap.py", {"pareto.py"}, {"judge.py", "solve.py"}),
        ("tables/pareto.py", {"pareto.py"}, {"solve.py", "generate.py"}),
        ("methods/directions.py", {"fit_directions.py"}, {"solve.py", "generate.py", "pareto.py"}),
        (
            "methods/programs.py",
            {"solve.py"},
            {"fit_directions.py", "generate.py", "divergence.py", "pareto.py"},
        ),
        (
            "config/methods.py",
            {"solve.py", "generate.py"},
            {"cache_activations.py", "fit_probes.py"},
        ),
        ("methods/solutions.py", {"solve_variants.py", "pareto.py"}, {"fit_directions.py"}),
        ("metrics/divergence.py", {"divergence.py"}, {"judge.py", "generate.py"}),
        ("metrics/judging.py", {"judge.py"}, {"divergence.py", "generate.py"}),
        ("metrics/classifiers.py", {"judge.py"}, {"divergence.py", "generate.py", "solve.py"}),
        ("config/schema.py", set(), set(SCRIPTS)),
        ("config/corrsteer_schema.py", set(), set(SCRIPTS)),
        ("config/task.py", {"examples.py", "judge.py"}, {"cache_activations.py", "solve.py"}),
        ("config/model.py", {"cache_activations.py"}, {"solve.py", "fit_probes.py"}),
        ("runtime/job.py", set(SCRIPTS), set()),
        ("storage/integrity.py", set(SCRIPTS), set()),
        ("demo/grammar.py", {"demo_corpus.py"}, {"examples.py", "solve.py"}),
    ],
)
def test_stages_are_tied_to_the_modules_one_expects(
    tree: Tree, module: str, reruns: set[str], leaves: set[str]
):
    changed = tree.changed_by(f"steering_core/{module}")
    assert reruns <= changed
    assert not leaves & changed


def test_a_script_depends_on_its_own_text_alone(tree: Tree):
    assert tree.changed_by("workflow_scripts/solve.py") == {"solve.py"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_uses_the_package(script: str):
    used = _used(script)
    assert ROOT / "steering_core/runtime/job.py" in used
    assert len([file for file in used if file.name != "__init__.py"]) >= 2


def _used(script: str) -> set[Path]:
    return used_modules(ROOT / "workflow_scripts" / script)


def test_what_python_really_imports_is_in_the_digest():
    """Run the imports of a script in a fresh process, and list the loaded modules."""
    script = ROOT / "workflow_scripts" / "pareto.py"
    nodes = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    imports = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    ours = "[m.__file__ for n, m in sys.modules.items() if n.startswith('steering_core')]"
    show = f"print(*filter(None, {ours}))"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*imports, "import sys", show])],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = {Path(name) for name in done.stdout.split()}
    used = used_modules(script)
    assert used <= loaded
    # What is loaded and does not count came through the __init__ of a package, and only so.
    reexported, waiting = set(), [file for file in loaded if file.name == "__init__.py"]
    while waiting:
        new = digest._read(waiting.pop()).imports - reexported
        reexported |= new
        waiting += new
    assert loaded - reexported - LEFT_OUT <= used


IMPORTS = {
    "module": "import steering_core.low",
    "alias": "import steering_core.low as thing",
    "name": "from steering_core.low import x",
    "from the top": "from steering_core import low",
    "in a function": "def f():\n    from steering_core.low import x",
    "in a with block": "with f():\n    import steering_core.low",
    "under a condition": "if a:\n    pass\nelse:\n    import steering_core.low",
    "in a try": "try:\n    import steering_core.low\nfinally:\n    pass",
    "transitively": "from steering_core.sub.a import A",
    "through a re-export": "from steering_core.sub import A",
}


@pytest.mark.parametrize("statement", IMPORTS.values(), ids=IMPORTS)
def test_every_way_to_import_counts(small: Tree, statement: str):
    small.write("workflow_scripts/s.py", statement + "\n")
    assert small.changed_by("steering_core/low.py") == {"s.py"}
    assert small.changed_by("steering_core/other.py") == set()


def test_reexports_are_followed_only_for_the_names_imported(small: Tree):
    small.write("workflow_scripts/s.py", "from steering_core.sub import C\n")
    assert small.changed_by("steering_core/sub/b.py") == {"s.py"}
    assert small.changed_by("steering_core/sub/a.py") == set()
    assert small.changed_by("steering_core/low.py") == set()
    assert small.changed_by("steering_core/sub/__init__.py") == {"s.py"}
    small.write("workflow_scripts/s.py", "from steering_core.sub.b import B\n")
    assert small.changed_by("steering_core/sub/a.py") == set()


@pytest.mark.parametrize(
    "statement",
    [
        "if TYPE_CHECKING:\n    import steering_core.low",
        "from steering_core.early_checks import check",
        "from steering_core.early_checks.offline import check",
        "from steering_core.errors import DataError",
        "from steering_core.hub.errors import retry_while_unavailable",
    ],
)
def test_what_no_output_depends_on_does_not_count(small: Tree, statement: str):
    for module in ("early_checks/offline.py", "errors.py", "hub/errors.py"):
        small.write(f"steering_core/{module}", "import steering_core.low\n")
    reexport = "from steering_core.early_checks.offline import check\n"
    small.write("steering_core/early_checks/__init__.py", reexport)
    small.write("workflow_scripts/s.py", statement + "\nelse_ = 1\n")
    assert small.changed_by("steering_core/low.py") == set()
    assert small.changed_by("steering_core/early_checks/__init__.py") == set()
    assert small.changed_by("steering_core/early_checks/offline.py") == set()
    assert small.changed_by("steering_core/errors.py") == set()
    assert small.changed_by("steering_core/hub/errors.py") == set()
    small.write(
        "workflow_scripts/s.py", "if TYPE_CHECKING:\n    x = 1\nelse:\n    import steering_core.low"
    )
    assert small.changed_by("steering_core/low.py") == {"s.py"}


def test_circles_end(small: Tree):
    small.write("steering_core/low.py", "import steering_core.other\n")
    small.write("steering_core/other.py", "import steering_core.low\n")
    small.write("workflow_scripts/s.py", "import steering_core.low\n")
    assert small.changed_by("steering_core/other.py") == {"s.py"}


def test_line_endings_times_and_place_do_not_matter(small: Tree, tmp_path_factory):
    small.write("workflow_scripts/s.py", "import steering_core.low\n")
    small.write("steering_core/low.py", "x = 1\ny = 2\n")
    before = small.digests()
    (small.root / "steering_core/low.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    assert small.digests() == before
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(small.root, elsewhere)
    assert Tree(elsewhere).digests() == before


#: Two versions of a module that do the same.
SAME = {
    "docstrings": (
        '"""One."""\ndef f():\n    """One."""\n    return 1',
        '"""Two."""\ndef f():\n    """Two,\n    longer."""\n    return 1',
    ),
    "a docstring or none": ("class A:\n    'One.'\n    x = 1", "class A:\n    x = 1"),
    "a docstring below a field": ("class A:\n    x = 1\n    'One.'", "class A:\n    x = 1"),
    "comments and layout": ("x = [1,\n  2]  # one", "# two\n\nx = [1, 2]"),
    "quotes, parentheses, digits": ("x = ('a' + 'b', 1000)", 'x = (("a") + "b"), 1_000'),
    "annotations of a signature": (
        "from typing import Any\ndef f(x: Any, *y: int, z: str = '') -> Any:\n    return x",
        "from numpy import ndarray\ndef f(x: ndarray, *y, z='') -> None:\n    return x",
    ),
    "annotations of a method": (
        "class A:\n    async def f(self, x: 'int') -> int: return x",
        "class A:\n    async def f(self, x): return x",
    ),
    "annotations of variables": (
        "x: int = 1\ndef f():\n    y: str\n    y = 2\n    z: int = y",
        "x = 1\ndef f():\n    y = 2\n    z = y",
    ),
    "annotations of attributes": (
        "class A:\n    def f(self):\n        self.x: int = 1",
        "class A:\n    def f(self):\n        self.x = 1",
    ),
    "imports for a type checker": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\nx = 1",
        "x = 1",
    ),
    "the text of an error": (
        "raise ValueError('one', 2)",
        "raise ValueError(f'{two:.1f} of {np.three()}' + four, 2)",
    ),
    "an import for the text of an error": (
        "from words import said\nraise ValueError(f'{said(x)}')",
        "raise ValueError('one')",
    ),
    "texts of an error by condition": (
        "raise ValueError(f'{x}' if y else 'b', name='a')",
        "raise ValueError('c' if z else 'd'.join(e), name='%s' % g)",
    ),
    "the text of an assertion": ("assert x, 'one'", "assert x, f'{two}'"),
    "what is logged": ("log.info('one %d', 1)\nx = 1", "log.warning('two')\nx = 1"),
    "a line of the log more": (
        "x = 1",
        "import logging\nx = 1\nlogging.getLogger(__name__).error('one')",
    ),
    "prefix of a text": ("x = 'a'", "x = u'a'"),
}
#: Two versions of a module that differ in what they do.
OTHER = {
    "a constant": ("x = 1", "x = 2"),
    "the type of a constant": ("x = 1", "x = 1.0"),
    "truth for a number": ("x = 1", "x = True"),
    "none for nothing": ("def f():\n    return", "def f():\n    return None"),
    "a default": ("def f(x: int = 1): pass", "def f(x: int = 2): pass"),
    "an expression": ("x = a + b * c", "x = (a + b) * c"),
    "a name": ("def f(x): return x", "def f(y): return y"),
    "the order": ("x = 1\ny = 2", "y = 2\nx = 1"),
    "a field of a class": ("class A:\n    x: int", "class A:\n    x: str"),
    "a field without a value": ("class A:\n    x: int\n    y = 1", "class A:\n    y = 1"),
    "a bound of a field": (
        "class A:\n    x: Annotated[int, Field(gt=0)]",
        "class A:\n    x: Annotated[int, Field(ge=0)]",
    ),
    "a text in the type of a field": (
        "class A:\n    x: Literal['a']",
        "class A:\n    x: Literal['a', 'b']",
    ),
    "the default of a field": ("class A:\n    x: int = 1", "class A:\n    x: int = 2"),
    "a field inside a function": (
        "def f():\n    class A:\n        x: int",
        "def f():\n    class A:\n        x: str",
    ),
    "an alias of types": ("A = Annotated[int, 1]", "A = Annotated[int, 2]"),
    "the value of an annotated variable": ("x: int = 1", "x: int = 2"),
    "a decorator": ("@a\ndef f(): pass", "@b\ndef f(): pass"),
    "the class of an error": ("raise ValueError('a')", "raise KeyError('a')"),
    "a number of an error": ("raise Exit(1)", "raise Exit(2)"),
    "which error is raised": ("raise errors['a']('b')", "raise errors['c']('b')"),
    "whether an error is raised": ("if x:\n    raise E('a')", "if y:\n    raise E('a')"),
    "a text of another call": ("f('a')", "f('b')"),
    "a text that is returned": ("def f():\n    return 'a'", "def f():\n    return 'b'"),
    "a logarithm": ("x = log.info(1)", "x = log.info(2)"),
    "a call of something like a log": ("log.append(1)", "log.append(2)"),
    "what an assertion asks": ("assert x, 'a'", "assert y, 'a'"),
    "otherwise than for a type checker": (
        "if TYPE_CHECKING:\n    pass\nelse:\n    x = 1",
        "if TYPE_CHECKING:\n    pass\nelse:\n    x = 2",
    ),
    "where a name comes from": ("from a import x\nx()", "from b import x\nx()"),
    "an import for its effect": ("import a\nx = 1", "x = 1"),
    "the base of a class": ("class A(B): pass", "class A(C): pass"),
}


def _digest_of(small: Tree, code: str) -> str:
    small.write("workflow_scripts/s.py", "import steering_core.low\n")
    small.write("steering_core/low.py", code + "\n")
    return small.digests()["s.py"]


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_words_and_layout_make_nothing_stale(small: Tree, one: str, other: str):
    assert _digest_of(small, one) == _digest_of(small, other)


@pytest.mark.parametrize(("one", "other"), OTHER.values(), ids=OTHER)
def test_what_the_code_does_makes_its_users_stale(small: Tree, one: str, other: str):
    assert _digest_of(small, one) != _digest_of(small, other)


def _checks_of_rules_and_stages() -> set[str]:
    """What rules and scripts import from ``early_checks``; the rest serves its own command."""
    files = [*(ROOT / "rules").glob("*.smk"), *(ROOT / "workflow_scripts").glob("*.py")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    named = [line.split(" import ")[1] for line in lines if "early_checks import " in line]
    return {name.strip() for names in named for name in names.split(",")}


def test_modules_outside_the_digest_exist_and_write_no_files():
    package = ROOT / "steering_core"
    assert [name for name in digest._WITHOUT_RESULTS if not any(package.glob(name))] == []
    checks = [file for file in LEFT_OUT if file.parent.name == "early_checks"]
    nodes = [node for file in checks for node in ast.parse(file.read_text("utf-8")).body]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    returned = {node.name: ast.unparse(node.returns) for node in functions}
    used = _checks_of_rules_and_stages()
    assert {returned[name] for name in used} == {"None"} and len(used) > 3
    for file in LEFT_OUT:
        text = file.read_text(encoding="utf-8")
        assert "steering_core.storage" not in text and "atomic_path" not in text


#: What looks at docstrings or at annotations of signatures while the code runs.
_LOOKERS = {"__doc__", "__annotations__", "get_annotations", "get_type_hints"}
_LOOKERS |= {
    "return_annotation",
    "singledispatch",
    "singledispatchmethod",
    "validate_call",
    "computed_field",
}
_LOOKERS |= {"field_serializer", "model_serializer", "jaxtyped", "beartype"}


@pytest.mark.parametrize("name", [*MODULES, *(f"workflow_scripts/{s}" for s in SCRIPTS)])
def test_no_code_reads_the_words_that_do_not_count(name: str):
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        used = getattr(node, "id", None) or getattr(node, "attr", None)
        assert used not in _LOOKERS, f"{used} in line {node.lineno}"


@pytest.mark.parametrize("data", ["rows.yaml", "pages/one.html", "pages/parts/two.html"])
def test_data_beside_a_module_counts_where_it_is_named(small: Tree, data: str):
    small.write(f"steering_core/sub/{data}", "a: 1\n")
    name = data.split("/")[0]
    small.write("steering_core/sub/a.py", f"A = Path(__file__).with_name({name!r})\n")
    small.write("workflow_scripts/s.py", "from steering_core.sub.a import A\n")
    small.write("workflow_scripts/t.py", "from steering_core.sub.b import B\n")
    assert small.changed_by(f"steering_core/sub/{data}") == {"s.py"}


def test_the_columns_are_part_of_the_tables(tree: Tree):
    changed = tree.changed_by("steering_core/tables/columns.yaml")
    assert {"pareto.py", "variants_table.py", "corrsteer_report.py"} <= changed
    answering = {"corrsteer_select.py", "corrsteer_answer.py", "corrsteer_sparse_methods.py"}
    assert not changed & {"solve.py", "train_sae.py", "corrsteer_validate.py", *answering}


COLUMN = """# words
a:
  key: [x]
  columns:
    - name: x
      unit: metres
      meaning: >-
        of one line
        and another
      kind: text
    - name: y
      unit: metres
      meaning: short
      empty_when: never seen
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("# words", "# other words", False),
        ("metres", "feet", False),
        ("of one line", "of a first line", False),
        ("        and another\n", "", False),
        (">-\n        of one line\n        and another", "one line", False),
        ("short", "long", False),
        ("never seen", "not seen", False),
        ("      empty_when: never seen\n", "", True),
        ("name: y", "name: z", True),
        ("kind: text", "kind: flag", True),
        ("key: [x]", "key: [y]", True),
        ("a:", "b:", True),
    ],
)
def test_the_words_about_a_column_do_not_count(small: Tree, old: str, new: str, counts: bool):
    small.write("steering_core/sub/columns.yaml", COLUMN)
    small.write("steering_core/sub/a.py", "A = Path(__file__).with_name('columns.yaml')\n")
    small.write("workflow_scripts/s.py", "from steering_core.sub.a import A\n")
    before = small.digests()
    assert old in COLUMN
    small.write("steering_core/sub/columns.yaml", COLUMN.replace(old, new, 1))
    assert (small.digests() != before) == counts


def test_renaming_or_removing_a_module_counts(small: Tree):
    small.write("workflow_scripts/s.py", "import steering_core.low\n")
    before = small.digests()
    (small.root / "steering_core/low.py").unlink()
    assert small.digests() != before


def test_every_package_has_an_init():
    folders = {str(Path(name).parent) for name in MODULES}
    assert [f for f in sorted(folders) if f"{f}/__init__.py" not in MODULES] == []


#: Its names for users are imported on first use; every module imports this file.
LAZY = "steering_core/__init__.py"
#: Imports packages of other programs by name, never this package.
OTHERS = "steering_core/exports/formats.py"
INITS = [name for name in MODULES if name.endswith("__init__.py") and name != LAZY]


@pytest.mark.parametrize("name", INITS)
def test_package_inits_only_reexport(name: str):
    for node in ast.parse((ROOT / name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        elif isinstance(node, ast.Assign):
            assert {target.id for target in node.targets} <= {"__all__", "__version__"}
        else:
            assert isinstance(node, ast.ImportFrom), ast.unparse(node)


@pytest.mark.parametrize("name", [*MODULES, *(f"workflow_scripts/{s}" for s in SCRIPTS)])
def test_no_import_escapes_the_digest(name: str):
    """Relative, star and dynamic imports and packages used as a namespace are not followed."""
    source = (ROOT / name).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, ast.unparse(node)
            if (node.module or "").split(".")[0] == "steering_core":
                for alias in node.names:
                    assert alias.name != "*", ast.unparse(node)
                    assert not _is_package(f"{node.module}.{alias.name}"), ast.unparse(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "steering_core":
                    assert not _is_package(alias.name), ast.unparse(node)
    assert "__import__" not in source
    assert "import_module" not in source or name in (LAZY, OTHERS)


def test_no_stage_uses_the_names_for_users():
    """The digest does not follow the imports on first use of the package's own file."""
    lazy = {"apply_all", "load_intervention"}
    assert set(steering_core._LAZY) == lazy
    for name in [*MODULES, *(f"workflow_scripts/{s}" for s in SCRIPTS)]:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "steering_core":
                assert not lazy & {alias.name for alias in node.names}, name


def _is_package(name: str) -> bool:
    return ROOT.joinpath(*name.split("."), "__init__.py").is_file()


def test_no_module_imports_snakemake():
    for name in MODULES:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "snakemake", name
            elif isinstance(node, ast.Import):
                assert all(a.name.split(".")[0] != "snakemake" for a in node.names), name
