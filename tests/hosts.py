"""Several hosts on one machine, for tests: each has its own network, processes, host name and shared
memory (Linux namespaces), and a cable to a bridge that can be pulled.

    with hosts.Hosts(4) as h:
        harness.run([MPIRUN, *h.options(), ...])
        h.cut("h3")

Needs root, iproute2 and util-linux; `why_not()` says what is missing.
"""
import os
import shutil
import signal
import subprocess
import tempfile
import time


def run(*words, check=True):
    return subprocess.run([str(w) for w in words], check=check, capture_output=True, text=True)


def why_not():
    """Why there can be no hosts here; None where they can be."""
    if os.getuid() != 0:
        return "not root"
    for tool in "ip", "unshare", "nsenter":
        if not shutil.which(tool):
            return f"no {tool}"
    name = f"pdtx{os.getpid() % 10000}"
    made = run("ip", "link", "add", name, "type", "bridge", check=False)
    run("ip", "link", "del", name, check=False)
    if made.returncode:
        return f"no bridge can be made: {made.stderr.strip()}"
    made = run("unshare", "--net", "--pid", "--uts", "--mount", "--ipc", "--fork", "true", check=False)
    return f"no namespaces: {made.stderr.strip()}" if made.returncode else None


class Hosts:
    def __init__(self, n, own_tmp=False):
        """With own_tmp each host has a /tmp of its own; what hosts share is elsewhere then."""
        self.own_tmp = own_tmp
        self.names = [f"h{i + 1}" for i in range(n)]
        self.net = f"10.79.{os.getpid() % 250}"
        self.bridge = f"pdtb{os.getpid() % 10000}"
        self.folder = tempfile.TemporaryDirectory(prefix="pdt-hosts-", dir="/var/tmp" if own_tmp else None)
        self.outer = {}  # unshare, whose child is the host's first process
        self.first = {}

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def cable(self, host):
        return f"{self.bridge}{host}"

    def __enter__(self):
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.net}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        with open(self.path("hosts"), "w") as f:
            f.write(f"127.0.0.1 localhost\n{self.net}.254 {os.uname().nodename}\n")
            f.writelines(f"{self.net}.{i + 1} {name}\n" for i, name in enumerate(self.names))
        for i, name in enumerate(self.names):
            self.boot(name, i + 1)
        with open(self.path("agent"), "w") as f:  # in place of ssh: no variable goes with it
            f.write(f'#!/bin/sh\nh=$1\nshift\ncd {self.folder.name}\nnsenter -t "$(cat $h.pid)" -m -u -n -p -i -- '
                    'env -i PATH="$PATH" HOME=/root sh -c "$*"\nstatus=$?\n'
                    '[ ! -e $h.crashed ] || exec sleep 60 >/dev/null 2>&1\nexit $status\n')  # ssh does not hear of a crash
        os.chmod(self.path("agent"), 0o755)
        return self

    def boot(self, name, number):
        tmp = f"mkdir -m 1777 {self.path(name + '.tmp')}; mount --bind {self.path(name + '.tmp')} /tmp; " if self.own_tmp else ""
        inside = (f"hostname {name}; mount --make-rprivate /; mount -t tmpfs shm /dev/shm; ip link set lo up; "
                  f"mount --bind {self.path('hosts')} /etc/hosts; {tmp}touch {self.path(name + '.up')}; "
                  "while :; do sleep 1000 & wait; done")  # the shell reaps who loses a parent
        self.outer[name] = subprocess.Popen(
            ["unshare", "--net", "--pid", "--uts", "--mount", "--ipc", "--mount-proc", "--fork", "--kill-child=KILL", "sh", "-c", inside],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 10
        while not os.path.exists(self.path(name + ".up")):
            if time.time() > deadline:
                raise RuntimeError(f"host {name} does not come up")
            time.sleep(0.02)
        self.first[name] = run("ps", "-o", "pid=", "--ppid", self.outer[name].pid).stdout.split()[0]
        with open(self.path(name + ".pid"), "w") as f:
            f.write(self.first[name])
        run("ip", "link", "add", self.cable(name), "type", "veth", "peer", "name", "eth0", "netns", self.first[name])
        run("ip", "link", "set", self.cable(name), "master", self.bridge, "up")
        run("nsenter", "-t", self.first[name], "-n", "sh", "-c", f"ip addr add {self.net}.{number}/24 dev eth0; ip link set eth0 up")

    def on(self, name):
        """Words before a command that runs on a host."""
        return ["nsenter", "-t", self.first[name], "-m", "-u", "-n", "-p", "-i", "--"]

    def options(self, per_host=1):
        """Of launch/mpirun, to run there."""
        return ["--hosts", ",".join(self.names), "--per-host", per_host, "--interface", f"{self.net}.0/24",
                "--mca", "plm_rsh_agent", self.path("agent")]

    def cut(self, name):
        """Pulls the cable: nothing comes through, and nobody is told."""
        run("ip", "link", "set", self.cable(name), "down")

    def crash(self, name):
        """The power goes: first the cable, so that the dying host says nothing."""
        open(self.path(name + ".crashed"), "w").close()
        run("ip", "link", "del", self.cable(name))
        os.kill(int(self.first[name]), signal.SIGKILL)

    def __exit__(self, *_):
        for name, process in self.outer.items():
            process.kill()
            process.wait()
            run("ip", "link", "del", self.cable(name), check=False)
        run("ip", "link", "del", self.bridge, check=False)
        self.folder.cleanup()
