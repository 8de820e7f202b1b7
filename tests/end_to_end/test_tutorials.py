"""Every tutorial runs as it stands on the world of the demo, and its page has what it prints."""

import importlib.util
from pathlib import Path

import pytest
from demo_world import ROOT, finished_small_demo
from forked_jobs import SNAKEMAKE

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))


@pytest.fixture(scope="module")
def render():
    """The hook of the docs site."""
    spec = importlib.util.spec_from_file_location("docs_render", ROOT / "docs" / "render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=[path.stem for path in TUTORIALS])
def test_a_tutorial_runs_and_its_page_shows_the_outputs(tutorial: Path, render, monkeypatch):
    monkeypatch.chdir(finished_small_demo())
    command = [*SNAKEMAKE, "--snakefile", str(ROOT / "Snakefile")]
    monkeypatch.setenv("SNAKEMAKE", " ".join(command))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = render.page(tutorial, run=True)
    assert page.count("```python") >= 5 and page.count("```text") >= 4
    assert "# %%" not in page and "Traceback" not in page


def test_a_page_without_a_run_has_the_code_alone(render):
    page = render.page(TUTORIALS[0], run=False)
    assert "```text" not in page and "after `make demo`" in page


def test_a_cell_that_fails_stops_the_page(render, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("# %% [markdown]\n# # Title\n\n# %%\nassert 1 == 2\n")
    with pytest.raises(AssertionError):
        render.page(wrong, run=True)
