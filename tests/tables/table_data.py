"""Synthetic tables with the shapes the pipeline writes."""

import altair as alt
import numpy as np
import pandas as pd

from steering_core.tables.columns import column_names
from steering_core.tables.pareto import frontier_flags

VECTORS = {
    "random_direction": 0.05,
    "caa_mean_diff": 0.75,
    "caa_contrastive": 0.70,
    "caa_repe": 0.62,
}
FEATURES = {"single_feature": (1, 0.45), "topk_features": (20, 0.66)}
PROGRAMS = {"qp_optimal": ("lam", 30), "convex_optimal": ("epsilon", 12)}


def pareto_table(seed: int = 0) -> pd.DataFrame:
    """Nine methods; every number a plausible function of method and strength."""
    rng = np.random.default_rng(seed)
    rows = [_row("no_steering", "alpha", 0.0, 0.0, 0.31, rng)]
    for method, power in VECTORS.items():
        for alpha in (0.125, 0.25, 0.5, 1.0, 2.0):
            rows.append(_row(method, "alpha", alpha, 0.9 * alpha**1.7, power, rng, norm=90 * alpha))
    for method, (count, power) in FEATURES.items():
        for alpha in (0.125, 0.25, 0.5, 1.0, 2.0):
            row = _row(method, "alpha", alpha, 0.8 * alpha**1.6, power, rng, norm=90 * alpha)
            row |= {"prompt_l0_mean": count, "l0_outside_eval_mean": count}
            rows.append({**row, "l0_mean": count, "l1_mean": 90 * alpha})
    for method, (name, count) in PROGRAMS.items():
        for tau in (0.0, 0.5, 1.0, 2.0, 4.0):
            row = _row(method, "tau", tau, 0.02 * (1 + tau) ** 2.2, 0.85, rng, norm=3 * (1 + tau))
            row |= {"l0_mean": count * (1 + tau), "l1_mean": 4.0 * (1 + tau), "tau": tau, name: 1.0}
            row |= {"prompt_l0_mean": count * (1 + tau), "feasible_fraction_prompts": 1.0}
            rows.append({**row, "feasible_fraction": 1.0, "feasible_fraction_examples": 1.0})
    df = pd.DataFrame(rows).reindex(columns=column_names("pareto"))
    df["on_frontier"] = frontier_flags(df)
    df["frontier_probability"] = np.where(df["on_frontier"].fillna(False), 0.9, 0.1)
    df["validation_classifier_rate"] = df["classifier_rate_steered"]
    df["validation_kl_mean"] = df["kl_mean"]
    df["selected"] = df.index.isin(df.groupby("method")["classifier_rate_steered"].idxmax())
    return df


def _row(
    method: str,
    name: str | None,
    strength: float,
    kl: float,
    power: float,
    rng: np.random.Generator,
    norm: float = np.nan,
) -> dict[str, object]:
    reach = power * (1 - np.exp(-6 * kl)) if name else 0.0
    rate = float(np.clip(0.31 + 0.8 * reach + rng.normal(0, 0.02), 0.02, 0.98)) if name else 0.31
    flip = float(np.clip(reach * 1.2, 0, 1))
    perplexity = 22 * (1 + kl)
    row: dict[str, object] = {
        "experiment": "demo",
        "model": "grammar-lm",
        "task": "grammar",
        "layer": 2,
        "method": method,
        "strength_name": name,
        "strength": strength,
        "seed": 0,
        "n_examples": 200,
        "n_solved": 200,
        "n_outside": 110,
        "n_outside_eval": 105,
        "n_outside_eval_solved": 105,
        "n_prompts": 50,
        "n_texts": 50,
        "n_empty_base": 1,
        "n_empty": 2,
        "config_sha256": "sha256:0123456789ab",
        "code_sha256": "sha256:123456789e01",
        "residual_norm_mean": norm,
        "residual_norm_ci_low": norm * 0.93,
        "residual_norm_ci_high": norm * 1.07,
        "residual_norm_outside_eval_mean": 1.1 * norm,
        "residual_norm_outside_eval_ci_low": norm,
        "residual_norm_outside_eval_ci_high": 1.2 * norm,
        "probe_score_base": -1.2,
        "probe_score_steered": -1.2 + 4 * reach,
        "eval_probe_score_base": -1.1,
        "eval_probe_score_steered": -1.1 + 3 * reach,
        "perplexity_base": 22.0,
        "perplexity_steered": perplexity,
        "classifier_rate_base": 0.31,
        "classifier_rate_steered": rate,
        "kl_mean": kl,
    }
    spans = {
        "flip": ("flip_rate", flip, 0.04),
        "eval_flip": ("eval_flip_rate", 0.9 * flip, 0.05),
        "classifier": ("classifier_rate_steered", rate, 0.06),
    }
    for stem, (column, value, half) in spans.items():
        row |= {column: value, f"{stem}_ci_low": max(0.0, value - half)}
        row[f"{stem}_ci_high"] = min(1.0, value + half)
    row |= {"kl_ci_low": 0.9 * kl, "kl_ci_high": 1.1 * kl}
    row |= {"perplexity_ci_low": 0.95 * perplexity, "perplexity_ci_high": 1.05 * perplexity}
    return row


def sweep_table(n_layers: int = 26, picked: int = 15) -> pd.DataFrame:
    layer = np.arange(n_layers)
    return pd.DataFrame(
        {
            "layer": layer,
            "accuracy": 0.92 - 0.3 * np.exp(-layer / 5) - 0.0004 * (layer - picked) ** 2,
            "accuracy_std": 0.012 + 0.02 * np.exp(-layer / 6),
            "alignment": 0.42 * np.exp(-(((layer - picked) / 9) ** 2)) + 0.05,
            "picked": layer == picked,
        }
    )


def frontier_table(margins: tuple[float, ...] = (1.0,)) -> pd.DataFrame:
    rows = []
    for margin in margins:
        for program in ("qp", "socp"):
            for s in np.geomspace(0.2, 40, 60):
                norm = margin * (1 + 1.2 / (1 + s))
                rows.append(
                    {
                        "experiment": "demo",
                        "program": program,
                        "parameter": s if program == "qp" else norm,
                        "l0": int(1 + 8 * np.sqrt(s)),
                        "l1": margin * (3 + 2 * np.log1p(s)),
                        "residual_norm": norm,
                        "tau": margin,
                    }
                )
    return pd.DataFrame(rows)


def generations_table() -> pd.DataFrame:
    prompts = ["the film was", "a long evening with", "critics said the plot", "my sister found it"]
    rows = []
    for number, prompt in enumerate(prompts):
        rows.append(_text(number, prompt, "no_steering", np.nan, "dull and slow . " * 6, 0.0))
        for method in ("caa_mean_diff", "topk_features", "qp_optimal", "convex_optimal"):
            for strength in (0.25, 0.5, 1.0):
                words = f"bright and warm , a {method} delight . " * 4
                rows.append(_text(number, prompt, method, strength, words, float(strength > 0.4)))
    rows[3]["status"] = "infeasible"
    return pd.DataFrame(rows)


def _text(
    number: int, prompt: str, method: str, strength: float, text: str, classifier: float
) -> dict[str, object]:
    return {
        "prompt_id": f"test-{number}",
        "prompt": prompt,
        "method": method,
        "strength": strength,
        "text": text,
        "status": "optimal" if method.endswith("optimal") else None,
        "target_score": classifier,
    }


def features_table(n: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    correlation = np.sort(rng.uniform(-0.6, 0.7, n))[::-1]
    return pd.DataFrame(
        {
            "feature": rng.choice(24576, n, replace=False),
            "correlation": correlation,
            "probe_alignment": 0.6 * correlation + rng.normal(0, 0.03, n),
            "active_fraction": rng.uniform(0.001, 0.4, n),
            "mean_positive": rng.gamma(2, 0.5, n),
            "mean_negative": rng.gamma(2, 0.3, n),
            "coefficient_share": np.where(np.arange(n) < 12, rng.dirichlet(np.ones(n)), 0.0),
            "url": [None] * n,
        }
    )


Costs = dict[int | None, tuple[float, float]]
_PROMPTS, _RATES = 40, (0.6, 0.8)


def counted_texts(prefix: str, costs: Costs, base: float = 0.4) -> pd.DataFrame:
    """Texts of a program with counts of features, ``counted``, and of its dense ``floor``.

    Both strengths of a curve have the rates 0.6 and 0.8. Costs differ between prompts in the same
    way for all curves.
    """
    points = [("no_steering", 0, 0.0, base)]
    for place, (count, kls) in enumerate(costs.items()):
        for at, (kl, rate) in enumerate(zip(kls, _RATES, strict=True)):
            method = "floor" if count is None else "counted"
            points.append((method, at if count is None else 2 * place + at, kl, rate))
    order = np.arange(_PROMPTS)
    spread = 10 * (1 + 0.5 * np.sin(order) - 0.5 * np.sin(order).mean())
    frames = [
        pd.DataFrame({"example_id": [f"{prefix}{i}" for i in order]}).assign(
            method=method,
            strength_index=index,
            kl_sum=kl * spread,
            base_nll_sum=20.0,
            n_tokens=10,
            judged=(order < round(rate * _PROMPTS)).astype(float),
            score=(order < round(rate * _PROMPTS)).astype(float),
        )
        for method, index, kl, rate in points
    ]
    return pd.concat(frames, ignore_index=True)


def counted_solutions(costs: Costs) -> pd.DataFrame:
    """Solutions of the prompts of :func:`counted_texts`."""
    points: list[tuple[str, int, str, float, float]] = [("no_steering", 0, "alpha", 0.0, np.nan)]
    for place, count in enumerate(costs):
        for at in (0, 1):
            if count is None:
                points.append(("floor", at, "tau", at + 1.0, np.nan))
            else:
                called = f"tau at features={count}"
                points.append(("counted", 2 * place + at, called, at + 1.0, float(count)))
    frames = [
        pd.DataFrame({"example_id": [f"p{i}" for i in range(_PROMPTS)]}).assign(
            method=method,
            strength_index=index,
            strength_name=called,
            strength=strength,
            tau=strength,
            lam=np.nan,
            epsilon=np.nan,
            status="optimal",
            l0=l0,
            residual_norm=strength,
            split="prompt",
        )
        for method, index, called, strength, l0 in points
    ]
    return pd.concat(frames, ignore_index=True)


def spec(chart: alt.TopLevelMixin) -> dict:
    return chart.to_dict()


def fields(panel: dict, channel: str) -> set[str]:
    layers = panel.get("layer", [panel])
    found = set()
    for layer in layers:
        found |= fields(layer, channel) if "layer" in layer else set()
        if "field" in layer.get("encoding", {}).get(channel, {}):
            found.add(layer["encoding"][channel]["field"])
    return found


def rows_of(chart: dict, panel: int, mark: str) -> list[dict]:
    layers = chart["hconcat"][panel]["layer"]
    layer = next(layer for layer in layers if layer["mark"]["type"] == mark)
    return chart["datasets"][layer["data"]["name"]]
