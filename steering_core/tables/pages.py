"""HTML pages for reading: what all share, texts side by side, and changed answers.

The templates beside this module are Jinja templates. They escape every value, and a page can load
and run only its own style and script.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from steering_core.config.methods import BASELINE
from steering_core.data.columns import is_missing
from steering_core.tables.palette import method_styles
from steering_core.tables.words import is_true, readable_strength

_TEMPLATES = Path(__file__).with_name("templates")
_NEURONPEDIA_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_FINE, _WRONG = (
    frozenset({"optimal", "already_satisfied"}),
    frozenset({"infeasible", "failed", "not_finite"}),
)


def _plain(value: object) -> object:
    """Return the text that a template shows for a value; a missing value gives an empty text."""
    if isinstance(value, Markup):
        return value
    if is_missing(value):
        return ""
    # Lone surrogates cannot be written as UTF-8.
    return str(value).encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def whole_page(
    template: str,
    title: str,
    warnings: Sequence[str] = (),
    *,
    style: str = "page.css",
    **values: Any,
) -> str:
    """Return a whole page.

    Args:
        template: name of a template beside this module.
        title: the page's heading, plain text.
        warnings: warnings at the top of the page, plain text.
        style: name of the style sheet beside the template.
        values: further values of the template.

    """
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            warnings=warnings,
            style=Markup((_TEMPLATES / style).read_text(encoding="utf-8")),
            script=Markup(script),
            script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **values,
        )
    )


def require_columns(df: pd.DataFrame, names: tuple[str, ...], page: str) -> None:
    """Raise ValueError naming the columns of ``names`` that ``df`` lacks."""
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise ValueError(f"{page}: the table lacks the columns {missing}.")


def neuronpedia_url(neuronpedia_id: str | None, feature: int) -> str | None:
    """Return the Neuronpedia page of a feature, or None if the SAE has no Neuronpedia id.

    Args:
        neuronpedia_id: id from sae-lens, ``model/sae``, e.g. ``gpt2-small/7-res-jb``.
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

    Each column has a selector for the method's strengths. It starts at the selected strength, or at
    the middle one if none is selected. Readers can search the page and hide columns.

    Args:
        df: columns ``prompt_id``, ``prompt``, ``method``, ``strength``, ``text``; optionally
            ``strength_name``, ``status`` (of the program), ``target_score`` (the judge's score of
            the text, any type) and ``selected`` (whether this strength was selected). A missing
            text or value is shown as missing, a text without a visible character as "(empty)".
        title: the page's heading, plain text.
        verdict: the meaning and the judge of ``target_score``, plain text.
        warnings: warnings at the top of the page, plain text.

    Raises:
        ValueError: if a column is missing, or a (prompt, method, strength) occurs twice.

    """
    require_columns(df, ("prompt_id", "prompt", "method", "strength", "text"), "generations page")
    cells = df.assign(_label=_strength_labels(df))
    if cells.duplicated(["prompt_id", "method", "_label"]).any():
        raise ValueError("generations page: a (prompt, method, strength) occurs more than once.")
    styles = method_styles(df["method"])
    columns = []
    for method in sorted(styles, key=lambda method: method != BASELINE):
        mine = cells[cells["method"] == method].sort_values("strength")
        strengths = list(dict.fromkeys(mine["_label"]))
        columns.append(
            {
                "method": method,
                "colour": styles[method].colour,
                "strengths": strengths,
                "shown_first": _first_shown(mine, strengths),
            }
        )
    rows = {
        key: row
        for key, row in zip(
            zip(cells["prompt_id"], cells["method"], cells["_label"], strict=True),
            cells.to_dict("records"),
            strict=True,
        )
    }
    prompts = [
        {
            "id": prompt_id,
            "text": prompt,
            "columns": [
                [
                    text_entry(rows[key], choice)
                    for choice, label in enumerate(column["strengths"])
                    if (key := (prompt_id, column["method"], label)) in rows
                ]
                for column in columns
            ],
        }
        for prompt_id, prompt in df.drop_duplicates("prompt_id")[
            ["prompt_id", "prompt"]
        ].itertuples(index=False)
    ]
    return whole_page(
        "generations.html.j2", title, warnings, columns=columns, prompts=prompts, verdict=verdict
    )


def _first_shown(rows: pd.DataFrame, labels: Sequence[str]) -> int:
    """Return the place of the selected strength in ``labels``, or of the middle one."""
    if "selected" in rows.columns:
        for label in rows.loc[is_true(rows["selected"]), "_label"]:
            return labels.index(label)
    return (len(labels) - 1) // 2


def _strength_labels(df: pd.DataFrame) -> pd.Series:
    names = df["strength_name"] if "strength_name" in df.columns else [None] * len(df)
    values = pd.to_numeric(df["strength"])
    labels = [readable_strength(*at) for at in zip(names, values, strict=True)]
    return pd.Series(labels, index=df.index, dtype=object)


def text_entry(row: Mapping[str, Any], choice: int) -> dict[str, Any]:
    """Return one text of a cell with its badges; ``choice`` numbers the strength."""
    status, score, text = row.get("status"), row.get("target_score"), row["text"]
    missing = is_missing(text)
    return {
        "choice": choice,
        "text": text,
        "missing": missing,
        "empty": not missing and not str(text).strip(),
        "status": "" if is_missing(status) else status,
        "tone": " good" if status in _FINE else " bad" if status in _WRONG else "",
        "score": ""
        if is_missing(score)
        else f"{score:.2f}"
        if isinstance(score, float)
        else str(score),
    }


def changes_page(
    title: str,
    runs: Mapping[int, Mapping[str, pd.DataFrame]],
    warnings: Sequence[str] = (),
) -> str:
    """Build a searchable page with a row per seed and example whose success changed.

    Each example shows its prompt once, and the answer of every method that changed its success. An
    answer without a visible character is shown as "(empty)". The top of the page counts the answers
    whose wording changed but whose success did not.

    Args:
        title: the page's heading, plain text.
        runs: results of :func:`steering_core.corrsteer.report.paired`, one per seed and method.
        warnings: warnings at the top of the page, plain text.

    """
    examples, counts = [], []
    for seed, methods in runs.items():
        changed: dict[str, dict[str, Any]] = {}
        for method, table in methods.items():
            answered = table[table["status"] == "ok"]
            before, after = (
                answered[name].astype(bool) for name in ("success_before", "success_after")
            )
            flipped = before != after
            for row in answered[flipped].itertuples():
                example = changed.setdefault(
                    row.example_id,
                    {
                        "seed": seed,
                        "id": row.example_id,
                        "prompt": row.prompt,
                        "gold": row.gold,
                        "before": row.before,
                        "afters": [],
                    },
                )
                example["afters"].append(
                    {"method": method, "text": row.after, "repaired": bool(row.success_after)}
                )
            count = {
                "broken": int((before & ~after).sum()),
                "repaired": int((~before & after).sum()),
                "reworded": int((~flipped & (answered["before"] != answered["after"])).sum()),
            }
            if any(count.values()):
                counts.append({"seed": seed, "method": method, **count})
        examples += changed.values()
    return whole_page("changes.html.j2", title, warnings, examples=examples, counts=counts)
