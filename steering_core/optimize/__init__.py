"""Sparsest interventions that move a probe past its margin: exact, certified, for every input.

With one probe constraint and ``δ ≥ 0``, ``path`` solves every program for all inputs at once;
``lookup`` is the path as a table on the model's device, ``frontier`` its trade-offs. Programs with
several constraints, or with limits for each input, are solved in ``working_set``; ``guarded`` uses
the path if its solution satisfies the guards, and the working set otherwise.
"""

from steering_core.optimize.path import PathRangeError, SteeringPath
from steering_core.optimize.solution import Solutions
from steering_core.optimize.substitution import Substitution, substitute

__all__ = ["PathRangeError", "Solutions", "SteeringPath", "Substitution", "substitute"]
