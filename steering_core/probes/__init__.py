"""Linear probes of a concept in the residual stream, and the choice of a layer by them."""

from steering_core.probes.fit import ProbeReport, evaluate_probe, fit_probe
from steering_core.probes.layer_sweep import best_alignment, pick_layer, sweep_layer
from steering_core.probes.linear_probe import LinearProbe

__all__ = [
    "LinearProbe",
    "ProbeReport",
    "best_alignment",
    "evaluate_probe",
    "fit_probe",
    "pick_layer",
    "sweep_layer",
]
