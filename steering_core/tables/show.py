"""Print the head of a Pareto table and where the pictures are: ``python -m`` this module."""

import sys
from pathlib import Path

import pandas as pd

from steering_core.tables.frontier_verdict import frontier_verdict

_SHOWN = {
    "method": "method",
    "strength": "strength",
    "l0_mean": "L0",
    "residual_norm_mean": "norm",
    "eval_flip_rate": "eval flips",
    "kl_mean": "KL/token",
    "perplexity_steered": "perplexity",
    "classifier_rate_steered": "target rate",
    "on_frontier": "frontier",
    "frontier_probability": "P(frontier)",
}


def summary(path: str | Path, rows: int = 13) -> str:
    """Return a row a method, what the programs reached, and the files to look at.

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
    ]
    if len(base):
        lines.append(f"target rate without steering: {base.iloc[0]:.3g}")
    programs = [m for m in ("qp_optimal", "convex_optimal") if (table["method"] == m).any()]
    lines += [frontier_verdict(table, method) for method in programs]
    warnings = sorted(set(table["warnings"].dropna()))
    lines += [f"warning: {warning}" for warning in warnings]
    pictures = sorted(
        file.as_posix() for file in Path(path).parent.iterdir() if file.suffix in {".svg", ".html"}
    )
    lines.append("look at: " + "  ".join(pictures))
    return "\n".join(lines)


if __name__ == "__main__":
    print(summary(sys.argv[1]))
