"""The page of results is written from the tables alone, and keeps them beside it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from steering_core.errors import StorageError
from steering_core.tables.results_page import write_page


def pareto() -> pd.DataFrame:
    base = {
        **{"experiment": "e", "model": "m", "layer": 3, "n_prompts": 20, "selected": None},
        **{"method": "no_steering", "strength_name": None, "strength": None, "warnings": None},
        **{"classifier_rate_base": 0.4, "classifier_base_ci_low": 0.3},
        **{"classifier_base_ci_high": 0.5, "classifier_rate_steered": 0.4},
        **{"classifier_ci_low": 0.3, "classifier_ci_high": 0.5, "kl_mean": 0.0},
        **{"kl_ci_low": 0.0, "kl_ci_high": 0.0, "perplexity_steered": 9.0},
        **{"prompt_l0_mean": None, "on_frontier": True, "n_texts": 20},
    }
    steered = {"selected": True, "strength_name": "tau", "strength": 4.0, "kl_mean": 0.25}
    good = {"method": "qp_optimal", "classifier_rate_steered": 0.7, "classifier_ci_low": 0.6}
    weak = {"method": "caa", "warnings": "a | b", "classifier_rate_steered": 0.45}
    lost = {"method": "socp", "selected": False}
    return pd.DataFrame([base, base | steered | good, base | steered | weak, base | lost])


def differences() -> pd.DataFrame:
    """By both judges, qp_optimal changes the rate; by none, caa does."""
    row = {"strength_name": "tau", "strength": 4.0, "reference": "no_steering"}
    rows = []
    for method, change in (("qp_optimal", 0.3), ("caa", 0.05)):
        for judge, share in (("first", 1.0), ("second", 0.5)):
            ends = {f"rate_difference_ci_{k}": share * change + d for k, d in ENDS.items()}
            whole = {"method": method, "judge": judge, "rate_difference": share * change, **ends}
            rows += [row | whole, row | whole | {"reference": "best_dense", "rate_difference": 9}]
    return pd.DataFrame(rows)


ENDS = {"low": -0.1, "high": 0.1}


def corrsteer(warnings: str | None) -> pd.DataFrame:
    row = {
        **{
            "method": "unsteered",
            "seed": "all",
            "n": 40,
            "n_seeds": 1,
            "accuracy": 0.5,
            "status": "ok",
        },
        **dict.fromkeys(["accuracy_low", "accuracy_high", "change", "change_low", "change_high"]),
        **dict.fromkeys(["ser", "ser_low", "ser_high", "mcnemar_p", "reason"]),
        "warnings": warnings,
    }
    arm = {
        "mcnemar_p": 0.01,
        "method": "corrsteer_s",
        "change": 0.2,
        "change_low": 0.1,
        "change_high": 0.3,
    }
    lacking = {"method": "corrsteer_p", "status": "undefined", "reason": "no layer helped"}
    return pd.DataFrame([row, row | arm, row | lacking])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "e" / "benchmarks").mkdir(parents=True)
    times = {"s": [12.4], "max_rss": [300.0], "cpu_time": [20.0]}
    pd.DataFrame(times).to_csv(tmp_path / "e/benchmarks/solve-qp.tsv", sep="\t", index=False)
    return tmp_path / "e"


def test_an_experiment(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    page = tmp_path / "docs" / "results.md"
    write_page(page, [folder])
    text = page.read_text(encoding="utf-8")
    assert "| `qp_optimal` | τ = 4 | 0.7 [0.6, 0.5] | 0.25 [0, 0] | 9.0 |  | yes |" in text
    assert "no strength of `socp` keeps to the KL budget" in text
    assert "20 prompts with 1 text each" in text and "In short" in text
    assert "| e | solve | 1 | 12 | 300 |" in text and "| e | 1 | 0.2 | 0.3 | 300 |" in text
    assert "<summary>Each stage</summary>\n\n| results" in text
    assert text.endswith("|\n\n</details>\n")
    kept = pd.read_csv(tmp_path / "docs/results/e/pareto.csv")
    assert len(kept) == 4 and (tmp_path / "docs/results/e/stages.csv").is_file()


def test_what_both_judges_say_and_what_neither_sees(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    differences().to_csv(folder / "differences.csv", index=False)
    judged = {
        **{"judge": ["first", "second"], "headline": [True, False], "agreement": [None, 0.8]},
        **{"agreement_ci_low": [None, 0.7], "agreement_ci_high": [None, 0.9]},
        **{"kappa": [None, 0.6], "rank_correlation": [None, 0.61]},
    }
    pd.DataFrame(judged).to_csv(folder / "judges.csv", index=False)
    verdict = {
        "headline": "Steering works.",
        "sentences": [{"about": "power", "text": "It is weak."}],
        "distrust": ["a | b"],
        "matched": {"n_texts": 80, "n_prompts": 20},
    }
    (folder / "verdict.json").write_text(json.dumps(verdict))
    (folder / "pareto.svg").write_text("<svg/>")
    write_page(tmp_path / "results.md", [folder], ["`first` is a stand-in."])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "**`first` is a stand-in.**" in text and "20 prompts with 4 texts each" in text
    assert "| 0.7 [0.6, 0.5] | +0.30 [+0.20, +0.40] | +0.15 [+0.05, +0.25] | 0.25" in text
    assert "`second` and `first` put 0.8 [0.7, 0.9] of the texts that both put in a class" in text
    assert "- `e`: Steering works." in text and "- It is weak." in text and "- a \\| b" in text
    assert "rise beyond noise at their selected strengths: `caa`." in text
    assert "(results/e/pareto.svg)" in text and "(results/e/differences.csv)" in text


def price(ratios: dict[float | None, float], d_sae: int = 96) -> pd.DataFrame:
    """The price of each number of features; None is the dense floor."""
    row = {
        **{"judge": "first", "measure": "rate", "effect": 0.2, "program": "counted"},
        **{"status": "reached", "d_sae": d_sae, "sae_l0": 12.0, "sae_explained_variance": 0.9},
    }
    rows = []
    for count, ratio in ratios.items():
        values = {"kl": 0.01 * ratio, "kl_ratio": ratio, "perplexity": 9.0, "residual_norm": 2.0}
        ends = {f"{k}_ci_{end}": v * by for k, v in values.items() for end, by in BY.items()}
        rows.append(row | {"features": count} | values | ends)
    return pd.DataFrame(rows)


BY = {"low": 0.5, "high": 2.0}


@pytest.mark.parametrize("n", [0, 1])
def test_a_picture_of_no_prices_is_left_out(folder, tmp_path, n):
    pareto().to_csv(folder / "pareto.csv", index=False)
    price({1.0: 3.0}).head(n).to_csv(folder / "price.csv", index=False)
    (folder / "price.svg").write_text("<svg/>")
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert ("(results/e/price.svg)" in text) == bool(n)
    assert ("What sparsity costs: `counted`" in text) == bool(n)


def test_what_each_number_of_features_costs(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    price({1.0: 3.0, 12.0: 1.2, None: 1.0}).to_csv(folder / "price.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert (
        "| 12 | 0.012 [0.006, 0.024] | 1.2 [0.6, 2.4] | 9 [4.5, 18] | 2 [1, 4] | reached |" in text
    )
    assert "| dense | 0.01 [0.005, 0.02] | 1 [0.5, 2] |" in text
    assert "Dictionaries compared" not in text


def test_dictionaries_are_compared_at_the_numbers_of_features_that_all_have(folder, tmp_path):
    other = tmp_path / "narrow"
    shutil.copytree(folder, other)
    for where, ratios, d_sae in (
        (folder, {1.0: 3.0, 2.0: 2.0, 12.0: 1.2, None: 1.0}, 96),
        (other, {1.0: 5.0, 12.0: 1.5, None: 1.0}, 48),
    ):
        pareto().to_csv(where / "pareto.csv", index=False)
        price(ratios, d_sae).to_csv(where / "price.csv", index=False)
    write_page(tmp_path / "results.md", [folder, other])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "its L0 | explained variance | effect | 1 | 12 |" in text
    assert "| `e`: `counted` | 96 | 12 | 0.9 | 0.2 | 3 [1.5, 6] | 1.2 [0.6, 2.4] |" in text
    assert "| `narrow`: `counted` | 48 | 12 | 0.9 | 0.2 | 5 [2.5, 10] | 1.5 [0.75, 3] |" in text


def test_one_dictionary_in_two_experiments_is_not_compared(folder, tmp_path):
    other = tmp_path / "again"
    shutil.copytree(folder, other)
    for where in (folder, other):
        pareto().to_csv(where / "pareto.csv", index=False)
        price({1.0: 3.0, None: 1.0}).to_csv(where / "price.csv", index=False)
    write_page(tmp_path / "results.md", [folder, other])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text.count("What sparsity costs: `counted`") == 2
    assert "Dictionaries compared" not in text


def test_costs_at_the_same_effect(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    row = {
        **{"judge": "first", "measure": "rate", "effect": 0.2, "unsteered": 0.4, "kind": "dense"},
        **{"method": "caa", "curve": "caa", "status": "reached", "kl": 0.1, "kl_ci_low": 0.05},
        **{"kl_ci_high": 0.2, "kl_ratio": None, "kl_ratio_ci_low": None, "kl_ratio_ci_high": None},
        **{"l0": None, "perplexity": 9.0},
    }
    ratio = {"kl_ratio": 0.5, "kl_ratio_ci_low": 0.2, "kl_ratio_ci_high": 1.5, "kl": 0.05}
    sparse = {"method": "qp_optimal", "curve": "qp_optimal at lambda=0.1", "kind": "features"}
    pd.DataFrame(
        [row, row | sparse | ratio | {"l0": 12.0}, row | {"status": "not_reached"}]
    ).to_csv(folder / "matched.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "from 0.40\nby 0.20. 2 of 3 curves get there." in text
    cheap = text.index("| `qp_optimal` | λ = 0.1 | features | 0.05 [0.05, 0.2] | 0.5 [0.2, 1.5]")
    assert cheap < text.index("| `caa` |  | dense | 0.1 [0.05, 0.2] |  |  | 9.0 |")


def test_an_interval_without_an_end_is_not_left_out(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    row = {
        **{"judge": "first", "measure": "rate", "effect": 0.2, "unsteered": 0.4, "kind": "dense"},
        **{"method": "caa", "curve": "caa", "status": "reached", "kl": 0.1, "kl_ci_low": 0.05},
        **{"kl_ci_high": None, "kl_ratio": 2.0, "kl_ratio_ci_low": 1.5, "kl_ratio_ci_high": None},
        **{"l0": None, "perplexity": 9.0},
    }
    pd.DataFrame([row]).to_csv(folder / "matched.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| `caa` |  | dense | 0.1 [0.05, open] | 2 [1.5, open] |  | 9.0 |" in text
    assert (
        "An open end: in 2.5 % of the resamples or more" in text
        and "one comparison at a time" in text
    )


def test_a_change_over_fewer_texts_than_others_says_how_many(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    row = {
        **{"method": "caa", "strength": "alpha=1", "effect": 0.3, "effect_low": 0.2},
        **{"effect_high": 0.4, "probe": "mmlu", "measure": "accuracy", "n": 12, "unsteered": 0.25},
        **{"change": 0.12, "change_low": 0.1, "change_high": 0.14, "unguarded_method": None},
        **dict.fromkeys(["guard_change", "guard_change_low", "guard_change_high"]),
    }
    whole = {"method": "qp_optimal", "n": 50, "unsteered": 0.5}
    pd.DataFrame([row, row | whole]).to_csv(folder / "elsewhere.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| texts or questions | | | 50 |\n| value without steering | | | 0.5 |" in text
    assert text.count("+0.120 [+0.100, +0.140]") == 2
    assert text.count("+0.120 [+0.100, +0.140] (of 12) |") == 1


def test_costs_elsewhere_and_what_guards_save(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    row = {
        **{"method": "caa", "strength": "tau=4 at lambda=1", "effect": 0.3, "effect_low": 0.2},
        **{"effect_high": 0.4, "probe": "text", "measure": "kl", "n": 50, "unsteered": 0.0},
        **{"change": 0.12, "change_low": 0.1, "change_high": 0.14, "unguarded_method": None},
        **dict.fromkeys(["guard_change", "guard_change_low", "guard_change_high"]),
    }
    right = {"probe": "mmlu", "measure": "accuracy", "unsteered": 0.5, "change": -0.02}
    guarded = {"method": "guarded", "unguarded_method": "plain", "guard_change": -0.05}
    guarded |= {"guard_change_low": -0.06, "guard_change_high": -0.04}
    rows = [row, row | right, row | guarded, row | right | guarded]
    pd.DataFrame(rows).to_csv(folder / "elsewhere.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| method | strength | effect | kl (text) | accuracy (mmlu) |" in text
    assert "| value without steering | | | 0 | 0.5 |" in text
    cells = "+0.30 [+0.20, +0.40] | +0.120 [+0.100, +0.140] | -0.020 [+0.100, +0.140] |"
    assert f"| `caa` | λ = 1, τ = 4 | {cells}" in text
    saved = "-0.050 [-0.060, -0.040] | -0.050 [-0.060, -0.040]"
    assert f"| `guarded` | `plain` |  | λ = 1, τ = 4 |  |  |  | {saved} |" in text
    assert "lowers kl (text), accuracy (mmlu)." in text
    assert (tmp_path / "results/e/elsewhere.csv").is_file()


def test_what_guards_cost_stands_beside_what_they_save(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    row = {
        **{"method": "plain", "strength": "tau=2 at lambda=1", "probe": "text", "measure": "kl"},
        **{"effect": 0.3, "n": 50, "unsteered": 0.0, "change": 0.12, "unguarded_method": None},
        **dict.fromkeys(["effect_low", "effect_high", "change_low", "change_high"]),
        **dict.fromkeys(["guard_change", "guard_change_low", "guard_change_high"]),
    }
    saved = {"guard_change": 0.05, "guard_change_low": -0.01, "guard_change_high": 0.11}
    guarded = {"method": "guarded", "unguarded_method": "plain", "strength": "tau=4 at lambda=1"}
    pd.DataFrame([row, row | saved | guarded]).to_csv(folder / "elsewhere.csv", index=False)
    bound = {"method": "guarded", "strength_name": "tau at lambda=1", "strength": 4.0, "kappa": 0.5}
    for stem, value in (("classifier_rate", -0.2), ("kl", 0.01), ("l0", 3.0)):
        ends = {"ci_low": value - 0.1, "ci_high": value + 0.1}
        bound |= {f"{stem}_change": value} | {f"{stem}_change_{k}": v for k, v in ends.items()}
    weaker = bound | {"strength": 2.0, "kl_change": 9.0}
    pd.DataFrame([weaker, bound, bound]).to_csv(folder / "guards.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    at = "λ = 1, τ = 4; without guards λ = 1, τ = 2"
    costs = "-0.20 [-0.30, -0.10] | +0.010 [-0.090, +0.110] | +3.0 [+2.9, +3.1]"
    saves = "+0.050 [-0.010, +0.110]"
    assert f"| `guarded` | `plain` | 0.5 on 2 | {at} | {costs} | {saves} |" in text
    assert (
        "- Beyond noise, `guarded` in place of `plain` raises features and lowers target rate."
        in text
    )
    assert (tmp_path / "results/e/guards.csv").is_file()


def test_another_page_says_what_made_it(folder, tmp_path):
    pareto().to_csv(folder / "pareto.csv", index=False)
    write_page(tmp_path / "page.md", [folder], title="Results on the demo", command="snakemake x")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.startswith("# Results on the demo\n\n`snakemake x` makes the results of this page")
    assert "make real" not in text and (tmp_path / "page/e/pareto.csv").is_file()
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text.startswith("# Results on a real model\n\n`make real` runs the experiments")


@pytest.mark.parametrize(
    ("warnings", "found"),
    [(None, "It rises beyond noise under `corrsteer_s`."), ("all say A", "This is no baseline")],
)
def test_a_run_of_corrsteer(folder, tmp_path, warnings, found):
    corrsteer(warnings).assign(norm_mean=[None, 45.6, None]).to_csv(
        folder / "corrsteer.csv", index=False
    )
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert found in text and "undefined: no layer helped" in text
    assert "| norm | status |" in text and "| 0.01 | 45.6 | ok |" in text
    assert "- e: `corrsteer_p` has no result: no layer helped." in text
    assert ("the baseline is refused: all say A." in text) == (warnings is not None)


def test_a_change_with_a_warning_is_not_claimed(folder, tmp_path):
    table = corrsteer(None)
    table.loc[table["method"] == "corrsteer_s", ["warnings", "reason"]] = "all say A", "40 x noted"
    table.to_csv(folder / "corrsteer.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "No method changes it beyond noise." in text and "rises beyond noise" not in text
    assert "Changes with a warning in the table do not count: `corrsteer_s`." in text
    assert "| ok: 40 x noted; all say A |" in text


@pytest.mark.parametrize(("p", "claimed"), [(0.125, False), (0.03, True)])
def test_a_change_is_claimed_only_if_the_exact_test_agrees(folder, tmp_path, p, claimed):
    """Four changes of one sign leave 0 out of a bootstrap interval, and have p = 0.125."""
    corrsteer(None).assign(mcnemar_p=p, n_seeds=3).to_csv(folder / "corrsteer.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert ("It rises beyond noise under `corrsteer_s`." in text) == claimed
    assert ("No method changes it beyond noise." in text) != claimed
    assert "of 40 answers, to the same questions under 3 seeds, is right." in text


SAE_ROW = {
    **{"model": "m", "architecture": "batchtopk", "d_sae": 64, "n_training_tokens": 5000},
    **{"layer": 1, "l0": 31.6, "l0_low": 31.0, "l0_high": 32.0, "explained_variance": 0.9},
    **{"token_explained_variance": 0.8, "dead_features": 3, "loss_recovered": 0.95},
}


def test_saes(folder, tmp_path):
    pd.DataFrame([SAE_ROW, SAE_ROW | {"layer": 2, "explained_variance": 0.8}]).to_csv(
        folder / "sparse_autoencoders.csv", index=False
    )
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "64 features, 5,000 tokens) explain 0.80 to 0.90 of the variance" in text
    assert "with 32 features a token" in text
    assert "| 1 | 31.6 [31, 32] | 0.9 | 0.8 | 3 | 64 | 0.95 |" in text


def test_a_model_may_be_called_as_an_experiment_is(folder, tmp_path):
    pd.DataFrame([SAE_ROW]).to_csv(folder / "sparse_autoencoders.csv", index=False)
    twin = Path(shutil.copytree(folder, tmp_path / "models" / folder.name))
    pd.DataFrame([SAE_ROW | {"layer": 7}]).to_csv(twin / "sparse_autoencoders.csv", index=False)
    write_page(tmp_path / "results.md", [folder, twin])
    for name, layer in (folder.name, 1), (f"models_{folder.name}", 7):
        kept = pd.read_csv(tmp_path / "results" / name / "sparse_autoencoders.csv")
        assert kept["layer"].tolist() == [layer]
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text.count("explain 0.90 of the variance") == 2


def test_a_folder_without_a_table(folder, tmp_path):
    with pytest.raises(StorageError, match="has no table of results"):
        write_page(tmp_path / "results.md", [folder])
