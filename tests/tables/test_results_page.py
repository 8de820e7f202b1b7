"""The page of results is written from the tables alone, and keeps them beside it."""

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
        **{"l0_outside_eval_mean": None, "on_frontier": True},
    }
    steered = {"selected": True, "strength_name": "tau", "strength": 4.0, "kl_mean": 0.25}
    good = {"method": "qp_optimal", "classifier_rate_steered": 0.7, "classifier_ci_low": 0.6}
    weak = {"method": "caa", "warnings": "a | b", "classifier_rate_steered": 0.45}
    lost = {"method": "socp", "selected": False}
    return pd.DataFrame([base, base | steered | good, base | steered | weak, base | lost])


def corrsteer(warnings: str | None) -> pd.DataFrame:
    row = {
        **{"method": "unsteered", "seed": "all", "n": 40, "accuracy": 0.5, "status": "ok"},
        **dict.fromkeys(["accuracy_low", "accuracy_high", "change", "change_low", "change_high"]),
        **dict.fromkeys(["ser", "ser_low", "ser_high", "mcnemar_p", "reason"]),
        "warnings": warnings,
    }
    arm = {"method": "corrsteer_s", "change": 0.2, "change_low": 0.1, "change_high": 0.3}
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
    assert "Of 3 methods, 2 have a selected strength. The interval of 1 of them" in text
    assert "| `qp_optimal` | τ = 4 | 0.7 [0.6, 0.5] | 0.25 [0, 0] | 9.0 |  | yes |" in text
    assert "No strength was selected for `socp`" in text and "a \\| b" in text
    assert "| e | solve | 1 | 12 | 300 |" in text
    kept = pd.read_csv(tmp_path / "docs/results/e/pareto.csv")
    assert len(kept) == 4 and (tmp_path / "docs/results/e/stages.csv").is_file()


@pytest.mark.parametrize(
    ("warnings", "found"),
    [(None, "change of these lies above 0: `corrsteer_s`"), ("all say A", "This is no baseline")],
)
def test_a_run_of_corrsteer(folder, tmp_path, warnings, found):
    corrsteer(warnings).to_csv(folder / "corrsteer.csv", index=False)
    write_page(tmp_path / "results.md", [folder])
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert found in text and "undefined: no layer helped" in text


def test_a_folder_without_a_table(folder, tmp_path):
    with pytest.raises(StorageError, match="has no table of results"):
        write_page(tmp_path / "results.md", [folder])
