"""Print a CorrSteer table and the effect of CorrSteer-S: ``python -m`` this module."""

import json
import sys
from pathlib import Path

import pandas as pd

from steering_core.corrsteer.report import warnings_of
from steering_core.statistics.paired import LEVEL

_SHOWN = {
    "method": "method",
    "strength": "strength",
    "layers": "layers",
    "l0_mean": "L0",
    "norm_mean": "norm",
    "accuracy": "accuracy",
    "n_empty": "empty",
    "n_unreadable": "unreadable",
    "top_answer_share": "top answer",
    "negative": "broken",
    "positive": "repaired",
    "ser": "SER",
    "mcnemar_p": "McNemar p",
}


def summary(path: str | Path) -> str:
    """Return the rows of the first seed, and a sentence on the effect of CorrSteer-S."""
    table = pd.read_csv(path, dtype={"seed": str, "layers": str})
    rows = table[table["seed"] == table["seed"].iloc[0]].set_index("method")
    shown = rows.reset_index()[list(_SHOWN)].rename(columns=_SHOWN)
    lines = [
        f"{path}: seed {table['seed'].iloc[0]}, {rows['n'].iloc[0]} test prompts",
        shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.3g}"),
    ]
    first = rows.iloc[0]
    if pd.notna(first["chance"]):
        lines.append(
            f"accuracy without steering {first['baseline_accuracy']:.3g}, by chance "
            f"{first['chance']:.3g}, of the best constant answer {first['constant_accuracy']:.3g}"
        )
    elif pd.notna(first["constant_accuracy"]):
        lines.append(
            f"accuracy without steering {first['baseline_accuracy']:.3g}, of the best constant "
            f"answer {first['constant_accuracy']:.3g}"
        )
    lines += warnings_of(rows.drop(index="corrsteer_s", errors="ignore").reset_index())
    undefined = rows[rows["status"] != "ok"]
    lines += [f"{method} is undefined: {reason}" for method, reason in undefined["reason"].items()]
    if "corrsteer_s" in rows.index and rows.loc["corrsteer_s", "status"] == "ok":
        lines.append(_verdict(rows.loc["corrsteer_s"]))
    planted = Path(path).with_name("planted_feature.json")
    if planted.is_file():
        lines.append(_found(json.loads(planted.read_text(encoding="utf-8"))))
    page = Path(path).with_name("corrsteer_changes.html")
    if page.is_file():
        lines.append(f"look at: {page.as_posix()}")
    return "\n".join(lines)


def _verdict(row: pd.Series) -> str:
    """Return a sentence on the paired change and its interval, or on why it is no effect."""
    change = f"{row['change']:+.3f} [{row['change_low']:+.3f}, {row['change_high']:+.3f}]"
    if pd.notna(row["warnings"]):
        return (
            f"no effect of CorrSteer-S can be claimed: {row['warnings']}. "
            f"Its success rate differs by {change}"
        )
    if row["mcnemar_p"] >= LEVEL or row["change_low"] <= 0 <= row["change_high"]:
        return f"CorrSteer-S is not shown to change the success rate: {change}"
    word = "raises" if row["change_low"] > 0 else "lowers"
    return f"CorrSteer-S {word} the success rate: {change}"


def _found(planted: dict) -> str:
    """Return a sentence on how well the chosen feature predicts the planted sentiment."""
    return (
        "its feature, {feature} of layer {layer}, read at the answers to {n_prompts} test prompts, "
        "tells success with an AUC of {auc_success:.3f}, and the planted sentiment of the prompts "
        "with {auc:.3f}, number {rank} of the layer's {n_features} features; the balance of the "
        "prompts' own words tells it with {auc_words:.3f}"
    ).format(**planted)


if __name__ == "__main__":
    print(summary(sys.argv[1]))
