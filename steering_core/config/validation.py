"""Check a section of the configuration, or a small file of the user, against its schema."""

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from steering_core.errors import ConfigError


def validated(schema: type[BaseModel], value: Any, where: str, also: Iterable[str] = ()) -> Any:
    """Return ``value`` as an object of ``schema``.

    Args:
        schema: the schema of the section.
        value: the section as it was read.
        where: the name of the section in the message.
        also: further keys to suggest for a misspelt one. They are valid elsewhere.

    Raises:
        ConfigError: naming each key that is missing, unknown or has a wrong value. It suggests the
            nearest known key for an unknown one, and describes a missing one.

    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        problems = error.errors()
    found: dict[str, list[str]] = {}
    misspelt: set[tuple[tuple[int | str, ...], str]] = set()
    for problem in problems:
        location = problem["loc"]
        if problem["type"] == "extra_forbidden":
            known = [*_fields_at(schema, location[:-1]), *(also if len(location) == 1 else ())]
            misspelt.update((location[:-1], name) for name in _close(str(location[-1]), known))
    for problem in problems:
        location = problem["loc"]
        if problem["type"] == "missing" and (location[:-1], location[-1]) in misspelt:
            continue  # reported once, with the misspelt key
        known = [*_fields_at(schema, location[:-1]), *(also if len(location) == 1 else ())]
        message = _message(schema, problem, known, _beside(location, value))
        found.setdefault(_path(location, value), []).append(message)
    # A key that takes one of several types has a problem for each type.
    lines = [f"{path}: {', or '.join(m)}".removeprefix(": ") for path, m in found.items()]
    message = f"in {where}: " + "; ".join(lines)
    raise ConfigError(message).of(f"in {where}: {line}" for line in lines)


def read_validated(schema: type[BaseModel], path: str | Path, where: str) -> Any:
    """Return a YAML or JSON file of the user as an object of ``schema``.

    Args:
        schema: the schema of the file.
        path: the file. A name that ends in ``.json`` is read as JSON, any other as YAML.
        where: the role of the file in the message.

    Raises:
        ConfigError: if the file does not exist, cannot be read, or does not fit ``schema``.

    """
    if not Path(path).is_file():
        raise ConfigError(f"{where}: there is no file {path}")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} file {path} is not UTF-8: {error}") from error
    try:
        value = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where} file {path} is not JSON: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} file {path} is not YAML: {_in_one_line(error)}") from error
    if not isinstance(value, dict):
        needed = ", ".join(name for name, f in schema.model_fields.items() if f.is_required())
        raise ConfigError(
            f"{where} file {path} must hold keys with values, not {_kind(value)}. Needed are "
            f"{needed}."
        )
    return validated(schema, value, f"the {where} file {path}")


#: Keys of earlier versions and their names now.
_RENAMED = {"bridge": "sparse_methods", "weight": "qp_lambda"}
#: Keys of earlier versions that stand elsewhere now, with the section.
_MOVED = {
    ("demo_world", "d_sae"): "models.demo.sae.train.d_sae",
    ("demo_world", "sae_samples"): "models.demo.sae.train.tokens",
}


def hint(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` with the nearest of ``known``; empty if none is near.

    A key of an earlier version is answered with its new name.
    """
    known = [str(one) for one in known]
    if _RENAMED.get(name) in known:
        return f" (it is called {_RENAMED[name]!r} now)"
    close = _close(name, known)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _close(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, [str(one) for one in known], n=1)


def _beside(location: tuple[int | str, ...], value: Any) -> list[str]:
    """Return the other keys with a value in the mapping that contains ``location``."""
    for part in location[:-1]:
        try:
            value = value[part]
        except (LookupError, TypeError):  # pydantic's name for one of several types
            return []
    if not location or not isinstance(value, dict):
        return []
    return [str(key) for key, held in value.items() if key != location[-1] and held is not None]


def _message(schema: type[BaseModel], problem: Any, known: list[str], beside: list[str]) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        if problem["loc"] in _MOVED:
            return f"unknown key (it is {_MOVED[problem['loc']]} now)"
        return f"unknown key{hint(str(problem['loc'][-1]), known)}"
    if kind == "missing":
        field = _fields_at(schema, problem["loc"][:-1]).get(str(problem["loc"][-1]))
        about = field.description if field is not None else None
        return "is missing" + (f": {about}" if about else "")
    if kind == "model_type":
        near = hint(str(problem["loc"][-1]), beside) if problem["loc"] and value is None else ""
        return f"must have keys of its own, not {_kind(value)}{near}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(value, str | int | float):
        message += f" (got {value!r})"
    elif value is None:
        message += " (got null)"
    if kind == "literal_error":
        message += hint(str(value), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    if kind == "string_type" and isinstance(value, bool | int | float):
        message += ": put it in quotes"
    return message


def _in_one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
    return " ".join(str(getattr(error, "problem", None) or error).split()) + place


def _kind(value: Any) -> str:
    return {"NoneType": "null", "list": "a list", "str": "a text"}.get(
        type(value).__name__, f"{value!r}"
    )


def _path(loc: tuple[int | str, ...], value: Any) -> str:
    """Return the path of a problem, without pydantic's names for the types of a value."""
    found = []
    for part in loc:
        if not isinstance(value, dict) and not (isinstance(value, list) and isinstance(part, int)):
            continue
        found.append(str(part))
        value = value[part] if isinstance(value, list) else value.get(part)
    return ".".join(found)


def _fields_at(schema: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, Any]:
    """Return the fields of the section at ``location``; none if there is no section."""
    current: Any = schema
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:  # of a dictionary or a list
            arguments = get_args(current)
            current = arguments[-1] if arguments else None
        if get_origin(current) in (Union, UnionType):
            options = [option for option in get_args(current) if option is not type(None)]
            current = options[0] if len(options) == 1 else None
    if isinstance(current, type) and issubclass(current, BaseModel):
        return dict(current.model_fields)
    return {}
