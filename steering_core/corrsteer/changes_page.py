"""A page of what steering changed: prompt, gold, before, after."""

from collections.abc import Mapping

import pandas as pd

from steering_core.tables.page_shell import document, escaped


def changes_page(title: str, methods: Mapping[str, pd.DataFrame]) -> str:
    """Return a searchable page with a row per example and method whose answer changed.

    Args:
        title: heading.
        methods: for each method, what :func:`steering_core.corrsteer.report.paired` returns.
    """
    body = []
    for method, table in methods.items():
        changed = table[table["after"].notna() & (table["before"] != table["after"])]
        for row in changed.itertuples():
            effect, style = _effect(bool(row.success_before), bool(row.success_after))
            body.append(
                f'<tr><th class="prompt" scope="row"><div class="id">{escaped(row.example_id)}'
                f'</div><div class="text">{escaped(row.prompt)}</div></th>'
                f"<td>{escaped(method)}<br>"
                f'<span class="badge {style}">{escaped(effect)}</span></td>'
                + "".join(
                    f'<td class="text">{escaped(text)}</td>'
                    for text in (row.gold, row.before, row.after)
                )
                + "</tr>"
            )
    head = "".join(f"<th>{name}</th>" for name in ("method", "gold", "before", "after"))
    table = (
        f'<table class="generations"><thead><tr><th class="prompt">prompt</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )
    lead = "Examples whose answer differs from the unsteered one. Search for repaired or broken."
    return document(title, lead, "", table)


def _effect(before: bool, after: bool) -> tuple[str, str]:
    if before == after:
        return ("still right" if before else "still wrong"), ""
    return ("repaired", "good") if after else ("broken", "bad")
