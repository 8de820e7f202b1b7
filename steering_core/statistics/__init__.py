"""Statistics of features against labels, accumulated in one pass."""

from steering_core.statistics.correlation import StreamingCorrelation
from steering_core.statistics.moments import CorrelationResult

__all__ = ["CorrelationResult", "StreamingCorrelation"]
