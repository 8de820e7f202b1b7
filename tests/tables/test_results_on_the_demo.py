"""What the pages say of the demo is what the tables beside them hold."""

from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = "demo_elsewhere"
TABLES = DOCS / "results_demo" / NAME
TIGHT, LOOSE, PLAIN, STRENGTH = "guarded_qp", "loosely_guarded_qp", "mean_difference_qp", 1.0


def change(row: pd.Series, stem: str, ends: str) -> str:
    value, low, high = (row[f"{stem}{end}"] for end in ("", f"{ends}_low", f"{ends}_high"))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


@pytest.fixture(scope="module")
def prose() -> str:
    return " ".join((DOCS / "elsewhere.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def guards() -> pd.DataFrame:
    table = pd.read_csv(TABLES / "guards.csv")
    return table[table["strength"] == STRENGTH].set_index("method")


@pytest.fixture(scope="module")
def elsewhere() -> pd.DataFrame:
    table = pd.read_csv(TABLES / "elsewhere.csv")
    return table.set_index(["method", "probe", "measure"]).sort_index()


def test_the_sentences_on_guards_match_the_tables(prose, guards, elsewhere):
    firsts = {method: guards.loc[method].iloc[0] for method in (TIGHT, LOOSE)}
    for named, stem in (
        ("share of texts in the target class", "classifier_rate_change"),
        ("KL on the prompts, nats per token (mean over prompts)", "kl_change"),
    ):
        cells = [change(first, stem, "_ci") for first in firsts.values()]
        assert f"| {named} | {' | '.join(cells)} |" in prose
    for named, key in (
        ("KL on the demo's corpus, nats per token (mean over all tokens)", ("text", "kl")),
        ("perplexity of the demo's corpus", ("text", "perplexity")),
        ("accuracy on `praise`", ("praise", "accuracy")),
    ):
        cells = [change(elsewhere.loc[(method, *key)], "guard_change", "") for method in firsts]
        assert f"| {named} | {' | '.join(cells)} |" in prose
    tight, loose = firsts[TIGHT], firsts[LOOSE]
    moved = " and ".join(f"{shift:.2f}" for shift in guards.loc[TIGHT, "shift_unguarded_mean"])
    assert f"moves it by {moved}." in prose
    assert f"by {tight['kappa']:g} standard deviations, `{LOOSE}` by {loose['kappa']:g};" in prose
    assert f"{tight['l0_mean']:.0f} features instead of {tight['l0_unguarded_mean']:.0f}" in prose
    norms = (tight[f"residual_norm_{which}"] for which in ("mean", "unguarded_mean"))
    assert f"({' instead of '.join(f'{norm:.1f}' for norm in norms)})" in prose


def test_the_comparison_is_at_one_margin(prose, elsewhere):
    for method in TIGHT, LOOSE, PLAIN:
        strengths = elsewhere.loc[method, "strength"].unique()
        assert [label.partition(" at ")[0] for label in strengths] == [f"tau={STRENGTH:g}"]
    assert f"all at a margin of {STRENGTH:g}." in prose
    for method in TIGHT, LOOSE:
        assert elsewhere.loc[method, "unguarded_method"].eq(PLAIN).all()


def test_what_is_said_of_guards_is_beyond_noise(guards, elsewhere):
    """The sentences under the table: what tight guards save and cost, and both on the corpus."""
    tight = guards.loc[TIGHT].iloc[0]
    assert tight["kl_change_ci_high"] < 0 and tight["classifier_rate_change_ci_high"] < 0
    for method in TIGHT, LOOSE:
        corpus = elsewhere.loc[(method, "text")]
        assert len(corpus) == 2 and (corpus["guard_change_low"] > 0).all()


def test_what_is_said_of_the_adapter(prose, elsewhere):
    costs = elsewhere.xs(("text", "kl"), level=("probe", "measure"))
    adapter = costs.loc["lora"]
    cost, low, high = (adapter[f"change{end}"] for end in ("", "_low", "_high"))
    assert f"costs {cost:.3f} [{low:.3f}, {high:.3f}] nats per token" in prose
    effect, low, high = (adapter[f"effect{end}"] for end in ("", "_low", "_high"))
    assert f"most, by {effect:+.2f} [{low:+.2f}, {high:+.2f}]" in prose
    assert costs["effect"].idxmax() == "lora"
    dearer = set(costs.index[costs["change"] > cost])
    assert dearer == {"prompting", "qp_shared"}


def test_the_page_of_the_demo_has_a_row_for_every_method(elsewhere):
    page = (DOCS / "results_demo.md").read_text(encoding="utf-8")
    own = page.split(f"\n## {NAME}\n")[1]
    part = own.split("### What it costs elsewhere")[1].split("### ")[0]
    for method in elsewhere.index.unique("method"):
        row = elsewhere.loc[(method, "text", "kl")]
        assert any(
            line.startswith(f"| `{method}` |") and change(row, "change", "") in line
            for line in part.splitlines()
        ), method
