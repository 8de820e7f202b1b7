"""KL and surprise of generated texts, a row per (strength, prompt)."""

import logging

import numpy as np
import pandas as pd

from steering_core.generation.adaptive import AdaptiveSolver
from steering_core.generation.plan import plan_for
from steering_core.generation.steering import Positions
from steering_core.methods.interventions import Interventions
from steering_core.metrics.divergence import divergence
from steering_core.models.language_model import LanguageModel, dtype_name
from steering_core.models.site import Site
from steering_core.progress import progress

log = logging.getLogger(__name__)


def text_divergence(
    lm: LanguageModel,
    generations: pd.DataFrame,
    interventions: Interventions,
    site: Site,
    *,
    positions: Positions,
    batch_tokens: int,
    solver: AdaptiveSolver | None = None,
) -> pd.DataFrame:
    """Return ``kl_sum, base_nll_sum, n_tokens`` for every text; NaN and 0 where there is none.

    A text counts as missing, too, if its KL or surprise is not finite; the log names the strength.

    The edit is the one the text was generated under: for an adaptive method, which needs its
    ``solver``, the program is solved again at every position. How many positions had no solution
    is handed on from the generations.
    """
    frames = []
    for index in progress(interventions.points(), f"divergence of {interventions.method}"):
        texts = generations[generations["strength_index"] == index].reset_index(drop=True)
        made = texts["new_tokens"].notna().to_numpy(copy=True)
        counts = ["steered_positions", "unsolved_positions"]
        frame = texts[["method", "strength_index", "example_id", *counts]].assign(
            kl_sum=np.nan, base_nll_sum=np.nan, n_tokens=0
        )
        if made.any():
            rows = interventions.at(index, texts.loc[made, "example_id"].tolist())
            plan = plan_for(solver, interventions, rows)
            vectors = interventions.vectors(rows) if plan is None else None
            result = divergence(
                lm,
                texts.loc[made, "prompt_tokens"].tolist(),
                texts.loc[made, "new_tokens"].tolist(),
                site=site,
                vectors=vectors if vectors is not None and np.any(vectors) else None,
                adaptive=plan,
                steer_prompt=positions == "all",
                batch_tokens=batch_tokens,
            )
            finite = np.isfinite(result.kl_sum) & np.isfinite(result.base_nll_sum)
            made[made] = finite
            frame.loc[made, "kl_sum"] = result.kl_sum[finite]
            frame.loc[made, "base_nll_sum"] = result.base_nll_sum[finite]
            frame.loc[made, "n_tokens"] = result.n_tokens[finite]
            if not finite.all():
                first = texts.iloc[0]
                log.warning(
                    "%s, %s %g: the KL or surprise of %d texts is not finite under steering at %s "
                    "in %s, and they count as missing: take a smaller strength, or bfloat16 or "
                    "float32 as dtype.",
                    first["method"], first["strength_name"], first["strength"], (~finite).sum(),
                    site.hook_name, dtype_name(lm),
                )  # fmt: skip
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
