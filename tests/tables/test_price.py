"""The price of sparsity, from texts whose cost and effect are known."""

import numpy as np
import pandas as pd
import pytest
from table_data import counted_solutions, counted_texts

from steering_core.storage.files import write_text
from steering_core.tables.charts import save_chart
from steering_core.tables.matched import Matching, compare
from steering_core.tables.matched_figure import price_figure
from steering_core.tables.measured import Measured
from steering_core.tables.price import floor_of, price_sentences, price_table, price_warnings

PROGRAM = {"mode": "uniform", "concept_direction": "mean_difference", "metric": "identity"}
PROGRAM |= {"feature_cost": "unit", "guards": []}
PROGRAMS = {
    "counted": {**PROGRAM, "program": "qp", "features": [1, 4, 12]},
    "other": {**PROGRAM, "program": "dense", "features": None, "metric": "covariance"},
    "floor": {**PROGRAM, "program": "dense", "features": None},
}
#: KL of the two strengths of each curve, by the features of its vector; None is the floor.
COSTS = {1: (0.12, 0.48), 4: (0.03, 0.12), 12: (0.02, 0.08), None: (0.01, 0.04)}


def table(**changed) -> pd.DataFrame:
    found = Measured(
        counted_solutions(COSTS),
        pd.DataFrame(),
        counted_texts("p", COSTS),
        counted_texts("v", COSTS),
    )
    compared = compare(found, Matching("lexicon", n_resamples=200))
    return price_table(compared, PROGRAMS, "e", **{"d_sae": 96, **changed})


def test_each_count_costs_its_multiple_of_the_dense_floor():
    rows = table(sae={"l0": 31.0, "explained_variance": 0.8})
    assert rows["features"].tolist()[:-1] == [1, 4, 12] and np.isnan(rows["features"].iloc[-1])
    assert rows["l0"].tolist()[:-1] == [1, 4, 12] and rows["method"].iloc[-1] == "floor"
    assert rows["kl_ratio"].tolist() == pytest.approx([12, 3, 2, 1])
    # The effects are the same prompt by prompt, so the paired ratio is sure.
    assert rows["kl_ratio_ci_high"].tolist() == pytest.approx([12, 3, 2, 1])
    assert rows["kl"].iloc[-1] == pytest.approx(0.01)
    assert set(rows["sae_l0"]) == {31.0} and set(rows["d_sae"]) == {96}
    assert table()["sae_explained_variance"].isna().all()


def test_the_sentence_quotes_one_about_ten_and_the_most_features():
    [text] = price_sentences(table())
    assert "the shortest vector without features costs 0.01 nats per token" in text
    assert "12 times as much (95 % interval 12 to 12) with 1 feature;" in text
    assert "2 times as much (95 % interval 2 to 2) with 12 features." in text
    assert " with 4 features" not in text


def test_the_floor_is_the_least_vector_in_the_metric_of_the_program():
    [text] = price_sentences(table().assign(metric="fisher"))
    assert "the least vector in the fisher metric without features costs 0.01" in text
    assert "shortest" not in text


def test_a_count_that_never_reaches_the_effect_is_reported():
    rows = table()
    lost = rows["features"] == 1
    costs = [name for name in rows if name.startswith("kl")]
    rows.loc[lost, costs] = np.nan
    rows.loc[lost, "status"] = "not_reached"
    [text] = price_sentences(rows)
    assert "A vector of 1 feature does not reach it" in text and "12 times" not in text
    rows["status"] = "not_reached"
    assert price_sentences(rows) == []


def test_a_warning_names_the_counts_that_it_is_about():
    rows = table()
    assert price_warnings(rows) == []
    rows["warnings"] = ["the first; the second", None, "the first", "the first"]
    assert price_warnings(rows) == [
        "counted (features: 1, 12, dense): the first",
        "counted (features: 1): the second",
    ]
    assert price_warnings(rows.iloc[:0]) == []


def test_the_floor_has_the_direction_and_metric_of_its_program():
    assert floor_of("counted", PROGRAMS) == "floor"
    with pytest.raises(ValueError, match="no dense program"):
        floor_of("counted", {name: PROGRAMS[name] for name in ("counted", "other")})


def test_without_counts_the_table_is_empty_and_the_picture_says_so(tmp_path):
    nothing = table().iloc[:0]
    write_text(tmp_path / "price.csv", nothing.to_csv(index=False))
    assert price_sentences(pd.read_csv(tmp_path / "price.csv")) == []
    for number, rows in enumerate((nothing, table(), table().assign(status="not_reached"))):
        save_chart(price_figure(rows), tmp_path / f"{number}.svg")
    drawn = [(tmp_path / f"{number}.svg").read_text() for number in range(3)]
    assert "no program" in drawn[0] and "× 12" in drawn[1] and "reaches" in drawn[2]
