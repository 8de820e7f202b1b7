"""The layers of a model: a picture of the sweep, and what steering costs at each layer tried.

The second is the table ``layer_effect``, with its picture.
"""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.errors import DataError
from steering_core.tables.caveats import warnings_cell
from steering_core.tables.charts import HEIGHT, INK, QUIET, WIDTH, finished, log_axis, note
from steering_core.tables.columns import column_names, validate_table
from steering_core.tables.effect_curves import at_the_effect, strengths_of
from steering_core.tables.matched import Matching, compare, warnings_of
from steering_core.tables.measured import Measured, of_prompts
from steering_core.tables.words import is_true

_ACCENT, _SECOND = "#0072B2", "#D55E00"
_SWEEP_SCALE = alt.Scale(zero=False, nice=False, padding=14)


def sweep_figure(df: pd.DataFrame, used: int) -> alt.HConcatChart:
    """Draw the layer sweep: cross-validated probe accuracy, and SAE-concept alignment, per layer.

    Args:
        df: columns ``layer``, ``accuracy`` and ``accuracy_std`` (share, over folds),
            ``alignment`` (a squared cosine), ``picked`` (bool).
        used: layer of the experiment, picked or configured.

    """
    df = df.assign(used=df["layer"] == used)
    accuracy = df.assign(
        low=(df["accuracy"] - df["accuracy_std"]).clip(lower=0.0),
        high=(df["accuracy"] + df["accuracy_std"]).clip(upper=1.0),
    )
    band = (
        alt.Chart(accuracy)
        .mark_area(opacity=0.18, color=_ACCENT)
        .encode(
            _layer_axis(df),
            alt.Y("low:Q", title="probe accuracy (share), ± 1 SD over folds", scale=_SWEEP_SCALE),
            alt.Y2("high"),
        )
    )
    panels = [
        band + _curve(accuracy, "accuracy", "probe accuracy (share), ± 1 SD over folds", _ACCENT),
        _curve(df, "alignment", "alignment with the concept, cos²", _SECOND),
    ]
    titles = ("Can a probe read the concept?", "Is there a feature for it?")
    chosen = ", ".join(str(layer) for layer in df.loc[df["picked"].astype(bool), "layer"])
    subtitle = f"used: layer {used}; the sweep would pick {chosen or 'none'}"
    sized = [
        panel.properties(
            title=alt.TitleParams(title, subtitle=subtitle), width=1.4 * WIDTH, height=HEIGHT
        )
        for panel, title in zip(panels, titles, strict=True)
    ]
    return finished(alt.hconcat(*sized, spacing=30))


def _layer_axis(df: pd.DataFrame) -> alt.X:
    step = max(1, round(len(df) / 14))
    ticks = [int(layer) for layer in sorted(df["layer"])[::step]]
    return alt.X(
        "layer:Q", title="layer", axis=alt.Axis(values=ticks, format="d"), scale=_SWEEP_SCALE
    )


def _curve(df: pd.DataFrame, column: str, title: str, colour: str) -> alt.LayerChart:
    """Draw ``column`` by layer, with a vertical line at the layer used."""
    x, marked = _layer_axis(df), alt.Chart(df[df["used"]])
    y = alt.Y(column, type="quantitative", title=title, scale=_SWEEP_SCALE)
    base = alt.Chart(df)
    return alt.layer(
        marked.mark_rule(strokeDash=[6, 4], color=QUIET).encode(x),
        base.mark_line(color=colour, strokeWidth=2).encode(x, y),
        base.mark_point(color=colour, filled=True, size=45, opacity=1).encode(x, y),
        marked.mark_point(color=colour, filled=True, size=130, opacity=1, stroke="black").encode(
            x, y
        ),
    )


def layer_effect_table(trials: pd.DataFrame, experiment: str, matching: Matching) -> pd.DataFrame:
    """Return the table ``layer_effect`` as ``columns.yaml`` describes it.

    Layers are compared where their directions have one effect, as methods are in the table
    ``matched``. The layer with the least KL there is picked.

    Args:
        trials: rows of :func:`steering_core.metrics.layer_by_effect.try_layer` of all layers.
        experiment: name of the experiment.
        matching: what is matched.

    Raises:
        DataError: if the direction has no effect at any of the layers, or the matched one at none.
    """
    method = str(trials.loc[trials["method"] != BASELINE, "method"].iloc[0])
    first = trials["layer"].min()
    # Unsteered texts are the same at every layer.
    kept = trials[(trials["method"] != BASELINE) | (trials["layer"] == first)]
    steered = kept["method"] != BASELINE
    kept = kept.assign(method=kept["method"].where(~steered, _names(kept["layer"])))
    texts = of_prompts(kept.drop(columns=["strength_name", "layer"]))
    compared = compare(
        Measured(_solutions(kept), pd.DataFrame(), texts),
        matching,
        draws=int(trials["draw"].nunique()),
    )
    group = compared.groups[0]
    if group.effect is None:
        raise DataError(
            f"effect_layers: {method} moves the texts towards the target at none of the layers "
            f"{sorted(trials['layer'].unique().tolist())} within selection_kl: try other layers, "
            "another effect_direction or larger strengths."
        )
    rows: list[dict[str, Any]] = []
    for curve in group.curves:
        rows.append(
            compared.shared_cells(group, experiment)
            | {
                "layer": int(curve.method.removeprefix("layer ")),
                "method": method,
                "n_texts": int(strengths_of(compared.about, curve)["n_texts"].max()),
                "n_points": len(curve.rows),
                **at_the_effect(compared.points, compared.about, curve),
                "warnings": warnings_cell(warnings_of(compared.about, curve)) or None,
            }
        )
    table = pd.DataFrame(rows).sort_values("layer", ignore_index=True)
    if table["kl"].isna().all():
        raise DataError(
            f"effect_layers: none of the layers {table['layer'].tolist()} reaches a change of "
            f"{group.effect:.3g}: try other layers or larger strengths."
        )
    table["picked"] = table.index == table["kl"].idxmin()
    table = table[column_names("layer_effect")]
    validate_table(table, "layer_effect")
    return table


def _names(layers: pd.Series) -> pd.Series:
    return layers.map("layer {}".format)


def _solutions(kept: pd.DataFrame) -> pd.DataFrame:
    """Return what the comparison reads of solutions: a row per strength and prompt."""
    key = ["method", "strength_index", "example_id"]
    rows = kept.drop_duplicates(key)[[*key, "strength_name", "strength", "residual_norm"]]
    empty = dict.fromkeys(["tau", "lam", "epsilon", "l0"], np.nan)
    return rows.assign(**empty, status="fixed", split="validation_prompt")


def layer_effect_figure(table: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the KL at the matched effect against the layer; the layer that is taken is ringed.

    Args:
        table: table ``layer_effect`` of one experiment.
    """
    there = table[(table["status"] == "reached") & (table["kl"] > 0)]
    if there.empty:
        return finished(note("no layer reaches the effect"))
    first = table.iloc[0]
    ends = pd.concat([there[name] for name in ("kl", "kl_ci_low", "kl_ci_high")]).dropna()
    axis = log_axis(ends[ends > 0])
    low, high = axis["scale"].to_dict()["domain"]
    there = there.assign(
        low=there["kl_ci_low"].fillna(low).clip(lower=low), high=there["kl_ci_high"].fillna(high)
    )
    lost = sorted(set(table["layer"]) - set(there["layer"]))
    said = [
        f"Judge: {first['judge']}. {first['n_prompts']:g} validation prompts. Bars: bootstrap 95 % "
        "intervals over prompts.",
        "Ringed: the layer that is steered."
        + (f" Not reached at layer {', '.join(map(str, lost))}." if lost else ""),
    ]
    across = alt.X(
        "layer:Q", title="layer", axis=alt.Axis(values=sorted(table["layer"]), format="d"),
        scale=alt.Scale(zero=False, padding=20),
    )  # fmt: skip
    up = alt.Y("kl:Q", title="KL at the matched effect, nats per token", **axis)
    base = alt.Chart(there)
    layers = [
        base.mark_line(color=INK, strokeWidth=1.4, opacity=0.6).encode(across, up),
        base.mark_rule(color=INK, opacity=0.6).encode(
            across, alt.Y("low:Q", **axis), alt.Y2("high")
        ),
        base.mark_point(filled=True, size=60, color=INK, opacity=1).encode(across, up),
        alt.Chart(there[is_true(there["picked"])])
        .mark_point(size=260, color="#D55E00", strokeWidth=2)
        .encode(across, up),
    ]
    title = alt.TitleParams(
        f"{first['experiment']}: what a change of {first['effect']:.3g} costs at each layer "
        f"({first['method']})",
        subtitle=said,
        fontSize=16,
        offset=14,
    )
    return finished(alt.layer(*layers).properties(width=1.6 * WIDTH, height=HEIGHT, title=title))
