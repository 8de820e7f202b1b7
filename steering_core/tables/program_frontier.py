"""The programs' frontier as tables: the path's curves, the sweep's points, the knots."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.config.methods import is_program, mode_of, program_of
from steering_core.methods.solutions import solved
from steering_core.optimize.frontier import curves, unit_frontier
from steering_core.optimize.path import SteeringPath
from steering_core.tables.columns import column_names, validate_table

_MEANS = ("l1", "l0", "residual_norm", "objective")


def program_frontier(path: SteeringPath, solutions: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the frontier at every margin of the sweep, as ``columns.yaml`` describes it.

    Args:
        path: path of the experiment; only its fitted range is used.
        solutions: rows of ``solutions/*.parquet`` for the inputs to average over. The table is
            empty if no program is among them.
        experiment: name of the experiment.
    """
    # Declared programs may have their margin on another logit than that of this path.
    of_path = solutions[solutions["method"].map(is_program).astype(bool)]
    margins = np.unique(of_path["tau"].to_numpy(dtype=float))
    parts = {
        "curve": curves(path, logits_of(solutions), margins),
        "sweep": grid_points(solutions),
    }
    table = pd.concat(
        [
            rows.assign(experiment=experiment, point=name)
            for name, rows in parts.items()
            if len(rows)
        ]
        or [pd.DataFrame()]
    ).reindex(columns=column_names("frontier"))
    table = table.assign(**_in_model_units(table, of_path))
    validate_table(table, "frontier")
    return table.reset_index(drop=True)


def _in_model_units(table: pd.DataFrame, solutions: pd.DataFrame) -> dict[str, pd.Series]:
    """Return margin and parameter of each row in units of the model, which the solutions know."""
    known = solutions[["tau", "lam", "epsilon"]].to_numpy(dtype=float)
    model = solutions[["tau_model", "lam_model", "epsilon_model"]].to_numpy(dtype=float)
    ratio = pd.DataFrame(model / known, columns=["tau", "qp", "socp"]).median()  # all are equal
    # λ is an inverse norm, and ε a norm, so one of the two tells both.
    norm = ratio["qp"] if pd.notna(ratio["qp"]) else 1 / ratio["socp"]
    by_program = table["program"].map({"qp": norm, "socp": 1 / norm}).astype(float)
    return {
        "tau_model": table["tau"] * ratio["tau"],
        "parameter_model": table["parameter"] * by_program,
    }


def knot_table(path: SteeringPath, experiment: str) -> pd.DataFrame:
    """Return the table ``frontier_knots``: each knot of the fitted range, per unit of shortfall."""
    table = unit_frontier(path).assign(experiment=experiment)
    table = table[column_names("frontier_knots")]
    validate_table(table, "frontier_knots")
    return table


def logits_of(solutions: pd.DataFrame) -> Float[np.ndarray, " n"]:
    """Return the probe's logit of every input, computed from the shortfalls of a program.

    The result is empty if the sweep ran no program that is solved for each input.
    """
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if is_program(method) and mode_of(method) != "shared":
            return (group["tau"] - group["shortfall"]).to_numpy()
    return np.zeros(0)


def grid_points(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return the sweep's own points as rows of :func:`steering_core.optimize.frontier.frontier`.

    Only programs that are solved once for each input are included. Means are over the inputs with a
    certified solution, and NaN if there is none. If ``n_infeasible``, ``n_inaccurate`` or
    ``n_failed`` is not 0, the curves average over more inputs than the point.
    """
    rows = []
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if not is_program(method) or mode_of(method) != "static":
            continue
        program = program_of(method)
        has = group[solved(group)]
        reached = has["tau"] - has["shortfall"] + has["shortfall"].clip(lower=0)
        rows.append(
            {
                "program": program,
                "tau": group["tau"].iloc[0],
                "parameter": group["lam" if program == "qp" else "epsilon"].iloc[0],
                **has[list(_MEANS)].mean().to_dict(),
                "margin": reached.mean(),
                "n_solved": len(has),
                "n_satisfied": int((group["status"] == "already_satisfied").sum()),
                **{
                    f"n_{status}": int((group["status"] == status).sum())
                    for status in ("infeasible", "inaccurate", "failed")
                },
            }
        )
    return pd.DataFrame(rows)
