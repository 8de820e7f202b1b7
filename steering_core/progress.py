"""Progress of long loops: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
log = logging.getLogger(__name__)


def progress(
    items: Iterable[T], what: str, *, total: int | None = None, every_s: float = 20.0
) -> Iterator[T]:
    """Yield ``items``, showing how far the loop is.

    On a terminal this is a tqdm bar; otherwise a line is logged at most each ``every_s`` seconds.
    ``total`` is how many there are, if ``items`` cannot tell.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, total=total, leave=False)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            log.info("%s: %d of %s", what, done, total if total is not None else "?")


@contextmanager
def counter(
    total: int, what: str, *, unit: str = "", every_s: float = 20.0
) -> Iterator[Callable[[int], Any]]:
    """Yield a function to be told how many more are done; shows it as :func:`progress` does.

    With a ``unit``, such as ``tokens``, a line also has how many are done in a second, and the time
    that the rest takes at this speed.
    """
    if sys.stderr.isatty():
        with tqdm(desc=what, total=total, leave=False, unit=unit or "it") as bar:
            yield bar.update
        return
    done, begin = 0, time.monotonic()
    last = begin

    def tick(more: int) -> None:
        nonlocal done, last
        done += more
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            if not unit:
                log.info("%s: %d of %d", what, done, total)
                return
            speed = done / max(now - begin, 1e-9)
            left = max(total - done, 0) / speed if speed else float("inf")
            log.info(
                "%s: %d of %d %s, %.0f a second, %.0f s left", what, done, total, unit, speed, left
            )

    yield tick
