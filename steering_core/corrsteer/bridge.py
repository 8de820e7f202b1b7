"""The convex programs on CorrSteer's features, answering CorrSteer's tasks.

A probe of success is fitted on the residual stream at the last prompt token of the training rows.
For every test row the program then finds the sparsest combination of the *selected* features that
moves its residual past the margin, and that vector steers its answer.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from steering_core.activations.positions import last_token_residuals
from steering_core.config.corrsteer import Bridge
from steering_core.corrsteer.answers import answer, undefined
from steering_core.corrsteer.plan import Plan, Rows
from steering_core.corrsteer.run import Run
from steering_core.corrsteer.strategy import choose
from steering_core.errors import DataError
from steering_core.methods.optimal import ConvexOptimalSteering, QPOptimalSteering
from steering_core.methods.solutions import SOLVED
from steering_core.optimize.path import SteeringPath
from steering_core.probes.fit import fit_probe

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Solved:
    """A program's vectors.

    Attributes:
        vectors: one a row, (n, d_model); NaN where there is no solution.
        status: of each row.
        solved: whether it has a vector that kept its tolerance.
        note: what to know of the probe; empty where there is nothing.
    """

    vectors: Float[np.ndarray, "n d_model"]
    status: list[str]
    solved: Bool[np.ndarray, " n"]
    note: str = ""


def solve_rows(
    program: str,
    bridge: Bridge,
    dictionary: Float[np.ndarray, "m d_model"],
    train: Float[np.ndarray, "k d_model"],
    success: Bool[np.ndarray, " k"],
    test: Float[np.ndarray, "n d_model"],
    *,
    seed: int,
    centred: bool,
) -> Solved:
    """Fit the probe of success and solve the program for every test row.

    Raises:
        DataError: if the training rows do not have both outcomes, or too few of one.
    """
    probe = fit_probe(train, success, seed=seed, centred=centred)
    if program == "qp_optimal":
        method = QPOptimalSteering(bridge.weight, bridge.tau)
    else:
        method = ConvexOptimalSteering(bridge.epsilon, bridge.tau)
    path = SteeringPath.fit(dictionary.astype(np.float64), probe.weight_vector)
    shortfall = method.shortfall(test.astype(np.float64), probe.weight_vector, probe.bias)
    found = method.solve(path, shortfall)
    solved = np.isin(found.status, SOLVED)  # not what missed its tolerance
    note = "; the probe of success is no better than chance" if probe.at_chance else ""
    return Solved(found.vector, found.status.tolist(), solved, note)


def answer_bridge(
    run: Run,
    program: str,
    bridge: Bridge,
    plan: Plan,
    rows_of: Rows,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    seed: int,
) -> pd.DataFrame:
    """Answer the test rows under the program's vectors.

    A row without a solution is not answered; it is undefined with the program's status.

    Args:
        run: the model and how it answers.
        program: ``qp_optimal`` or ``convex_optimal``.
        bridge: its parameters.
        plan: the features that an arm selected; the layer is that of the best.
        rows_of: decoder rows.
        train: training rows with ``prompt`` and ``success``.
        test: test rows.
        seed: of the probe's folds.
    """
    choice = choose("single", plan)
    if not choice.layers:
        return undefined(test, choice.reason)
    layer = choice.layers[0]
    site = plan.sites[layer]
    best = plan.features[plan.features["layer"] == layer].sort_values("rank")
    chosen: Int[np.ndarray, " m"] = best["feature"].to_numpy()[: bridge.features]
    residuals = [
        last_token_residuals(
            run.lm,
            rows["prompt"].tolist(),
            site,
            max_tokens=run.lm.shape.context,
            batch_tokens=_BATCH_TOKENS,
        )
        for rows in (train, test)
    ]
    try:
        solved = solve_rows(
            program,
            bridge,
            rows_of(layer, chosen),
            residuals[0],
            train["success"].to_numpy(dtype=bool),
            residuals[1],
            seed=seed,
            centred=site.centred,
        )
    except DataError as error:
        return undefined(test, f"no probe of success: {error}")
    has = np.flatnonzero(solved.solved)
    table = undefined(test, "")
    table["reason"] = [f"program: {status}{solved.note}" for status in solved.status]
    if has.size:
        mine = test.iloc[has].reset_index(drop=True)
        steering = [(site, solved.vectors[has].astype(np.float32))]
        answered = answer(
            run.lm,
            mine,
            run.task,
            run.how,
            run.classifier,
            interventions=steering,
            reasoned=run.reasoned,
        )
        answered.index = table.index[has]
        answered["reason"] += solved.note.removeprefix("; ")
        table = table.astype(object)
        table.loc[answered.index] = answered.astype(object)
    return table
