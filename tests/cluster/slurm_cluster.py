"""A SLURM of two nodes on this machine, in a scratch directory, for the length of a test."""

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from processes import children, kill_all, started_as

DAEMONS = ("munged", "slurmctld", "slurmd")
CLIENTS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
# The job-step plugin strips SLURM_CONF from the environment, so clients look here.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
# Below those that Linux gives to whoever asks for any, as the servers of other tests do: none of
# them takes one before the daemons do.
_PORTS = range(21_000, 32_000)

_TEMPLATE = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={scratch}/munge.socket
CredType=cred/munge
StateSaveLocation={scratch}/state
SlurmdSpoolDir={scratch}/spool-%n
SlurmctldPidFile={scratch}/slurmctld.pid
SlurmdPidFile={scratch}/slurmd-%n.pid
SlurmctldLogFile={scratch}/slurmctld.log
SlurmdLogFile={scratch}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=0
KillWait=3
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=3600
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=64000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=64000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=500
"""


def skip_without_slurm() -> None:
    """Skip the test, saying why, where SLURM cannot be started."""
    search = os.environ["PATH"] + ":/usr/sbin:/sbin"
    absent = [name for name in (*DAEMONS, *CLIENTS) if shutil.which(name, path=search) is None]
    if absent:
        pytest.skip(
            f"{', '.join(absent)} not found: apt-get install slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons switch users: only root can start them")
    if CONFIGURATION.exists() and not _left_over():
        pytest.skip(f"{CONFIGURATION} exists: this machine belongs to a cluster, left alone")


def _left_over() -> bool:
    """Whether the configuration is a link that a killed test left: its controller is gone."""
    if not CONFIGURATION.is_symlink() or "ClusterName=test\n" not in CONFIGURATION.read_text():
        return False
    try:
        controller = (CONFIGURATION.resolve().parent / "slurmctld.pid").read_text().strip()
    except FileNotFoundError:  # removed when it ended
        return True
    return not Path("/proc", controller).exists()


class Nodes:
    """The two nodes: daemons that can be killed and started again."""

    def __init__(self, configuration: Path):
        self._configuration = configuration
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self, node: str) -> None:
        """Start the daemon of ``node``."""
        given = ("-f", str(self._configuration), "-N", node)
        self.daemons[node] = _daemon("slurmd", "-D", *given)

    def kill(self, node: str) -> None:
        """SIGKILL to the daemon of ``node`` and to all that its jobs run, as a crash does."""
        jobs = [job for job, where, _ in running() if where == node]
        steps = [step for job in jobs for step in started_as(f"slurmstepd: [{job}.".encode())]
        below = [process for step in steps for process in children(step)]
        kill_all([self.daemons[node].pid, *steps, *below])
        self.daemons[node].wait()


@contextmanager
def slurm(scratch: Path) -> Iterator[Nodes]:
    """Start munge, the controller and two nodes; stop and remove all of them at the end."""
    started: list[subprocess.Popen] = []
    nodes = Nodes(scratch / "slurm.conf")
    made = None if CONFIGURATION.parent.exists() else CONFIGURATION.parent
    try:
        for folder in ("state", "spool-n1", "spool-n2"):
            (scratch / folder).mkdir(parents=True)
        scratch.chmod(0o755)
        key = scratch / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        (scratch / "slurm.conf").write_text(_configuration(scratch))
        CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
        CONFIGURATION.unlink(missing_ok=True)  # a dangling link of a killed test
        CONFIGURATION.symlink_to(scratch / "slurm.conf")
        started.append(_munge(scratch, key))
        wait_for((scratch / "munge.socket").exists, "munged", 120)
        started.append(_daemon("slurmctld", "-D", "-f", str(scratch / "slurm.conf")))
        for node in ("n1", "n2"):
            nodes.start(node)
        wait_for(lambda: states() == ["idle", "idle"], "two idle nodes", 300)
        yield nodes
    finally:
        with suppress(OSError, subprocess.SubprocessError):
            client("scancel", "--user=root", "--signal=KILL")
        daemons = [*nodes.daemons.values(), *reversed(started)]
        for process in daemons:
            process.terminate()
        for process in daemons:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        if CONFIGURATION.is_symlink():
            CONFIGURATION.unlink()
        if made is not None:
            with suppress(OSError):
                made.rmdir()


def client(*command: str) -> str:
    """Run a SLURM client and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


def states() -> list[str]:
    """States of the nodes, in order."""
    return client("sinfo", "--noheader", "--Node", "--format=%t").split()


def running() -> list[tuple[str, str, str]]:
    """(job, node, comment) of the running jobs; Snakemake's comment holds the rule."""
    lines = client("squeue", "--noheader", "--states=RUNNING", "--format=%i|%N|%k").splitlines()
    return [tuple(line.strip().split("|", 2)) for line in lines if line.count("|") >= 2]


def pending() -> list[str]:
    """The jobs that wait."""
    return client("squeue", "--noheader", "--states=PENDING", "--format=%i").split()


def wait_for(condition: Callable[[], object], what: str, seconds: float):
    """Wait until ``condition`` gives something true and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds} s for {what}")


def _configuration(scratch: Path) -> str:
    port, first, second = itertools.islice(filter(_is_free, _PORTS), 3)
    host = socket.gethostname().split(".")[0]
    return _TEMPLATE.format(scratch=scratch, host=host, port=port, first=first, second=second)


def _is_free(port: int) -> bool:
    with socket.socket() as listener, suppress(OSError):
        listener.bind(("", port))
        return True
    return False


def _munge(scratch: Path, key: Path) -> subprocess.Popen:
    return _daemon(
        *("munged", "--foreground", "--force", f"--key-file={key}"),
        *(f"--socket={scratch}/munge.socket", f"--pid-file={scratch}/munged.pid"),
        *(f"--log-file={scratch}/munged.log", f"--seed-file={scratch}/munged.seed"),
    )


def _daemon(*command: str) -> subprocess.Popen:
    program = shutil.which(command[0], path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return subprocess.Popen(
        [str(program), *command[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
