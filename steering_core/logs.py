"""Log files of jobs."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steering_core.errors import SteeringError

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Send log records and warnings of this process to ``path`` and to standard error.

    An exception is logged before it is raised: an error of the user's input as its message alone,
    anything else with its traceback.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handlers = [logging.FileHandler(path, mode="w", encoding="utf-8"), logging.StreamHandler()]
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
    logging.captureWarnings(True)
    for noisy in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "fsspec",
        "filelock",
        "urllib3",
        "root.tl",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            yield
    except SteeringError as error:
        root.error("%s", error)
        sys.exit(1)  # the message is the whole story; a traceback would bury it
    except Exception:
        root.exception("the job failed")
        raise
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
