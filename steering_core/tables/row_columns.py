"""The columns of ``pareto.csv`` over test rows: how much is touched, and what probes say."""

from steering_core.tables.column import Column, interval_columns

_UNSOLVED = "the program is infeasible for every test row"
_NO_FEATURES = f"the method adds a direction that is not made of SAE features, or {_UNSOLVED}"
_NO_CANDIDATE = "no test row starts outside the target class"
_NO_EVAL_CANDIDATE = f"{_NO_CANDIDATE} by the evaluation probe"
_OUTSIDE_UNSOLVED = "`n_outside_eval_solved` is 0"
_OUTSIDE_NO_FEATURES = (
    f"the method adds a direction that is not made of SAE features, or {_OUTSIDE_UNSOLVED}"
)
_NORM, _L1 = "residual norm", "coefficient on unit-norm decoder rows"


def _mean(name: str, unit: str, meaning: str, empty_when: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_mean", "number", unit, meaning, empty_when),
        *interval_columns(f"{name}_ci", f"{name}_mean", unit, empty_when),
    )


def _score(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_base", "number", "probe logit", meaning, _UNSOLVED),
        *interval_columns(f"{name}_base_ci", f"{name}_base", "probe logit", _UNSOLVED),
        Column(f"{name}_steered", "number", "probe logit", "the same rows, steered", _UNSOLVED),
        *interval_columns(f"{name}_ci", f"{name}_steered", "probe logit", _UNSOLVED),
    )


ROW_COLUMNS: tuple[Column, ...] = (
    Column("n_examples", "number", "rows", "test rows, with a solution or without"),
    Column(
        "n_solved",
        "number",
        "rows",
        "of them, those with a solution: sizes and scores are over these, before and after alike",
    ),
    Column(
        "n_outside",
        "number",
        "rows",
        "test rows that the fitted probe puts outside the target class before (logit ≤ 0), with a "
        "solution or without: `flip_rate` is over these",
    ),
    Column(
        "n_outside_eval",
        "number",
        "rows",
        "the same by the evaluation probe: `eval_flip_rate` is over these",
    ),
    Column(
        "n_outside_eval_solved",
        "number",
        "rows",
        "of `n_outside_eval`, those with a solution: the sizes `…_outside_eval` are over these",
    ),
    *_mean(
        "residual_norm",
        _NORM,
        "mean over test rows with a solution of ‖Dᵀδ‖, or of the norm of the vector added; rows "
        "that are past the margin before count with 0. A test row has one position, its last "
        "token: there, and so in every column over test rows, an adaptive method equals the one "
        "that is solved once; the columns of texts are of the adaptive edit",
        _UNSOLVED,
    ),
    *_mean(
        "l0",
        "features",
        "mean number of features with a non-zero coefficient, over the same rows; 0 for "
        "`no_steering`, which changes none",
        _NO_FEATURES,
    ),
    *_mean(
        "l1",
        _L1,
        "mean sum of absolute coefficients, each times the norm of its decoder row, over the same "
        "rows",
        _NO_FEATURES,
    ),
    *_mean(
        "residual_norm_outside_eval",
        _NORM,
        "as `residual_norm_mean`, over the rows that `eval_flip_rate` is about: those outside the "
        "target class by the evaluation probe, as far as they have a solution. Compare methods at "
        "equal values of this one: `residual_norm_mean` counts rows at which a program has "
        "nothing to do",
        _OUTSIDE_UNSOLVED,
    ),
    *_mean("l0_outside_eval", "features", "`l0_mean` over those rows", _OUTSIDE_NO_FEATURES),
    *_mean("l1_outside_eval", _L1, "`l1_mean` over those rows", _OUTSIDE_NO_FEATURES),
    *_score(
        "probe_score",
        "mean logit of the fitted probe, oriented to the target class, unsteered, over the test "
        "rows with a solution. Over all of them it stands in the row `no_steering`",
    ),
    *_score(
        "eval_probe_score",
        "mean logit of the independent evaluation probe, fitted on its own split that no method "
        "sees, likewise",
    ),
    Column(
        "flip_rate",
        "number",
        "share",
        "share of the test rows outside the target class before that are inside it after "
        "(margin 0), by the fitted probe: what the programs enforce, so no evidence for them. A "
        "row without a solution counts as not flipped",
        _NO_CANDIDATE,
    ),
    *interval_columns("flip_ci", "flip_rate", "share", _NO_CANDIDATE),
    Column(
        "eval_flip_rate",
        "number",
        "share",
        "the same share by the independent evaluation probe",
        _NO_EVAL_CANDIDATE,
    ),
    *interval_columns("eval_flip_ci", "eval_flip_rate", "share", _NO_EVAL_CANDIDATE),
)
