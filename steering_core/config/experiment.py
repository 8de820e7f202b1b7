"""What an experiment is once its settings are resolved."""

from dataclasses import dataclass

from steering_core.config.model import Model
from steering_core.config.settings import Settings
from steering_core.config.task import Task


@dataclass(frozen=True)
class Experiment:
    """A resolved experiment."""

    name: str
    model_name: str
    task_name: str
    model: Model
    task: Task
    settings: Settings
