from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment, StrictUndefined

CAPTIONS = Path(__file__).parents[2] / "rules" / "report"
NAMES = (
    "pareto",
    "matched",
    "price",
    "sweep",
    "layer_effect",
    "generations",
    "features",
    "frontier",
    "variants",
    "norm_matched",
    "elsewhere",
    "dose",
    "index",
)


def rendered(name: str, context: object) -> str:
    text = (CAPTIONS / f"{name}.rst").read_text(encoding="utf-8")
    text = Environment(undefined=StrictUndefined).from_string(text).render(snakemake=context)
    # Level 2: a warning is an error.
    return publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["body"]


@pytest.mark.parametrize("name", NAMES)
def test_caption_names_its_experiment_and_its_limits(name: str) -> None:
    context = SimpleNamespace(wildcards=SimpleNamespace(experiment="gpt2_sst2"), config={})
    html = rendered(name, context)
    assert "<strong>gpt2_sst2:" in html
    assert "<strong>How to read it.</strong>" in html
    assert "<strong>What it does not say.</strong>" in html


def test_front_page_needs_no_wildcards_and_names_every_page() -> None:
    html = rendered("workflow", SimpleNamespace(config={}))
    assert all(f"<em>{name}</em>" in html for name in NAMES)
