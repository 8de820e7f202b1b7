"""The methods of optimal sparse steering on CorrSteer's tasks, for the same table of results.

They are learned from the training rows (:func:`strengths`). The programs move a probe of success,
or another direction, past a margin with the features that CorrSteer selected; the fixed directions
are those of the main pipeline, with success in place of the label. Every strength of a method gives
an intervention on rows whose residuals are known.

They steer at the best layer of an arm (:func:`answer_sparse_method`). The validation rows choose
the strength of each method, as they choose the layers of P. No steering is one of the candidates. A
method that does not beat it on the validation rows is not run on the test rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedTokenizerBase

from steering_core.config.methods import BASELINE, Program, is_program, mode_of, program_of
from steering_core.corrsteer.answers import undefined, with_note
from steering_core.corrsteer.examples import joined
from steering_core.corrsteer.plan import Plan, Rows
from steering_core.corrsteer.session import Session
from steering_core.corrsteer.strategy import choose
from steering_core.corrsteer.tasks import Task
from steering_core.errors import DataError
from steering_core.generation.adaptive import AdaptivePlan, AdaptiveSolver
from steering_core.generation.intervention import Intervention, RowVectors
from steering_core.generation.new_inputs import (
    Residuals,
    SteeredInputs,
    Strength,
    solved_again,
    solved_once,
)
from steering_core.methods.base import Direction
from steering_core.methods.directions import (
    DIRECTIONS,
    FOUND_BY,
    CAAContrastive,
    CAAMeanDiff,
    CAARepE,
    FitData,
    FixedDirection,
    make_direction,
)
from steering_core.methods.model_units import ModelUnits, median_norm
from steering_core.methods.programs import ConvexOptimalSteering, OptimalSteering, QPOptimalSteering
from steering_core.models.site import Site
from steering_core.models.tokens import around_the_turn, count_tokens
from steering_core.optimize.homotopy import DegeneratePathError
from steering_core.optimize.path import SteeringPath
from steering_core.probes.fit import calibrated, fit_probe

if TYPE_CHECKING:
    from steering_core.config.corrsteer_schema import SparseMethods


#: Residuals of texts that should differ in success: of those that succeed, and of those that fail.
Pairs = tuple[Residuals, Residuals]

#: The parts of a program's strength.
Part = Literal["tau", "lam", "epsilon"]


@dataclass(frozen=True)
class TrainingData:
    """What the methods learn from, at one site.

    Attributes:
        site: where the residuals are, and where the methods steer.
        residuals: of the training prompts, at their last token.
        success: whether the unsteered model succeeded on them.
        dictionary: unit decoder rows of the selected features.
        correlation: of each of these features with success.
        contrast: returns residuals of prompts with right and with wrong answers.
        personas: returns residuals of prompts after the instruction to succeed, and to fail.
        shared_by: residuals of the validation prompts at their last token. A shared vector is
            solved for the one that is furthest from the margin.
        seed: of the probe's folds and the random direction.
        device: of the model.
    """

    site: Site
    residuals: Residuals
    success: Bool[np.ndarray, " n"]
    dictionary: Float[np.ndarray, "m d_model"]
    correlation: Float[np.ndarray, " m"]
    contrast: Callable[[], Pairs]
    personas: Callable[[], Pairs]
    shared_by: Residuals
    seed: int
    device: torch.device


def strengths(method: str, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    """Return every strength of a method, the weakest first.

    Raises:
        DataError: if the training rows lack what the method learns from, such as both outcomes.
        ValueError: naming ``method``, if there is none of that name.
    """
    if method in DIRECTIONS and method != BASELINE:
        return _fixed(make_direction(method, settings.topk), settings, data)
    if is_program(method):
        return _programs(method, settings, data)
    raise ValueError(f"method: there is no {method!r} among the sparse methods")


def _fixed(method: FixedDirection, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    direction, unit = _found(method, data)
    used = None if direction.features is None else len(direction.features)

    def steer(strength: float, residuals: Residuals) -> SteeredInputs:
        n = len(residuals)
        vector = strength * unit * direction.vector
        features = None if used is None else np.full(n, used)
        return SteeredInputs(Intervention({data.site: RowVectors(vector)}), features, [""] * n)

    return [Strength(f"alpha {alpha:g}", partial(steer, alpha)) for alpha in settings.strengths]


def _found(method: FixedDirection, data: TrainingData) -> tuple[Direction, float]:
    """Return the direction of a method, and the mean norm of the training residuals.

    Raises:
        DataError: if the training rows lack what the method learns from.
    """
    nothing = np.zeros((0, data.residuals.shape[1]))
    contrast = data.contrast() if isinstance(method, CAAContrastive) else (nothing, nothing)
    personas = data.personas() if isinstance(method, CAARepE) else (nothing, nothing)
    if isinstance(method, CAAContrastive) and not len(contrast[0]):
        raise DataError("there is no wrong answer to make a pair with")
    if isinstance(method, CAAMeanDiff) and data.success.all() == data.success.any():
        raise DataError("one outcome only")
    fit_data = FitData(
        data.residuals.astype(np.float64),
        data.success.astype(int),
        *contrast,
        *personas,
        data.correlation,
        seed=data.seed,
        centred=data.site.centred,
    )
    try:
        return method.find(fit_data, data.dictionary), fit_data.residual_norm
    except ValueError as error:
        raise DataError(f"no direction: {error}") from error


def _logit(
    concept_direction: str, data: TrainingData
) -> tuple[Float[np.ndarray, " d_model"], float, str]:
    """Return weight and bias of the logit of success that margins are on, and a caveat.

    Raises:
        DataError: if the training rows do not tell success from failure, or the direction does not
            point to success.
    """
    if concept_direction == "probe":
        probe = fit_probe(data.residuals, data.success, seed=data.seed, centred=data.site.centred)
        note = "the probe of success is no better than chance" if probe.at_chance else ""
        return probe.weight_vector, probe.bias, note
    if data.success.all() == data.success.any():
        raise DataError("one outcome only")
    direction, _ = _found(DIRECTIONS[FOUND_BY[concept_direction]](), data)
    return *calibrated(direction.vector, data.residuals, data.success, concept_direction), ""


def _programs(method: str, settings: "SparseMethods", data: TrainingData) -> list[Strength]:
    """Return every strength of a program, the weakest first.

    A static program is solved for each row at its last prompt token, an adaptive one again at every
    position. A shared one is solved once, for the validation row furthest from the margin, and
    every row gets that vector.

    Raises:
        DataError: as :func:`_logit` and :func:`_units`, or if the path of the programs cannot be
            followed.
    """
    weight, bias, note = _logit(settings.concept_direction, data)
    path = SteeringPath.fit(data.dictionary.astype(np.float64), weight)
    mode, program = mode_of(method), program_of(method)
    solver = None
    if mode == "adaptive":
        try:
            path.extend(np.inf)  # no example says what residuals new tokens will have
        except DegeneratePathError as error:
            raise DataError(f"the path of the program ends: {error}") from error
        solver = AdaptiveSolver(path, weight, bias, program, data.site, data.device)
    shared_by = data.shared_by if mode == "shared" else None

    def steer(strength: OptimalSteering, parameter: float, residuals: Residuals) -> SteeredInputs:
        shortfall = strength.shortfalls(residuals, weight, bias, shared_by)
        found = strength.solve(path, shortfall)
        if solver is None:
            return solved_once(found.status, found.vector, found.l0, data.site, note=note)
        plan = AdaptivePlan.alike(len(residuals), solver, strength.tau, parameter)
        return solved_again(plan, found.status, data.site, note=note)

    one: dict[Part, float]
    one, remark = {"tau": 1.0, "lam": 1.0, "epsilon": 1.0}, ""
    if settings.units == "model":
        units = _units(weight, bias, data)
        one, remark = {part: units.one(part) for part in one}, " in units of the model"
    return [
        Strength(f"{name}{remark}", partial(steer, strength, parameter))
        for name, strength, parameter in _grid(program, settings, one)
    ]


def _units(weight: Float[np.ndarray, " d_model"], bias: float, data: TrainingData) -> ModelUnits:
    """Return the units of the model, measured on the validation and on the training prompts.

    Raises:
        DataError: if the logit or the residuals give no unit.
    """
    logits = data.shared_by.astype(np.float64) @ weight + bias
    return ModelUnits(float(np.median(np.abs(logits))), median_norm(data.residuals))


def _grid(
    program: Program, settings: "SparseMethods", one: dict[Part, float]
) -> list[tuple[str, OptimalSteering, float]]:
    """Return every strength, the weakest first: its name, and what it and its parameter are.

    Names have the numbers of the settings. ``one`` is what 1 of each part is in absolute units.
    """
    if program == "qp":
        qp_lambda = settings.qp_lambda * one["lam"]
        return [
            (
                f"tau {tau:g}, lambda {settings.qp_lambda:g}",
                QPOptimalSteering(qp_lambda, tau * one["tau"]),
                qp_lambda,
            )
            for tau in settings.tau
        ]
    return [
        (
            f"tau {tau:g}, epsilon {epsilon:g}",
            ConvexOptimalSteering(epsilon * one["epsilon"], tau * one["tau"]),
            epsilon * one["epsilon"],
        )
        for epsilon, tau in product(settings.epsilon, settings.tau)
    ]


# ----------------------------------------------------------- strengths on validation and test rows
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


# -------------------------------------------------------------------------------- pairs of prompts
def wrong_answers(task: Task, rows: pd.DataFrame, seed: int) -> list[str | None]:
    """Return a wrong answer to each row, in the form of the right one in ``worked``.

    It is drawn at random from the row's other letters, from the task's other answers if it lists
    them, or else from the answers to other rows. None if there is no other answer.

    Args:
        task: may list the possible answers.
        rows: ``worked, letters``.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 9])
    everyones = sorted(set(rows["worked"]))
    found: list[str | None] = []
    for right, letters in zip(rows["worked"], rows["letters"], strict=True):
        known = list(letters) if len(letters) else list(task.answers) or everyones
        others = [answer for answer in known if answer != right]
        found.append(others[int(rng.integers(len(others)))] if others else None)
    return found


def answer_pairs(task: Task, rows: pd.DataFrame, seed: int) -> tuple[list[str], list[str]]:
    """Return the prompts followed by their right answers, and the same followed by wrong ones.

    Rows without a wrong answer are left out.
    """
    right, wrong = [], []
    wrongs = wrong_answers(task, rows, seed)
    for prompt, worked, other in zip(rows["prompt"], rows["worked"], wrongs, strict=True):
        if other is not None:
            right.append(prompt + joined(prompt, worked))
            wrong.append(prompt + joined(prompt, other))
    return right, wrong


def persona_pairs(
    task: Task,
    prompts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    chat_template: bool,
) -> tuple[list[str], list[str]]:
    """Return the prompts with the task's instruction to succeed before them, and the one to fail.

    In a chat template the instruction stands at the start of the user's turn.
    """
    front = ""
    if chat_template:
        front, _ = around_the_turn(tokenizer)
    succeed, fail = (
        [front + persona + prompt.removeprefix(front) for prompt in prompts]
        for persona in task.personas
    )
    return succeed, fail
