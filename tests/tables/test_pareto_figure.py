import json
import re

import numpy as np
import pandas as pd
import pytest
import vl_convert
from table_data import fields, pareto_table, rows_of, spec

from steering_core.tables.palette import method_styles
from steering_core.tables.pareto_figure import pareto_figure, pareto_panels


def test_pareto_panels_show_the_promised_columns_and_intervals() -> None:
    panels = spec(pareto_figure(pareto_table()))["hconcat"]
    assert [fields(panel, "x") for panel in panels] == [
        {"kl_mean", "kl_ci_low"},
        {"residual_norm_outside_eval_mean", "residual_norm_outside_eval_ci_low"},
        {"prompt_l0_mean"},
    ]
    rate = {"classifier_rate_steered", "classifier_ci_low", "base"}
    assert [fields(panel, "y") for panel in panels] == [
        rate,
        {"eval_flip_rate", "eval_flip_ci_low"},
        rate,
    ]
    assert fields(panels[0], "x2") == {"kl_ci_high"}
    assert fields(panels[0], "y2") == {"classifier_ci_high"}


def test_pareto_units_are_in_the_axis_titles() -> None:
    text = json.dumps(spec(pareto_figure(pareto_table())))
    assert "nats per token" in text and "(share)" in text


def test_pareto_marks_the_frontier_and_only_feature_methods_have_l0() -> None:
    df = pareto_table()
    chart = spec(pareto_figure(df))
    points = rows_of(chart, 0, "point")
    assert len(points) == len(df)
    assert sum(row["outlined"] for row in points) == df["on_frontier"].sum() > 0
    methods = {row["method"] for row in rows_of(chart, 2, "point")}
    assert methods == {"single_feature", "topk_features", "qp_optimal", "convex_optimal"}


def test_a_ring_marks_the_selected_strength_in_every_panel() -> None:
    df = pareto_table()
    chart = spec(pareto_figure(df))
    for panel in chart["hconcat"]:
        rings = [layer for layer in panel["layer"] if is_ring(layer)]
        assert [ring["transform"] for ring in rings] == [[{"filter": "datum.selected"}]]
        data = rings[0].get("data", panel.get("data"))
        rows = pd.DataFrame(chart["datasets"][data["name"]])
        assert (rows.groupby("method")["selected"].sum() <= 1).all() and rows["selected"].any()
    none = spec(pareto_figure(df.assign(selected=pd.NA)))
    assert not [layer for layer in none["hconcat"][0]["layer"] if is_ring(layer)]


def test_the_first_panel_labels_frontier_points_with_their_probability() -> None:
    df = pareto_table()
    chart = spec(pareto_figure(df))
    texts = [
        [layer for layer in panel.get("layer", []) if layer["mark"]["type"] == "text"]
        for panel in chart["hconcat"]
    ]
    assert [len(found) for found in texts] == [2, 0, 0]
    halo, layer = texts[0]
    assert halo["mark"]["stroke"] == "white" and halo["data"] == layer["data"]
    shown = {
        (row["method"], row["strength"]): row["label"]
        for row in chart["datasets"][layer["data"]["name"]]
    }
    on = df[df["on_frontier"].astype("boolean").fillna(False).astype(bool)]
    on = on[on["method"] != "no_steering"]
    assert shown == {
        (row["method"], row["strength"]): f"{row['frontier_probability']:.0%}"
        for _, row in on.iterrows()
    }


def crowded_table() -> pd.DataFrame:
    """A frontier whose points are closer than their labels are wide."""
    df = pareto_table()
    place = np.arange(len(df))
    df = df.assign(on_frontier=True, kl_mean=1.0 + 0.01 * place, selected=place == 20)
    df["classifier_rate_steered"] = 0.5 + 0.004 * place
    return df


def test_labels_of_a_crowded_frontier_do_not_overlap_and_selected_points_go_first() -> None:
    chart = pareto_figure(crowded_table())
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    found = re.findall(r'translate\(([\d.-]+),([\d.-]+)\)"[^>]*stroke="white"[^>]*>\d+%<', svg)
    at = np.array(found, dtype=float)
    assert 2 < len(at) < 30
    apart = np.abs(at[:, None] - at[None])
    meet = (apart[..., 0] < 20) & (apart[..., 1] < 10)
    assert meet.sum() == len(at)  # each with itself
    rows = rows_of(spec(chart), 0, "text")
    assert rows[0]["method"] == crowded_table()["method"][20]


def test_a_method_without_any_solution_is_named() -> None:
    df = pareto_table()
    assert "No solution" not in json.dumps(spec(pareto_figure(df)))
    gone = df["method"] == "qp_optimal"
    df.loc[gone, ["kl_mean", "classifier_rate_steered"]] = np.nan
    lines = spec(pareto_figure(df))["title"]["subtitle"]
    assert lines[-1].endswith("No solution at any strength: qp_optimal.")


def lines_of(chart: dict, panel: int) -> set[tuple[str, int]]:
    """The lines of a panel, each with the number of its points that are joined."""
    rows = pd.DataFrame(rows_of(chart, panel, "line"))
    layer = next(one for one in chart["hconcat"][panel]["layer"] if one["mark"]["type"] == "line")
    assert layer["transform"][-1] == {"filter": "!datum.hollow"}
    assert [field["field"] for field in layer["encoding"]["detail"]] == ["series", "run"]
    joined = rows[~rows["hollow"]].groupby(["series", "run"]).size()
    return {(series, int(count)) for (series, _), count in joined.items()}


def test_no_line_passes_a_row_with_missing_texts():
    df = pareto_table()
    assert ("qp_optimal tau", 5) in lines_of(spec(pareto_figure(df)), 0)
    middle = (df["method"] == "qp_optimal") & (df["strength"] == 1.0)
    df.loc[middle, "feasible_fraction_prompts"] = 0.9
    found = lines_of(spec(pareto_figure(df.sample(frac=1.0, random_state=0))), 0)
    assert {line for line in found if line[0] == "qp_optimal tau"} == {("qp_optimal tau", 2)}


def test_selected_points_and_the_frontier_stand_out():
    df = pareto_table()
    rows = pd.DataFrame(rows_of(spec(pareto_figure(df)), 0, "point"))
    assert rows["highlighted"].sum() < len(rows)
    assert (rows["highlighted"] == (rows["selected"] | rows["outlined"])).all()
    panel = spec(pareto_figure(df))["hconcat"][0]
    bars = [one for one in panel["layer"] if one["mark"]["type"] == "rule" and "transform" in one]
    assert len(bars) == 2
    assert all(bar["transform"] == [{"filter": "datum.highlighted"}] for bar in bars)


def test_the_page_to_explore_can_show_one_method_alone():
    drawn, fixed = (
        spec(pareto_figure(pareto_table(), interactive=value)) for value in (True, False)
    )
    assert "params" not in fixed
    names = [param["name"] for param in drawn["params"]]
    assert names.count("chosen") == 1 and sum(name.startswith("zoom_") for name in names) == 3
    lines = [one for one in drawn["hconcat"][0]["layer"] if one["mark"]["type"] == "line"]
    assert {"filter": {"param": "chosen"}} in lines[0]["transform"]


def test_panels_one_by_one_are_those_of_the_figure():
    panels = [panel.to_dict() for panel in pareto_panels(pareto_table())]
    together = spec(pareto_figure(pareto_table()))["hconcat"]
    assert [one["title"] for one in panels] == [one["title"] for one in together]
    assert [fields(one, "x") for one in panels] == [fields(one, "x") for one in together]


def is_ring(layer: dict) -> bool:
    return layer["mark"].get("shape") == "circle" and layer["mark"]["filled"] is False


def hollow(chart: dict, panel: int) -> set[tuple[str, float]]:
    """The points that are drawn hollow in a panel."""
    layers = chart["hconcat"][panel]["layer"]
    (layer,) = [one for one in layers if one["mark"].get("fill") == "white"] or [None]
    if layer is None:
        return set()
    assert layer["transform"] == [{"filter": "datum.hollow"}]
    data = layer.get("data", chart["hconcat"][panel].get("data"))
    rows = chart["datasets"][data["name"]]
    return {(row["method"], row["strength"]) for row in rows if row["hollow"]}


def test_a_point_is_hollow_if_some_inputs_of_its_panel_have_no_solution() -> None:
    df = pareto_table()
    assert [hollow(spec(pareto_figure(df)), panel) for panel in range(3)] == [set()] * 3
    at = [df.index[(df["method"] == "qp_optimal") & (df["strength"] == s)][0] for s in (0.5, 1, 2)]
    df.loc[at[0], "feasible_fraction_prompts"] = 0.9
    df.loc[at[1], "unsolved_positions"] = 3
    df.loc[at[2], "n_outside_eval_solved"] = 90
    texts = {("qp_optimal", 0.5), ("qp_optimal", 1.0)}
    found = [hollow(spec(pareto_figure(df)), panel) for panel in range(3)]
    assert found == [texts, {("qp_optimal", 2.0)}, texts]


def test_the_dashed_line_is_the_rate_over_all_prompts() -> None:
    df = pareto_table()
    df.loc[df["method"] != "no_steering", "classifier_rate_base"] = 0.9
    (base,) = [
        rows[0]["base"]
        for rows in spec(pareto_figure(df))["datasets"].values()
        if "base" in rows[0]
    ]
    assert base == 0.31


def test_two_sweeps_of_one_method_are_two_lines() -> None:
    df = pareto_table()
    extra = df[df["method"] == "qp_optimal"].assign(strength_name="tau, lam=10")
    rows = rows_of(spec(pareto_figure(pd.concat([df, extra]))), 0, "point")
    series = {row["series"] for row in rows if row["method"] == "qp_optimal"}
    assert series == {"qp_optimal tau", "qp_optimal tau, lam=10"}


def test_pareto_says_when_a_panel_has_nothing() -> None:
    df = pareto_table().assign(
        classifier_rate_steered=np.nan, classifier_rate_base=np.nan, on_frontier=pd.NA
    )
    chart = spec(pareto_figure(df))
    marks = [panel.get("mark", {}).get("type") for panel in chart["hconcat"]]
    assert marks == ["text", None, "text"]
    assert "not defined for this experiment" in json.dumps(chart["datasets"])


def test_pareto_reads_a_table_back_from_csv(tmp_path) -> None:
    df = pareto_table()
    df.to_csv(tmp_path / "pareto.csv", index=False)
    again = spec(pareto_figure(pd.read_csv(tmp_path / "pareto.csv")))
    direct = spec(pareto_figure(df))
    outlined = [
        [row["outlined"] for row in rows_of(chart, 0, "point")] for chart in (again, direct)
    ]
    assert outlined[0] == outlined[1]


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_pareto_is_of_one_experiment(names: list[str]) -> None:
    tables = [pareto_table().assign(experiment=name) for name in names]
    df = pd.concat(tables) if tables else pareto_table().iloc[:0]
    with pytest.raises(ValueError, match="one experiment"):
        pareto_figure(df)


def test_pareto_is_of_one_seed() -> None:
    df = pd.concat([pareto_table(), pareto_table().assign(seed=1)])
    with pytest.raises(ValueError, match="at one seed"):
        pareto_figure(df)


def test_zero_cost_has_a_place_on_the_axis() -> None:
    x = spec(pareto_figure(pareto_table()))["hconcat"][0]["layer"][-1]["encoding"]["x"]
    assert x["scale"]["type"] == "symlog" and x["scale"]["domain"][0] == 0.0
    assert x["axis"]["values"][0] == 0.0


def test_styles_are_distinct_and_do_not_depend_on_the_other_methods() -> None:
    methods = list(pareto_table()["method"].unique())
    styles = method_styles([*methods, "new_a", "new_b", "new_c"])
    assert len({(style.colour, style.shape) for style in styles.values()}) == 12
    assert len({style.colour for style in styles.values()}) == 12
    assert method_styles(["qp_optimal"])["qp_optimal"] == styles["qp_optimal"]
    assert list(styles)[-3:] == ["new_a", "new_b", "new_c"]
