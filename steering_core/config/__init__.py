"""What an experiment is: a closed schema with defaults, and how the layers of settings combine."""

from steering_core.config.resolve import load_config, resolve
from steering_core.config.schema import Experiment

__all__ = ["Experiment", "load_config", "resolve"]
