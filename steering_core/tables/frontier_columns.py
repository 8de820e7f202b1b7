"""What every column of ``frontier.csv`` and ``frontier_knots.csv`` means."""

from steering_core.tables.column import Column

_NONE_SOLVED = "`n_solved` is 0"
_L1, _L0, _NORM = "coefficient on unit-norm decoder rows", "features", "residual norm"

FRONTIER_COLUMNS: tuple[Column, ...] = (
    Column("experiment", "text", "name", "experiment in config.yaml"),
    Column(
        "point",
        "text",
        "name",
        "`curve`: in closed form from the path, where every test row has a solution; `sweep`: "
        "solved by the sweep, whose means are over other rows than the curve's where "
        "`n_infeasible`, `n_inaccurate` or `n_failed` is not 0",
    ),
    Column("program", "text", "name", "`qp` or `socp`"),
    Column("tau", "number", "probe logit", "margin τ that the program asks for"),
    Column(
        "parameter",
        "number",
        "λ: 1 / residual norm; ε: residual norm",
        "λ of the quadratic program, ε of the second-order cone program",
    ),
    Column("l1", "number", _L1, "mean of ‖δ‖₁ over test rows", _NONE_SOLVED),
    Column(
        "l0", "number", _L0, "mean number of features with a non-zero coefficient", _NONE_SOLVED
    ),
    Column("residual_norm", "number", _NORM, "mean of ‖Dᵀδ‖", _NONE_SOLVED),
    Column(
        "objective",
        "number",
        _L1,
        "mean of ‖δ‖₁ + (λ/2)‖Dᵀδ‖², or of ‖δ‖₁ alone (`socp`)",
        _NONE_SOLVED,
    ),
    Column(
        "margin",
        "number",
        "probe logit",
        "mean logit reached: τ, or more where a row is past it without steering",
        _NONE_SOLVED,
    ),
    Column(
        "n_solved",
        "number",
        "rows",
        "test rows with a certified solution; the means are over these",
    ),
    Column("n_satisfied", "number", "rows", "of them, past the margin before: δ = 0"),
    Column(
        "n_infeasible",
        "number",
        "rows",
        "test rows that have no solution: the constraints exclude each other",
    ),
    Column(
        "n_inaccurate",
        "number",
        "rows",
        "test rows whose solution could not be certified to be the optimum",
    ),
    Column("n_failed", "number", "rows", "test rows that float64 does not suffice for"),
)

FRONTIER_KEY: tuple[str, ...] = ("point", "program", "tau", "parameter")

KNOT_COLUMNS: tuple[Column, ...] = (
    Column("experiment", "text", "name", "experiment in config.yaml"),
    Column(
        "position",
        "number",
        "probe logit / residual norm",
        "position s of the knot: λ times the shortfall r for the quadratic program. The first row "
        "is the limit s → 0; the last, if the path is complete, s → ∞",
    ),
    Column(
        "l1",
        "number",
        f"{_L1}, per logit",
        "‖δ‖₁ per unit of shortfall. Between two knots s·l1 is linear in s",
    ),
    Column(
        "residual_norm",
        "number",
        f"{_NORM}, per logit",
        "‖Dᵀδ‖ per unit of shortfall: ε / r for the second-order cone program. Between two knots "
        "(s·residual_norm)² is a quadratic in s",
    ),
    Column("l0", "number", _L0, "number of features with a non-zero coefficient at the knot"),
    Column(
        "l0_after",
        "number",
        _L0,
        "the same between this knot and the next, often one more: at a knot a feature is about "
        "to come in, or has just left",
        "the last row of the table",
    ),
)
