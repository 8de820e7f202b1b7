"""The methods of optimal sparse steering on CorrSteer's tasks, for the same table of results.

They steer at the best layer of an arm. The validation rows choose the strength of each method, as
they choose the layers of P. No steering is one of the candidates. A method that does not beat it on
the validation rows is not run on the test rows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Int

from steering_core.corrsteer.answers import undefined, with_note
from steering_core.corrsteer.contrast import answer_pairs, persona_pairs
from steering_core.corrsteer.plan import Plan, Rows
from steering_core.corrsteer.session import Session
from steering_core.corrsteer.sparse_methods import Pairs, TrainingData, strengths
from steering_core.corrsteer.strategy import choose
from steering_core.errors import DataError
from steering_core.generation.new_inputs import Residuals, Strength
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import SparseMethods

#: Training rows that pairs of texts are made of, at most.
PAIR_ROWS = 500
COLUMNS = ["strength", "n", "n_missing", "accuracy", "chosen"]
#: Name of the candidate that adds nothing.
NO_STEERING = "none"


@dataclass(frozen=True)
class SparseAnswers:
    """Answers to the test rows, and what the strengths did on the validation rows.

    Attributes:
        answers: as :func:`steering_core.corrsteer.answers.answer` returns them.
        validation: :data:`COLUMNS`, the first row for no steering. An example without a vector
            keeps its unsteered answer, as in the column ``accuracy_all`` of the table of results.
    """

    answers: pd.DataFrame
    validation: pd.DataFrame


def answer_sparse_method(
    session: Session,
    method: str,
    settings: "SparseMethods",
    plan: Plan,
    rows_of: Rows,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    *,
    seed: int,
) -> SparseAnswers:
    """Choose a strength on the validation rows and answer the test rows with it.

    A row without a solution is not answered; it is undefined with the program's status. A method
    is undefined as a whole if it cannot learn from the training rows, or if none of its strengths
    answers more validation rows than the unsteered model.

    Args:
        session: the model and how it answers.
        method: one of :data:`steering_core.config.methods.CORRSTEER_METHODS`.
        settings: strengths and parameters.
        plan: the features that an arm selected; the layer is that of the best.
        rows_of: decoder rows.
        train: training rows with ``success``.
        validation: rows to choose a strength on.
        test: rows to report.
        seed: of folds and draws.
    """
    nothing = pd.DataFrame(columns=COLUMNS)
    choice = choose("single", plan)
    if not choice.layers:
        return SparseAnswers(undefined(test, choice.reason), nothing)
    site = plan.sites[choice.layers[0]]
    seen = session.residuals(validation["prompt"].tolist(), site)
    best = plan.features[plan.features["layer"] == choice.layers[0]].sort_values("rank")
    data = _training_data(session, best[: settings.features], site, rows_of, train, seen, seed)
    try:
        grid = strengths(method, settings, data)
    except DataError as error:
        return SparseAnswers(undefined(test, f"{method}: {error}"), nothing)
    table = _tried(session, validation, seen, grid)
    # The first of equals is the weakest, and the first of all is no steering.
    at = int(table["accuracy"].to_numpy().argmax())
    table = table.assign(chosen=table.index == at)
    if at == 0:
        return SparseAnswers(undefined(test, _nothing_helped(table)), table)
    return SparseAnswers(answer_at(session, test, site, grid[at - 1]), table)


def _nothing_helped(table: pd.DataFrame) -> str:
    """Return the message that no strength beats no steering, and how far the best falls short."""
    steered = table.iloc[1:]
    best = steered.loc[steered["accuracy"].idxmax()]
    unsolved = f", without a solution for {best['n_missing']} of {best['n']} rows"
    return (
        "nothing helped on validation: no strength beats the unsteered validation accuracy "
        f"({table['accuracy'].iloc[0]:.3f}); the best, {best['strength']}, has "
        f"{best['accuracy']:.3f}{unsolved if best['n_missing'] else ''}"
    )


def _training_data(
    session: Session,
    best: pd.DataFrame,
    site: Site,
    rows_of: Rows,
    train: pd.DataFrame,
    validation: Residuals,
    seed: int,
) -> TrainingData:
    """Return what the methods learn from; ``best`` are the features selected at the layer."""
    chosen: Int[np.ndarray, " m"] = best["feature"].to_numpy()
    some = train[:PAIR_ROWS]

    def pairs(texts: tuple[list[str], list[str]]) -> Pairs:
        first, second = fitting(session, *texts, site)
        return session.residuals(first, site), session.residuals(second, site)

    def personas() -> Pairs:
        tokenizer, chat_template = session.lm.tokenizer, session.how.chat_template
        return pairs(
            persona_pairs(session.task, some["prompt"], tokenizer, chat_template=chat_template)
        )

    return TrainingData(
        site=site,
        residuals=session.residuals(train["prompt"].tolist(), site),
        success=train["success"].to_numpy(dtype=bool),
        dictionary=rows_of(int(best["layer"].iloc[0]), chosen).astype(np.float64),
        correlation=best["correlation"].to_numpy(dtype=np.float64),
        contrast=lambda: pairs(answer_pairs(session.task, some, seed)),
        personas=personas,
        shared_by=validation,
        seed=seed,
        device=session.lm.device,
    )


def _tried(
    session: Session, rows: pd.DataFrame, seen: Residuals, grid: list[Strength]
) -> pd.DataFrame:
    """Return what no steering and every strength do on the validation rows, without ``chosen``."""
    unsteered = session.answer(rows)["success"]
    tried = [(NO_STEERING, len(rows), 0, unsteered.eq(True).mean())]
    for strength in grid:
        answers = _answers(session, rows, seen, strength)
        without = answers["status"] != "ok"
        # Without a solution the unsteered answer stays; an answer that was lost is no success.
        success = answers["success"].where(answers["status"] != "undefined", unsteered)
        tried.append((strength.name, len(rows), int(without.sum()), success.eq(True).mean()))
    return pd.DataFrame(tried, columns=COLUMNS[:-1])


def fitting(
    session: Session, first: list[str], second: list[str], site: Site
) -> tuple[list[str], list[str]]:
    """Return the pairs of texts that both fit the model's context.

    Raises:
        DataError: if no pair does.
    """
    if not first:
        return first, second
    longest = np.max(
        [
            count_tokens(
                session.lm.tokenizer,
                side,
                site.prepend_bos,
                control_tokens=session.how.chat_template,
            )
            for side in (first, second)
        ],
        axis=0,
    )
    kept = np.flatnonzero(longest <= session.lm.shape.context)
    if not len(kept):
        raise DataError("no pair of texts fits the model's context")
    return [first[i] for i in kept], [second[i] for i in kept]


def answer_at(session: Session, rows: pd.DataFrame, site: Site, strength: Strength) -> pd.DataFrame:
    """Answer the rows that have a solution at one strength; the others are undefined.

    Args:
        session: the model and how it answers.
        rows: of one split.
        site: where the method steers.
        strength: of the method.
    """
    return _answers(session, rows, session.residuals(rows["prompt"].tolist(), site), strength)


def _answers(
    session: Session, rows: pd.DataFrame, seen: Residuals, strength: Strength
) -> pd.DataFrame:
    """Answer the rows that have a solution; the others are undefined with the reason."""
    steered = strength.steer(seen)
    table = with_note(undefined(rows, "").assign(reason=steered.reason), steered.note)
    table = table.astype(object)
    has = np.flatnonzero([not reason for reason in steered.reason])
    if has.size:
        answered = session.answer(
            rows.iloc[has].reset_index(drop=True),
            steered.intervention.rows(has).float32(),
            None if steered.n_features is None else steered.n_features[has],
        )
        answered = with_note(answered, steered.note)
        answered.index = table.index[has]
        table.loc[answered.index] = answered.astype(object)
    return table.assign(strength=strength.name)
