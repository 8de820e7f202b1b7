"""The size of a benchmark, from the command line, and work in a process of its own.

Apart from :mod:`benchmarks.common`: a process whose memory is measured need not load models.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def size_parser(doc: str) -> tuple[argparse.ArgumentParser, argparse._MutuallyExclusiveGroup]:
    """Return a parser of ``size``, one of ``small``, ``quick`` and ``tiny``, and its group."""
    parser = argparse.ArgumentParser(description=doc)
    parser.set_defaults(size="small")
    group = parser.add_mutually_exclusive_group()
    for size, what in (
        ("quick", "smaller, and fewer repeats"),
        ("tiny", "in seconds, to see that it runs to its end; nothing is judged"),
    ):
        group.add_argument(f"--{size}", dest="size", action="store_const", const=size, help=what)
    return parser, group


def chosen_size(doc: str) -> str:
    """Parse ``--tiny`` and ``--quick`` for a benchmark without a large model."""
    return size_parser(doc)[0].parse_args().size


def scaled(n: int, size: str) -> int:
    """Return ``n`` rows, texts or tokens; at the size ``tiny`` a sixteenth of them, at least 4."""
    return max(n // 16, 4) if size == "tiny" else n


def alone(run: Callable[..., float], *given: object) -> float:
    """Return ``run(*given)`` from a new process, so that its peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run, *given).result()
