"""Whether a method is on the frontier, in words, from the numbers of the table."""

import pandas as pd


def frontier_verdict(table: pd.DataFrame, method: str) -> str:
    """Say where ``method`` is on the frontier, or what keeps it off.

    Args:
        table: as :mod:`steering_core.tables.columns` describes it, of one experiment.
        method: one of its methods.

    Raises:
        ValueError: if the table has no row of ``method``.

    """
    rows = table[table["method"] == method]
    if rows.empty:
        raise ValueError(f"method: the table has no {method}")
    on = rows[rows["on_frontier"].astype("boolean").fillna(False).astype(bool)]
    if len(on):
        points = ", ".join(_point(row) for _, row in on.sort_values("kl_mean").iterrows())
        return f"{method} is on the frontier at {len(on)} of {len(rows)} strengths: {points}."
    competing = table[table["on_frontier"].notna()]
    own = competing[competing["method"] == method]
    if own.empty:
        return (
            f"{method} is not on the frontier: none of its {len(rows)} strengths could steer every "
            "prompt and position (see feasible_fraction_prompts and unsolved_positions)."
        )
    best = own.sort_values(["classifier_rate_steered", "kl_mean"], ascending=[False, True]).iloc[0]
    # The best row is not on the frontier, so some row has no more KL and no lower a rate.
    better = competing[
        (competing["kl_mean"] <= best["kl_mean"])
        & (competing["classifier_rate_steered"] >= best["classifier_rate_steered"])
        & (competing["method"] != method)
    ].sort_values(["classifier_rate_steered", "kl_mean"], ascending=[False, True])
    other = better.iloc[0]
    return (
        f"{method} is not on the frontier: its strength with the highest target rate, "
        f"{_point(best)}, is beaten by {other['method']} at {_point(other)}."
    )


def _point(row: pd.Series) -> str:
    name, at, fixed = str(row["strength_name"]).partition(" at ")
    return (
        f"{name} {row['strength']:g}{at}{fixed} (KL {row['kl_mean']:.3g}, "
        f"target rate {row['classifier_rate_steered']:.3g})"
    )
