"""Clients of the hub that are forks of one process, which has imported the libraries.

The libraries read the address of the hub and the folder of their cache as they are imported. So
all clients ask one proxy and use one HF_HOME: the proxy gets its fault for each client, and the
folder is emptied before it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from faulty_hub import FaultyHub, serving

ROOT = Path(__file__).resolve().parents[2]


class HubClients:
    """The process that is forked, its proxy and its HF_HOME."""

    def __init__(self, process: subprocess.Popen, proxy: FaultyHub, folder: Path):
        self._process, self._folder = process, folder
        self.proxy = proxy
        self.home = folder / "hf"

    def run(self, code: str, *arguments: str) -> SimpleNamespace:
        """Run ``code`` with ``arguments`` and an empty HF_HOME, as ``python -c`` does."""
        shutil.rmtree(self.home, ignore_errors=True)
        out, err = self._folder / "stdout", self._folder / "stderr"
        given = {"code": textwrap.dedent(code), "arguments": arguments}
        self._process.stdin.write(json.dumps({**given, "out": str(out), "err": str(err)}) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return SimpleNamespace(returncode=status, stdout=out.read_text(), stderr=err.read_text())


@contextlib.contextmanager
def hub_clients(upstream: str, *libraries: str, **environment: str) -> Iterator[HubClients]:
    """Clients of the hub at ``upstream`` that have ``libraries`` imported."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(FaultyHub(upstream, "", "", 0)) as proxy,
        subprocess.Popen(
            [sys.executable, __file__, *libraries],
            env={
                **os.environ,
                **{"HF_ENDPOINT": proxy.address, "HF_HOME": f"{folder}/hf"},
                **{"PYTHONPATH": str(ROOT), **environment},
            },
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        yield HubClients(process, proxy, Path(folder))


def _become(code: str, arguments: list[str], out: str, err: str) -> None:
    """Run the code of a client in this process, a fork; what it raises ends the process."""
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<client>", "exec"), {"__name__": "__main__"})


def main() -> None:
    """Import the libraries that are named, then run the client of each line in a fork."""
    for library in sys.argv[1:]:
        __import__(library)
    for line in sys.stdin:
        client = os.fork()
        if not client:
            return _become(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(client, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
