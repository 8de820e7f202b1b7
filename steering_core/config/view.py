"""The settings one stage was given, and no others."""

from typing import Any


class SettingsView:
    """Read-only settings. Reading one that the rule does not pass is an error, not a default.

    A stage reruns when a setting in its parameters changes; a setting read past them would go
    unnoticed.
    """

    def __init__(self, values: dict[str, Any]):
        self.__dict__["_values"] = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(
                f"the rule does not pass the setting {name!r} to this stage"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("settings are read-only")
