"""Results as people meet them: the columns of ``pareto.csv``, pictures and pages."""

from steering_core.tables.charts import save_chart
from steering_core.tables.columns import PARETO_COLUMNS, describe_columns, validate_pareto
from steering_core.tables.figures import pareto_figure, sweep_figure
from steering_core.tables.frontier import frontier_flags, non_dominated
from steering_core.tables.pages import features_page, generations_page, neuronpedia_url
from steering_core.tables.program_figure import frontier_figure

__all__ = [
    "PARETO_COLUMNS",
    "describe_columns",
    "features_page",
    "frontier_figure",
    "frontier_flags",
    "generations_page",
    "neuronpedia_url",
    "non_dominated",
    "pareto_figure",
    "save_chart",
    "sweep_figure",
    "validate_pareto",
]
