"""The price of sparsity: what a vector of one, two, four … features costs at the matched effect.

A declared program with counts of ``features`` has a curve of effect against cost for each count. At
a count, all margins have the same place on the exact path, so the curve varies the length of one
vector. Its floor is the dense program with the same direction and metric: the least vector with the
same margin.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from steering_core.tables.caveats import warnings_cell, warnings_in
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.effect_curves import Curve, against, at_the_effect, strengths_of
from steering_core.tables.matched import AtEffect, Comparison, warnings_of
from steering_core.tables.words import headline_rows, interval, number

#: The numbers of a dictionary, by their names in the table of trained SAEs.
_OF_SAE = {"sae_l0": "l0", "sae_explained_variance": "explained_variance"}


def floor_of(name: str, programs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the dense program with the same margin as the program ``name``.

    Args:
        name: of a program with counts of features.
        programs: declared programs as plain values, by name.

    Raises:
        ValueError: if there is none; the configuration is refused before.
    """
    own = programs[name]
    for other, found in programs.items():
        same = _direction(found) == _direction(own) and all(
            found[key] == own[key] for key in ("mode", "metric")
        )
        if found["program"] == "dense" and same and not found["guards"]:
            return other
    raise ValueError(f"programs: {name} has no dense program with its direction and metric")


def price_table(
    compared: Comparison,
    programs: Mapping[str, Mapping[str, Any]],
    experiment: str,
    *,
    d_sae: int | None = None,
    sae: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return the table ``price`` as ``columns.yaml`` describes it; empty without such programs.

    Args:
        compared: all curves of the experiment.
        programs: its declared programs as plain values, by name.
        experiment: its name.
        d_sae: number of features of the SAE.
        sae: the SAE's row in the table of a model's trained SAEs; None if it was not measured.
    """
    measured = {name: np.nan if sae is None else sae[key] for name, key in _OF_SAE.items()}
    rows = []
    for group in compared.groups:
        for name, declared in programs.items():
            if declared["features"] is None:
                continue
            floor = _curve(group, floor_of(name, programs), "tau")
            counts = [*declared["features"], None]
            for count in counts:
                curve = floor if count is None else _curve(group, name, _named(count))
                if curve is None:
                    continue
                rows.append(
                    compared.shared_cells(group, experiment)
                    | {
                        "program": name,
                        "concept_direction": _direction(declared),
                        "metric": declared["metric"],
                        "feature_cost": declared["feature_cost"],
                        "features": np.nan if count is None else count,
                        "d_sae": np.nan if d_sae is None else d_sae,
                        **measured,
                        **_cells(compared, group, curve, floor),
                    }
                )
    table = pd.DataFrame(rows, columns=column_names("price"))
    validate_table(table, "price")
    return table


def _direction(declared: Mapping[str, Any]) -> str:
    """Return what the margin is on; a list of several is in one cell."""
    given = declared["concept_direction"]
    return given if isinstance(given, str) else " + ".join(given)


def _named(count: int) -> str:
    return f"tau at features={count}"


def _curve(group: AtEffect, method: str, name: str) -> Curve | None:
    found = [one for one in group.curves if (one.method, one.name) == (method, name)]
    return found[0] if found else None


def _cells(
    compared: Comparison, group: AtEffect, curve: Curve, floor: Curve | None
) -> dict[str, Any]:
    strengths = strengths_of(compared.about, curve)
    own = at_the_effect(compared.points, compared.about, curve)
    own |= against(curve, floor, group.effect)
    said = warnings_of(compared.about, curve)
    return own | {
        "method": curve.method,
        "l0": _l0(compared, curve),
        "n_texts": int(strengths["n_texts"].max()),
        "n_points": len(curve.rows),
        "warnings": warnings_cell(said) or None,
    }


def _l0(compared: Comparison, curve: Curve) -> float:
    """Return the number of features, which all strengths of the curve share; NaN if dense."""
    counts = compared.points.l0[curve.rows, 0]
    return float(counts[0]) if counts.size else np.nan


def dense_row(rows: pd.DataFrame) -> pd.Series | None:
    """Return the row of the floor among the rows of one program, judge and measure."""
    dense = rows[rows["features"].isna()]
    return None if dense.empty else dense.iloc[0]


def price_sentences(price: pd.DataFrame) -> list[str]:
    """Return what sparsity costs by the first judge: a sentence for each program.

    It quotes the fewest features, about ten and the most, as multiples of the dense floor.
    """
    found = []
    for name, own in headline_rows(price).groupby("program", sort=False):
        text = _sentence(str(name), own)
        if text is not None:
            found.append(text)
    return found


def price_warnings(price: pd.DataFrame) -> list[str]:
    """Return what to know before quoting the price: each warning with the features it is about."""
    found = []
    for name, own in headline_rows(price).groupby("program", sort=False):
        about: dict[str, list[str]] = {}
        for _, row in own.iterrows():
            made = "dense" if pd.isna(row["features"]) else f"{row['features']:g}"
            for text in warnings_in(row["warnings"]):
                about.setdefault(text, []).append(made)
        found += [f"{name} (features: {', '.join(made)}): {text}" for text, made in about.items()]
    return found


def _sentence(name: str, rows: pd.DataFrame) -> str | None:
    dense = dense_row(rows)
    sparse = rows[rows["features"].notna()]
    there = sparse[sparse["kl_ratio"].notna()].drop_duplicates("l0").sort_values("l0")
    if dense is None or dense["status"] != "reached" or there.empty:
        return None
    near_ten = there.iloc[[int(np.abs(np.log(there["l0"] / 10)).argmin())]]
    quoted = pd.concat([there.iloc[[0]], near_ten, there.iloc[[-1]]]).drop_duplicates("l0")
    parts = [
        f"{number(row['kl_ratio'])} times as much ({interval(row, 'kl_ratio')}) with "
        f"{row['l0']:g} feature{'s' if row['l0'] != 1 else ''}"
        for _, row in quoted.iterrows()
    ]
    direction = str(dense["concept_direction"]).replace("_", " ")
    least = "shortest vector"  # by the metric that is minimised
    if dense["metric"] != "identity":
        least = f"least vector in the {dense['metric']} metric"
    text = (
        f"The price of sparsity ({name}: {direction}, {dense['metric']} metric, "
        f"{dense['feature_cost']} cost of features): for a change of "
        f"{number(dense['effect'])} the {least} without features costs "
        f"{number(dense['kl'])} nats per token, a vector made of features "
        f"{'; '.join(parts)}."
    )
    never = sparse[sparse["status"] == "not_reached"]
    if len(never):
        counts = sorted(set(never["l0"].dropna()))
        who = f"Vectors of {', '.join(f'{count:g}' for count in counts)} features do"
        if counts == [1]:
            who = "A vector of 1 feature does"
        text += f" {who} not reach it at any margin that was run."
    return text
