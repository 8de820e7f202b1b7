"""A digest of the code that a workflow script runs, for use in rule parameters.

Snakemake cannot see edits of an imported package. A digest in ``params`` makes a rule stale if the
behaviour of a module that it uses changes, and only then. File times do not count, so a fresh clone
or a copy on a cluster reruns nothing.

The digest covers syntax trees without the parts that change no result: docstrings, comments,
layout, annotations of signatures and variables, error messages, and log calls. So a table may quote
an error message in an older wording than the code has. Annotations in the body of a class count,
because they define the fields of dataclasses and pydantic models.

Data in the package counts by its bytes: a file or folder beside a module that the module names. The
descriptions in ``tables/columns.yaml`` do not count, as the tables do not contain them.
"""

import ast
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = "steering_core"

#: Modules, as patterns, that only ask for memory, advise, report errors, repeat a failed download
#: or check beforehand. No result depends on them or on their imports, so they are left out.
#: (``progress`` counts, because the work items pass through it.) A new error class changes the code
#: that raises it anyway.
_WITHOUT_RESULTS = (
    "early_checks/*.py",
    "errors.py",
    "hub/errors.py",
    "runtime/memory.py",
)
#: In ``columns.yaml``: comments, and the texts of keys that only people read. Whether a column has
#: ``empty_when`` counts.
_DESCRIPTIONS = re.compile(
    rb"^#.*\n|(?<= )(?P<key>unit|meaning|empty_when):.*\n(?: {8,}.*\n)*", re.MULTILINE
)
_LOGGING = ("debug", "info", "warning", "error", "exception", "critical", "log")


def code_digest(script: str | Path) -> str:
    """Return a digest of ``script`` and of every module of the package it imports, transitively.

    Imports are read from the source, including imports inside functions but not those that only a
    type checker sees. Names that a package's ``__init__`` re-exports are followed only if some
    module imports them from the package.
    """
    files = {Path(script).resolve(), *used_modules(script)}
    digest = hashlib.sha256()
    for file in sorted(files, key=_name):
        digest.update(_name(file).encode() + b"\0" + _read(file).meaning + b"\0")
    return digest.hexdigest()[:16]


def used_modules(script: str | Path) -> set[Path]:
    """Return the files of the package that the digest of ``script`` follows.

    These are its direct and indirect imports, without the modules that no result depends on.
    """
    left_out = {file for name in _WITHOUT_RESULTS for file in (_ROOT / _PACKAGE).glob(name)}
    found: set[Path] = set()
    waiting = [Path(script).resolve()]
    while waiting:
        for file in _read(waiting.pop()).imports - found - left_out:
            found.add(file)
            # An __init__ reached as a parent only re-exports; do not follow it.
            if file.name != "__init__.py":
                waiting.append(file)
    return found


class _Module(NamedTuple):
    """The parts of a module that the digest uses.

    Attributes:
        imports: files of the package that it imports.
        meaning: its code as normalised text, followed by its data. Two versions with the same
            behaviour have the same text.
    """

    imports: frozenset[Path]
    meaning: bytes


@cache
def _read(file: Path) -> _Module:
    tree = _parse(file)
    imports, names = _imports(tree), _names(tree)
    tree = _WithoutWords().visit(tree)
    tree = _WithoutImports(names - _names(tree)).visit(tree)
    return _Module(imports, _as_text(tree).encode() + _data(file, tree))


def _parse(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes(), filename=str(file))


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


class _OfStatements(ast.NodeTransformer):
    """Visit statements and their signatures, but no expressions."""

    _VISITED = (ast.mod, ast.stmt, ast.excepthandler, ast.match_case, ast.arguments, ast.arg)

    def visit(self, node: ast.AST) -> Any:
        return super().visit(node) if isinstance(node, self._VISITED) else node


class _WithoutWords(_OfStatements):
    """Remove parts that are only for readers, type checkers and logs."""

    def __init__(self) -> None:
        self._in_class = False

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._visit_inside(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._visit_inside(node, in_class=False)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def _visit_inside(self, node: ast.AST, *, in_class: bool) -> ast.AST:
        outside, self._in_class = self._in_class, in_class
        self.generic_visit(node)
        self._in_class = outside
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if self._in_class:
            return node
        return ast.Assign(targets=[node.target], value=node.value) if node.value else None

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        words = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if words or _logs(node.value) else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        self.generic_visit(node)
        return node.orelse if _for_type_checkers(node) else node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            call, without = node.exc, _WithoutTexts()
            call.args = [without.visit(argument) for argument in call.args]
            for keyword in call.keywords:
                keyword.value = without.visit(keyword.value)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return node


class _WithoutTexts(ast.NodeTransformer):
    """Replace every text, and the values formatted into it, by an empty text."""

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.Constant("") if _is_text(node) else self.generic_visit(node)


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left, right=right):  # "a" + b, "%s" % b
            return _is_text(left) or _is_text(right)
        case ast.IfExp(body=one, orelse=other):
            return _is_text(one) and _is_text(other)
        case ast.Call(func=ast.Attribute(value=text)):  # "{}".format(b), ", ".join(b)
            return _is_text(text)
    return False


def _logs(node: ast.AST) -> bool:
    """Return whether it is ``log.info(…)`` or ``logging.getLogger(…).info(…)``, at any level."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("log"), attr=level)):
            return level in _LOGGING
        case ast.Call(
            func=ast.Attribute(value=ast.Call(func=ast.Attribute(attr="getLogger")), attr=level)
        ):
            return level in _LOGGING
    return False


class _WithoutImports(_OfStatements):
    """Remove imports of names that only the removed parts used."""

    def __init__(self, names: set[str]):
        self._names = names

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        node.names = [
            alias
            for alias in node.names
            if (alias.asname or alias.name).split(".")[0] not in self._names
        ]
        return node if node.names else None

    visit_Import = visit_ImportFrom = _visit_import  # noqa: N815


def _as_text(node: object) -> str:
    """Return a tree as text. Like ``ast.dump``, but the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_as_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={_as_text(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != [] and name != "kind"
    ]
    return f"{type(node).__name__}({','.join(fields)})"


def _data(module: Path, tree: ast.Module) -> bytes:
    """Return the names and bytes of the data that a module names."""
    beside = _data_in(module.parent) if module.is_relative_to(_ROOT / _PACKAGE) else []
    if not beside:
        return b""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    files = [
        file
        for path in beside
        if path.name in texts
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    ]
    return b"".join(b"\0" + _name(file).encode() + b"\0" + _content(file) for file in sorted(files))


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if file.name != "columns.yaml":
        return content
    return _DESCRIPTIONS.sub(lambda found: (found["key"] or b"") + b"\n", content)


@cache
def _data_in(folder: Path) -> list[Path]:
    """Return the files in a folder of the package that are not code."""
    return [
        path
        for path in folder.iterdir()
        if path.suffix != ".py" and path.name != "__pycache__"
        if not (path / "__init__.py").is_file()
    ]


def _name(file: Path) -> str:
    return file.relative_to(_ROOT).as_posix() if file.is_relative_to(_ROOT) else file.name


def _imports(tree: ast.Module) -> frozenset[Path]:
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            names |= _reexported(node.module, [alias.name for alias in node.names])
        elif not isinstance(node, ast.expr):  # expressions contain no imports
            waiting += node.orelse if _for_type_checkers(node) else ast.iter_child_nodes(node)
    return frozenset(
        path for name in names if name.split(".")[0] == _PACKAGE for path in _files(name)
    )


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def _files(name: str) -> list[Path]:
    """Return the file of a module and the ``__init__`` of every package above it."""
    parts = name.split(".")
    files = [_ROOT.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    files.append(_ROOT.joinpath(*parts).with_suffix(".py"))
    return [file for file in files if file.is_file()]


def _reexported(module: str, names: list[str]) -> set[str]:
    """Return the modules from which a package's ``__init__`` takes ``names``."""
    init = _ROOT.joinpath(*module.split("."), "__init__.py")
    if module.split(".")[0] != _PACKAGE or not init.is_file():
        return set()
    return {
        node.module
        for node in _parse(init).body
        if isinstance(node, ast.ImportFrom) and node.module
        if {alias.asname or alias.name for alias in node.names} & set(names)
    }
