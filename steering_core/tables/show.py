"""Print the head of a Pareto table and where the pictures are: ``python -m`` this module."""

import sys
from pathlib import Path

import pandas as pd

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
}


def summary(path: str | Path, rows: int = 12) -> str:
    """Return the strongest effects first, and the files to look at beside the table."""
    table = pd.read_csv(path)
    base = table.loc[table["method"] == "no_steering", "classifier_rate_base"]
    ordered = table.sort_values(["classifier_rate_steered", "kl_mean"], ascending=[False, True])
    shown = ordered.head(rows)[list(_SHOWN)].rename(columns=_SHOWN)
    lines = [
        f"{path}: {len(table)} rows, the {min(rows, len(table))} with the highest target rate",
        shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3g}"),
    ]
    if len(base):
        lines.append(f"target rate without steering: {base.iloc[0]:.3g}")
    warnings = sorted(set(table["warnings"].dropna()))
    lines += [f"warning: {warning}" for warning in warnings]
    pictures = sorted(
        file.as_posix() for file in Path(path).parent.iterdir() if file.suffix in {".svg", ".html"}
    )
    lines.append("look at: " + "  ".join(pictures))
    return "\n".join(lines)


if __name__ == "__main__":
    print(summary(sys.argv[1]))
