"""What one experiment takes from another: plans, methods, guards and features.

Each check refuses what cannot be taken, because the other experiment does not have it or runs
another model.
"""

from collections.abc import Mapping
from typing import Any

from steering_core.config.corrsteer_schema import Arm, CorrSteerExperiment, MethodSource
from steering_core.config.methods import BASELINE, METHODS, strength_grid
from steering_core.config.resolve import resolve
from steering_core.config.schema import ParetoExperiment
from steering_core.config.validation import hint
from steering_core.errors import ConfigError


def check_plans(experiment: ParetoExperiment, runs: Mapping[str, CorrSteerExperiment]) -> None:
    """Refuse a plan that cannot be evaluated in ``experiment``, with the reason.

    Args:
        experiment: delivers pareto.csv.
        runs: all CorrSteer experiments, by name.

    Raises:
        ConfigError: naming the plan.
    """
    for name, plan in experiment.settings.plans.items():
        where = f"experiments.{experiment.name}: plans.{name}"
        if plan.experiment not in runs:
            raise ConfigError(
                f"{where}: there is no CorrSteer experiment {plan.experiment!r}"
                f"{hint(plan.experiment, runs)}"
            )
        run = runs[plan.experiment]
        arms = {key: arm for key, arm in run.settings.arms.items() if arm.intervention_from is None}
        if plan.arm not in arms:
            raise ConfigError(
                f"{where}: {run.name} has no plan of an arm {plan.arm!r}{hint(plan.arm, arms)}"
            )
        if plan.seed not in run.settings.seeds:
            raise ConfigError(
                f"{where}: {run.name} has the seeds {run.settings.seeds}, not {plan.seed}."
            )
        mine, theirs = _model_of(experiment), _model_of(run)
        if mine != theirs:
            raise ConfigError(
                f"{where}: {run.name} steers the model {' '.join(theirs)}, and {experiment.name} "
                f"runs {' '.join(mine)}: a plan acts on the model that it was made for alone."
            )


def check_guards(raw: dict[str, Any], experiment: ParetoExperiment) -> None:
    """Refuse a guard with the probe of an experiment that has none of the same residuals.

    Args:
        raw: the configuration, for the other experiments.
        experiment: whose programs have guards.

    Raises:
        ConfigError: naming the program.
    """
    for name, program in experiment.settings.programs.items():
        where = f"experiments.{experiment.name}: programs.{name}.guards"
        for other in program.guarding_experiments:
            known = raw.get("experiments", {})
            if other not in known:
                raise ConfigError(f"{where}: there is no experiment {other!r}{hint(other, known)}")
            theirs = resolve(raw, other)
            if _model_of(theirs) != _model_of(experiment):
                raise ConfigError(
                    f"{where}: {other} runs another model, so its probe means nothing here: name "
                    f"an experiment on the model of {experiment.name}"
                )
            layers = {experiment.settings.layer, theirs.settings.layer} - {"auto"}
            if len(layers) > 1:
                raise ConfigError(
                    f"{where}: {other} has its probe at layer {theirs.settings.layer}, and "
                    f"{experiment.name} steers layer {experiment.settings.layer}: set the same"
                )


def check_methods_of_experiments(
    raw: dict[str, Any], found: dict[str, CorrSteerExperiment]
) -> None:
    """Refuse ``intervention_from`` if it cannot be evaluated there, with the reason.

    One rule answers such arms and another all other arms, so a name must be of one kind.

    Raises:
        ConfigError: naming the arm.
    """
    own: dict[str, str] = {}
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            if arm.intervention_from is not None:
                own[name] = experiment.name
    if not own:
        return
    for experiment in found.values():
        for name, arm in experiment.settings.arms.items():
            where = f"corrsteer {experiment.name}: arms.{name}"
            if arm.intervention_from is not None:
                _check_method(f"{where}.intervention_from", experiment, arm.intervention_from, raw)
            elif name in own:
                raise ConfigError(
                    f"{where}: {own[name]} has an arm of that name with intervention_from: give "
                    "one of them another name."
                )


def _check_method(
    where: str, experiment: CorrSteerExperiment, source: MethodSource, raw: dict[str, Any]
) -> None:
    known = raw.get("experiments", {})
    if source.experiment not in known:
        raise ConfigError(
            f"{where}: there is no experiment {source.experiment!r} that delivers pareto.csv"
            f"{hint(source.experiment, known)}"
        )
    other = resolve(raw, source.experiment)
    mine, theirs = _model_of(experiment), _model_of(other)
    if mine != theirs:
        raise ConfigError(
            f"{where}: {other.name} steers the model {' '.join(theirs)}, and {experiment.name} "
            f"runs {' '.join(mine)}: a method acts on the model that it was fitted on alone."
        )
    if source.method == BASELINE:
        raise ConfigError(f"{where}.method: {BASELINE} is the unsteered model, which always runs.")
    own = other.settings
    known = [*own.methods, *own.plans, *own.programs, *own.gated]
    if source.method not in known:
        raise ConfigError(
            f"{where}: {source.method} is not among the methods of {other.name}"
            f"{hint(source.method, known)}: {', '.join(known)}."
        )
    if source.strength == "selected":
        if not other.settings.n_validation_prompts:
            raise ConfigError(
                f"{where}: {other.name} selects no strength, since its n_validation_prompts is 0: "
                "name a strength."
            )
        return
    if source.method not in METHODS:
        raise ConfigError(
            f"{where}.strength: {source.method} is no registered method, so only `selected` can be "
            "given."
        )
    grid = strength_grid(source.method, other.settings)
    if source.strength.parts() not in grid:
        listed = "; ".join(
            ", ".join(f"{key}: {value:g}" for key, value in point.items()) for point in grid
        )
        raise ConfigError(
            f"{where}.strength is not a strength of {other.name}: give one of {listed}."
        )


def check_transfer(where: str, arm: Arm, found: dict[str, CorrSteerExperiment]) -> None:
    """Refuse ``features_from`` if it names no arm that selects features.

    Raises:
        ConfigError: naming ``where``.
    """
    source = arm.features_from
    if source is None:
        return
    if source.experiment not in found:
        raise ConfigError(
            f"{where}: there is no CorrSteer experiment {source.experiment!r}"
            f"{hint(source.experiment, found)}"
        )
    arms = found[source.experiment].settings.arms
    if source.arm not in arms or not arms[source.arm].selects:
        raise ConfigError(
            f"{where}: {source.experiment} selects no features for an arm {source.arm!r}"
            f"{hint(source.arm, (name for name in arms if arms[name].selects))}"
        )


def _model_of(found: ParetoExperiment | CorrSteerExperiment) -> tuple[str, str, str]:
    return found.model.id, found.model.revision, found.model.dtype
