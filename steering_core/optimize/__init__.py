"""Sparsest interventions that move a probe past its margin: exact, certified, for every input.

One probe constraint: ``path`` (all inputs and parameters at once), ``lookup`` (the path as a
table on the model's device), ``frontier``. Several constraints or limits: ``working_set`` with
``limits`` and ``subspace``; ``variants`` puts them side by side. ``reference`` is the textbook
formulation.
"""

from steering_core.optimize.path import PathRangeError, SteeringPath
from steering_core.optimize.solution import Solutions

__all__ = ["PathRangeError", "Solutions", "SteeringPath"]
