"""What every column of ``norm_matched.csv`` means."""

from steering_core.tables.column import Column, interval_columns


def _estimate(name: str, stem: str, unit: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name, "number", unit, meaning),
        *interval_columns(stem, name, unit, ""),
    )


NORM_MATCHED_COLUMNS: tuple[Column, ...] = (
    Column("experiment", "text", "name", "experiment in config.yaml"),
    Column("seed", "number", "number", "`seed` of config.yaml: of rows, splits, resampling"),
    Column(
        "method",
        "text",
        "name",
        "program. An adaptive one equals on test rows the one that is solved once, so it has no "
        "rows of its own",
    ),
    Column("strength_name", "text", "name", "as in pareto.csv"),
    Column("strength", "number", "see strength_name", "as in pareto.csv"),
    Column("tau", "number", "probe logit", "margin τ that the program asks for"),
    Column(
        "lam",
        "number",
        "1 / residual norm",
        "weight λ of the quadratic program",
        "the method is not the quadratic program",
    ),
    Column(
        "epsilon",
        "number",
        "residual norm",
        "budget ε of the second-order cone program",
        "the method is not the second-order cone program",
    ),
    Column(
        "direction",
        "text",
        "name",
        "method of one fixed direction, which is scaled, row by row, to the norm that the program "
        "used on that very row",
    ),
    Column(
        "n",
        "number",
        "rows",
        "test rows outside the target class by the evaluation probe before (logit ≤ 0) and with a "
        "solution: `n_outside_eval_solved` of pareto.csv. All columns are over these",
    ),
    *_estimate(
        "residual_norm_mean",
        "residual_norm_ci",
        "residual norm",
        "mean of ‖Dᵀδ‖, the norm of both vectors; a row that the fitted probe has past the margin "
        "before counts with 0, where neither does anything",
    ),
    *_estimate(
        "program_flip_rate",
        "program_flip_ci",
        "share",
        "share that the evaluation probe puts inside the target class after, steered by the "
        "program",
    ),
    *_estimate(
        "direction_flip_rate",
        "direction_flip_ci",
        "share",
        "the same share, steered by the direction",
    ),
    *_estimate(
        "difference",
        "difference_ci",
        "share",
        "`program_flip_rate` less `direction_flip_rate`, resampled as pairs, row by row: above 0 "
        "the program flips more with the same norm",
    ),
    Column("warnings", "text", "text", "what to know before the row is quoted", "nothing to warn"),
)

NORM_MATCHED_KEY: tuple[str, ...] = (
    "seed",
    "method",
    "strength_name",
    "strength",
    "direction",
)
