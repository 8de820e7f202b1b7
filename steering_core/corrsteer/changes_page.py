"""A page of what steering changed: prompt, gold, before, after."""

from collections.abc import Mapping

import pandas as pd

from steering_core.tables.page_shell import document, escaped


def changes_page(title: str, runs: Mapping[int, Mapping[str, pd.DataFrame]]) -> str:
    """Return a searchable page with a row per seed and example whose success changed.

    Each has its prompt once, and the answer of every method that changed the success. Answers in
    other words with the same success are counted at the top.

    Args:
        title: heading.
        runs: for each seed and method what :func:`steering_core.corrsteer.pairs.paired` returns.
    """
    body, counts = [], []
    for seed, methods in runs.items():
        found: dict[str, list[tuple[str, tuple]]] = {}
        for method, table in methods.items():
            answered = table[table["status"] == "ok"]
            before, after = (
                answered[name].astype(bool) for name in ("success_before", "success_after")
            )
            flipped = before != after
            for row in answered[flipped].itertuples():
                found.setdefault(row.example_id, []).append((method, row))
            other = ~flipped & (answered["before"] != answered["after"])
            counts.append((seed, method, before & ~after, ~before & after, other))
        body += [_row(seed, changed) for changed in found.values()]
    head = "".join(f"<th>{name}</th>" for name in ("gold", "before", "after"))
    table = (
        f'<table class="generations"><thead><tr><th class="prompt">prompt</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    lead = "Examples whose success changed. Search for repaired, broken, a method or a seed."
    return document(title, lead, _counts(counts), table)


def _row(seed: int, changed: list[tuple[str, tuple]]) -> str:
    """Return one example under one seed, with every method that changed its success."""
    first = changed[0][1]
    afters = "".join(
        f'<div>{escaped(method)} {_badge(bool(row.success_after))}<div class="text">'
        f"{escaped(row.after)}</div></div>"
        for method, row in changed
    )
    return (
        f'<tr><th class="prompt" scope="row"><div class="id">seed {seed}, '
        f'{escaped(first.example_id)}</div><div class="text">{escaped(first.prompt)}</div></th>'
        f'<td class="text">{escaped(first.gold)}</td><td class="text">{escaped(first.before)}</td>'
        f"<td>{afters}</td></tr>"
    )


def _badge(after: bool) -> str:
    effect, style = ("repaired", "good") if after else ("broken", "bad")
    return f'<span class="badge {style}">{effect}</span>'


def _counts(counts: list[tuple[int, str, pd.Series, pd.Series, pd.Series]]) -> str:
    """Return how many answers each method changed, out of the way of the search."""
    lines = "".join(
        f"<div>seed {seed}, {escaped(method)}: {broken.sum()} broken, {repaired.sum()} repaired, "
        f"{other.sum()} in other words with the same success</div>"
        for seed, method, broken, repaired, other in counts
        if broken.any() or repaired.any() or other.any()
    )
    return f"<details><summary>counts</summary>{lines}</details>"
