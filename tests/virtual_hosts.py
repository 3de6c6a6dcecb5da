"""Several hosts on one machine: each with its own processes, network, name, /dev/shm and /tmp, joined by a bridge; and a real Slurm
over them. Needs root, namespaces, iproute2 (and Slurm with munge). What drivers use:

    with virtual_hosts.Hosts(4) as hosts:            # h1 .. h4 at 10.78.0.1 ..
        hosts.run("h2", ["hostname"])
        subprocess.run(["mpirun", *hosts.mpirun(), ...])
        hosts.cut("h3"); hosts.heal("h3"); hosts.crash("h4")
    with virtual_hosts.Slurm(4) as slurm:
        slurm.run(["sbatch", ...])
"""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

BRIDGE, NET = "pdt-hosts", "10.78.0"
# The first process of a host: its children that lose their parents are its own, and the shell reaps them.
INIT = """
hostname "$1" && mount -t tmpfs -o mode=1777 shm /dev/shm && mount --bind "$2/tmp" /tmp && mount --bind "$2/../hosts" /etc/hosts &&
: >"$2/ready"
while :; do sleep 1000 & wait; done
"""


def missing(slurm=False):
    """Why there can be no such hosts here, or None."""
    if os.geteuid() != 0:
        return "virtual hosts need root"
    tools = ["unshare", "nsenter", "ip"] + (["slurmctld", "slurmd", "munged", "srun"] if slurm else [])
    for tool in tools:
        if not shutil.which(tool):
            return f"no {tool} here (launch/setup --for cluster installs it)"
    probe = subprocess.run(["unshare", "-pnumi", "--fork", "--mount-proc", "sh", "-c", "hostname probe && ip link add x type dummy && ip link del x || ip link show lo"],
                           capture_output=True)
    return None if probe.returncode == 0 else f"no namespaces here: {probe.stderr.decode().strip()}"


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    def __init__(self, n):
        self.n = n
        self.names = [f"h{i + 1}" for i in range(n)]
        self.inits = {}

    def __enter__(self):
        # Paths of sockets in it must be short, and it must be the same on all hosts, so not below /tmp.
        self.dir = tempfile.mkdtemp(prefix="pdt-", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        try:
            subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("addr", "add", f"{NET}.254/24", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            with open(os.path.join(self.dir, "hosts"), "w") as f:
                f.write(f"127.0.0.1 localhost\n{NET}.254 {socket.gethostname()}\n")
                f.writelines(f"{NET}.{i + 1} {name}\n" for i, name in enumerate(self.names))
            for name in self.names:
                self.boot(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in list(self.inits):
            self._kill(name)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def boot(self, name):
        home = os.path.join(self.dir, name)
        shutil.rmtree(home, ignore_errors=True)
        os.makedirs(os.path.join(home, "tmp"))
        os.chmod(os.path.join(home, "tmp"), 0o1777)
        command = ["unshare", "-pnumi", "--fork", "--kill-child", "--mount-proc", "bash", "-c", INIT, "init", name, home]
        # In a session of its own: a terminal's or launcher's signals are not for it.
        unshare = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        deadline = time.time() + 10
        while not os.path.exists(os.path.join(home, "ready")):
            if time.time() > deadline or unshare.poll() is not None:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.01)
        with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children") as f:
            pid = int(f.read().split()[0])
        self.inits[name] = (unshare, pid)
        ip("link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        ip("link", "set", f"v-{name}", "master", BRIDGE, "up")
        number = self.names.index(name) + 1
        inside = ["nsenter", "-t", str(pid), "-n", "sh", "-c",
                  f"ip link set lo up; ip addr add {NET}.{number}/24 dev eth0; ip link set eth0 up; ip route add default via {NET}.254"]
        subprocess.run(inside, check=True, capture_output=True)

    def _kill(self, name):
        unshare, pid = self.inits.pop(name)
        os.kill(pid, signal.SIGKILL)  # the kernel kills the rest of the host
        unshare.wait()

    def crash(self, name):
        """Power loss: the link first, so that nothing of its end is heard."""
        ip("link", "del", f"v-{name}")
        self._kill(name)

    def cut(self, name):
        ip("link", "set", f"v-{name}", "down")

    def heal(self, name):
        ip("link", "set", f"v-{name}", "up")

    def on(self, name):
        """Words before a command that runs on a host."""
        return ["nsenter", "-t", str(self.inits[name][1]), "-m", "-u", "-n", "-p", "-i", "--"]

    def run(self, name, command, **more):
        return subprocess.run([*self.on(name), *command], **more)

    def agent(self):
        """A program that mpirun starts in place of ssh."""
        path = os.path.join(self.dir, "agent")
        with open(path, "w") as f:
            f.write("#!/bin/sh\ncase $1 in\n")
            f.writelines(f"{name}) pid={pid} ;;\n" for name, (_, pid) in self.inits.items())
            f.write('*) exit 255 ;;\nesac\nshift\nexec nsenter -t "$pid" -m -u -n -p -i -- sh -c "$*"\n')
        os.chmod(path, 0o755)
        return path

    def mpirun(self, slots=1):
        """Words for Open MPI's mpirun, started on this machine, that put ranks onto the hosts."""
        return ["--mca", "plm_rsh_agent", self.agent(), "--mca", "oob_tcp_if_include", f"{NET}.0/24", "--mca", "btl_tcp_if_include",
                f"{NET}.0/24", "--host", ",".join(f"{name}:{slots}" for name in self.names)]


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
        self.hosts = Hosts(n)

    def __enter__(self):
        self.hosts.__enter__()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        root, n = self.hosts.dir, self.hosts.n
        for name in ("munge", "state", "spool"):
            os.makedirs(os.path.join(root, name))
        with open(os.open(f"{root}/munge/key", os.O_WRONLY | os.O_CREAT, 0o400), "wb") as f:
            f.write(os.urandom(1024))
        self.configuration = os.path.join(root, "slurm.conf")
        with open(self.configuration, "w") as f:
            f.write(CONFIGURATION.format(machine=socket.gethostname(), net=NET, dir=root, n=n))
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
        os.makedirs(f"{self.hosts.dir}/spool/{name}", exist_ok=True)
        command = [*self.hosts.on(name), "slurmd", "-f", self.configuration, "-N", name]
        subprocess.run(command, env=self.environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def __exit__(self, *_):
        for path in f"{self.hosts.dir}/slurmctld.pid", f"{self.hosts.dir}/munge/pid":
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

    def crash(self, name):
        self.hosts.crash(name)

    def boot(self, name):
        # A step that is started again has its number again: what the first left of itself must go.
        shutil.rmtree(f"{self.hosts.dir}/spool/{name}", ignore_errors=True)
        self.hosts.boot(name)
        self._start_slurmd(name)

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
