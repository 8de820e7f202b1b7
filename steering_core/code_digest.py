"""A digest of exactly the code that a workflow script runs, for use in rule parameters.

Snakemake cannot see edits of an imported package. A content digest in ``params`` makes a rule
stale when a module it uses changes, and only then; modification times play no part, so a fresh
clone or a copy on a cluster reruns nothing.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = "steering_core"
#: Modules of this name raise or do nothing: no output depends on them or on what they use.
_CHECKS = "early_checks.py"


def code_digest(script: str | Path) -> str:
    """Return a digest of ``script`` and of every module of the package it imports, transitively.

    Imports are read from the source, also those inside functions, but for those that only a type
    checker sees. A package ``__init__`` counts as text; the names it re-exports are followed only
    if something imports them from the package. Checks that come before the work do not count.
    """
    files = {Path(script).resolve(), *used_modules(script)}
    digest = hashlib.sha256()
    for file in sorted(files, key=_name):
        digest.update(_name(file).encode() + b"\0" + _content(file) + b"\0")
    return digest.hexdigest()[:16]


def used_modules(script: str | Path) -> set[Path]:
    """Return the files of the package that ``script`` imports, directly or not."""
    found: set[Path] = set()
    waiting = [Path(script).resolve()]
    while waiting:
        for file in _imports(waiting.pop()):
            if file not in found and file.name != _CHECKS:
                found.add(file)
                # An __init__ reached as a parent only re-exports; do not follow it.
                if file.name != "__init__.py":
                    waiting.append(file)
    return found


@cache
def _content(file: Path) -> bytes:
    return file.read_bytes().replace(b"\r\n", b"\n")


def _name(file: Path) -> str:
    return file.relative_to(_ROOT).as_posix() if file.is_relative_to(_ROOT) else file.name


@cache
def _imports(file: Path) -> frozenset[Path]:
    names: set[str] = set()
    for node in _run(ast.parse(_content(file), filename=str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            names |= _reexported(node.module, [alias.name for alias in node.names])
    return frozenset(
        path for name in names if name.split(".")[0] == _PACKAGE for path in _files(name)
    )


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what stands under ``if TYPE_CHECKING:``."""
    yield node
    only_typed = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    for child in node.orelse if only_typed else ast.iter_child_nodes(node):
        yield from _run(child)


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
    sources: set[str] = set()
    for node in ast.walk(ast.parse(_content(init))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if {alias.asname or alias.name for alias in node.names} & set(names):
                sources.add(node.module)
    return sources
