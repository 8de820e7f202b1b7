"""Run every benchmark in turn: ``python -m benchmarks [--tiny | --quick | --full]``.

Each benchmark runs in its own process, prints its table and writes ``results/benchmarks/*.csv``. It
fails if it misses a ratio or takes longer than ``--limit``. All benchmarks run even if some fail.
``python -m benchmarks.render`` then puts the required ratios into the README.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

#: Benchmarks that can use a model of Gemma-2-2B's shape.
FULL = ("bench_caching", "bench_floor", "bench_generation")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tiny", action="store_true", help="in seconds each; nothing is judged")
    size.add_argument("--quick", action="store_true", help="smaller models, fewer repeats")
    size.add_argument("--full", action="store_true", help="Gemma-2-2B's shape where there is one")
    parser.add_argument("--limit", type=float, help="seconds for each; 900 unless --full")
    given = parser.parse_args()
    limit = given.limit or (None if given.full else 900.0)
    failed = []
    for file in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"\n== {file.stem}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{file.stem}"]
        if given.tiny or given.quick:
            command.append("--tiny" if given.tiny else "--quick")
        elif given.full and file.stem in FULL:
            command.append("--full")
        start = time.monotonic()
        try:
            missed = subprocess.run(command, check=False, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            print(f"stopped after {limit:g} s", file=sys.stderr)
            missed = 1
        print(f"{file.stem} took {time.monotonic() - start:.0f} s", flush=True)
        if missed:
            failed.append(file.stem)
    if failed:
        print(f"\nFAILED {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
