"""What a sweep says about the programs' frontier: where inputs start, where its points lie."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from steering_core.methods.modes import is_program, mode_of, program_of
from steering_core.methods.status import solved

_MEANS = ("l1", "l0", "residual_norm", "objective")


def logits_of(solutions: pd.DataFrame) -> Float[np.ndarray, " n"]:
    """Return the probe's logit of every input, from the shortfalls of a program.

    No logits if the sweep ran no program that is solved for each input.
    """
    for (method, _), group in solutions.groupby(["method", "strength_index"], sort=True):
        if is_program(method) and mode_of(method) != "shared":
            return (group["tau"] - group["shortfall"]).to_numpy()
    return np.zeros(0)


def grid_points(solutions: pd.DataFrame) -> pd.DataFrame:
    """Return the sweep's own points as rows of :func:`steering_core.optimize.frontier.frontier`.

    They are the programs solved once for each input. Means are over the inputs with a certified
    solution; where ``n_infeasible``, ``n_inaccurate`` or ``n_failed`` is not 0 these are others
    than those of the curves, and NaN without any.
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
