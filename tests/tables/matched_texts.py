"""Texts of five methods with known effects and costs, and the tables made from them."""

import numpy as np
import pandas as pd

from steering_core.tables.columns import column_names
from steering_core.tables.matched import Matching, compare, matched_table
from steering_core.tables.measured import Measured
from steering_core.tables.verdict import summary_table

N = 40
#: Method: KL and target rate of each strength, and features; None for a dense direction.
METHODS = {
    "caa_mean_diff": ([0.01, 0.04], [0.6, 0.8], None),
    "caa_repe": ([0.09, 0.36], [0.6, 0.8], None),
    "topk_features": ([0.02, 0.08], [0.6, 0.8], 10),
    "single_feature": ([0.4, 0.8], [0.45, 0.55], 1),
    "random_direction": ([0.01, 0.04], [0.4, 0.4], None),
}
BASE = 0.4


def judged(rate: float) -> np.ndarray:
    return (np.arange(N) < round(rate * N)).astype(float)


def texts(prefix: str, draws: int = 1) -> pd.DataFrame:
    rows = [("no_steering", 0, 0.0, BASE)]
    rows += [
        (method, index, kl, rate)
        for method, (kls, rates, _) in METHODS.items()
        for index, (kl, rate) in enumerate(zip(kls, rates, strict=True))
    ]
    frames = []
    for method, index, kl, rate in rows:
        for draw in range(draws):
            frame = pd.DataFrame({"example_id": [f"{prefix}{i}" for i in range(N)]})
            # Costs differ between prompts in the same way for all methods.
            spread = 10 * (1 + 0.5 * np.sin(np.arange(N)) - 0.5 * np.sin(np.arange(N)).mean())
            frames.append(
                frame.assign(
                    method=method, strength_index=index, draw=draw, kl_sum=kl * spread,
                    base_nll_sum=20.0, n_tokens=10, judged=judged(rate), score=judged(rate),
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def solutions() -> pd.DataFrame:
    frames = []
    for method, (kls, _, l0) in [("no_steering", ([0.0], None, 0)), *METHODS.items()]:
        for index, kl in enumerate(kls):
            frame = pd.DataFrame({"example_id": [f"p{i}" for i in range(N)]})
            frames.append(
                frame.assign(
                    method=method, strength_index=index, strength_name="alpha",
                    strength=float(index + 1) if kl else 0.0, tau=np.nan, lam=np.nan,
                    epsilon=np.nan, status="fixed", l0=np.nan if l0 is None else float(l0),
                    residual_norm=10 * np.sqrt(kl), split="prompt",
                )
            )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def measured(draws: int = 1, *, validation: bool = True) -> Measured:
    chosen = texts("v", draws) if validation else None
    return Measured(solutions(), pd.DataFrame(), texts("p", draws), chosen)


def compared(found: Measured, **settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    matching = Matching("lexicon", n_resamples=200, **settings)
    return matched_table(compare(found, matching), "e")


def pareto() -> pd.DataFrame:
    rows = []
    for method, (kls, rates, l0) in [("no_steering", ([0.0], [BASE], 0)), *METHODS.items()]:
        for index, (kl, rate) in enumerate(zip(kls, rates, strict=True)):
            rows.append(
                {
                    "experiment": "e", "model": "org/model", "task": "sst2", "layer": 7, "seed": 0,
                    "method": method, "strength_name": "alpha",
                    "strength": float(index + 1) if kl else 0.0, "n_texts": N, "n_prompts": N,
                    "kl_mean": kl, "classifier_rate_steered": rate, "prompt_l0_mean": l0,
                    "selected": index == 0, "on_frontier": False, "warnings": "the judge is blind",
                }
            )  # fmt: skip
    table = pd.DataFrame(rows).reindex(columns=column_names("pareto"))
    return table.astype({"prompt_l0_mean": float})


def summary(matched: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    return summary_table(pareto(), matched, curves)
