"""Methods of an experiment that delivers pareto.csv answer the questions of a task.

The directions and the probe were fitted on the labels of that experiment's task. Here they steer
the answers to another task's questions, at the same site of the same model: as arms of a CorrSteer
experiment, and to see what steering costs elsewhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from steering_core.config.methods import BASELINE, PROMPTING
from steering_core.corrsteer.answers import Session, undefined
from steering_core.corrsteer.sparse_methods import answer_at
from steering_core.corrsteer.training_data import persona_pairs
from steering_core.errors import ModelError
from steering_core.generation.intervention import Positions
from steering_core.generation.new_inputs import chosen_point, strength_on_new_inputs
from steering_core.generation.steered_method import persona_of
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens


def check_same_model(own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Make sure that both experiments fetched the same weights.

    Args:
        own: ``resources.json`` of the experiment that answers.
        other: that of the experiment whose method it is.

    Raises:
        ModelError: if the revisions differ.
    """
    revisions = own["model"]["revision"], other["model"]["revision"]
    if revisions[0] != revisions[1]:
        raise ModelError(
            f"the method was fitted on the weights {revisions[1]}, and the questions are answered "
            f"with {revisions[0]}: delete resources.json of the older of the two experiments."
        )


def answers_under(
    session: Session,
    rows: pd.DataFrame,
    files: Mapping[str, str],
    method: str,
    strength: str | Mapping[str, float],
    *,
    site: Site,
    target_class: Literal[0, 1],
    positions: Positions = "last",
) -> pd.DataFrame:
    """Answer the rows under a method; all are undefined if the experiment selects no strength.

    Args:
        session: the model and how it answers.
        rows: of one split.
        files: as of :func:`steering_core.generation.new_inputs.strength_on_new_inputs`, with
            ``solutions``, and ``pareto`` for a selected strength.
        method: its name.
        strength: ``selected``, or the parts of a strength of the grid.
        site: where the experiment steers.
        target_class: that it steers to.
        positions: which positions of a prompt are steered.

    Raises:
        StorageError: if a file is missing or damaged.
    """
    if method == BASELINE:
        return session.answer(rows)
    if method == PROMPTING:
        return _answers_after(session, rows, persona_of(files["concept"], target_class))
    point = chosen_point(
        pd.read_parquet(files["solutions"], filters=[("method", "==", method)]),
        strength,
        pd.read_csv(files["pareto"]) if "pareto" in files else None,
    )
    if point is None:
        return undefined(rows, f"no strength of {method} is selected")
    found = strength_on_new_inputs(
        point,
        files,
        site=site,
        target_class=target_class,
        device=session.lm.device,
        positions=positions,
    )
    return answer_at(session, rows, site, found)


def _answers_after(session: Session, rows: pd.DataFrame, persona: str) -> pd.DataFrame:
    """Answer the questions after a persona; those that no longer fit the context are undefined.

    In a prompt that a chat template wrote, the persona stands at the beginning of the user's turn.
    """
    how, task = session.how, replace(session.task, personas=(persona, ""))
    prompts, _ = persona_pairs(
        task, rows["prompt"].tolist(), session.lm.tokenizer, chat_template=how.chat_template
    )
    asked = rows.assign(prompt=prompts)
    lengths = count_tokens(
        session.lm.tokenizer,
        asked["prompt"].tolist(),
        how.prepend_bos,
        control_tokens=how.chat_template,
    )
    fits = np.array(lengths) + how.new_tokens <= session.lm.shape.context
    table = undefined(asked, "does not fit the context after the persona").astype(object)
    if fits.any():
        answered = session.answer(asked[fits].reset_index(drop=True))
        answered.index = table.index[fits]
        table.loc[answered.index] = answered.astype(object)
    return table
