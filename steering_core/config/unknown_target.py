"""What a file that no rule makes could have been meant for."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Any, NoReturn

from steering_core.config.corrsteer_resolve import find_corrsteer
from steering_core.config.resolve import resolve
from steering_core.errors import ConfigError


def files_made(
    patterns: Iterable[str], values: Mapping[str, Collection[str]]
) -> dict[str, list[str]]:
    """Return the files directly in each experiment's folder that rules make.

    Args:
        patterns: outputs of all rules, ``results/{experiment}/{file}`` and deeper ones.
        values: of the wildcards.

    """
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        names = re.findall(r"{(\w+)}", pattern)
        if pattern.count("/") != 2 or not set(names) <= set(values):
            continue
        for chosen in product(*(values[name] for name in names)):
            file = pattern.format(**dict(zip(names, chosen, strict=True)))
            found.setdefault(file.split("/")[1], []).append(file)
    return found


def refuse_target(
    target: str, raw: dict[str, Any], made: Mapping[str, Collection[str]]
) -> NoReturn:
    """Refuse to make ``results/{experiment}/{file}``, and name what there is instead.

    Args:
        target: the file.
        raw: the configuration.
        made: as :func:`files_made` returns it.

    Raises:
        ConfigError: always.

    """
    _, name, file = target.split("/")
    if name not in made:
        # Each knows its own experiments, and which of them has the nearest name.
        (find_corrsteer if file.startswith("corrsteer") else resolve)(raw, name)
    names = sorted(path.split("/")[2] for path in made[name])
    close = difflib.get_close_matches(file, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
    raise ConfigError(f"no rule makes {file} of {name}: {hint}")
