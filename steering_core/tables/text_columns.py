"""The columns of ``pareto.csv`` over prompts: what was added, and what became of the text."""

from steering_core.tables.column import Column, interval_columns

_NO_TEXT = "no prompt could be steered, so there is no text"
_FIRST_EDIT = (
    "Of an adaptive method this is its first edit, at the last prompt token; the edits at later "
    "tokens differ and are not counted"
)

TEXT_COLUMNS: tuple[Column, ...] = (
    Column("n_prompts", "number", "prompts", "prompts to be continued"),
    Column(
        "n_texts",
        "number",
        "prompts",
        "of them, those that had a solution and were continued: the columns from here to "
        "`classifier_ci_high` are over these, before and after alike",
    ),
    Column(
        "prompt_residual_norm_mean",
        "number",
        "residual norm",
        "mean over the prompts that were continued of the norm added at every position steered. "
        + _FIRST_EDIT,
        _NO_TEXT,
    ),
    *interval_columns(
        "prompt_residual_norm_ci", "prompt_residual_norm_mean", "residual norm", _NO_TEXT
    ),
    Column(
        "prompt_l0_mean",
        "number",
        "features",
        f"mean number of features with a non-zero coefficient there. {_FIRST_EDIT}",
        f"the method adds a direction that is not made of SAE features, or {_NO_TEXT}",
    ),
    *interval_columns(
        "prompt_l0_ci",
        "prompt_l0_mean",
        "features",
        f"the method adds a direction that is not made of SAE features, or {_NO_TEXT}",
    ),
    Column(
        "kl_mean",
        "number",
        "nats per token",
        "mean over these prompts of the mean KL(steered ‖ base) of the next-token distributions "
        "over the generated tokens",
        _NO_TEXT,
    ),
    *interval_columns("kl_ci", "kl_mean", "nats per token", _NO_TEXT),
    Column(
        "perplexity_base",
        "number",
        "perplexity",
        "perplexity under the unsteered model of the texts generated without steering from these "
        "prompts. From all of them it stands in the row `no_steering`",
        _NO_TEXT,
    ),
    *interval_columns("perplexity_base_ci", "perplexity_base", "perplexity", _NO_TEXT),
    Column(
        "perplexity_steered",
        "number",
        "perplexity",
        "perplexity under the unsteered model of the texts generated with steering",
        _NO_TEXT,
    ),
    *interval_columns("perplexity_ci", "perplexity_steered", "perplexity", _NO_TEXT),
    Column(
        "classifier_rate_base",
        "number",
        "share",
        "share of the unsteered completions of these prompts (without the prompts themselves) that "
        "the judge assigns to the target class: the downstream classifier, the demo's lexicon, or, "
        "where a task has neither, the evaluation probe (the row's warnings say so). A completion "
        "without a word is in no class. Of all prompts it stands in the row `no_steering`",
        _NO_TEXT,
    ),
    *interval_columns("classifier_base_ci", "classifier_rate_base", "share", _NO_TEXT),
    Column("classifier_rate_steered", "number", "share", "the same share, steered", _NO_TEXT),
    *interval_columns("classifier_ci", "classifier_rate_steered", "share", _NO_TEXT),
)
