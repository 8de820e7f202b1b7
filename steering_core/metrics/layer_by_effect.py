"""One layer tried with one direction: texts of the validation prompts, their cost and effect.

``layer: effect`` tries a few layers in this way. No reported prompt is read.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE
from steering_core.generation.intervention import Positions
from steering_core.generation.sampling import Sampling
from steering_core.generation.steered_method import SteeredPlan
from steering_core.generation.table import generate_method
from steering_core.methods.base import ALPHA
from steering_core.methods.directions import DIRECTIONS, FitData
from steering_core.methods.fixed_solutions import solve_fixed
from steering_core.methods.solution_vectors import PlanRows
from steering_core.methods.solutions import TEXT_KEY, GridPoint
from steering_core.metrics.divergence import text_divergence
from steering_core.metrics.judges import ClassJudge
from steering_core.metrics.judging import judge_texts
from steering_core.models.language_model import LanguageModel
from steering_core.models.site import Site

#: Columns of a trial that describe the strength, besides the measurements of its text.
_OF_STRENGTH = ("strength_name", "strength", "residual_norm")


@dataclass(frozen=True)
class Trial:
    """How every layer is tried.

    Attributes:
        method: name of the fixed direction.
        strengths: in units of the mean residual norm at the layer.
        sampling: how tokens are drawn.
        draws: texts of each prompt and strength.
        max_tokens: at which prompts are cut.
        positions: which prompt positions are steered besides every new token.
        batch_prompts: prompts in a batch of generation, each at every strength.
        batch_tokens: padded tokens in a forward pass.
        chat_template: whether a prompt is the user's turn of the tokenizer's chat template.
    """

    method: str
    strengths: tuple[float, ...]
    sampling: Sampling
    draws: int
    max_tokens: int
    positions: Positions
    batch_prompts: int
    batch_tokens: int
    chat_template: bool


def try_layer(
    lm: LanguageModel,
    site: Site,
    prompts: pd.DataFrame,
    data: FitData,
    trial: Trial,
    judge: ClassJudge,
    target_class: Literal[0, 1],
) -> pd.DataFrame:
    """Return a row per text: unsteered, and steered at every strength.

    Args:
        lm: the model.
        site: of the layer.
        prompts: ``example_id`` and ``text`` of the validation prompts.
        data: training rows and the concept's own texts at the site.
        trial: how the layer is tried.
        judge: of completions.
        target_class: the class to steer to.

    Returns:
        ``layer``; the columns that name a text, of its strength and of its measurements: ``kl_sum``
        and ``base_nll_sum`` (nats), ``n_tokens``, ``judged``, ``score`` and ``empty``.

    Raises:
        ModelError: if logits are NaN or infinite without steering.
    """
    # These directions need no dictionary.
    direction = DIRECTIONS[trial.method]().find(data, np.zeros((0, data.residuals.shape[1])))
    unit = data.residual_norm
    ids = prompts["example_id"].tolist()
    points = [GridPoint(trial.method, i, ALPHA, a) for i, a in enumerate(trial.strengths)]
    parts = [
        ([GridPoint(BASELINE, 0, ALPHA, 0.0)], 0.0 * direction.vector),
        (points, unit * direction.vector),
    ]
    frames = []
    for grid, vector in parts:
        rows = solve_fixed(grid, ids, direction, unit)
        steered = SteeredPlan(PlanRows(rows, {site: vector}), site.prepend_bos, trial.positions)
        texts = generate_method(
            lm,
            prompts,
            steered,
            trial.sampling,
            max_tokens=trial.max_tokens,
            batch_size=trial.batch_prompts,
            draws=trial.draws,
            chat_template=trial.chat_template,
        )
        cost = text_divergence(lm, texts, steered, batch_tokens=trial.batch_tokens)
        effect = judge_texts(texts, judge, target_class)
        of_strength = rows.drop_duplicates("strength_index").set_index("strength_index")
        made = cost.merge(effect, on=[*TEXT_KEY], validate="one_to_one")
        for name in _OF_STRENGTH:
            made[name] = made["strength_index"].map(of_strength[name])
        frames.append(made)
    return pd.concat(frames, ignore_index=True).assign(layer=site.layer)
