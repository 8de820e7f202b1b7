"""Turn the tutorials into pages: a hook of mkdocs, and the function that tests use.

A tutorial is a Python file with cells (jupytext's percent format). Its pages always have the text
and the code. With ``TUTORIALS=run`` the cells run, in the repository, and what they print is shown.
"""

import ast
import contextlib
import io
import os
from pathlib import Path
from typing import Any

import jupytext
import pandas as pd


def page(tutorial: Path, *, run: bool) -> str:
    """Return a tutorial as Markdown.

    Args:
        tutorial: the Python file.
        run: whether its cells are run, in the working directory.

    Raises:
        Exception: whatever a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    for cell in jupytext.read(tutorial, fmt="py:percent").cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if run and (said := output_of(cell.source, names, str(tutorial))):
            parts.append(f"```text\n{said}\n```")
    if not run:
        parts.insert(1, "*The outputs are shown if the site is built after `make demo`.*")
    return "\n\n".join(parts) + "\n"


def output_of(source: str, names: dict[str, Any], file: str) -> str:
    """Run a cell and return what it prints, and the value of a last expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    said = io.StringIO()
    wide = ("display.width", 110, "display.max_columns", 20, "display.max_colwidth", 48)
    with contextlib.redirect_stdout(said), pd.option_context(*wide):
        exec(compile(tree, file, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), file, "eval"), names)
            if value is not None:
                print(value)
    return said.getvalue().rstrip()


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each tutorial. Called by mkdocs."""
    from mkdocs.structure.files import File

    run = os.environ.get("TUTORIALS") == "run"
    for tutorial in sorted((Path(config["docs_dir"]) / "tutorials").glob("*.py")):
        name = f"tutorials/{tutorial.stem}.md"
        files.append(File.generated(config, name, content=page(tutorial, run=run)))
    return files
