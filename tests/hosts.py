"""Several hosts on one machine, for tests: each has its own network, processes, host name and shared
memory (Linux namespaces), and a cable to a bridge that can be pulled.

    with hosts.Hosts(4) as h:
        harness.run([MPIRUN, *h.options(), ...])
        h.cut("h3")

With `delay` every frame between two of them is that many seconds on its way: a switch of our own stands
in place of the bridge.

Needs root, iproute2 and util-linux; `why_not()` says what is missing.
"""
import collections
import fcntl
import multiprocessing
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


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


class Switch:
    """A process that carries frames between interfaces (taps), each `delay` seconds after it was sent."""

    def __init__(self, names, delay):
        self.names, self.taps = names, []
        for name in names:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
            self.taps.append(tap)
        cuts, self.cuts = os.pipe()
        self.process = multiprocessing.get_context("fork").Process(target=self.carry, args=(delay, cuts), daemon=True)
        self.process.start()
        for fd in (*self.taps, cuts):
            os.close(fd)

    def cut(self, name):
        os.write(self.cuts, bytes([self.names.index(name)]))

    def close(self):
        self.process.kill()
        self.process.join()

    def carry(self, delay, cuts):
        waiting = collections.deque()  # (when it is due, where it came in, frame)
        at = {}  # the port behind which a network address was seen
        off = set()
        while True:
            patience = max(0, waiting[0][0] - time.monotonic()) if waiting else None
            for fd in select.select([*self.taps, cuts], [], [], patience)[0]:
                if fd == cuts:
                    off.update(os.read(cuts, 16))
                else:
                    self.take(fd, time.monotonic() + delay, waiting)
            while waiting and waiting[0][0] <= time.monotonic():
                _, port, frame = waiting.popleft()
                at[frame[6:12]] = port
                to = at.get(frame[:6])
                for other in range(len(self.taps)) if to is None else [to]:
                    if other != port and not {other, port} & off:
                        self.put(other, frame)

    def take(self, tap, due, waiting):
        try:
            while True:
                waiting.append((due, self.taps.index(tap), os.read(tap, 65536)))
        except OSError:  # no more, or the interface is gone
            pass

    def put(self, port, frame):
        try:
            os.write(self.taps[port], frame)
        except OSError:  # it is down: lost, as on a wire
            pass


class Hosts:
    def __init__(self, n, own_tmp=False, delay=0):
        """With own_tmp each host has a /tmp of its own; what hosts share is elsewhere then."""
        self.own_tmp, self.delay, self.switch = own_tmp, delay, None
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
        if self.delay:
            self.switch = Switch([self.bridge, *map(self.cable, self.names)], self.delay)
        else:
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
        if self.switch:
            run("ip", "link", "set", self.cable(name), "netns", self.first[name], "name", "eth0")
        else:
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
        if self.switch:
            self.switch.cut(self.cable(name))
        else:
            run("ip", "link", "set", self.cable(name), "down")

    def crash(self, name):
        """The power goes: first the cable, so that the dying host says nothing."""
        open(self.path(name + ".crashed"), "w").close()
        self.cut(name)
        os.kill(int(self.first[name]), signal.SIGKILL)

    def __exit__(self, *_):
        for name, process in self.outer.items():
            process.kill()
            process.wait()
            run("ip", "link", "del", self.cable(name), check=False)
        if self.switch:
            self.switch.close()
        run("ip", "link", "del", self.bridge, check=False)
        self.folder.cleanup()
