"""The strengths at which each method is run."""

from steering_core.config.settings import Settings
from steering_core.methods.fixed_solutions import fixed_grid
from steering_core.methods.grid_point import GridPoint
from steering_core.methods.modes import is_program, program_of
from steering_core.methods.optimal import ConvexOptimalSteering, OptimalSteering, QPOptimalSteering


def grid(method: str, settings: Settings) -> list[GridPoint]:
    """Return every strength of ``method``, in the order of the configuration."""
    if not is_program(method):
        return fixed_grid(method, settings)
    points = []
    for tau, lam, epsilon in _programs(method, settings):
        program = make_program(method, tau, lam, epsilon)
        strength = tau if epsilon is None else epsilon
        points.append(
            GridPoint(method, len(points), program.strength_name, strength, tau, lam, epsilon)
        )
    return points


def make_program(
    method: str, tau: float, lam: float | None, epsilon: float | None
) -> OptimalSteering:
    """Return the program of a grid point."""
    if is_program(method) and program_of(method) == "qp" and lam is not None:
        return QPOptimalSteering(qp_lambda=lam, tau=tau)
    if is_program(method) and program_of(method) == "socp" and epsilon is not None:
        return ConvexOptimalSteering(epsilon=epsilon, tau=tau)
    raise ValueError(f"method: {method} is not a program, or its parameter is missing")


def _programs(method: str, settings: Settings) -> list[tuple[float, float | None, float | None]]:
    if program_of(method) == "qp":
        return [(tau, lam, None) for lam in settings.qp_lambda for tau in settings.qp_tau]
    return [(tau, None, eps) for tau in settings.socp_tau for eps in settings.socp_epsilon]
