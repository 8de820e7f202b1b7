"""What guards of declared programs cost and save: ``guards.csv``.

A row per method, strength and guard, over the reported prompts. What the same program would do
without guards is known for every prompt from its path. What the texts would cost is known where the
experiment declares the same program without guards.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from steering_core.methods.solutions import STRENGTH, solved
from steering_core.statistics.bootstrap import change_interval, mean_interval, share_interval
from steering_core.tables.columns import column_names, interval_cells, validate_table
from steering_core.tables.measured import of_prompts

_AT_BOUND = 1e-6  # a guard is at its bound if the shift is this close to κ


def guard_table(
    experiment: str,
    rows: pd.DataFrame | None,
    texts: pd.DataFrame,
    unguarded: Mapping[str, str | None],
    prompts: Sequence[str],
    *,
    seed: int,
    n_resamples: int,
) -> pd.DataFrame:
    """Return the table ``guards`` as ``columns.yaml`` describes it.

    Args:
        experiment: its name.
        rows: of the guards of all programs, as :mod:`steering_core.methods.guard_directions` makes
            them; None if no program has guards.
        texts: ``kl_sum``, ``n_tokens`` and ``judged`` of each text of these programs and of those
            that ``unguarded`` names; other methods are ignored.
        unguarded: of each program the declared one that differs in its guards alone, or None.
        prompts: ids of the reported prompts.
        seed: of the intervals.
        n_resamples: of the intervals.
    """
    boot = {"seed": seed, "n_resamples": n_resamples}
    cells: list[dict[str, Any]] = []
    if rows is not None:
        texts = texts[texts["example_id"].isin(prompts)]
        made = of_prompts(texts[texts["method"].isin([*unguarded, *unguarded.values()])])
        rows = rows[rows["example_id"].isin(prompts)]
        key = ["method", "strength_index", "guard"]
        for (method, index, guard), group in rows.groupby(key, sort=False):
            twin = unguarded.get(method)
            mine, plain = (
                made[(made["method"] == name) & (made["strength_index"] == index)]
                for name in (method, twin)
            )
            cells.append(
                {
                    "experiment": experiment,
                    "seed": seed,
                    "method": method,
                    **group.iloc[0][["strength_name", *STRENGTH]].to_dict(),
                    "guard": guard,
                    **_solution_cells(group, boot),
                    "unguarded_method": twin or np.nan,
                    **_text_cells(mine, plain, boot),
                }
            )
    names = column_names("guards")
    if not cells:
        return pd.DataFrame(columns=names)
    table = pd.DataFrame(cells)[names].astype(dict.fromkeys(STRENGTH, float))
    validate_table(table, "guards")
    return table


def _solution_cells(group: pd.DataFrame, boot: dict[str, int]) -> dict[str, Any]:
    """Return what the solutions of one guard's rows show."""
    both = group[solved(group) & group["residual_norm_unguarded"].notna()]
    kappa = float(group["kappa"].iloc[0])
    at_bound = both["shift"].abs() >= kappa * (1.0 - _AT_BOUND) - _AT_BOUND
    binding = at_bound & (both["price"] > 0)
    sparse = both.dropna(subset=["l0", "l0_unguarded"])  # a dense program uses no features
    bound = share_interval(binding.to_numpy(dtype=float), np.ones(len(binding)), **boot)
    return {
        "kappa": kappa,
        "n_prompts": len(group),
        "n_solved": int(solved(group).sum()),
        "n_blocked": int(group["blocking"].sum()),
        **interval_cells("bound_rate", "bound_ci", bound),
        **_mean("shift_mean", "shift_ci", both["shift"].abs(), boot),
        **_mean("shift_unguarded_mean", "shift_unguarded_ci", both["shift_unguarded"].abs(), boot),
        **_mean("price_mean", "price_ci", both["price"], boot),
        **_change("l0", sparse["l0"], sparse["l0_unguarded"], boot),
        **_change("residual_norm", both["residual_norm"], both["residual_norm_unguarded"], boot),
    }


def _text_cells(mine: pd.DataFrame, plain: pd.DataFrame, boot: dict[str, int]) -> dict[str, float]:
    """Compare KL and target rate over the prompts that have texts with and without guards."""
    both = mine.merge(plain, on="example_id", suffixes=("", "_plain"))
    both = both[(both["n_tokens"] > 0) & (both["n_tokens_plain"] > 0)]
    kl = (both[f"kl_sum{end}"] / both[f"n_tokens{end}"] for end in ("", "_plain"))
    rated = both.dropna(subset=["judged", "judged_plain"])
    return {
        "n_texts": len(both),
        **_change("kl", *kl, boot),
        **_change("classifier_rate", rated["judged"], rated["judged_plain"], boot, share=True),
    }


def _change(
    name: str, mine: pd.Series, plain: pd.Series, boot: dict[str, int], *, share: bool = False
) -> dict[str, float]:
    """Return both means and the mean paired difference with its interval.

    With ``share`` the two are shares of a prompt's texts.
    """
    means = {
        f"{name}_mean": mine.mean() if len(mine) else np.nan,
        f"{name}_unguarded_mean": plain.mean() if len(plain) else np.nan,
    }
    difference = (mine - plain).to_numpy(dtype=float)
    found = (
        change_interval(difference, np.ones_like(difference), **boot)
        if share
        else mean_interval(difference, **boot)
    )
    return means | interval_cells(f"{name}_change", f"{name}_change_ci", found)


def _mean(name: str, stem: str, values: pd.Series, boot: dict[str, int]) -> dict[str, float]:
    return interval_cells(name, stem, mean_interval(values.to_numpy(dtype=float), **boot))
