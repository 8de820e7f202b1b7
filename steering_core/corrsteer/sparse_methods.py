"""The methods of optimal sparse steering on CorrSteer's tasks, for the same table of results.

They are learned from the training rows (:func:`strengths`). The programs move a probe of success,
or other directions, past a margin with the features that CorrSteer selected; programs may also be
declared, as in an experiment that delivers pareto.csv. The fixed directions are those of the main
pipeline, with success in place of the label. Every strength of a method gives an intervention on
rows whose residuals are known.

They steer at the best layer of an arm (:func:`answer_sparse_method`). The validation rows choose
the strength of each method, as they choose the layers of P. No steering is one of the candidates. A
method that does not beat it on the validation rows is not run on the test rows.

A method may also steer as another experiment has fitted it on the labels of its own task, at the
same site of the same model (:func:`answers_under`): as an arm of a CorrSteer experiment, and to see
what steering costs elsewhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from steering_core.config.methods import (
    BASELINE,
    PROMPTING,
    directions_of,
    is_program,
    mode_of,
    needs_fisher,
    program_of,
)
from steering_core.corrsteer.answers import Session, undefined, with_note
from steering_core.corrsteer.plan import Plan, Rows, choose
from steering_core.corrsteer.training_data import TrainingData, persona_pairs, training_data
from steering_core.errors import DataError, ModelError
from steering_core.generation.intervention import Intervention, Positions, RowVectors
from steering_core.generation.new_inputs import (
    Residuals,
    SteeredInputs,
    Strength,
    chosen_strength,
    program_strength,
)
from steering_core.generation.steered_method import persona_of, program_solver
from steering_core.methods.declared_programs import (
    learn_program,
    program_grid,
    typical_units,
)
from steering_core.methods.directions import (
    DIRECTIONS,
    FOUND_BY,
    FixedDirection,
    make_direction,
)
from steering_core.methods.guard_directions import guards_of
from steering_core.methods.ready_programs import ReadyProgram
from steering_core.methods.solutions import GridPoint, ModelUnits
from steering_core.models.site import Site
from steering_core.models.tokens import count_tokens
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.probes.fit import fit_probe
from steering_core.statistics.fisher import Fisher

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import SparseMethods
    from steering_core.config.schema import DeclaredProgram


def strengths(method: str, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    """Return every strength of a method, the weakest first.

    Raises:
        DataError: if the training rows lack what the method learns from, such as both outcomes.
        ValueError: naming ``method``, if there is none of that name.
    """
    if method in settings.programs:
        return _programs(method, settings.programs[method], settings, data)
    if method in DIRECTIONS and method != BASELINE:
        return _fixed(make_direction(method, settings.topk), settings, data)
    if is_program(method):
        return _programs(method, _registered(method, settings), settings, data)
    raise ValueError(f"method: there is no {method!r} among the sparse methods")


def _fixed(method: FixedDirection, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    fit_data = data.fit_data([name for name, found in FOUND_BY.items() if found == method.name])
    try:
        direction = method.find(fit_data, data.dictionary)
    except ValueError as error:
        raise DataError(f"no direction: {error}") from error
    unit = fit_data.residual_norm
    used = None if direction.features is None else len(direction.features)

    def steer(strength: float, residuals: Residuals) -> SteeredInputs:
        n = len(residuals)
        vector = strength * unit * direction.vector
        features = None if used is None else np.full(n, used)
        return SteeredInputs(Intervention({data.site: RowVectors(vector)}), features, [""] * n)

    return [Strength(f"alpha {alpha:g}", partial(steer, alpha)) for alpha in settings.strengths]


def _registered(method: str, settings: "SparseMethods") -> SimpleNamespace:
    """Return a registered program as a declaration: plain norm, and the parameters of all."""
    program = program_of(method)
    return SimpleNamespace(
        program=program,
        mode=mode_of(method),
        concept_direction=settings.concept_direction,
        metric="identity",
        feature_cost="unit",
        tau=settings.tau,
        qp_lambda=[settings.qp_lambda] if program == "qp" else None,
        features=None,
        epsilon=settings.epsilon if program == "socp" else None,
        guards=[],
    )


def _programs(
    method: str, declared: "DeclaredProgram", settings: "SparseMethods", data: TrainingData
) -> list[Strength]:
    """Return every strength of a program, the weakest first.

    A static program is solved for each row at its last prompt token, an adaptive one again at every
    position. A shared one is solved once, for the validation row furthest from the margin, and
    every row gets that vector, as with a uniform program, whose margin is the same for every row.

    Raises:
        DataError: if the training rows do not tell success from failure, a direction does not point
            to success, no feature raises its logit, a unit is 0, or the path cannot be followed.
    """
    directions = directions_of(declared)
    probe, note = None, ""
    if "probe" in directions:
        probe = fit_probe(data.residuals, data.success, seed=data.seed, centred=data.site.centred)
        note = "the probe of success is no better than chance" if probe.at_chance else ""
    elif data.one_outcome:
        raise DataError("one outcome only")
    fit_data = data.fit_data(directions)
    fisher = data.fisher() if needs_fisher(declared) else None
    try:
        ready = learn_program(
            declared,
            fit_data,
            data.dictionary.astype(np.float64),
            validation=data.shared_by,
            probe=probe,
            fisher=fisher,
            guards=guards_of([dict(guard) for guard in declared.guards], fit_data.residuals),
            units=settings.units,
        )
    except ValueError as error:
        raise DataError(f"no program: {error}") from error
    model = None
    if settings.units == "model":
        model = typical_units(ready, data.shared_by, fit_data)
    try:
        if declared.mode == "adaptive" and ready.path is not None:
            ready.path.extend(np.inf)  # no example says what residuals new tokens will have
        grid = _grid(method, declared, ready, model)
    except DegeneratePathError as error:
        raise DataError(f"the path of the program ends: {error}") from error
    except ValueError as error:  # no feature raises the logit, so counts have no place on the path
        raise DataError(f"no program: {error}") from error
    solver = None
    if declared.mode == "adaptive":
        solver = program_solver(ready.logit, ready.inside, data.site, data.device, ready.path)
    shared_by = ready.logits(data.shared_by) if declared.mode == "shared" else None
    return [
        program_strength(
            called,
            ready,
            float(point.tau),
            point.epsilon if point.qp_lambda is None else point.qp_lambda,
            data.site,
            solver=solver,
            shared_by=shared_by,
            note=note,
        )
        for called, point in grid
    ]


def _grid(
    method: str, declared: "DeclaredProgram", ready: ReadyProgram, model: ModelUnits | None
) -> list[tuple[str, GridPoint]]:
    """Return every strength of a program, the weakest first: its name, and its absolute parts.

    Names have the numbers of the settings.

    Args:
        method: its name.
        declared: what it is.
        ready: what solves it.
        model: units of the configured parts; None if they are absolute.
    """
    unit = 1.0 if model is None else model.one("tau") * model.one("lam")
    remark = "" if model is None else " in units of the model"
    found = []
    for point in program_grid(method, declared, ready.solves, unit):
        parts = [f"tau {point.tau:g}"]
        if declared.features is not None:
            parts.append(point.strength_name.removeprefix("tau at ").replace("=", " "))
        elif point.qp_lambda is not None:
            parts.append(f"lambda {point.qp_lambda:g}")
        elif point.epsilon is not None:
            parts.append(f"epsilon {point.epsilon:g}")
        absolute = point if model is None else model.in_both(point, "model")
        found.append((", ".join(parts) + remark, absolute))
    return found


# ----------------------------------------------------------- strengths on validation and test rows
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
    fisher: Callable[[Site], Fisher] | None = None,
) -> SparseAnswers:
    """Choose a strength on the validation rows and answer the test rows with it.

    A row without a solution is not answered; it is undefined with the program's status. A method
    is undefined as a whole if it cannot learn from the training rows, or if none of its strengths
    answers more validation rows than the unsteered model.

    Args:
        session: the model and how it answers.
        method: one of :data:`steering_core.config.methods.CORRSTEER_METHODS`, or a program that
            the settings declare.
        settings: strengths and parameters.
        plan: the features that an arm selected; the layer is that of the best.
        rows_of: decoder rows.
        train: training rows with ``success``.
        validation: rows to choose a strength on.
        test: rows to report.
        seed: of folds and draws.
        fisher: estimates what vectors cost at a site; only programs with ``fisher`` need it.
    """
    nothing = pd.DataFrame(columns=COLUMNS)
    choice = choose("single", plan)
    if not choice.layers:
        return SparseAnswers(undefined(test, choice.reason), nothing)
    site = plan.sites[choice.layers[0]]
    seen = session.residuals(validation["prompt"].tolist(), site)
    best = plan.features[plan.features["layer"] == choice.layers[0]].sort_values("rank")
    data = training_data(
        session, best[: settings.features], site, rows_of, train, seen, seed, fisher
    )
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


# ------------------------------------------------------------ methods that an experiment has fitted
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
        files: as of :func:`steering_core.generation.new_inputs.chosen_strength`.
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
    found = chosen_strength(
        method,
        strength,
        files,
        site=site,
        target_class=target_class,
        device=session.lm.device,
        positions=positions,
    )
    if found is None:
        return undefined(rows, f"no strength of {method} is selected")
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
