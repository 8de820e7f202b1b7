"""What the pages say of the demo is what the tables beside them hold."""

from pathlib import Path

import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLES = DOCS / "results_demo" / "demo"
GUARDED, PLAIN, STRENGTH = "guarded_qp", "mean_difference_qp", 1.25


def change(row: pd.Series, stem: str, ends: str) -> str:
    value, low, high = (row[f"{stem}{end}"] for end in ("", f"{ends}_low", f"{ends}_high"))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


@pytest.fixture(scope="module")
def prose() -> str:
    return " ".join((DOCS / "elsewhere.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def guards() -> pd.DataFrame:
    table = pd.read_csv(TABLES / "guards.csv")
    return table[(table["method"] == GUARDED) & (table["strength"] == STRENGTH)]


@pytest.fixture(scope="module")
def elsewhere() -> pd.DataFrame:
    table = pd.read_csv(TABLES / "elsewhere.csv")
    return table.set_index(["method", "probe", "measure"]).sort_index()


def test_the_sentences_on_guards_match_the_tables(prose, guards, elsewhere):
    first = guards.iloc[0]
    expected = {
        "share of texts in the target class": change(first, "classifier_rate_change", "_ci"),
        "KL on the prompts, nats per token": change(first, "kl_change", "_ci"),
    }
    for named, key in (
        ("KL on the demo's corpus, nats per token", ("text", "kl")),
        ("perplexity of the demo's corpus", ("text", "perplexity")),
        ("accuracy on `praise`", ("praise", "accuracy")),
    ):
        expected[named] = change(elsewhere.loc[(GUARDED, *key)], "guard_change", "")
    for named, cell in expected.items():
        assert f"| {named} | {cell} |" in prose
    moved = " and ".join(f"{shift:.2f}" for shift in guards["shift_unguarded_mean"])
    assert f"moves it by {moved}." in prose
    assert f"by {first['kappa']:g} standard deviations" in prose
    features = f"{first['l0_mean']:.0f} features instead of {first['l0_unguarded_mean']:.0f}"
    assert features in prose
    assert f"that is {first['residual_norm_change']:.1f} longer" in prose


def test_the_comparison_is_at_one_margin(prose, elsewhere):
    for method in GUARDED, PLAIN:
        strengths = elsewhere.loc[method, "strength"].unique()
        assert [label.partition(" at ")[0] for label in strengths] == [f"tau={STRENGTH:g}"]
    assert f"the selected margin of both, {STRENGTH:g}," in prose
    assert elsewhere.loc[GUARDED, "unguarded_method"].eq(PLAIN).all()


def test_the_effect_is_within_noise_and_the_cost_beyond(guards, elsewhere):
    """The sentences under the table: the effect is not told apart, and the corpus costs more."""
    first = guards.iloc[0]
    assert first["classifier_rate_change_ci_low"] < 0 < first["classifier_rate_change_ci_high"]
    corpus = elsewhere.loc[(GUARDED, "text")]
    assert len(corpus) == 2 and (corpus["guard_change_low"] > 0).all()
    assert elsewhere.loc[(GUARDED, "praise", "accuracy"), "guard_change_high"] < 0


def test_the_page_of_the_demo_has_a_row_for_every_method(elsewhere):
    page = (DOCS / "results_demo.md").read_text(encoding="utf-8")
    part = page.split("### What it costs elsewhere")[1].split("### ")[0]
    for method in elsewhere.index.unique("method"):
        row = elsewhere.loc[(method, "text", "kl")]
        assert any(
            line.startswith(f"| `{method}` |") and change(row, "change", "") in line
            for line in part.splitlines()
        ), method
