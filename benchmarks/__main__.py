"""Run every benchmark in turn: ``python -m benchmarks [--quick]``.

Each runs in a process of its own, prints its table, and fails if it misses a ratio; all of them
run whatever the others do.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller models, fewer repeats")
    options = ["--quick"] if parser.parse_args().quick else []
    failed = []
    for file in sorted(Path(__file__).parent.glob("bench_*.py")):
        print(f"\n== {file.stem}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{file.stem}", *options]
        if subprocess.run(command, check=False).returncode:
            failed.append(file.stem)
    if failed:
        print(f"\nFAILED {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
