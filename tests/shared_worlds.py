"""Finished runs that tests in several files read: each is made once, whichever worker needs it."""

import fcntl
import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

#: Names the folder of all of them; the process that starts the workers sets and removes it.
FOLDER = "STEERING_TEST_WORLDS"


def made_once(make: Callable[[Path], Path]) -> Callable[[], Path]:
    """Turn ``make``, which fills an empty folder, into a function without arguments.

    ``make`` is given a folder that no test has used, and returns the folder in it that tests read.
    Its first call among all workers makes the world, and those beside it wait. No test may change
    what is there: it works on a copy.
    """

    @functools.cache
    def world() -> Path:
        place = Path(os.environ[FOLDER]) / make.__name__
        said = place.with_suffix(".made")
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not said.exists():
                shutil.rmtree(place, ignore_errors=True)  # of a worker that failed
                place.mkdir()
                said.write_text(str(make(place)))
        return Path(said.read_text())

    return world
