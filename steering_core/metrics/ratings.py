"""Ratings of every completion by a language model behind a server, on the scales of AxBench.

A text is rated for the concept it shows, for how well it follows its prompt, which AxBench calls
the instruction, and for how it reads: each 0, 1 or 2. Their harmonic mean is its score (Wu et al.
2025, AxBench, section 4).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from steering_core.config.task import Classifier, Endpoint
from steering_core.errors import ConfigError
from steering_core.methods.solutions import TEXT_KEY
from steering_core.metrics.api_judge import SCALES, Rater, harmonic_mean

#: Columns joined to the ratings of a text: its strength, and what is added at it.
_ABOUT = ["method", "strength_index", "example_id", "split", "tau", "residual_norm"]


def rating_endpoint(judges: Sequence[Classifier]) -> Endpoint:
    """Return the first judge of a task that is behind a server.

    Raises:
        ConfigError: if there is none.
    """
    for judge in judges:
        if judge.api is not None:
            return judge.api
    raise ConfigError("no judge of the task is a language model behind a server: add {api: …}.")


def rate_completions(
    generations: pd.DataFrame,
    solutions: pd.DataFrame,
    endpoint: Endpoint,
    cache: str | Path,
    *,
    target_class: Literal[0, 1],
) -> pd.DataFrame:
    """Return a row per text with its ratings; NaN where there is no text or no rating.

    Args:
        generations: rows of all methods: the key of a text, ``strength_name``, ``strength``,
            ``prompt`` and ``text``.
        solutions: rows of all methods: ``split``, ``tau`` and ``residual_norm`` of each input.
        endpoint: the server.
        cache: directory of its answers.
        target_class: that is steered to. Away from the concept, the rating of the concept counts
            from the other end: 2 for a text without it.

    Raises:
        ConfigError, ModelError: as :class:`steering_core.metrics.api_judge.Rater`.
    """
    table = generations[[*TEXT_KEY, "strength_name", "strength"]].merge(
        solutions[_ABOUT], on=_ABOUT[:3], how="left", validate="many_to_one"
    )
    made = generations["text"].notna().to_numpy()
    rated = Rater(endpoint, cache).rate(
        generations.loc[made, "text"].tolist(),
        SCALES,
        instructions=generations.loc[made, "prompt"].tolist(),
    )
    wide = rated.pivot(index="text", columns="scale", values="rating")
    for scale in SCALES:
        values = np.full(len(table), np.nan)
        if made.any():
            values[made] = wide[scale].to_numpy(dtype=float, na_value=np.nan)
        table[scale] = values
    if target_class == 0:
        table["concept"] = 2 - table["concept"]
    ratings = table[[*SCALES]].to_numpy()
    table["harmonic"] = [
        harmonic_mean([None if np.isnan(rating) else rating for rating in row]) for row in ratings
    ]
    return table.assign(made=made)
