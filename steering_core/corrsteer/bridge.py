"""The methods of optimal sparse steering answer CorrSteer's tasks, to stand in one table.

They steer at the best layer of an arm. The validation rows choose the strength of each method, as
they choose the layers of P. No steering is one of the candidates: a method that does not beat it
there has no strength and answers no test row.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Int

from steering_core.activations.positions import last_token_residuals
from steering_core.corrsteer.answers import answer, undefined, with_note
from steering_core.corrsteer.bridge_learned import Learned, Pairs, Residuals, Strength
from steering_core.corrsteer.bridge_methods import strengths
from steering_core.corrsteer.bridge_programs import Everywhere
from steering_core.corrsteer.contrast import answer_pairs, persona_pairs
from steering_core.corrsteer.plan import Plan, Rows
from steering_core.corrsteer.run import Run
from steering_core.corrsteer.strategy import choose
from steering_core.errors import DataError
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import Bridge

#: Training rows that pairs of texts are made of, at most.
PAIR_ROWS = 500
_BATCH_TOKENS = 2048
COLUMNS = ["strength", "n", "n_missing", "accuracy", "chosen"]
#: Name of the candidate that adds nothing.
NO_STEERING = "none"


@dataclass(frozen=True)
class Bridged:
    """Answers to the test rows, and what the strengths did on the validation rows.

    Attributes:
        answers: as :func:`steering_core.corrsteer.answers.answer` returns them.
        validation: :data:`COLUMNS`, the first row for no steering. An example without a vector
            keeps its unsteered answer, as in the column ``accuracy_all`` of the table of results.
    """

    answers: pd.DataFrame
    validation: pd.DataFrame


def answer_bridge(
    run: Run,
    method: str,
    bridge: "Bridge",
    plan: Plan,
    rows_of: Rows,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    *,
    seed: int,
) -> Bridged:
    """Choose a strength on the validation rows and answer the test rows with it.

    A row without a solution is not answered; it is undefined with the program's status. A method
    is undefined as a whole if it cannot learn from the training rows, or if none of its strengths
    answers more validation rows than the unsteered model.

    Args:
        run: the model and how it answers.
        method: one of :data:`steering_core.config.methods.CORRSTEER_METHODS`.
        bridge: strengths and parameters.
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
        return Bridged(undefined(test, choice.reason), nothing)
    site = plan.sites[choice.layers[0]]
    seen = residuals(run, validation["prompt"].tolist(), site)
    best = plan.features[plan.features["layer"] == choice.layers[0]].sort_values("rank")
    learned = _learned(run, best[: bridge.features], site, rows_of, train, seen, seed)
    try:
        grid = strengths(method, bridge, learned)
    except DataError as error:
        return Bridged(undefined(test, f"{method}: {error}"), nothing)
    table = _tried(run, validation, seen, grid, site)
    # The first of equals is the weakest, and the first of all is no steering.
    at = int(table["accuracy"].to_numpy().argmax())
    table = table.assign(chosen=table.index == at)
    if at == 0:
        return Bridged(undefined(test, _nothing_helped(table)), table)
    seen = residuals(run, test["prompt"].tolist(), site)
    return Bridged(_answers(run, test, seen, grid[at - 1], site), table)


def _nothing_helped(table: pd.DataFrame) -> str:
    """Say that no strength beats no steering, and by how much the best of them misses it."""
    steered = table.iloc[1:]
    best = steered.loc[steered["accuracy"].idxmax()]
    unsolved = f", without a solution for {best['n_missing']} of {best['n']} rows"
    return (
        "nothing helped on validation: no strength beats the unsteered validation accuracy "
        f"({table['accuracy'].iloc[0]:.3f}); the best, {best['strength']}, has "
        f"{best['accuracy']:.3f}{unsolved if best['n_missing'] else ''}"
    )


def _learned(
    run: Run,
    best: pd.DataFrame,
    site: Site,
    rows_of: Rows,
    train: pd.DataFrame,
    validation: Residuals,
    seed: int,
) -> Learned:
    """What the methods learn from; ``best`` are the selected features of the site's layer."""
    chosen: Int[np.ndarray, " m"] = best["feature"].to_numpy()
    some = train[:PAIR_ROWS]

    def pairs(texts: tuple[list[str], list[str]]) -> Pairs:
        first, second = fitting(run, *texts, site)
        return residuals(run, first, site), residuals(run, second, site)

    return Learned(
        residuals(run, train["prompt"].tolist(), site),
        train["success"].to_numpy(dtype=bool),
        rows_of(int(best["layer"].iloc[0]), chosen).astype(np.float64),
        best["correlation"].to_numpy(dtype=np.float64),
        lambda: pairs(answer_pairs(run.task, some, seed)),
        lambda: pairs(
            persona_pairs(
                run.task, some["prompt"], run.lm.tokenizer, chat_template=run.how.chat_template
            )
        ),
        validation,
        seed=seed,
        centred=site.centred,
    )


def _tried(
    run: Run, rows: pd.DataFrame, seen: Residuals, grid: list[Strength], site: Site
) -> pd.DataFrame:
    """What no steering and every strength do on the validation rows, without ``chosen``."""
    unsteered = _plain(run, rows)["success"]
    tried = [(NO_STEERING, len(rows), 0, unsteered.eq(True).mean())]
    for strength in grid:
        answers = _answers(run, rows, seen, strength, site)
        without = answers["status"] != "ok"
        # Without a solution the unsteered answer stays; an answer that was lost is no success.
        success = answers["success"].where(answers["status"] != "undefined", unsteered)
        tried.append((strength.name, len(rows), int(without.sum()), success.eq(True).mean()))
    return pd.DataFrame(tried, columns=COLUMNS[:-1])


def _plain(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    return answer(run.lm, rows, run.task, run.how, run.classifier, reasoned=run.reasoned)


def residuals(run: Run, texts: list[str], site: Site) -> Residuals:
    """Return the last-token residuals of ``texts``, (n, d_model)."""
    if not texts:
        return np.zeros((0, run.lm.shape.d_model))
    return last_token_residuals(
        run.lm,
        texts,
        site,
        max_tokens=run.lm.shape.context,
        batch_tokens=_BATCH_TOKENS,
        control_tokens=run.how.chat_template,
    )


def fitting(
    run: Run, first: list[str], second: list[str], site: Site
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
                run.lm.tokenizer,
                side,
                site.prepend_bos,
                control_tokens=run.how.chat_template,
            )
            for side in (first, second)
        ],
        axis=0,
    )
    kept = np.flatnonzero(longest <= run.lm.shape.context)
    if not len(kept):
        raise DataError("no pair of texts fits the model's context")
    return [first[i] for i in kept], [second[i] for i in kept]


def _answers(
    run: Run, rows: pd.DataFrame, seen: Residuals, strength: Strength, site: Site
) -> pd.DataFrame:
    """Answer the rows that have a vector; the others are undefined with the reason."""
    added = strength.add(seen)
    table = undefined(rows, "").astype(object)
    table["reason"] = ["; ".join(filter(None, (reason, added.note))) for reason in added.reason]
    has = np.flatnonzero([not reason for reason in added.reason])
    if not has.size:
        return table.assign(strength=strength.name)
    mine = rows.iloc[has].reset_index(drop=True)
    if added.everywhere is None:
        answered = answer(
            run.lm,
            mine,
            run.task,
            run.how,
            run.classifier,
            interventions=[(site, added.vectors[has].astype(np.float32))],
            n_features=None if added.n_features is None else added.n_features[has],
            reasoned=run.reasoned,
        )
        answered = with_note(answered, added.note)
    else:
        answered = _answered_everywhere(run, mine, added.everywhere, site, added.note)
    answered.index = table.index[has]
    table.loc[answered.index] = answered.astype(object)
    return table.assign(strength=strength.name)


def _answered_everywhere(
    run: Run, rows: pd.DataFrame, program: Everywhere, site: Site, note: str
) -> pd.DataFrame:
    """Answer rows under a program that is solved at every position: it has no one norm."""
    unsolved = np.zeros(len(rows), dtype=np.int64)
    answered = answer(
        run.lm,
        rows,
        run.task,
        run.how,
        run.classifier,
        around=lambda batch, chosen: program.steer(run.lm, site, batch, chosen, unsolved),
        reasoned=run.reasoned,
    )
    left = np.where(unsolved > 0, "positions without a solution were left alone", "")
    return with_note(with_note(answered, left), note).assign(
        layers=[[site.layer]] * len(rows),
        norm=None,
        n_features=None,
    )
