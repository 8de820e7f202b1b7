"""The page of settings and stages says what the rules read."""

import pytest
from render_settings import PAGE, page


@pytest.fixture(scope="module")
def written() -> str:
    return page()


def test_the_page_is_what_its_command_writes(written):
    assert PAGE.read_text(encoding="utf-8") == written


def row(text: str, setting: str) -> dict[str, str]:
    """The first row of a setting, by the head of its table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return dict(zip(cells[0], next(c for c in cells if c[0] == f"`{setting}`"), strict=True))


def test_the_table_names_the_stages_that_run_again(written):
    texts = row(written, "new_tokens")
    assert [name for name, cell in texts.items() if cell == "reads"] == ["generate"]
    assert [name for name, cell in texts.items() if cell == "again"] == [
        *("divergence", "judge", "pareto")
    ]
    prompts = row(written, "n_prompts")
    assert prompts["also read by"] == "`prompts`"
    for stage in ("fetch", "cache_activations", "fit_probes", "solve"):
        assert texts[stage] == prompts[stage] == ""
    assert row(written, "seed")["fit_probes"] == "reads"
    assert row(written, "rows_per_class")["fetch"] == ""
    assert row(written, "layer")["fetch"] == "reads"
    assert row(written, "layer")["solve"] == "again"
