"""The table ``ratings``, and ``axbench``, which averages it over the concepts of a set.

AxBench selects the strength of each method and concept by the mean score on instructions of their
own (Wu et al. 2025, section 4). Here these are the validation prompts. Beside each method at its
best stands the same method at one norm for all, since methods that add more are not comparable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from steering_core.config.methods import DENSE_DIRECTIONS
from steering_core.metrics.api_judge import SCALES
from steering_core.statistics.bootstrap import mean_interval
from steering_core.tables.columns import column_names, interval_cells, validate_table

_SCORES = [*SCALES, "harmonic"]
_POINT = ["method", "strength_index"]
#: Where a method stands in the table over concepts.
BEST, EQUAL = "best", "equal_norm"


@dataclass(frozen=True)
class Rated:
    """The rated texts of one experiment.

    Attributes:
        texts: rows of :func:`steering_core.metrics.judging.rate_completions`.
    """

    texts: pd.DataFrame

    @cached_property
    def points(self) -> pd.DataFrame:
        """A row per strength: its name, mean norm, ``validation`` score, ``selected``.

        The selected strength of a method has the highest mean harmonic mean on the validation
        prompts, the first of equals. Only those of its strengths compete at which the fewest
        validation texts are without a rating, since a mean over few texts can be high by chance;
        the others have no score. Without any rating none is selected.
        """
        reported = self.texts[self.texts["split"] == "prompt"]
        about = reported.groupby(_POINT, sort=False).agg(
            strength_name=("strength_name", "first"),
            strength=("strength", "first"),
            tau=("tau", "first"),
            norm=("residual_norm", "mean"),
        )
        of = self.texts[self.texts["split"] == "validation_prompt"]
        score = of.groupby(_POINT)["harmonic"].mean()
        unrated = of["harmonic"].isna().groupby([of[name] for name in _POINT]).sum()
        fewest = unrated.groupby("method").transform("min")
        about["validation"] = score.where(unrated.eq(fewest)).reindex(about.index)
        best = about["validation"].groupby("method").transform("max")
        first = ~about["validation"].eq(best).groupby("method").cumsum().gt(1)
        about["selected"] = about["validation"].eq(best) & first
        return about

    def scores(self, method: str, index: int) -> pd.DataFrame:
        """Return the mean ratings of each reported prompt at one strength, over its draws."""
        own = self.texts[
            (self.texts["method"] == method)
            & (self.texts["strength_index"] == index)
            & (self.texts["split"] == "prompt")
        ]
        return own.groupby("example_id", sort=False)[_SCORES].mean()

    def counts(self, method: str, index: int) -> tuple[int, int]:
        """Return how many reported texts there are at a strength, and how many have no score."""
        own = self.texts[
            (self.texts["method"] == method)
            & (self.texts["strength_index"] == index)
            & (self.texts["split"] == "prompt")
            & self.texts["made"]
        ]
        return len(own), int(own["harmonic"].isna().sum())

    def best(self, method: str) -> int | None:
        """Return the selected strength of a method; None if none is selected."""
        own = self.points.loc[[method]]
        chosen = own[own["selected"]]
        return None if chosen.empty else int(chosen.index[0][1])

    @cached_property
    def common_norm(self) -> float | None:
        """The norm of the best dense direction by its validation score; None without one."""
        known = [name for name in DENSE_DIRECTIONS if name in self.points.index.get_level_values(0)]
        chosen = self.points.loc[known]
        chosen = chosen[chosen["selected"]] if len(chosen) else chosen
        return None if chosen.empty else float(chosen.loc[chosen["validation"].idxmax(), "norm"])

    def around(self, method: str, norm: float) -> dict[int, float]:
        """Return the strengths next to a norm with their weights; none if it is not reached.

        A method that adds no vector, or none as short or as long, does not reach it.
        """
        own = self.points.loc[[method]].dropna(subset=["norm"]).sort_values("norm", kind="stable")
        norms = own["norm"].to_numpy()
        if not len(norms) or not norms[0] <= norm <= norms[-1]:
            return {}
        above = int(np.searchsorted(norms, norm))
        after = int(own.index[above][1])
        if norms[above] == norm:
            return {after: 1.0}
        share = float((norm - norms[above - 1]) / (norms[above] - norms[above - 1]))
        return {int(own.index[above - 1][1]): 1.0 - share, after: share}

    def at_norm(self, method: str, norm: float) -> pd.DataFrame | None:
        """Return the mean ratings of each prompt at a norm, linear between two strengths.

        None where the method does not reach it.
        """
        parts = [w * self.scores(method, i) for i, w in self.around(method, norm).items()]
        return sum(parts[1:], parts[0]) if parts else None


def ratings_table(
    experiment: str, texts: pd.DataFrame, *, seed: int, n_resamples: int
) -> pd.DataFrame:
    """Return the table ``ratings``: a row per method and strength.

    Args:
        experiment: its name.
        texts: rows of :func:`steering_core.metrics.judging.rate_completions`.
        seed: of the bootstrap.
        n_resamples: of the bootstrap.
    """
    boot = {"seed": seed, "n_resamples": n_resamples}
    rated = Rated(texts)
    validated = bool((texts["split"] == "validation_prompt").any())
    rows = []
    for (method, index), point in rated.points.iterrows():
        n_texts, n_unrated = rated.counts(method, index)
        row: dict[str, Any] = {
            "experiment": experiment,
            "method": method,
            **point[["strength_name", "strength", "tau", "norm"]].to_dict(),
            "n_texts": n_texts,
            "n_unrated": n_unrated,
            "validation_harmonic": point["validation"],
            "selected": bool(point["selected"]) if validated else pd.NA,
        }
        scores = rated.scores(method, index)
        for name in _SCORES:
            values = scores[name].to_numpy(dtype=float)
            interval = mean_interval(values, skip_undefined=True, **boot)
            row |= interval_cells(name, f"{name}_ci", interval)
        rows.append(row)
    table = pd.DataFrame(rows, columns=column_names("ratings"))
    table = table.astype({"selected": "boolean"})
    validate_table(table, "ratings")
    return table


def axbench_table(
    concept_set: str,
    concepts: Mapping[str, pd.DataFrame],
    published: pd.DataFrame,
    *,
    seed: int,
    n_resamples: int,
) -> pd.DataFrame:
    """Return the table ``axbench``: each method over the concepts of a set.

    Args:
        concept_set: its name.
        concepts: by experiment, rows of
            :func:`steering_core.metrics.judging.rate_completions`.
        published: columns ``concept_set``, ``method`` (ours; empty if we have none), ``name``
            (theirs), ``published`` and ``rerun``.
        seed: of the bootstrap over concepts.
        n_resamples: of the bootstrap.
    """
    boot = {"seed": seed, "n_resamples": n_resamples}
    rated = [Rated(texts) for texts in concepts.values()]
    methods = dict.fromkeys(
        name for one in rated for name in one.points.index.get_level_values("method")
    )
    known = published[published["concept_set"] == concept_set]
    rows = []
    for method in methods:
        theirs = known[known["method"] == method]
        for place in (BEST, EQUAL):
            row = _over_concepts(method, place, rated, boot)
            if place == BEST and len(theirs):
                row |= theirs.iloc[0][["name", "published", "rerun"]].to_dict()
            rows.append(row)
    for theirs in known[known["method"].isna()].to_dict("records"):
        rows.append(
            {
                "method": theirs["name"],
                "at": BEST,
                "n_concepts": 0,
                "n_unrated": 0,
                **{key: theirs[key] for key in ("name", "published", "rerun")},
            }
        )
    table = pd.DataFrame(rows).assign(experiment=concept_set)
    table = table.reindex(columns=column_names("axbench_{concept_set}")).astype({"name": object})
    validate_table(table, "axbench_{concept_set}")
    return table


def _over_concepts(
    method: str, place: str, rated: list[Rated], boot: Mapping[str, int]
) -> dict[str, Any]:
    """Return a method's means over the concepts where it stands at ``place``."""
    means, norms, unrated = [], [], 0
    for one in rated:
        if method not in one.points.index.get_level_values("method"):
            continue
        index = one.best(method)
        if place == BEST:
            if index is None:
                continue
            scores, norm = one.scores(method, index), one.points.loc[(method, index), "norm"]
            used = [index]
        else:
            norm = one.common_norm
            found = None if norm is None else one.at_norm(method, norm)
            if found is None:
                continue
            scores, used = found, list(one.around(method, norm))
        unrated += sum(one.counts(method, i)[1] for i in used)
        means.append(scores.mean())
        norms.append(norm)
    row: dict[str, Any] = {"method": method, "at": place, "n_concepts": len(means)}
    row |= {"n_unrated": unrated, "norm": float(np.mean(norms)) if norms else np.nan}
    table = pd.DataFrame(means, columns=_SCORES)
    for name in _SCORES:
        interval = mean_interval(table[name].to_numpy(dtype=float), skip_undefined=True, **boot)
        row |= interval_cells(name, f"{name}_ci", interval)
    return row
