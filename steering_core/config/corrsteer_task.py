"""A task of a CorrSteer experiment, apart from the settings: fetching depends on it alone."""

from pydantic import Field

from steering_core.config.closed import Closed, Name


class CorrSteerTask(Closed):
    """A registered task, perhaps with other rows than the published ones.

    With ``paired: false`` it stands only in the experiments that name it.
    """

    paired: bool = True
    task: Name
    dataset: str | None = None
    subsets: list[str] | None = None
    revision: str = "main"
    settings: dict = Field(default={})
