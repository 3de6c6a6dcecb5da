"""A real Slurm on one machine, for tests: over the hosts of hosts.py, one slurmd in each.

    with slurm_cluster.Slurm(4) as slurm:
        slurm.run(["sbatch", ...])

Needs what hosts.py needs, Slurm and munge; `why_not()` says what is missing.
"""
import os
import shutil
import signal
import socket
import subprocess
import time

import hosts


def why_not():
    """Why there can be no Slurm here; None where there can."""
    for tool in "slurmctld", "slurmd", "munged", "srun":
        if not shutil.which(tool):
            return f"no {tool} here (launch/setup --for cluster installs it)"
    return hosts.why_not()


CONFIGURATION = """
ClusterName=pdt
SlurmctldHost={machine}({net}.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={dir}/munge/socket,cred_expire=5
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=pmix
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=3
SlurmdTimeout=20
SlurmctldTimeout=20
MessageTimeout=5
JobRequeue=1
NodeName=h[1-{n}] NodeAddr={net}.[1-{n}] CPUs=4 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


class Slurm:
    """slurmctld and munged on this machine, one slurmd in each of n hosts."""

    def __init__(self, n):
        self.hosts = hosts.Hosts(n, own_tmp=True)

    def __enter__(self):
        self.hosts.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        root, n = self.hosts.folder.name, len(self.hosts.names)
        os.chmod(root, 0o755)  # munge's clients must reach its socket
        for name in ("munge", "state", "spool"):
            os.makedirs(os.path.join(root, name))
        with open(os.open(f"{root}/munge/key", os.O_WRONLY | os.O_CREAT, 0o400), "wb") as f:
            f.write(os.urandom(1024))
        self.configuration = os.path.join(root, "slurm.conf")
        with open(self.configuration, "w") as f:
            f.write(CONFIGURATION.format(machine=socket.gethostname(), net=self.hosts.net, dir=root, n=n))
        self.environment = dict(os.environ, SLURM_CONF=self.configuration)
        munge = f"{root}/munge"
        subprocess.run(["munged", f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
                        f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2"], check=True)
        self.run(["slurmctld", "-c", "-f", self.configuration], check=True)
        for name in self.hosts.names:
            self._start_slurmd(name)
        deadline = time.time() + 30
        while self.run(["sinfo", "-h", "-t", "idle", "-o", "%D"]).stdout.strip() != str(n):
            if time.time() > deadline:
                raise RuntimeError("Slurm's nodes did not come up: " + self.run(["sinfo", "-R", "-N", "-l"]).stdout)
            time.sleep(0.1)

    def _start_slurmd(self, name):
        os.makedirs(f"{self.hosts.folder.name}/spool/{name}", exist_ok=True)
        command = [*self.hosts.on(name), "slurmd", "-f", self.configuration, "-N", name]
        subprocess.run(command, env=self.environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def __exit__(self, *_):
        for path in f"{self.hosts.folder.name}/slurmctld.pid", f"{self.hosts.folder.name}/munge/pid":
            try:
                with open(path) as f:
                    pid = int(f.read())
                os.kill(pid, signal.SIGTERM)
                deadline = time.time() + 10
                while os.path.exists(f"/proc/{pid}") and time.time() < deadline:
                    time.sleep(0.05)
            except (OSError, ValueError):
                pass
        self.hosts.__exit__()

    def run(self, command, **more):
        """Runs one of Slurm's commands on this machine."""
        more = {"capture_output": True, "text": True, "env": self.environment, **more}
        return subprocess.run(command, **more)

    def state(self, job):
        """Of a job, such as RUNNING; the array's if they are alike; '' when it is over and forgotten."""
        found = set(self.run(["squeue", "-h", "-j", job, "-t", "all", "-o", "%T"]).stdout.split())
        return found.pop() if len(found) == 1 else ",".join(sorted(found))

    def wait(self, job, *states, timeout=60):
        """Waits until a job is in one of the states; which."""
        deadline = time.time() + timeout
        while time.time() < deadline:
            state = self.state(job)
            if state in states:
                return state
            time.sleep(0.2)
        raise RuntimeError(f"job {job} is '{self.state(job)}' after {timeout} s, expected {states}")
