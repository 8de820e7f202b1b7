import json
import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from table_data import frontier_table, pareto_table, sweep_table

from steering_core.tables.layers import sweep_figure
from steering_core.tables.norm_matched import norm_matched_figure
from steering_core.tables.palette import method_styles
from steering_core.tables.pareto_figure import pareto_figure, pareto_panels
from steering_core.tables.program_frontier import frontier_figure
from steering_core.tables.words import readable_strength


def spec(chart: alt.TopLevelMixin) -> dict:
    return chart.to_dict()


def fields(panel: dict, channel: str) -> set[str]:
    layers = panel.get("layer", [panel])
    found = set()
    for layer in layers:
        found |= fields(layer, channel) if "layer" in layer else set()
        if "field" in layer.get("encoding", {}).get(channel, {}):
            found.add(layer["encoding"][channel]["field"])
    return found


def rows_of(chart: dict, panel: int, mark: str) -> list[dict]:
    layers = chart["hconcat"][panel]["layer"]
    layer = next(layer for layer in layers if layer["mark"]["type"] == mark)
    return chart["datasets"][layer["data"]["name"]]


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


def matched_rows() -> pd.DataFrame:
    """Two strengths of a program against two directions."""
    rows = [
        {
            "experiment": "demo",
            "method": "qp_optimal",
            "strength_name": "tau",
            "strength": strength,
            "direction": direction,
            "n": 50,
            "program_flip_rate": 0.9,
            "direction_flip_rate": 0.4,
            "difference": 0.5,
            "difference_ci_low": 0.3,
            "difference_ci_high": 0.7,
        }
        for strength in (1.0, 2.0)
        for direction in ("caa_mean_diff", "random_direction")
    ]
    return pd.DataFrame(rows)


def test_equal_norm_stands_out_at_the_selected_strength_alone():
    df = pareto_table()
    df["selected"] = (df["method"] == "qp_optimal") & (df["strength"] == 2.0)
    chart = norm_matched_figure(matched_rows(), df).to_dict()
    (panel,) = chart["concat"]
    assert panel["title"] == {"text": "qp_optimal", "subtitle": "τ = 2, 50 rows"}
    (texts,) = [one for one in panel["layer"] if one["mark"]["type"] == "text"]
    assert texts["transform"] == [{"filter": "datum.selected"}]
    data = texts.get("data") or panel["data"]
    rows = pd.DataFrame(chart["datasets"][data["name"]])
    assert rows.loc[rows["selected"], "rates"].tolist() == ["90% : 40%"] * 2
    assert len(rows) == 4
    nothing = norm_matched_figure(matched_rows(), df.assign(selected=pd.NA)).to_dict()
    assert nothing["concat"][0]["title"]["subtitle"] == "no strength selected"


def test_equal_norm_without_a_solved_row_is_a_note():
    chart = norm_matched_figure(matched_rows().iloc[:0], pareto_table()).to_dict()
    assert "nothing to compare" in json.dumps(chart)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("alpha", 0.5, "α = 0.5"),
        ("tau at lambda=1", 10.0, "λ = 1, τ = 10"),
        ("epsilon at tau=10", 14.0, "τ = 10, ε = 14"),
        (None, 0.25, "0.25"),
        ("tau", np.nan, ""),
        ("other", 2.0, "other = 2"),
    ],
)
def test_strengths_are_written_with_their_symbols(name, value, shown):
    assert readable_strength(name, value) == shown


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


ALL_SOLVED = {"n_infeasible": 0, "n_inaccurate": 0, "n_failed": 0}


def test_frontier_at_one_margin() -> None:
    df = frontier_table()
    chart = spec(frontier_figure(df, df.iloc[::10].assign(**ALL_SOLVED)))
    panels = chart["hconcat"]
    assert [fields(panel, "y") for panel in panels] == [{"l1"}, {"l0"}]
    assert {row["curve"] for row in rows_of(chart, 0, "line")} == {"qp 1.0", "socp 1.0"}
    assert len(rows_of(chart, 0, "point")) == len(df.iloc[::10])


def test_frontier_points_over_some_rows_are_hollow_and_over_no_rows_not_drawn() -> None:
    df = frontier_table()
    counts = {"n_infeasible": [0, 2, 0, 9], "n_inaccurate": [0, 0, 1, 0]}
    grid = df.iloc[:4].assign(**ALL_SOLVED).assign(**counts)
    grid.loc[grid.index[3], ["l0", "l1", "residual_norm"]] = np.nan
    chart = spec(frontier_figure(df, grid))
    points = [one for one in chart["hconcat"][0]["layer"] if one["mark"]["type"] == "point"]
    filters = {one["transform"][0]["filter"]: one["mark"] for one in points}
    unsolved = "datum.n_infeasible + datum.n_inaccurate + datum.n_failed"
    assert filters[f"{unsolved} == 0"]["filled"] is True
    assert filters[f"{unsolved} > 0"]["filled"] is False
    assert [row["n_infeasible"] for row in rows_of(chart, 0, "point")] == [0, 2, 0]


def test_frontier_labels_several_margins_clear_of_the_curves() -> None:
    chart = spec(frontier_figure(frontier_table((0.5, 2.0))))
    rows = rows_of(chart, 0, "text")
    assert {row["label"] for row in rows} == {"τ=0.5", "τ=2"}
    assert all(row["dy"] < 0 for row in rows)  # the curves fall to the right of their ends
    assert chart["title"]["text"].startswith("demo: ")
    assert "τ: the margin" in chart["title"]["subtitle"]
    assert "τ" not in spec(frontier_figure(frontier_table()))["title"]["subtitle"]


def test_frontier_along_the_margin_has_a_third_panel() -> None:
    margins = np.linspace(0.1, 4, 20)
    df = pd.DataFrame({"program": "qp", "parameter": 1.0, "tau": margins, "experiment": "demo"})
    df = df.assign(l0=5, l1=3 * margins, residual_norm=2 * margins)
    panels = spec(frontier_figure(df))["hconcat"]
    assert len(panels) == 3 and fields(panels[2], "x") == {"tau"}


def test_frontier_without_a_program_says_so() -> None:
    assert spec(frontier_figure(frontier_table().iloc[:0]))["mark"]["type"] == "text"


def test_styles_are_distinct_and_do_not_depend_on_the_other_methods() -> None:
    methods = list(pareto_table()["method"].unique())
    styles = method_styles([*methods, "new_a", "new_b", "new_c"])
    assert len({(style.colour, style.shape) for style in styles.values()}) == 12
    assert len({style.colour for style in styles.values()}) == 12
    assert method_styles(["qp_optimal"])["qp_optimal"] == styles["qp_optimal"]
    assert list(styles)[-3:] == ["new_a", "new_b", "new_c"]
