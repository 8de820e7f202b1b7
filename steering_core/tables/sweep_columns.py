"""What every column of ``sweep.csv`` means."""

from steering_core.tables.column import Column

_NO_DIRECTION = "nothing at the layer tells the classes apart, so the probe has no direction"

SWEEP_COLUMNS: tuple[Column, ...] = (
    Column("experiment", "text", "name", "experiment in config.yaml"),
    Column("layer", "number", "index", "transformer block, from 0"),
    Column(
        "accuracy", "number", "share", "mean over folds of a probe's accuracy, on training rows"
    ),
    Column("accuracy_std", "number", "share", "standard deviation of it over folds"),
    Column("accuracy_standard_error", "number", "share", "that over the root of their number"),
    Column(
        "alignment",
        "number",
        "cos²",
        "squared cosine of the probe's direction and the decoder row nearest to it",
        _NO_DIRECTION,
    ),
    Column("aligned_feature", "number", "index", "that decoder row", _NO_DIRECTION),
    Column("regularisation", "number", "C of scikit-learn", "strength chosen by cross-validation"),
    Column("p_value", "number", "probability", "of such accuracy by chance"),
    Column(
        "at_chance", "flag", "true or false", "no better than chance: `p_value` is at least 0.05"
    ),
    Column("n", "number", "rows", "training rows"),
    Column(
        "picked",
        "flag",
        "true or false",
        "the layer that `layer: auto` takes: the highest `alignment` among the layers whose "
        "`accuracy` is within one standard error (that of the most accurate layer) of the highest",
    ),
)
