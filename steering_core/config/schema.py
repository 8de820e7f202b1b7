"""The closed schema of ``config.yaml``. A key that is not here is an error."""

from typing import Annotated

from pydantic import Field

from steering_core.config.closed import Closed, Count, Name
from steering_core.config.model import Model
from steering_core.config.task import Task


class ExperimentEntry(Closed):
    """A model and a task, by their names, with settings of their own."""

    model: Name
    task: Name
    settings: dict = {}


class DemoWorld(Closed):
    """Sizes of the world that the demo writes and trains for itself."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    documents: Count = 30000
    labelled: Count = 1000
    d_model: Count = 64
    n_layers: Count = 4
    training_steps: Count = 1000
    d_sae: Count = 96
    sae_samples: Count = 120000


class Config(Closed):
    """The whole of ``config.yaml`` without the settings given at top level."""

    settings: dict = {}
    models: dict[Name, Model]
    tasks: dict[Name, Task]
    experiments: dict[Name, ExperimentEntry]
    demo_world: DemoWorld = DemoWorld()
    corrsteer: dict = {}  # its schema is in config/corrsteer.py
