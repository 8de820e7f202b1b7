"""What every column of ``pareto.csv`` means, and a check that a table keeps to it."""

import pandas as pd

from steering_core.tables.column import Column, describe, interval_columns, validate_table

_UNSOLVED = "the program is infeasible for every test row"
_NO_FEATURES = f"the method does not act through SAE features, or {_UNSOLVED}"
_NO_TEXT = "no prompt could be steered, so there is no text"
_NO_VALIDATION = "`n_validation_prompts` is 0, or none of them could be steered"
_NO_CANDIDATE = "no test row starts outside the target class"

PARETO_COLUMNS: tuple[Column, ...] = (
    Column("experiment", "text", "name", "experiment in config.yaml"),
    Column("model", "text", "hub id or path", "language model that is steered"),
    Column("task", "text", "name", "labelled dataset that defines the concept"),
    Column(
        "layer",
        "number",
        "index",
        "transformer block, from 0, whose residual stream is steered: at its output, or at its "
        "input where the SAE sits there",
    ),
    Column(
        "method",
        "text",
        "name",
        "steering method. `qp_optimal` and `convex_optimal` solve their program once for each "
        "input, at its last prompt token; `qp_adaptive` and `socp_adaptive` anew at every position "
        "that is steered; `qp_shared` and `socp_shared` once for all, for the validation row "
        "outside the target class that is furthest from the margin",
    ),
    Column(
        "strength_name",
        "text",
        "name",
        "what `strength` varies: `alpha` for vectors of one direction, a parameter of the program "
        "for the programs",
    ),
    Column(
        "strength",
        "number",
        "see strength_name",
        "value of the strength; `alpha` is in units of the mean residual norm at the site, a "
        "program's parameters are its own and nothing is multiplied afterwards",
    ),
    Column(
        "tau",
        "number",
        "probe logit",
        "margin τ the program asks for: w·(h + Dᵀδ) + b ≥ τ for the target class",
        "the method is not a program",
    ),
    Column(
        "lam",
        "number",
        "1 / residual norm",
        "weight λ of ½‖Dᵀδ‖² against 1ᵀδ in the quadratic program",
        "the method is not the quadratic program",
    ),
    Column(
        "epsilon",
        "number",
        "residual norm",
        "budget ε of the second-order cone program: ‖Dᵀδ‖ ≤ ε",
        "the method is not the second-order cone program",
    ),
    Column("n_examples", "number", "rows", "test rows the probe scores and flip rates are over"),
    Column("n_prompts", "number", "prompts", "prompts to be continued"),
    Column(
        "residual_norm_mean",
        "number",
        "residual norm",
        "mean over test rows of ‖Dᵀδ‖, or of the norm of the vector added. A test row has one "
        "position, its last token: there, and so in every column over test rows, an adaptive "
        "method equals the one that is solved once; the columns of texts are of the adaptive edit",
        _UNSOLVED,
    ),
    *interval_columns("residual_norm_ci", "residual_norm_mean", "residual norm", _UNSOLVED),
    Column(
        "l0_mean",
        "number",
        "features",
        "mean number of features with a non-zero coefficient",
        _NO_FEATURES,
    ),
    *interval_columns("l0_ci", "l0_mean", "features", _NO_FEATURES),
    Column(
        "l1_mean",
        "number",
        "coefficient on unit-norm decoder rows",
        "mean sum of absolute coefficients, each times the norm of its decoder row",
        _NO_FEATURES,
    ),
    *interval_columns("l1_ci", "l1_mean", "coefficient on unit-norm decoder rows", _NO_FEATURES),
    Column(
        "probe_score_base",
        "number",
        "probe logit",
        "mean logit of the fitted probe on test rows, oriented to the target class, unsteered",
    ),
    Column("probe_score_steered", "number", "probe logit", "the same, steered", _UNSOLVED),
    *interval_columns("probe_score_ci", "probe_score_steered", "probe logit", _UNSOLVED),
    Column(
        "eval_probe_score_base",
        "number",
        "probe logit",
        "mean logit of the independent evaluation probe, fitted on its own split that no method "
        "sees, oriented to the target class, on test rows, unsteered",
    ),
    Column("eval_probe_score_steered", "number", "probe logit", "the same, steered", _UNSOLVED),
    *interval_columns("eval_probe_score_ci", "eval_probe_score_steered", "probe logit", _UNSOLVED),
    Column(
        "flip_rate",
        "number",
        "share",
        "share of the test rows outside the target class before that are inside it after "
        "(margin 0), by the fitted probe: what the programs enforce, so no evidence for them",
        _NO_CANDIDATE,
    ),
    *interval_columns("flip_ci", "flip_rate", "share", _NO_CANDIDATE),
    Column(
        "eval_flip_rate",
        "number",
        "share",
        "the same share by the independent evaluation probe",
        "no test row starts outside the target class by that probe",
    ),
    *interval_columns("eval_flip_ci", "eval_flip_rate", "share", "as `eval_flip_rate`"),
    Column(
        "kl_mean",
        "number",
        "nats per token",
        "mean over prompts of the mean KL(steered ‖ base) of the next-token distributions over "
        "the generated tokens",
        _NO_TEXT,
    ),
    *interval_columns("kl_ci", "kl_mean", "nats per token", _NO_TEXT),
    Column(
        "perplexity_base",
        "number",
        "perplexity",
        "perplexity under the unsteered model of the text generated without steering",
        _NO_TEXT,
    ),
    Column(
        "perplexity_steered",
        "number",
        "perplexity",
        "perplexity under the unsteered model of the text generated with steering",
        _NO_TEXT,
    ),
    *interval_columns("perplexity_ci", "perplexity_steered", "perplexity", _NO_TEXT),
    Column(
        "classifier_rate_base",
        "number",
        "share",
        "share of the unsteered completions (without their prompts) that the judge assigns to the "
        "target class: the downstream classifier, the demo's lexicon, or, where a task has "
        "neither, the evaluation probe (the row's warnings say so)",
    ),
    Column("classifier_rate_steered", "number", "share", "the same share, steered", _NO_TEXT),
    *interval_columns("classifier_ci", "classifier_rate_steered", "share", _NO_TEXT),
    Column(
        "feasible_fraction",
        "number",
        "share",
        "share of test rows and prompts the program could solve: optimal, or already past the "
        "margin; of an adaptive method, at their last tokens (positions of the texts that had no "
        "solution are counted in `warnings`)",
        "the method is not a program",
    ),
    Column(
        "on_frontier",
        "flag",
        "true or false",
        "no other row of the experiment has `kl_mean` as low and `classifier_rate_steered` as "
        "high, one of them strictly better",
        "`kl_mean` or `classifier_rate_steered` is empty, or some input or position could not "
        "be steered",
    ),
    Column(
        "validation_classifier_rate",
        "number",
        "share",
        "`classifier_rate_steered` on the validation prompts, which nothing else in this table is "
        "about",
        _NO_VALIDATION,
    ),
    Column(
        "validation_kl_mean",
        "number",
        "nats per token",
        "`kl_mean` on the validation prompts",
        _NO_VALIDATION,
    ),
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
    Column("warnings", "text", "text", "what to know before the row is quoted", "nothing to warn"),
)

PARETO_NAMES: tuple[str, ...] = tuple(column.name for column in PARETO_COLUMNS)
PARETO_KEY: tuple[str, ...] = ("method", "strength_name", "strength")


def validate_pareto(df: pd.DataFrame) -> None:
    """Check that ``df`` is a table as :data:`PARETO_COLUMNS` describes.

    Raises:
        ValueError: as :func:`validate_table`.

    """
    validate_table(df, "pareto", PARETO_COLUMNS, PARETO_KEY)


def describe_columns() -> str:
    """Render the columns as a Markdown table: column, unit, meaning, empty when."""
    return describe(PARETO_COLUMNS)
