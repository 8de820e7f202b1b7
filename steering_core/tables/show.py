"""Print the head of a Pareto table and where the pictures are: ``python -m`` this module."""

import sys
from pathlib import Path

import pandas as pd

from steering_core.tables.frontier_verdict import frontier_verdict

_SHOWN = {
    "method": "method",
    "strength": "strength",
    "l0_outside_eval_mean": "L0",
    "residual_norm_outside_eval_mean": "norm",
    "eval_flip_rate": "eval flips",
    "kl_mean": "KL/token",
    "perplexity_steered": "perplexity",
    "classifier_rate_steered": "target rate",
    "on_frontier": "frontier",
    "frontier_probability": "P(frontier)",
}
_POPULATIONS = (
    "L0, norm and eval flips: test rows outside the target class by the evaluation probe "
    "(l0_outside_eval_mean, residual_norm_outside_eval_mean, eval_flip_rate); the rest: prompts"
)


def summary(path: str | Path, rows: int = 13) -> str:
    """Return a row a method, what the programs reached, warnings, and the files to look at.

    The rows are those of the selected strengths, the highest target rate first; of all strengths
    where none was selected, and the summary says so.
    """
    table = pd.read_csv(path)
    base = table.loc[table["method"] == "no_steering", "classifier_rate_base"]
    selected = table[table["selected"].astype("boolean").fillna(False).astype(bool)]
    quoted, which = selected, "each method at the strength selected on validation prompts"
    if selected.empty:
        quoted, which = table, f"the {min(rows, len(table))} with the highest target rate"
    ordered = quoted.sort_values(["classifier_rate_steered", "kl_mean"], ascending=[False, True])
    shown = ordered.head(rows)[list(_SHOWN)].rename(columns=_SHOWN)
    lines = [
        f"{path}: {len(table)} rows; {which}",
        shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3g}"),
        _POPULATIONS,
    ]
    if len(base):
        lines.append(f"target rate without steering: {base.iloc[0]:.3g}")
    programs = [m for m in ("qp_optimal", "convex_optimal") if (table["method"] == m).any()]
    lines += [frontier_verdict(table, method) for method in programs]
    lines += [
        f"warning ({_rows_named(rows_of, table)}): {warning}"
        for warning, rows_of in table.groupby("warnings")
    ]
    pictures = sorted(
        file.as_posix() for file in Path(path).parent.iterdir() if file.suffix in {".svg", ".html"}
    )
    lines.append("look at: " + "  ".join(pictures))
    return "\n".join(lines)


def _rows_named(rows: pd.DataFrame, table: pd.DataFrame) -> str:
    """Name ``rows`` of ``table`` by method and strength; a method alone is all its strengths."""
    if len(rows) == len(table):
        return "every row"
    counts = table["method"].value_counts()
    named = []
    for method, own in rows.groupby("method", sort=False):
        points = (
            [] if 1 < counts[method] == len(own) else [_strength(row) for _, row in own.iterrows()]
        )
        named.append(" ".join([str(method), ", ".join(points)]).strip())
    return "; ".join(named)


def _strength(row: pd.Series) -> str:
    """``alpha=0.5``, or ``epsilon=14 at tau=20`` where the name says what is held."""
    name, at, held = str(row["strength_name"]).partition(" at ")
    return f"{name}={row['strength']:g}{at}{held}"


if __name__ == "__main__":
    print(summary(sys.argv[1]))
