"""How well the feature that CorrSteer-S chose predicts the sentiment that the demo planted."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from steering_core.corrsteer.answers import Session
from steering_core.corrsteer.capture import CapturedBatches, Encoder, feature_reader
from steering_core.corrsteer.scores import PooledStatistic
from steering_core.demo.vocabulary import lexicon, word_balance
from steering_core.errors import DataError


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


def pooled_features(
    session: Session, encoder: Encoder, rows: pd.DataFrame, layer: int
) -> tuple[Float[np.ndarray, "n d_sae"], list[str]]:
    """Answer ``rows`` unsteered; return every feature's maximum at generated tokens, and the texts.

    This is what CorrSteer correlates with success (``mask: generation``, ``pooling: max``).

    Args:
        session: model and how it answers.
        encoder: of the layer's SAE.
        rows: columns ``prompt`` and ``letters``.
        layer: where to read.
    """
    reader, statistic = feature_reader(encoder, session.sites[layer]), PooledStatistic()
    features = np.zeros((len(rows), encoder.d_sae), dtype=np.float32)
    texts = np.full(len(rows), "", dtype=object)
    captured = CapturedBatches(session.lm, [reader], [statistic])
    for decoded, answers in session.complete(rows, observer=captured):
        pooled = captured.take().values(layer, statistic)
        features[decoded.rows] = pooled[: len(decoded.rows)].cpu().numpy()
        texts[decoded.rows] = answers
    return features, texts.tolist()


def planted_feature(
    session: Session, encoder: Encoder, rows: pd.DataFrame, layer: int, feature: int
) -> dict[str, Any]:
    """Compare a feature at generated tokens of the unsteered model with what the demo planted.

    Some words of a prompt have the other polarity, so words alone cannot always tell its sentiment.
    ``auc_words`` says how often they do.

    Args:
        session: the model and how it answers.
        encoder: of the SAE of the feature's layer.
        rows: ``prompt``, ``letters`` and ``sentiment`` (0 or 1), of prompts that chose nothing.
        layer: of the feature.
        feature: its index.

    Returns:
        ``layer``, ``feature``; areas under the ROC curve: ``auc`` of the feature for the planted
        sentiment, ``auc_words`` of the prompt's positive less negative words for it,
        ``auc_success`` of the feature for success; ``rank`` of ``auc`` (1: no feature of the layer
        has a larger one), ``n_features``, ``n_prompts``.

    Raises:
        DataError: if the sentiment of a prompt is not known, or all are alike.
    """
    if rows["sentiment"].isna().any():
        raise DataError("a prompt is not among those whose sentiment is known.")
    activations, texts = pooled_features(session, encoder, rows, layer)
    planted = rows["sentiment"].to_numpy() == 1
    letters = rows["letters"].tolist()
    success = session.judge(texts, rows["gold"].tolist(), letters).success
    areas = areas_under_curve(activations, planted)
    balance = word_balance(rows["prompt"].tolist(), lexicon())
    return {
        "layer": layer,
        "feature": feature,
        "auc": float(areas[feature]),
        "auc_words": float(areas_under_curve(balance[:, None], planted)[0]),
        "auc_success": float(areas_under_curve(activations[:, [feature]], success)[0]),
        "rank": int((areas > areas[feature]).sum()) + 1,
        "n_features": len(areas),
        "n_prompts": len(rows),
    }
