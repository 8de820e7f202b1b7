"""Labels stay clear of each other, of the panel's edge and, where they can, of the marks."""

import re

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from steering_core.tables.label_places import label_layers, label_places, pixels

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
