"""Which layers of a plan are steered: their validation, the choice, and answers under it."""

from dataclasses import dataclass

import pandas as pd

from steering_core.corrsteer.answers import undefined, with_note
from steering_core.corrsteer.plan import Plan
from steering_core.corrsteer.session import Session
from steering_core.progress import progress

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


def validate_layers(session: Session, rows: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Return ``layer, accuracy, n`` for the unsteered model (layer −1) and each layer alone.

    A row whose logits were NaN or infinite has no answer and counts as a failure.

    Args:
        session: the model and how it answers.
        rows: the validation rows.
        plan: the vectors.
    """
    table = []
    for layer in progress([UNSTEERED_LAYER, *sorted(plan.vectors)], "layers alone"):
        steered = None if layer == UNSTEERED_LAYER else plan.intervention([layer])
        answers = session.answer(rows, steered)
        table.append((layer, float(answers["success"].eq(True).mean()), len(answers)))
    return pd.DataFrame(table, columns=["layer", "accuracy", "n"])


def answer_choice(
    session: Session, rows: pd.DataFrame, plan: Plan | None, choice: Choice | None
) -> pd.DataFrame:
    """Answer under the chosen layers of a plan; without a plan, unsteered.

    If no layer was chosen, all rows are undefined, with the reason. Layers that have no vector are
    named, with the reason, in the reason of every row.

    Raises:
        ModelError: if logits are NaN or infinite without steering.
    """
    if plan is None or choice is None:
        return session.answer(rows, n_features=0)
    if not choice.layers:
        return undefined(rows, choice.reason)
    answers = session.answer(rows, plan.intervention(choice.layers), plan.n_features(choice.layers))
    return with_note(answers, plan.gaps).assign(strength=f"scale {plan.scale:g}")
