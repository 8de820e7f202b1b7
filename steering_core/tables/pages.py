"""Pages to read rather than numbers: generations side by side, and the top features."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steering_core.tables.page_shell import document, escaped, require_columns
from steering_core.tables.palette import method_styles

_UNSTEERED = "no_steering"
_FINE, _WRONG = frozenset({"optimal", "already_satisfied"}), frozenset({"infeasible", "failed"})
_NEURONPEDIA_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")


def neuronpedia_url(neuronpedia_id: str | None, feature: int) -> str | None:
    """Give the Neuronpedia page of a feature, or None if the SAE has no Neuronpedia id.

    Args:
        neuronpedia_id: as sae-lens gives it, ``model/sae``, e.g. ``gpt2-small/7-res-jb``.
        feature: index of the decoder row.

    Raises:
        ValueError: if the id has another form or the index is negative.

    """
    if neuronpedia_id is None:
        return None
    if not _NEURONPEDIA_ID.fullmatch(neuronpedia_id):
        raise ValueError(f"neuronpedia_id {neuronpedia_id!r} must have the form model/sae.")
    if feature < 0:
        raise ValueError(f"feature {feature} must not be negative.")
    return f"https://www.neuronpedia.org/{neuronpedia_id}/{int(feature)}"


def generations_page(
    df: pd.DataFrame,
    title: str,
    verdict: str = "P(target)",
    warnings: Sequence[str] = (),
) -> str:
    """Build a page of the texts: a row per prompt, unsteered first, a column per method.

    Each column has a selector of the method's strengths, first set to the middle one; the page
    can be searched, and columns can be switched off.

    Args:
        df: columns ``prompt_id``, ``prompt``, ``method``, ``strength``, ``text``; optionally
            ``strength_name``, ``status`` (of the program) and ``target_score`` (the judge's
            verdict on the text, any type). A missing text or value is shown as missing.
        title: the page's heading, plain text.
        verdict: what ``target_score`` is and whose, plain text.
        warnings: what a reader must know first, plain text.

    Raises:
        ValueError: if a column is missing, or a (prompt, method, strength) occurs twice.

    """
    require_columns(df, ("prompt_id", "prompt", "method", "strength", "text"), "generations page")
    labels = _strength_labels(df)
    cells = df.assign(_label=labels)
    if cells.duplicated(["prompt_id", "method", "_label"]).any():
        raise ValueError("generations page: a (prompt, method, strength) occurs more than once.")
    styles = method_styles(df["method"])
    methods = sorted(styles, key=lambda method: method != _UNSTEERED)
    choices = {
        method: list(
            dict.fromkeys(cells[cells["method"] == method].sort_values("strength")["_label"])
        )
        for method in methods
    }
    entries = {
        key: _entry(row, choices[key[1]].index(row["_label"]), verdict)
        for key, row in zip(
            zip(cells["prompt_id"], cells["method"], cells["_label"], strict=True),
            cells.to_dict("records"),
            strict=True,
        )
    }
    prompts = df.drop_duplicates("prompt_id")[["prompt_id", "prompt"]]
    body = [
        _prompt_row(prompt_id, prompt, choices, entries)
        for prompt_id, prompt in prompts.itertuples(index=False)
    ]
    colours = {method: styles[method].colour for method in methods}
    table = (
        '<table class="generations"><thead><tr><th scope="col" class="prompt">prompt</th>'
        f"{_heads(choices, colours)}</tr></thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table>"
    )
    lead = "One row per prompt. Choose a strength above each column; untick a method to hide it."
    return document(title, lead, _toggles(methods), table, warnings)


def _heads(choices: dict[str, list[str]], colours: dict[str, str]) -> str:
    return "".join(
        f'<th scope="col" data-column="{number}">'
        f'<span class="dot" style="background:{colours[method]}"></span>{escaped(method)}'
        f"{_selector(number, method, labels)}</th>"
        for number, (method, labels) in enumerate(choices.items())
    )


def _toggles(methods: Sequence[str]) -> str:
    return "\n".join(
        f'<label><input type="checkbox" data-column="{number}" checked> {escaped(method)}</label>'
        for number, method in enumerate(methods)
    )


def _prompt_row(
    prompt_id: object,
    prompt: object,
    choices: dict[str, list[str]],
    entries: dict[tuple, str],
) -> str:
    cells = [
        f'<th scope="row" class="prompt"><div class="text">{escaped(prompt)}</div>'
        f'<div class="id">{escaped(prompt_id)}</div></th>'
    ]
    for number, (method, labels) in enumerate(choices.items()):
        texts = "".join(entries.get((prompt_id, method, label), "") for label in labels)
        cells.append(f'<td data-column="{number}">{texts}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _strength_labels(df: pd.DataFrame) -> pd.Series:
    values = pd.to_numeric(df["strength"]).map(
        lambda value: "" if np.isnan(value) else f"{value:g}"
    )
    if "strength_name" not in df.columns:
        return values
    return (df["strength_name"].fillna("").astype(str) + " " + values).str.strip()


def _selector(number: int, method: str, labels: list[str]) -> str:
    if len(labels) < 2:
        return f'<div class="id">{escaped(labels[0])}</div>'
    middle = (len(labels) - 1) // 2
    options = "".join(
        f'<option value="{place}"{" selected" if place == middle else ""}>{escaped(label)}</option>'
        for place, label in enumerate(labels)
    )
    name = escaped(f"strength of {method}")
    return f'<select data-column="{number}" aria-label="{name}">{options}</select>'


def _entry(row: dict[str, object], choice: int, verdict: str) -> str:
    badges = []
    status = escaped(row.get("status"))
    if status:
        tone = " good" if status in _FINE else " bad" if status in _WRONG else ""
        badges.append(f'<span class="badge{tone}">{status}</span>')
    score = row.get("target_score")
    if escaped(score):
        shown = f"{score:.2f}" if isinstance(score, float) else escaped(score)
        badges.append(f'<span class="badge">{escaped(verdict)}: {shown}</span>')
    text = escaped(row["text"]) or '<span class="id">no text</span>'
    return (
        f'<div class="entry" data-choice="{choice}"><div class="text">{text}</div>'
        f"{''.join(badges)}</div>"
    )


@dataclass(frozen=True)
class _FeatureColumn:
    name: str
    heading: str
    style: str


_FEATURE_COLUMNS = (
    _FeatureColumn("correlation", "correlation with the label", "{:+.3f}"),
    _FeatureColumn("probe_alignment", "cosine with the probe", "{:+.3f}"),
    _FeatureColumn("active_fraction", "active on", "{:.2%}"),
    _FeatureColumn("mean_positive", "mean, label 1", "{:.3f}"),
    _FeatureColumn("mean_negative", "mean, label 0", "{:.3f}"),
)
_SHARE = _FeatureColumn("coefficient_share", "share of coefficients", "{:.1%}")


def features_page(df: pd.DataFrame, title: str, warnings: Sequence[str] = ()) -> str:
    """Build a page of features: sortable, searchable, linked to Neuronpedia where there is a link.

    Args:
        df: columns ``feature`` (index), ``correlation``, ``probe_alignment`` (a cosine),
            ``active_fraction`` (share of examples), ``mean_positive``, ``mean_negative`` (mean
            activation at label 1 and at label 0), ``url`` (https, or empty); optionally
            ``coefficient_share``.
        title: the page's heading, plain text.
        warnings: what a reader must know first, plain text.

    Raises:
        ValueError: if a column is missing or a url is not https.

    """
    columns = [*_FEATURE_COLUMNS, *([_SHARE] if _SHARE.name in df.columns else [])]
    names = ("feature", "url", *(column.name for column in _FEATURE_COLUMNS))
    require_columns(df, names, "features page")
    largest = float(df["correlation"].abs().max()) if df["correlation"].notna().any() else 1.0
    largest = largest or 1.0
    headings = ["feature", *(column.heading for column in columns)]
    head = "".join(
        f'<th scope="col" data-sort><button type="button">{escaped(heading)}</button></th>'
        for heading in headings
    )
    body = [_feature_row(row, columns, largest) for row in df.to_dict("records")]
    table = (
        f'<table class="features"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(body)
        + "\n</tbody></table>"
    )
    controls = (
        '<label>Least |correlation| <input id="least" type="range" min="0" '
        f'max="{largest:.2f}" step="0.01" value="0"></label><span id="floor"></span>'
    )
    lead = "One row per feature. Click a heading to sort. Bars show the correlation."
    return document(title, lead, controls, table, warnings)


def _feature_row(row: dict[str, object], columns: list[_FeatureColumn], largest: float) -> str:
    feature, url = int(row["feature"]), escaped(row["url"])
    if url and not url.startswith("https://"):
        raise ValueError(f"features page: the url of feature {feature} must start with https://.")
    link = f'<a href="{url}" target="_blank" rel="noopener">{feature}</a>' if url else str(feature)
    cells = [f'<td data-value="{feature}">{link}</td>']
    for column in columns:
        value = float(row[column.name])
        known = not np.isnan(value)
        shown = column.style.format(value) if known else ""
        if known and column.name == "correlation":
            side, width = ("up" if value >= 0 else "down"), 50 * abs(value) / largest
            shown += (
                f'<span class="track"><span class="bar {side}" style="width:{width:.1f}%">'
                "</span></span>"
            )
        cells.append(f'<td data-value="{value if known else ""}">{shown}</td>')
    correlation = float(row["correlation"])
    size = 0.0 if np.isnan(correlation) else correlation
    return f'<tr data-size="{size}">{"".join(cells)}</tr>'
