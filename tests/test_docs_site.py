"""The site of the documentation builds, and every link in it leads somewhere."""

import logging
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parent.parent


def built(docs: Path, site: Path) -> Path:
    """Build the site of a folder of pages, with the project's settings."""
    config = load_config(
        config_file=str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(site)
    )
    build(config)
    return site


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path):
    site = built(ROOT / "docs", tmp_path / "site")
    pages = {page.stem for page in site.rglob("*.html")}
    assert {page.stem for page in (ROOT / "docs").rglob("*.md")} <= pages
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"({page.name})" in front for page in (ROOT / "docs").glob("[!i]*.md"))
    tutorials = {page.stem for page in (ROOT / "docs" / "tutorials").glob("*.py")}
    assert len(tutorials) == 5 and tutorials <= pages
    assert all(f"(tutorials/{name}.md)" in front for name in tutorials)
    text = (site / "tutorials" / "1_baselines.html").read_text(encoding="utf-8")
    assert "load_intervention" in text and "# %%" not in text


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#no-such-heading"])
def test_a_link_to_nowhere_stops_the_build(tmp_path: Path, link: str):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Page\n\n[a link]({link})\n", encoding="utf-8")
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    with pytest.raises(Abort, match="strict"):
        built(docs, tmp_path / "site")
