"""What every column of ``pareto.csv`` means, and a check that a table keeps to it."""

import pandas as pd

from steering_core.tables.column import Column, interval_columns, validate_table
from steering_core.tables.point_columns import POINT_COLUMNS
from steering_core.tables.row_columns import ROW_COLUMNS
from steering_core.tables.text_columns import TEXT_COLUMNS

_NO_PROGRAM = "the method is not a program"
_NO_VALIDATION = "`n_validation_prompts` is 0, or none of them could be steered"


def _feasible(population: str, meaning: str) -> tuple[Column, ...]:
    name = f"feasible_fraction{population}"
    return (
        Column(name, "number", "share", meaning, _NO_PROGRAM),
        *interval_columns(f"feasible{population}_ci", name, "share", _NO_PROGRAM),
    )


PARETO_COLUMNS: tuple[Column, ...] = (
    *POINT_COLUMNS,
    *ROW_COLUMNS,
    *TEXT_COLUMNS,
    *_feasible(
        "",
        "share of test rows and prompts, taken together, that the program could solve: optimal, "
        "or already past the margin; of an adaptive method, at their last tokens",
    ),
    *_feasible("_examples", "the same share of the test rows alone"),
    *_feasible("_prompts", "the same share of the prompts alone"),
    Column(
        "unsolved_positions",
        "number",
        "positions",
        "positions of the texts at which the program had no solution, so that nothing was added",
        "the method is not adaptive",
    ),
    Column(
        "on_frontier",
        "flag",
        "true or false",
        "no other row of the experiment has `kl_mean` as low and `classifier_rate_steered` as "
        "high, one of them strictly better. Both are over prompts, so a row competes that could "
        "steer every prompt, at every position, whatever became of the test rows",
        "`kl_mean` or `classifier_rate_steered` is empty, `feasible_fraction_prompts` is below 1, "
        "or `unsolved_positions` is above 0",
    ),
    Column(
        "frontier_probability",
        "number",
        "share",
        "share of bootstrap resamples of the prompts, the same ones for all rows, in which the row "
        "is on the frontier: `on_frontier` rests on means over few prompts, and near 0.5 another "
        "draw of prompts may as well say the contrary",
        "`on_frontier` is empty",
    ),
    Column(
        "n_validation_texts",
        "number",
        "prompts",
        "validation prompts, which nothing else in this table is about, that were continued",
        "`n_validation_prompts` is 0",
    ),
    Column(
        "validation_classifier_rate",
        "number",
        "share",
        "`classifier_rate_steered` on these",
        _NO_VALIDATION,
    ),
    *interval_columns(
        "validation_classifier_ci", "validation_classifier_rate", "share", _NO_VALIDATION
    ),
    Column(
        "validation_kl_mean",
        "number",
        "nats per token",
        "`kl_mean` on these",
        _NO_VALIDATION,
    ),
    *interval_columns("validation_kl_ci", "validation_kl_mean", "nats per token", _NO_VALIDATION),
    Column(
        "selected",
        "flag",
        "true or false",
        "the strength of its method to quote, selected without a look at what is reported: of the "
        "strengths with a `validation_kl_mean` of at most `selection_kl` (config.yaml), those with "
        "a `validation_classifier_rate` within one standard error of the method's best, and of "
        "those the one with the least `validation_kl_mean`. A strength that could not steer every "
        "validation prompt does not compete, so a method may have none",
        "`n_validation_prompts` is 0",
    ),
    Column(
        "config_sha256",
        "text",
        "digest",
        "first digits of the `config_sha256` in provenance.json, which holds the resolved "
        "configuration of the row",
    ),
    Column(
        "code_sha256",
        "text",
        "digest",
        "first digits of the `code_sha256` in provenance.json, over the code of every stage that "
        "the row comes from, which stands there too",
    ),
    Column("warnings", "text", "text", "what to know before the row is quoted", "nothing to warn"),
)

PARETO_NAMES: tuple[str, ...] = tuple(column.name for column in PARETO_COLUMNS)
PARETO_KEY: tuple[str, ...] = ("seed", "method", "strength_name", "strength")


def validate_pareto(df: pd.DataFrame) -> None:
    """Check that ``df`` is a table as :data:`PARETO_COLUMNS` describes.

    Raises:
        ValueError: as :func:`validate_table`.

    """
    validate_table(df, "pareto", PARETO_COLUMNS, PARETO_KEY)
