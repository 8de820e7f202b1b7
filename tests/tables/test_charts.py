"""Labels do not overlap each other or the panel's edge and, if possible, no marks."""

import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from table_data import pareto_table, sweep_table

from steering_core.tables.charts import (
    finished,
    label_layers,
    label_places,
    pixels,
    save_chart,
    spread_axis,
)
from steering_core.tables.layer_choice import sweep_figure
from steering_core.tables.pareto_figure import pareto_figure


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_same_table_same_bytes(tmp_path, suffix: str) -> None:
    # Another chart in between moves the renderer's counters on.
    save_chart(pareto_figure(pareto_table()), tmp_path / f"a{suffix}")
    save_chart(sweep_figure(sweep_table(), 15), tmp_path / f"other{suffix}")
    save_chart(pareto_figure(pareto_table()), tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert (tmp_path / f"a{suffix}").read_bytes() != (tmp_path / f"other{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_clip_ids_are_counted_from_one(tmp_path) -> None:
    for name in ("a.svg", "b.svg"):
        chart = sweep_figure(sweep_table(), 15)
        for panel in chart.hconcat:
            panel.layer[0].mark.clip = True
        save_chart(chart, tmp_path / name)
    svg = (tmp_path / "b.svg").read_text()
    ids = re.findall(r'<clipPath id="(\w+)"', svg)
    assert ids and ids[0] == "id1"
    assert set(re.findall(r"url\(#(\w+)\)", svg)) == set(ids)
    assert svg == (tmp_path / "a.svg").read_text()


def test_svg_shows_the_methods_and_loads_nothing(tmp_path) -> None:
    save_chart(pareto_figure(pareto_table()), tmp_path / "pareto.svg")
    svg = (tmp_path / "pareto.svg").read_text()
    assert svg.startswith("<svg") and ">qp_optimal<" in svg and ">caa_repe<" in svg
    assert "href=" not in svg and "@import" not in svg


def test_html_holds_its_scripts(tmp_path) -> None:
    save_chart(sweep_figure(sweep_table(), 15), tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text()
    assert not re.search(r"<script[^>]+src=", page)
    assert not re.search(r"<link[^>]+href=", page)


def test_large_tables_are_drawn(tmp_path) -> None:
    save_chart(sweep_figure(sweep_table(n_layers=6000), 15), tmp_path / "large.svg")
    assert (tmp_path / "large.svg").stat().st_size > 100_000


def test_other_suffix_is_an_error_and_writes_nothing(tmp_path) -> None:
    with pytest.raises(ValueError, match="svg, png, html"):
        save_chart(sweep_figure(sweep_table(), 15), tmp_path / "sweep.jpg")
    assert not list(tmp_path.iterdir())


def test_every_label_stands_at_its_tick_and_inside_the_picture(tmp_path) -> None:
    # Ticks at both ends of both axes; no title makes room beside the labels.
    scale = alt.Scale(domain=[0, 1000], nice=False)
    axes = [alt.X("x:Q", title=None, scale=scale), alt.Y("x:Q", title=None, scale=scale)]
    points = alt.Chart(pd.DataFrame({"x": [0.0, 1000.0]})).mark_point().encode(*axes)
    save_chart(finished(points.properties(width=300, height=300)), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()

    def places(part: str) -> list[np.ndarray]:
        """Where the axes, x first, put their ticks or labels, in pixels."""
        groups = re.findall(rf'class="mark-\w+ role-axis-{part}"(.*?)</g>', svg, re.DOTALL)
        found = [re.findall(r"translate\(([-\d.]+),([-\d.]+)\)", group) for group in groups]
        return [np.array(pairs, dtype=float) for pairs in found]

    (x_ticks, y_ticks), (x_labels, y_labels) = places("tick"), places("label")
    assert np.abs(x_labels[:, 0] - x_ticks[:, 0]).max() < 1
    assert np.ptp(y_labels[:, 1] - y_ticks[:, 1]) < 1  # a baseline is below the middle of its label
    assert svg.count(">1,000<") == 2
    assert not re.search(r'text-anchor="(start|end)"[^>]*translate\([-\d.]+,16\)', svg)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    left, top = map(float, re.search(r"translate\(([\d.]+),([\d.]+)\)", svg).groups())
    assert left + 300 + 15 < width and top + 300 + 16 < height and top > 6


def test_narrow_values_get_a_linear_axis() -> None:
    assert "values" not in spread_axis(pd.Series([0.0, 1.0, 4.0]))["axis"].to_dict()
    assert spread_axis(pd.Series([0.0, 0.02, 4.0]))["axis"].to_dict()["values"] == [
        0.0,
        0.01,
        0.1,
        1.0,
    ]
    assert "type" not in spread_axis(pd.Series([0.0, 0.0]))["scale"].to_dict()


FRAME = (300, 200)


def places(points: list[list[float]], marks: list[list[float]] | None = None) -> np.ndarray:
    points = np.array(points, dtype=float)
    marks = points if marks is None else np.array([*points, *marks], dtype=float)
    return label_places(points, ["100%"] * len(points), marks, FRAME)


def test_a_lonely_label_is_above_on_the_left():
    ((dx, dy),) = places([[150, 100]])
    assert dx < 0 and dy < 0


@pytest.mark.parametrize("corner", [[1, 1], [299, 1], [1, 199], [299, 199]])
def test_a_label_stays_in_the_panel(corner: list[float]):
    (offset,) = places([corner])
    assert ((np.array(corner) + offset > 0) & (np.array(corner) + offset < FRAME)).all()


def test_marks_are_avoided():
    free = places([[150, 100]])[0]
    moved = places([[150, 100]], marks=[[150 + free[0], 100 + free[1]]])[0]
    assert not np.allclose(free, moved)


def test_labels_do_not_meet_and_the_last_ones_are_left_out():
    points = np.array([[150.0 + shift, 100.0] for shift in range(30)])
    offsets = places(points.tolist())
    placed = ~np.isnan(offsets[:, 0])
    assert placed[0] and 2 < placed.sum() < 30
    at = (points + offsets)[placed]
    apart = np.abs(at[:, None] - at[None])
    assert ((apart[..., 0] < 26) & (apart[..., 1] < 10)).sum() == len(at)


def test_nothing_to_label():
    assert label_places(np.empty((0, 2)), [], np.empty((0, 2)), FRAME).shape == (0, 2)
    nowhere = pd.DataFrame({"dx": [np.nan], "dy": [np.nan]})
    assert label_layers(nowhere, alt.X("x:Q"), alt.Y("y:Q")) == []


@pytest.mark.parametrize(
    "scale",
    [
        {"domain": [0, 7], "padding": 10},
        {"type": "symlog", "constant": 0.01, "domain": [0, 7], "padding": 10},
        {"type": "symlog", "constant": 0.01, "domain": [0, 7]},
    ],
)
def test_pixels_are_those_of_the_renderer(scale: dict):
    df = pd.DataFrame({"x": [0.0, 0.003, 0.4, 6.0], "y": 0.0})
    x = alt.X("x:Q", scale=alt.Scale(nice=False, **scale), axis=None)
    labels = df.assign(label="here", dx=5.0, dy=0.0)
    chart = alt.layer(*label_layers(labels, x, alt.Y("y:Q", axis=None))).properties(width=FRAME[0])
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    drawn = re.findall(r'translate\(([\d.-]+),[\d.-]+\)"[^>]*stroke="white"[^>]*>here<', svg)
    expected = pixels(
        df["x"].to_numpy(),
        0.0,
        7.0,
        FRAME[0],
        padding=scale.get("padding", 0.0),
        symlog=scale.get("constant"),
    )
    assert np.array(drawn, dtype=float) == pytest.approx(expected + 5.0, abs=0.01)
