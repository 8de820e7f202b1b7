"""How well the feature that CorrSteer-S chose knows the sentiment that the demo planted."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from steering_core.activations.positions import last_token_residuals
from steering_core.errors import DataError
from steering_core.models.language_model import LanguageModel
from steering_core.models.sparse_autoencoder import FeatureDictionary


def chosen_feature(answers: pd.DataFrame, plan: pd.DataFrame) -> tuple[int, int]:
    """Return layer and feature of a strategy that steers a single feature.

    Args:
        answers: of the arm; ``layers`` are those it steered.
        plan: the arm's table of features, ``steered`` where they would be.

    Raises:
        DataError: if not exactly one feature was steered.
    """
    layers = sorted({int(layer) for row in answers["layers"] for layer in row})
    steered = plan[plan["steered"].fillna(False).astype(bool) & plan["layer"].isin(layers)]
    if len(steered) != 1:
        raise DataError(f"{len(steered)} features were steered in layers {layers}, not one.")
    return int(steered["layer"].iloc[0]), int(steered["feature"].iloc[0])


def areas_under_curve(
    activations: Float[np.ndarray, "n d_sae"], positive: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " d_sae"]:
    """Return the area under the ROC curve of every feature; 0.5 for one that never varies.

    Mann and Whitney's statistic over midranks (Fawcett 2006, An introduction to ROC analysis, 7).

    Raises:
        DataError: if there is one class only.
    """
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise DataError("an area under the curve needs both classes.")
    ranks = rankdata(activations, axis=0)[positive].sum(axis=0)
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def planted_feature(
    lm: LanguageModel,
    dictionary: FeatureDictionary,
    prompts: pd.DataFrame,
    feature: int,
    *,
    batch_tokens: int = 2048,
) -> dict[str, Any]:
    """Compare a feature at the last token of the prompts with the sentiment they were written in.

    Args:
        lm: the model.
        dictionary: SAE of the feature's layer.
        prompts: ``prompt`` and ``sentiment`` (0 or 1), as ``write_praise_task`` writes them.
        feature: index of the feature.
        batch_tokens: padded tokens of a forward pass.

    Returns:
        ``layer``, ``feature``, ``auc``, ``rank`` (1: no feature of the layer has a larger area),
        ``n_features``, ``n_prompts``.
    """
    residuals = last_token_residuals(
        lm,
        prompts["prompt"].tolist(),
        dictionary.site,
        max_tokens=lm.shape.context,
        batch_tokens=batch_tokens,
    )
    activations = dictionary.encode(torch.from_numpy(residuals)).float().cpu().numpy()
    areas = areas_under_curve(activations, prompts["sentiment"].to_numpy() == 1)
    return {
        "layer": dictionary.site.layer,
        "feature": feature,
        "auc": float(areas[feature]),
        "rank": int((areas > areas[feature]).sum()) + 1,
        "n_features": len(areas),
        "n_prompts": len(prompts),
    }
