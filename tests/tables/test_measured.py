"""The strength of each method that validation prompts select, against choices made by hand."""

import numpy as np
import pandas as pd
import pytest

from steering_core.tables.measured import paired_errors, select_strengths, standard_error


def texts(method: str, rates: list[float], kls: list[float], n: int = 20) -> pd.DataFrame:
    """``n`` prompts at each strength, of 10 tokens each."""
    frames = []
    for index, (rate, kl) in enumerate(zip(rates, kls, strict=True)):
        judged = np.arange(n) < round(rate * n)
        frame = pd.DataFrame({"judged": judged.astype(float), "kl_sum": 10 * kl, "n_tokens": 10})
        frames.append(frame.assign(method=method, strength_index=index))
    return pd.concat(frames, ignore_index=True)


def chosen(table: pd.DataFrame, budget: float = 10.0) -> dict[str, int]:
    selected = select_strengths(table, budget)
    selected = selected[selected["selected"]]
    assert selected["method"].is_unique
    return dict(zip(selected["method"], selected["strength_index"], strict=True))


def test_the_strength_with_least_kl_within_one_standard_error_is_selected():
    # 0.90 has a standard error of 0.07: 0.85 is as good, 0.60 is not.
    assert standard_error(0.9, 20) == pytest.approx(np.sqrt(20 / 24 * 4 / 24 / 24))
    assert chosen(texts("m", [0.6, 0.85, 0.9], [0.1, 0.5, 2.0])) == {"m": 1}
    assert chosen(texts("m", [0.6, 0.75, 0.9], [0.1, 0.5, 2.0])) == {"m": 2}


def test_cost_decides_and_not_the_order_of_strengths():
    assert chosen(texts("m", [0.9, 0.85, 0.6], [2.0, 0.5, 0.1])) == {"m": 1}


def test_a_share_of_one_has_a_standard_error():
    assert 0 < standard_error(1.0, 20) < standard_error(1.0, 4)
    assert chosen(texts("m", [0.95, 1.0], [0.1, 3.0])) == {"m": 0}


def test_the_first_of_equals():
    assert chosen(texts("m", [0.5, 0.5], [0.2, 0.2])) == {"m": 0}


def test_methods_do_not_compete():
    both = pd.concat([texts("a", [0.2, 0.4], [0.1, 0.2]), texts("b", [1.0, 1.0], [0.3, 0.2])])
    assert set(chosen(both)) == {"a", "b"} and chosen(both)["b"] == 1


def test_a_strength_that_left_a_prompt_alone_does_not_compete():
    table = texts("m", [0.6, 1.0], [0.1, 0.5])
    unmade = table.index[-1]
    table.loc[unmade, ["judged", "kl_sum", "n_tokens"]] = [np.nan, np.nan, 0]
    assert chosen(table) == {"m": 0}
    found = select_strengths(table, 10.0)
    assert found["validation_classifier_rate"].tolist() == [0.6, 1.0]  # of those there are
    assert found["validation_kl_mean"].tolist() == pytest.approx([0.1, 0.5])
    assert found["n_validation_texts"].tolist() == [20, 19]
    for name in ("classifier", "kl"):
        low, high = (found[f"validation_{name}_ci_{end}"] for end in ("low", "high"))
        mean = found["validation_classifier_rate" if name == "classifier" else "validation_kl_mean"]
        assert (low <= mean + 1e-9).all() and (mean <= high + 1e-9).all()
    assert (
        found["validation_classifier_ci_low"][0] < 0.6 < found["validation_classifier_ci_high"][0]
    )


def test_positions_without_a_solution_count_as_left_alone():
    table = texts("qp_adaptive", [0.6, 1.0], [0.1, 0.5]).assign(unsolved_positions=0)
    assert chosen(table) == {"qp_adaptive": 1}
    table.loc[table.index[-1], "unsolved_positions"] = 1
    assert chosen(table) == {"qp_adaptive": 0}


def test_a_method_may_have_none():
    table = texts("m", [1.0], [0.1]).assign(judged=np.nan, kl_sum=np.nan, n_tokens=0)
    found = select_strengths(table, 10.0)
    assert chosen(table) == {}
    assert found[["validation_classifier_rate", "validation_kl_mean"]].isna().all(axis=None)


def test_strengths_beyond_the_budget_do_not_compete():
    table = texts("m", [0.5, 0.7, 1.0], [0.1, 0.5, 6.0])
    assert chosen(table) == {"m": 2}
    assert chosen(table, budget=1.0) == {"m": 1}
    assert chosen(table, budget=0.5) == {"m": 1}  # the budget itself is within it
    assert chosen(table, budget=0.05) == {}


def test_several_draws_are_compared_prompt_by_prompt():
    # The second strength is better by 0.1 on every prompt; prompts differ far more than that.
    ease = np.linspace(0, 0.9, 20)
    frames = [
        pd.DataFrame({"judged": ease + gain, "kl_sum": 10 * kl, "n_tokens": 10}).assign(
            method="m", strength_index=index, example_id=[f"v{i}" for i in range(20)]
        )
        for index, (gain, kl) in enumerate([(0.0, 0.1), (0.1, 0.5)])
    ]
    both = pd.concat(frames, ignore_index=True)
    for draws, expected in ((1, 0), (4, 1)):
        found = select_strengths(both, 10.0, draws=draws)
        assert int(found["selected"].to_numpy().argmax()) == expected
    assert paired_errors(np.array([[0.5, 1.0], [0.0, 1.0]]), 1).tolist() == [0.25, 0.0]
    assert paired_errors(np.array([[0.5, 1.0]]), 1).tolist() == [0.0, 0.0]


def test_a_text_that_the_judge_refuses_to_rate_is_in_no_share():
    table = texts("m", [0.5, 0.75], [0.1, 0.5], n=4).assign(example_id=[*"abcd"] * 2)
    declined = table["strength_index"].eq(1) & table["example_id"].isin(["c", "d"])
    table.loc[declined, "judged"] = np.nan
    for draws in (1, 2):
        found = select_strengths(table, 10.0, draws=draws)
        assert found["validation_classifier_rate"].tolist() == [0.5, 1.0]
        assert found["n_validation_texts"].tolist() == [4, 4] and found["selected"].sum() == 1
    known = paired_errors(np.array([[0.5, 1.0], [0.0, 1.0], [np.nan, 1.0]]), 1)
    assert known.tolist() == [0.25, 0.0]
    nothing = select_strengths(table.assign(judged=np.nan), 10.0, draws=2)
    assert not nothing["selected"].any() and nothing["validation_classifier_rate"].isna().all()


def regrets(n: int, worlds: int = 200, draws: int = 1) -> pd.DataFrame:
    """Lost effect and overspent KL of two rules, a row per simulated experiment.

    Five strengths, of which the effect saturates at a random one while KL goes on growing, as
    strengths of real methods do. A prompt is as easy at every strength. The ideal strength is the
    cheapest with the highest true rate.
    """
    rng = np.random.default_rng(0)
    kls = 0.02 * 3.0 ** np.arange(5)
    rows = []
    for _ in range(worlds):
        top, full = rng.uniform(0.6, 0.9), rng.integers(1, 5)
        rates = 0.45 + (top - 0.45) * np.minimum(np.arange(5) / full, 1)
        ease = rng.uniform(size=n)
        noise, easy = rng.uniform(size=(5, n, draws)), rng.uniform(size=(5, n, draws)) < 0.5
        judged = np.where(easy, ease[:, None], noise) < rates[:, None, None]
        judged = judged.mean(axis=2)
        frames = [
            pd.DataFrame({"judged": row * 1.0, "kl_sum": 10 * kl, "n_tokens": 10}).assign(
                method="m", strength_index=index, example_id=[f"v{i}" for i in range(n)]
            )
            for index, (row, kl) in enumerate(zip(judged, kls, strict=True))
        ]
        found = select_strengths(
            pd.concat(frames, ignore_index=True), 10.0, n_resamples=20, draws=draws
        )
        rules = {"rule": int(found["selected"].to_numpy().argmax())}
        rules["best"] = int(judged.mean(axis=1).argmax())
        rows.append(
            {f"lost_{name}": top - rates[k] for name, k in rules.items()}
            | {f"spent_{name}": max(np.log(kls[k] / kls[full]), 0) for name, k in rules.items()}
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("n", [20, 80])
def test_expected_regret_in_simulated_experiments(n):
    means = regrets(n).mean()
    # It overspends KL less than the highest rate does, for an effect below one standard error.
    assert means["spent_rule"] < 0.7 * means["spent_best"]
    assert means["lost_rule"] - means["lost_best"] < standard_error(0.75, n)


def test_expected_regret_falls_with_draws():
    one, four = (regrets(50, draws=draws).mean() for draws in (1, 4))
    assert four["lost_rule"] < 0.5 * one["lost_rule"]
    assert four["spent_rule"] < 0.5 * four["spent_best"]
    assert four["spent_rule"] < one["spent_rule"]
