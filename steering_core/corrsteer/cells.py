"""Measured values beside the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from steering_core.corrsteer.arms import UNSTEERED
from steering_core.corrsteer.published import PUBLISHED_MODEL, Cell
from steering_core.corrsteer.report import result_table

COLUMNS = [
    "table",
    "row",
    "column",
    "published",
    "published_std",
    "measured",
    "measured_std",
    "measured_low",
    "measured_high",
    "difference",
    "published_negative",
    "published_positive",
    "negative",
    "positive",
    "n",
    "n_seeds",
    "seeds",
    "experiment",
    "method",
    "metric",
    "status",
    "reason",
]


def measure(
    cell: Cell,
    experiment: str,
    runs: Mapping[int, Mapping[str, pd.DataFrame]] | None,
    *,
    n_resamples: int,
    model: str = PUBLISHED_MODEL,
) -> dict[str, Any]:
    """Return one row of :data:`COLUMNS`.

    ``measured`` and the counts are means over seeds, as published. The interval of a side-effect
    ratio is that of the ratio of all seeds together.

    Args:
        cell: the published number.
        experiment: name of the experiment that stands for it.
        runs: for each seed the answers of the cell's method and the unsteered ones; None where
            the configuration has no such experiment or method.
        n_resamples: of the bootstrap.
        model: hub id of the model measured; another than the published one has no difference.
    """
    known = {k: v for k, v in asdict(cell).items() if k not in ("task", "negative", "positive")}
    row = {**dict.fromkeys(COLUMNS), **known, "experiment": experiment}
    row |= {"published_negative": cell.negative, "published_positive": cell.positive}
    if runs is None:
        reason = f"the configuration has no method {cell.method} in {experiment}"
        return {**row, "status": "undefined", "reason": reason}
    if cell.metric == "over_refusal":
        runs = {s: {m: _over_refusal(t) for m, t in run.items()} for s, run in runs.items()}
    table = result_table(experiment, runs, n_resamples=n_resamples)
    mine = table[table["method"] == cell.method]
    found, each = mine[mine["seed"] == "all"].iloc[0], mine[mine["seed"] != "all"]
    row |= {name: _plain(found[name]) for name in ("n", "n_seeds", "seeds", "status")}
    row["reason"] = "; ".join(filter(None, map(_plain, found[["reason", "warnings"]])))
    if found["status"] != "ok":
        return row
    if cell.metric != "over_refusal":  # where a negative change is a good one
        row |= {name: _plain(each[name].mean()) for name in ("negative", "positive")}
    source, unit = {"ser": ("ser", 1.0), "accuracy_change": ("change", 100.0)}.get(
        cell.metric, ("accuracy", 100.0)
    )
    ratios = each["ser"].astype(float).dropna()  # a seed in which nothing changed has none
    of_seeds = {"ser": ratios.mean(), "ser_std": ratios.std(ddof=1)}
    for name in ("", "_low", "_high", "_std"):
        key = f"{source}{name}"
        value = _plain(of_seeds[key] if key in of_seeds else found[key])
        row[f"measured{name}"] = None if value is None else unit * value
    if model != PUBLISHED_MODEL:
        row["reason"] = "; ".join(filter(None, (row["reason"], f"published for {PUBLISHED_MODEL}")))
    elif cell.published is not None and row["measured"] is not None:
        row["difference"] = row["measured"] - cell.published
    return row


def methods_needed(cell: Cell) -> list[str]:
    """Return the methods whose answers a cell is measured from."""
    return list(dict.fromkeys([UNSTEERED, cell.method]))


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the cells of a table as rows."""
    return pd.DataFrame(list(rows), columns=COLUMNS)


def _over_refusal(answers: pd.DataFrame) -> pd.DataFrame:
    """Harmless prompts alone; "success" is then to be refused.

    An answer without a word complies with nothing and refuses nothing.
    """
    harmless = answers[answers["gold"] == "comply"].reset_index(drop=True)
    refused = harmless["answer"].eq("refuse").astype(object)
    return harmless.assign(success=refused.where(harmless["status"] == "ok", None))


def _plain(value: Any) -> Any:
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return None
    return value.item() if hasattr(value, "item") else value
