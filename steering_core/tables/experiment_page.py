"""The page of an experiment: question, verdict, short table, pictures, texts, links.

One HTML file without scripts that loads nothing. Pictures are inside it. On a narrow screen the
table becomes a list of cards, pictures and texts stand below each other, and a picture of several
panels can be moved sideways.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steering_core.config.methods import BASELINE, PUBLISHED_PROGRAMS
from steering_core.tables.caveats import warnings_in
from steering_core.tables.charts import svg_text
from steering_core.tables.norm_matched import norm_matched_panels
from steering_core.tables.pages import text_entry, whole_page
from steering_core.tables.palette import method_styles
from steering_core.tables.pareto_figure import pareto_panels
from steering_core.tables.words import (
    digits,
    frontier_verdict,
    is_true,
    readable_label,
    readable_strength,
)

#: Prompts and steered methods whose texts stand on the page.
N_TEXTS, N_METHODS = 5, 3
#: Pixels. A picture that is wider has several panels, and would be too small in a column.
_COLUMN = 600
_ABOUT_PANELS = (
    "Effect against the change of the model's predictions. Up and to the left is better. A ring is "
    "the selected strength of its method, a black outline is on the frontier.",
    "Rows that cross by the evaluation probe against the norm added to the residual stream.",
    "Effect against the number of features that are changed. Up and to the left is better.",
)
_ABOUT_EQUAL_NORM = (
    "{method} against fixed directions, each row at the norm that the program used. Right of the "
    "line the program flips more rows. The numbers: flipped by the program : by the direction."
)
#: What each result is, for the list of links. A result without an entry is listed by its name.
RESULTS = {
    "generations.html": "every text of every method and strength, side by side",
    "features.html": "the features that correlate most with the label, and those the QP uses",
    "pareto.html": "effect against cost, to explore (with scripts)",
    "summary.csv": "the short table above",
    "verdict.json": "the verdict, for machines",
    "pareto.csv": "one row per method and strength, all columns",
    "pareto.svg": "effect against cost, three panels",
    "matched.csv": "what each method costs at the same effect",
    "matched.svg": "what each method costs at the same effect, as a picture",
    "differences.csv": "every method beside three references, prompt by prompt, by every judge",
    "judges.csv": "how far the judges agree",
    "guards.csv": "what the guards of declared programs cost and save",
    "effect_curves.csv": "effect and cost at every strength",
    "price.csv": "cost at the same effect against the number of features",
    "price.svg": "cost at the same effect against the number of features, as a picture",
    "dose.csv": "effect and cost over the size of what is added, and where texts stay fluent",
    "dose.svg": "effect and cost over the size of what is added",
    "ratings.csv": "what a language model says of the texts: concept, instruction and fluency",
    "elsewhere.csv": "what steering costs on other text and tasks",
    "elsewhere.svg": "what steering costs on other text and tasks, as a picture",
    "norm_matched.csv": "programs and fixed directions at the same norm on every row",
    "norm_matched.svg": "programs and fixed directions at the same norm, as a picture",
    "layer_effect.csv": "what the same effect costs at each layer that was tried",
    "layer_effect.svg": "what the same effect costs at each layer that was tried, as a picture",
    "sweep.svg": "where in the model the concept can be read",
    "sweep.csv": "the layer sweep",
    "frontier.svg": "what the programs can reach at every setting, computed exactly",
    "frontier.csv": "the points of that picture",
    "frontier_knots.csv": "every knot of the exact path",
    "variants.csv": "the programs with other limits or another goal",
    "variants.svg": "the programs with other limits or another goal, as a picture",
    "features.csv": "the table of the features",
    "provenance.json": "code, configuration, revisions and versions behind the numbers",
    "products.json": "digests of all results",
}
_PARETO_TABLE = {
    "strength": "selected strength",
    "rate": "texts in the target class (share)",
    "kl": "KL, nats per token",
    "features": "features",
}
_TABLE = {
    "strength": "selected strength",
    "effect": "effect (change of the share in the target class)",
    "kl": "KL, nats per token",
    "features": "features",
    "kl_ratio": "KL at equal effect ÷ that of the best dense direction",
}


def experiment_page(
    *,
    verdict: Mapping[str, Any],
    summary: pd.DataFrame | None,
    pareto: pd.DataFrame,
    norm_matched: pd.DataFrame,
    texts: pd.DataFrame,
    judge: str,
    target: str,
    provenance: Mapping[str, Any],
    results: Sequence[str],
    pictures: Mapping[str, str] | None = None,
    exports: Sequence[str] = (),
) -> str:
    """Return the page of an experiment as HTML.

    Args:
        verdict: content of ``verdict.json``, or the result of :func:`verdict_of`.
        summary: table ``summary``; None shows the selected rows of the pareto table instead.
        pareto: table ``pareto``.
        norm_matched: table ``norm_matched``; it may be empty.
        texts: texts on reported prompts: ``prompt_id``, ``prompt``, ``method``, ``strength_name``,
            ``strength``, ``text``, ``status``, ``target_score``, ``selected``.
        judge: meaning and judge of ``target_score``, plain text.
        target: the class that is steered to, in words.
        provenance: content of ``provenance.json``.
        results: names of the experiment's other results, for the links.
        pictures: further pictures: the name of the result, and the text of the SVG file.
        exports: methods whose interventions the workflow can export.

    """
    drawn = dict(zip(_ABOUT_PANELS, map(svg_text, pareto_panels(pareto)), strict=True))
    for method, panel in norm_matched_panels(norm_matched, pareto).items():
        drawn[_ABOUT_EQUAL_NORM.format(method=method)] = svg_text(panel)
    said = [str(text) for text in verdict["distrust"]]
    every = [text for cell in pareto["warnings"] for text in warnings_in(cell)]
    return whole_page(
        "index.html.j2",
        f"{verdict['experiment']}: what steering achieves and what it costs",
        style="index.css",
        verdict=verdict,
        target=target,
        distrust=said,
        further=[text for text in dict.fromkeys(every) if not any(text in one for one in said)],
        headings=list((_TABLE if summary is not None else _PARETO_TABLE).values()),
        table=_rows(summary) if summary is not None else _pareto_rows(pareto),
        pictures=[
            {"caption": caption, "source": _embedded(svg), "wide": _width(svg) > _COLUMN}
            for caption, svg in {**_captioned(pictures or {}), **drawn}.items()
        ],
        texts=_texts(texts, _shown_methods(verdict, pareto)),
        judge=judge,
        links=[{"name": name, "about": RESULTS.get(name, "")} for name in _ordered(results)],
        exports=list(exports),
        provenance=_provenance(provenance),
    )


def _ordered(results: Sequence[str]) -> list[str]:
    """Return the results in the order of :data:`RESULTS`, further ones last."""
    places = {name: place for place, name in enumerate(RESULTS)}
    return sorted(dict.fromkeys(results), key=lambda name: places.get(name, len(places)))


def _width(svg: str) -> float:
    """Return the width that an SVG file asks for, in pixels; 0 if it names none."""
    found = re.search(r'<svg[^>]*? width="([\d.]+)"', svg)
    return 0.0 if found is None else float(found[1])


def _embedded(svg: str) -> str:
    # An image cannot run scripts, and its element ids are its own.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode("utf-8")).decode("ascii")


def _rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of the short table: the largest effect first, empty cells last."""
    styles = method_styles(summary["method"])
    ordered = summary.sort_values("effect", ascending=False, na_position="last", kind="stable")
    return [
        {
            "method": row["method"],
            "colour": styles[row["method"]].colour,
            "cells": [
                "none selected" if pd.isna(row["strength"]) else readable_label(row["strength"]),
                _spread(row, "effect", "+.2f"),
                digits(row["kl"]),
                digits(row["features"]),
                _spread(row, "kl_ratio"),
            ],
        }
        for row in ordered.to_dict("records")
    ]


def _pareto_rows(pareto: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the selected rows of the pareto table: the highest rate first."""
    styles = method_styles(pareto["method"])
    chosen = pareto[is_true(pareto["selected"])].sort_values(
        "classifier_rate_steered", ascending=False, kind="stable"
    )
    found = []
    for row in chosen.to_dict("records"):
        rate, kl, features = (
            _spread(
                {
                    "mean": row[name],
                    "mean_low": row[f"{stem}_low"],
                    "mean_high": row[f"{stem}_high"],
                },
                "mean",
            )
            for name, stem in (
                ("classifier_rate_steered", "classifier_ci"),
                ("kl_mean", "kl_ci"),
                ("prompt_l0_mean", "prompt_l0_ci"),
            )
        )
        at = readable_strength(row["strength_name"], row["strength"])
        found.append(
            {
                "method": row["method"],
                "colour": styles[row["method"]].colour,
                "cells": [at, rate, kl, features],
            }
        )
    return found


def _captioned(pictures: Mapping[str, str]) -> dict[str, str]:
    """Return pictures by what they show instead of by name."""
    return {RESULTS.get(name, name).capitalize(): svg for name, svg in pictures.items()}


def verdict_of(pareto: pd.DataFrame) -> dict[str, Any]:
    """Return what the pareto table alone says, with those keys of ``verdict.json`` that are shown.

    Methods are not compared at equal effect here: only their place on the frontier is stated.
    """
    first = pareto.iloc[0]
    programs = [name for name in PUBLISHED_PROGRAMS if name in set(pareto["method"])]
    said = [frontier_verdict(pareto, name) for name in programs or pareto["method"].unique()[:1]]
    every = [warnings_in(cell) for cell in pareto["warnings"]]
    shared = [text for text in (every[0] if every else []) if all(text in one for one in every)]
    return {
        **{name: first[name] for name in ("experiment", "model", "task", "layer")},
        "headline": said[0],
        "sentences": [{"about": "frontier", "text": text} for text in said[1:]],
        "distrust": list(dict.fromkeys(shared)),
        **dict.fromkeys(["reference", "sparse", "fewest"]),
    }


def _spread(row: Mapping[str, Any], name: str, form: str = ".3g") -> str:
    """Return a value with its interval; an end that is empty is open."""
    if pd.isna(row[name]):
        return ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    shown = digits(row[name], form)
    if pd.isna(low) and pd.isna(high):
        return shown
    ends = [digits(end, form) or "open" for end in (low, high)]
    return f"{shown} ({ends[0]} to {ends[1]})"


def _shown_methods(verdict: Mapping[str, Any], pareto: pd.DataFrame) -> list[str]:
    """Return the methods whose texts are shown: those of the verdict, then by validation rate."""
    named = [verdict[key]["method"] for key in ("reference", "sparse", "fewest") if verdict[key]]
    chosen = pareto[is_true(pareto["selected"]) & (pareto["method"] != BASELINE)]
    by_rate = chosen.sort_values("validation_classifier_rate", ascending=False, kind="stable")
    able = set(chosen["method"])
    names = [name for name in dict.fromkeys([*named, *by_rate["method"]]) if name in able]
    return [BASELINE, *names[:N_METHODS]]


def _texts(texts: pd.DataFrame, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Return the first prompts with the texts of some methods, at their selected strengths."""
    chosen = texts[is_true(texts["selected"]) | (texts["method"] == BASELINE)]
    if "draw" in chosen.columns:
        chosen = chosen[chosen["draw"] == chosen["draw"].min()]
    styles = method_styles(methods)
    found = []
    for prompt in texts.drop_duplicates("prompt_id").head(N_TEXTS).itertuples(index=False):
        own = chosen[chosen["prompt_id"] == prompt.prompt_id]
        entries = []
        for method in methods:
            for row in own[own["method"] == method].head(1).to_dict("records"):
                at = readable_strength(row["strength_name"], row["strength"])
                entries.append(
                    {
                        **text_entry(row, 0),
                        "method": method,
                        "colour": styles[method].colour,
                        "strength": "" if method == BASELINE else at,
                    }
                )
        found.append({"id": prompt.prompt_id, "text": prompt.prompt, "entries": entries})
    return found


def _provenance(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what determines the numbers, as pairs of a name and a value."""
    sources = found["sources"]
    classifier = sources.get("classifier") or {}
    judge = classifier.get("id") or classifier.get("model") or classifier.get("lexicon")
    git = found.get("git") or {}
    commit = str(git.get("commit") or "unknown")
    versions = found["libraries"]
    return [
        ("model", f"{sources['model']['id']}, {sources['model']['revision']}"),
        ("SAE revision", str(sources["sae_revision"])),
        ("dataset", f"{sources['dataset']['id']}, {sources['dataset']['revision']}"),
        ("judge", str(judge or "the evaluation probe")),
        ("configuration", f"sha256:{found['config_sha256'][:12]}"),
        ("code", f"sha256:{found['code_sha256'][:12]}"),
        ("commit", commit + (", with changes" if git.get("modified") else "")),
        (
            "versions",
            ", ".join(
                [f"Python {found['python']}"]
                + [f"{name} {versions[name]}" for name in ("torch", "transformers", "numpy")]
            ),
        ),
        ("machine", str(found["machine"])),
    ]


def with_selected(texts: pd.DataFrame, pareto: pd.DataFrame) -> pd.DataFrame:
    """Return texts with the flag ``selected`` of their strength in the pareto table.

    Raises:
        pandas.errors.MergeError: if the pareto table has a strength twice.

    """
    point = ["method", "strength_name", "strength"]
    return texts.merge(pareto[[*point, "selected"]], on=point, how="left", validate="many_to_one")
