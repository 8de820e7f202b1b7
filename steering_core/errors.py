"""Errors whose message tells the user what to change."""

from collections.abc import Iterable
from typing import Self


class SteeringError(Exception):
    """Base of every error this package raises about the user's input or environment.

    Attributes:
        problems: the faults that the message lists, each in words of its own. Empty if the message
            is about one fault.
    """

    problems: tuple[str, ...] = ()

    def of(self, problems: Iterable[str]) -> Self:
        """Return this error with the faults that its message lists."""
        self.problems = tuple(problems)
        return self


class ConfigError(SteeringError):
    """A configuration value is missing, unknown or does not fit the others."""


class DataError(SteeringError):
    """A dataset, text or label does not have the form a stage needs."""


class ModelError(SteeringError):
    """A model or SAE cannot be loaded, or the two do not fit each other."""


class StorageError(SteeringError):
    """A stored file is missing, damaged or belongs to another configuration."""


class ResourceError(SteeringError):
    """Memory or disk ran out, or a directory cannot be written."""


def clipped(text: str, longest: int = 80) -> str:
    """Return ``text`` quoted for a message, its end left out where it is long."""
    return repr(text) if len(text) <= longest else f"{text[:longest]!r}… ({len(text)} characters)"
