"""Read JSON with errors that name the file."""

import json
from pathlib import Path
from typing import Any

from steering_core.errors import StorageError


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        StorageError: if it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StorageError(f"{path} does not exist: run the stage that writes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} is damaged: delete it and run again.") from error
