"""The steering vectors of an arm, layer by layer, and the strategies that choose among the layers.

:func:`make_plan` ranks the features of each layer by their scores, gives them coefficients, and
adds their decoder rows up. :func:`choose` says which of the layers are steered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from steering_core.corrsteer.accumulate import Accumulators
from steering_core.corrsteer.scores import (
    Pooling,
    Scores,
    coefficient_statistic_of,
    score,
    statistic_of,
)
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.models.site import Site
from steering_core.statistics.moments import CorrelationResult
from steering_core.storage.arrays import load_arrays, save_arrays

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Arm


#: Decoder rows of some features of a layer: (layer, features) to (m, d_model), unit norm.
Rows = Callable[[int, np.ndarray], Float[np.ndarray, "m d_model"]]

FEATURE_COLUMNS = {
    "layer": np.int64,
    "rank": np.int64,
    "feature": np.int64,
    "steered": np.bool_,
    "score": np.float64,  # infinite for a ratio to nothing
    "direction": np.int64,
    "correlation": np.float64,
    "coefficient": np.float64,
    "mean_success": np.float64,
    "mean_failure": np.float64,
    "active_success": np.int64,
    "active_failure": np.int64,
}


@dataclass(frozen=True)
class Plan:
    """What an arm would add at each layer.

    Attributes:
        features: the kept features of every layer (:data:`FEATURE_COLUMNS`), the steered first.
        vectors: vector of each layer that has one, scale included, (d_model,).
        sites: where each of them is added.
        undefined: why a layer has none.
        space: whether the vectors go through SAE features, or are of raw dimensions.
        scale: what the coefficients were multiplied by.
    """

    features: pd.DataFrame
    vectors: dict[int, Float[np.ndarray, " d_model"]]
    sites: dict[int, Site]
    undefined: dict[int, str]
    space: Literal["features", "raw"] = "features"
    scale: float = 1.0

    def n_features(self, layers: Sequence[int]) -> int | None:
        """Return how many SAE features are steered in ``layers``; None for raw dimensions."""
        if self.space == "raw":
            return None
        return int(self.features.loc[self.features["layer"].isin(layers), "steered"].sum())

    def intervention(self, layers: Sequence[int]) -> Intervention:
        """Return what the plan adds at ``layers``, the same for every row.

        The vectors are added from the last prompt token on, at all layers in the same pass.
        """
        return Intervention(
            {self.sites[layer]: RowVectors(self.vectors[layer]) for layer in layers}
        )

    @property
    def best_scores(self) -> dict[int, float]:
        """Score of the best feature of each layer that has a vector."""
        first = self.features[self.features["rank"] == 0].set_index("layer")["score"]
        return {layer: float(first[layer]) for layer in self.vectors}

    @property
    def gaps(self) -> str:
        """Which layers have no vector, and why; empty if all have one."""
        layers: dict[str, list[int]] = {}
        for layer, reason in sorted(self.undefined.items()):
            layers.setdefault(reason, []).append(layer)
        return "; ".join(
            f"no vector at layer {' '.join(map(str, found))}: {reason}"
            for reason, found in layers.items()
        )

    def table(self) -> pd.DataFrame:
        """Return the kept features, and a row with ``reason`` for every layer without any."""
        empty = pd.DataFrame({"layer": self.undefined.keys(), "reason": self.undefined.values()})
        if self.features.empty:
            return empty.reindex(columns=[*FEATURE_COLUMNS, "reason"])
        table = self.features.assign(reason="")
        return pd.concat([table, empty], ignore_index=True) if len(empty) else table

    def save(self, path: str | Path) -> None:
        """Write the plan."""
        arrays = {f"vector.{layer}": vector for layer, vector in self.vectors.items()}
        for column, kind in FEATURE_COLUMNS.items():
            arrays[f"features.{column}"] = self.features[column].to_numpy(dtype=kind)
        metadata = {
            "sites": {str(k): site.to_dict() for k, site in self.sites.items()},
            "undefined": {str(k): reason for k, reason in self.undefined.items()},
            "space": self.space,
            "scale": self.scale,
        }
        save_arrays(path, arrays, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read what :meth:`save` wrote."""
        arrays, metadata = load_arrays(path)
        return cls(
            pd.DataFrame({column: arrays[f"features.{column}"] for column in FEATURE_COLUMNS}),
            {
                int(name.split(".")[1]): vector
                for name, vector in arrays.items()
                if name.startswith("vector.")
            },
            {int(k): Site(**site) for k, site in metadata["sites"].items()},
            {int(k): reason for k, reason in metadata["undefined"].items()},
            metadata["space"],
            metadata["scale"],
        )


def make_plan(
    arm: "Arm",
    accumulators: Accumulators,
    sites: Mapping[int, Site],
    rows: Rows,
    *,
    task_pooling: Pooling,
    keep: int,
    seed: int,
    min_outcomes: int = 1,
    missing: Mapping[int, str] | None = None,
) -> Plan:
    """Choose features and coefficients of every layer.

    The decoder's bias is no part of a vector, and several features of a layer are added up.

    Args:
        arm: what to choose by.
        accumulators: the statistics of all shards.
        sites: site of each layer.
        rows: unit decoder rows; not called for raw dimensions, whose rows are the axes.
        task_pooling: of the task, where the arm does not say.
        keep: how many features of a layer to keep in the table.
        seed: of the random score.
        min_outcomes: successful and failed samples that selection needs, of each.
        missing: layers without an SAE and why.
    """
    scored, measured = statistic_of(arm, task_pooling), coefficient_statistic_of(arm, task_pooling)
    frames, vectors, undefined = [], {}, dict(missing or {})
    for layer in accumulators.layers:
        scores = score(
            arm.score,
            accumulators.parts[layer, scored],
            (seed, layer),
            min_outcomes=min_outcomes,
        )
        levels = accumulators.parts[layer, measured].correlation.result()
        level = coefficients(arm, levels, scores.direction)
        best = rank(arm, scores, level, keep)
        if best.empty:
            undefined[layer] = why_none(arm, scores, level)
            continue
        n_steered = len(best) if arm.per_layer == "all" else min(arm.per_layer, len(best))
        best.insert(0, "layer", layer)
        best.insert(1, "rank", np.arange(len(best)))
        best.insert(3, "steered", best["rank"] < n_steered)
        frames.append(best)
        if arm.per_layer == "all":
            vector = np.nan_to_num(level.value)
        else:
            used = best[best["steered"]]
            chosen = used["feature"].to_numpy()
            axes = rows(layer, chosen) if arm.space == "features" else None
            vector = _combine(chosen, used["coefficient"].to_numpy(), axes, len(level.value))
        vectors[layer] = (arm.scale * vector).astype(np.float32)
    empty = pd.DataFrame(columns=list(FEATURE_COLUMNS))
    features = pd.concat(frames, ignore_index=True) if frames else empty
    return Plan(
        features[list(FEATURE_COLUMNS)].astype(FEATURE_COLUMNS),
        vectors,
        {layer: sites[layer] for layer in vectors},
        undefined,
        arm.space,
        arm.scale,
    )


def _combine(
    chosen: np.ndarray, coefficient: np.ndarray, axes: Any, d_model: int
) -> Float[np.ndarray, " d_model"]:
    if axes is not None:
        return coefficient @ axes
    vector = np.zeros(d_model)
    vector[chosen] = coefficient
    return vector


# ------------------------------------------------------------------------- the features of a layer
DIRECTIONS = {"positive": (1,), "negative": (-1,), "both": (-1, 0, 1)}


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the features of one layer, before the scale.

    Attributes:
        value: residual-stream units along the unit decoder row; NaN where undefined.
        reason: why it is NaN.
    """

    value: Float[np.ndarray, " f"]
    reason: Shaped[np.ndarray, " f"]


def coefficients(
    arm: "Arm", result: CorrelationResult, direction: Shaped[np.ndarray, " f"]
) -> Coefficients:
    """Return the coefficient of each feature.

    All kinds are means of the pooled activation, zeros included.

    - ``mean``: the mean over successes. A feature negatively associated with success gets minus
      its mean over failures instead, since the clearest of these fire on failures only. Raw
      dimensions have a sign of their own and always get the mean over successes.
    - ``difference``: the mean over successes minus the mean over failures.
    - ``overall``: the mean over all samples, which uses no label.
    - ``success``: the mean over successes, also for features negatively associated with success.

    Args:
        arm: says which kind, and whether the features are of SAEs or raw dimensions.
        result: statistics of f features over the training samples.
        direction: +1, −1 or 0 for each, as of :class:`~steering_core.corrsteer.scores.Scores`.
    """
    if arm.coefficient == "difference":
        value = result.mean_positive - result.mean_negative
    elif arm.coefficient == "overall":
        value = result.mean.copy()
    elif arm.coefficient == "success" or arm.space == "raw":
        value = result.mean_positive.copy()
    else:
        value = np.where(direction < 0, -result.mean_negative, result.mean_positive)
    reason = np.where(np.isnan(value), "one outcome only", "").astype("<U40")
    zero = value == 0
    reason[zero] = "no difference" if arm.coefficient == "difference" else "coefficient of zero"
    value = np.where(reason == "", value, np.nan)
    return Coefficients(value, reason)


def rank(arm: "Arm", scores: Scores, coefficient: Coefficients, keep: int) -> pd.DataFrame:
    """Return the best ``keep`` features with a defined score, coefficient and wanted direction.

    Ties, such as infinite ratios, go to the larger mean square over successes, then to the lower
    index of the feature. Columns: ``feature, score, direction, correlation, coefficient,
    mean_success, mean_failure, active_success, active_failure``.
    """
    result = scores.result
    usable = (
        ~np.isnan(scores.value)
        & ~np.isnan(coefficient.value)
        & np.isin(scores.direction, DIRECTIONS[arm.sign])
    )
    index = np.flatnonzero(usable)
    order = np.lexsort((index, -result.mean_square_positive[index], -scores.value[index]))
    best = index[order[:keep]]
    return pd.DataFrame(
        {
            "feature": best,
            "score": scores.value[best],
            "direction": scores.direction[best],
            "correlation": result.correlation[best],
            "coefficient": coefficient.value[best],
            "mean_success": result.mean_positive[best],
            "mean_failure": result.mean_negative[best],
            "active_success": result.active_positive[best],
            "active_failure": result.active_negative[best],
        }
    )


def why_none(arm: "Arm", scores: Scores, coefficient: Coefficients) -> str:
    """Return the most common reason why the features of a layer cannot be used for steering."""
    reasons = np.where(scores.reason != "", scores.reason, coefficient.reason)
    reasons = np.where(reasons != "", reasons, f"no {arm.sign} feature")
    names, counts = np.unique(reasons, return_counts=True)
    return str(names[counts.argmax()])


# ------------------------------------------------------------------------- which layers are steered
#: Stands for the unsteered model in the validation of layers.
UNSTEERED_LAYER = -1


@dataclass(frozen=True)
class Choice:
    """Layers to steer, or why there are none.

    Attributes:
        layers: in order; empty where the arm is undefined.
        reason: empty where it is defined.
    """

    layers: tuple[int, ...]
    reason: str = ""


def choose(strategy: str, plan: Plan, validation: pd.DataFrame | None = None) -> Choice:
    """Choose layers.

    ``single`` takes the layer of the single best feature of all layers; equal scores go to the
    lower layer. ``all`` takes every layer with a vector. ``pruned`` keeps those that alone
    answer more validation rows than the unsteered model. ``validated`` takes the layer that answers
    the most validation rows. Where no layer beats the unsteered model, neither has a layer: no
    steering is a candidate too.

    Args:
        strategy: one of the four.
        plan: the vectors.
        validation: ``layer, accuracy`` of each layer alone; layer −1 is the unsteered model.

    Raises:
        ValueError: if the validation is missing, or not of the plan's layers.
    """
    if not plan.vectors:
        reasons = sorted(set(plan.undefined.values()))
        return Choice((), "; ".join(reasons) or "no layer")
    layers = sorted(plan.vectors)
    if strategy == "all":
        return Choice(tuple(layers))
    if strategy == "single":
        best = plan.best_scores
        return Choice((min(layers, key=lambda layer: (-best[layer], layer)),))
    if validation is None:
        raise ValueError(f"strategy {strategy} needs the validation of each layer.")
    accuracy = validation.set_index("layer")["accuracy"]
    if set(accuracy.index) != {UNSTEERED_LAYER, *layers}:
        raise ValueError("the validation is of other layers than the plan's.")
    kept = tuple(layer for layer in layers if accuracy[layer] > accuracy[UNSTEERED_LAYER])
    if not kept:
        best = max(accuracy[layer] for layer in layers)
        return Choice(
            (),
            "nothing helped on validation: no layer alone beats the unsteered validation accuracy "
            f"({accuracy[UNSTEERED_LAYER]:.3f}); the best has {best:.3f}",
        )
    if strategy == "validated":
        return Choice((min(kept, key=lambda layer: (-accuracy[layer], layer)),))
    return Choice(kept)
