"""The layer that ``layer: effect`` takes, from trials whose cost and effect are known."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from table_data import fields, spec, sweep_table

from steering_core.errors import DataError
from steering_core.tables.charts import save_chart
from steering_core.tables.layer_choice import layer_effect_figure, layer_effect_table, sweep_figure
from steering_core.tables.matched import Matching

N = 20
MATCHING = Matching("lexicon", n_resamples=100)


def trials(kls: dict[int, tuple[float, float]], rates=(0.6, 0.8), draws: int = 2) -> pd.DataFrame:
    """Two strengths at each layer, and the same unsteered texts at all of them."""
    order = np.arange(N)
    frames = []
    for layer, costs in kls.items():
        points = [("no_steering", 0, 0.0, 0.4), *zip(["d"] * 2, [0, 1], costs, rates, strict=True)]
        for method, index, kl, rate in points:
            for draw in range(draws):
                frames.append(
                    pd.DataFrame({"example_id": [f"v{i}" for i in order]}).assign(
                        method=method, strength_index=index, strength_name="alpha",
                        strength=float(index + 1) if kl else 0.0, draw=draw, layer=layer,
                        kl_sum=10 * kl, base_nll_sum=20.0, n_tokens=10, empty=0.0,
                        judged=(order < rate * N) * 1.0, score=(order < rate * N) * 1.0,
                        residual_norm=kl, steered_positions=np.nan, unsolved_positions=np.nan,
                    )
                )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def table(kls: dict[int, tuple[float, float]], **changed) -> pd.DataFrame:
    return layer_effect_table(trials(kls, **changed), "e", MATCHING)


def test_the_cheapest_layer_at_the_same_effect_is_taken(tmp_path):
    found = table({8: (0.04, 0.16), 3: (0.02, 0.08), 5: (0.01, 0.04)})
    assert found["layer"].tolist() == [3, 5, 8] and set(found["n_texts"]) == {2 * N}
    assert found["effect"].tolist() == pytest.approx([0.2] * 3)
    assert found["kl"].tolist() == pytest.approx([0.02, 0.01, 0.04])
    assert found["picked"].tolist() == [False, True, False]
    assert set(found["n_prompts"]) == {N} and set(found["method"]) == {"d"}
    save_chart(layer_effect_figure(found), tmp_path / "a.svg")
    assert "validation prompts" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_layer_that_costs_more_than_the_budget_sets_no_effect():
    # Only layer 3 has an effect at a KL of at most 1; its half is what both are compared at.
    found = table({3: (0.02, 0.08), 5: (4.0, 8.0)})
    assert found["effect"].iloc[0] == pytest.approx(0.2)
    assert found["picked"].tolist() == [True, False]


def test_no_effect_at_any_layer_is_an_error_with_advice():
    with pytest.raises(DataError, match=r"none of the layers \[3, 5\] within selection_kl: try"):
        table({3: (0.02, 0.08), 5: (0.01, 0.04)}, rates=(0.3, 0.2))
    with pytest.raises(DataError, match=r"none of the layers \[3\] reaches a change of 0\.9"):
        layer_effect_table(trials({3: (0.02, 0.08)}), "e", replace(MATCHING, effect=0.9))
    unreached = table({3: (0.02, 0.08)}).assign(picked=False, status="not_reached")
    assert "no layer reaches" in str(layer_effect_figure(unreached).to_dict())


def test_sweep_shows_both_curves_and_the_picked_layer() -> None:
    chart = spec(sweep_figure(sweep_table(picked=15), used=15))
    assert {"accuracy", "low"} <= fields(chart["hconcat"][0], "y")
    assert fields(chart["hconcat"][1], "y") == {"alignment"}
    assert [panel["title"]["subtitle"] for panel in chart["hconcat"]] == [
        "used: layer 15; the sweep would pick 15"
    ] * 2


def test_sweep_without_a_picked_layer() -> None:
    chart = spec(sweep_figure(sweep_table().assign(picked=False), used=7))
    subtitle = chart["hconcat"][0]["title"]["subtitle"]
    assert subtitle == "used: layer 7; the sweep would pick none"


def test_the_line_marks_the_layer_of_the_experiment_not_that_of_the_sweep() -> None:
    text = json.dumps(spec(sweep_figure(sweep_table(picked=15), used=7)))
    marked = re.findall(r'"layer": (\d+)[^}]*"used": true', text)
    assert set(marked) == {"7"}
