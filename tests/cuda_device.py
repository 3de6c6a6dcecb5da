#!/usr/bin/env python3
"""A GPU that is not there, too old, too small, or lost in the middle: pdt on the CPU's twin of one
(tests/cuda_on_host), whose environment says what happens.

usage: cuda_device.py PDT CASES_DIR [--ranks N,...] [--losses N]

PDT is the program that was built with the twin; --losses: at how many of its calls the device is lost,
one run each (default 16).
"""
import argparse
import json
import os
import resource
import socket
import sys
import tempfile

import harness

GRACE = 60  # seconds until a run is taken to hang
# A sidecar of few parameters.
SMALL = [x for name, n in [("streams", 1), ("notes-dim", 16), ("snc-heads", 1), ("adapter-dim", 8), ("plan-slots", 2), ("plan-vocab", 64),
                           ("plan-dim", 8), ("pool-heads", 1), ("pool-dim", 16), ("coverage-dim", 8), ("agree-dim", 8)]
         for x in (f"--{name}", str(n))]
CASE = "delay-2-narrow-window"
MIB = 1 << 20


class Device:
    def __init__(self, pdt, case, folder, ranks, losses):
        self.pdt, self.folder, self.ranks, self.losses = pdt, folder, ranks, losses
        self.case, self.report = case, os.path.join(folder, "report.json")
        self.outputs = [os.path.join(folder, x) for x in ("out.json", "trace.json")]
        self.journal, self.request = os.path.join(folder, "run.journal"), os.path.join(folder, "request.json")
        with open(f"{case}/request.json", encoding="utf-8") as f:
            request = json.load(f)
        request["settings"].update(streams=2, max_tokens=8)
        with open(self.request, "w", encoding="utf-8") as f:
            json.dump(request, f)

    def decode(self, *more, ranks=0, model=None, **env):
        for path in [*self.outputs, self.journal, self.report]:
            if os.path.exists(path):
                os.remove(path)
        command = [self.pdt, "decode", "--model", model or f"{self.case}/model", "--sidecar", f"{self.case}/sidecar.safetensors",
                   "--request", self.request, "--json", "--out", self.outputs[0], "--trace", self.outputs[1],
                   "--journal", self.journal, "--quiet", *more]
        env = {f"CUDA_ON_HOST_{k.upper()}": str(v) for k, v in env.items()}
        return harness.run(command, ranks=ranks, timeout=GRACE, env=env)

    def refused(self, name, result, *parts):
        """What is wrong unless the run ended with one message that has all parts, and wrote nothing."""
        lines = [x for x in result.err.splitlines() if x.startswith("pdt")]
        if result.status not in (1, 2) or len(lines) != 1 or not all(x in lines[0] for x in parts):
            return f"{name}: status {result.status}, expected one message with {parts}: {result.err.strip()}"
        left = [x for x in self.outputs if os.path.exists(x)]
        return f"{name}: {left} were written" if left else None

    def whole(self):
        """What an undisturbed run asks of the device."""
        result = self.decode("--device", "cuda", report=self.report)
        if result.status != 0:
            raise harness.Failed(result.err.strip())
        with open(self.report, encoding="utf-8") as f:
            return json.load(f)

    # ---- at the start ----

    def none_to_use(self):
        for device, part in [("no-driver", "CUDA driver version is insufficient"), ("none", "no CUDA-capable device"),
                             ("old", "compute capability 7.5; 8.0 or later is needed"),
                             ("busy", "choosing it: CUDA-capable device(s) is/are busy")]:
            wrong = self.refused(device, self.decode("--device", "cuda", device=device), "rank 0", part)
            if wrong:
                return wrong
        return None

    def falls_back(self):
        for device, part in [("no-driver", "driver version"), ("none", "no CUDA-capable"), ("old", "compute capability 7.5")]:
            result = self.decode("--verbose", device=device)
            if result.status != 0 or "kernels cuda" in result.err or "no GPU: rank 0 on " not in result.err or part not in result.err:
                return f"{device}: status {result.status}: {result.err.strip()}"
        result = self.decode("--verbose")
        return None if "kernels cuda sm_80" in result.err and "no GPU" not in result.err else f"a GPU is not used: {result.err}"

    # ---- memory ----

    def too_small(self):
        """Where there is too little, the run ends before it decodes, and says how much there is."""
        most = self.whole()["most_bytes"]
        for part in (1, 3, 5, 7, 8):
            result = self.decode("--device", "cuda", memory=most * part // 9)
            wrong = self.refused(f"{part}/9 of {most} bytes", result, "rank 0", "MiB", "(hint: ")
            if wrong or "GPU" not in result.err:
                return wrong or f"it does not name the GPU: {result.err.strip()}"
            if os.path.exists(self.journal) and self.entries():
                return f"{part}/9 of {most} bytes: sessions began: {result.err.strip()}"
        result = self.decode("--device", "cuda", memory=2 * most)
        return None if result.status == 0 else f"{2 * most} bytes: {result.err.strip()}"

    def shared(self):
        """Ranks that share a GPU look before any takes."""
        most = self.whole()["most_bytes"]
        for ranks in self.ranks:
            result = self.decode("--device", "cuda", "--tp", "1", ranks=ranks, memory=most * 2)
            if result.status != 0:
                return f"{ranks} ranks: {result.err.strip()}"
            wrong = self.refused(f"{ranks} ranks", self.decode("--device", "cuda", "--tp", "1", ranks=ranks, memory=most // 2),
                                 "rank 0 on", "MiB")
            if wrong:
                return wrong
        return None

    def host_memory(self):
        """The host keeps no second copy of weights: its peak grows by less than half of theirs. Both models
        fill the pieces that loading has in memory, so that these are as large for one as for the other."""
        peaks, sizes = [], []
        for width in (8192, 16384):
            model, sidecar = self.random_model(width), os.path.join(self.folder, f"{width}.safetensors")
            made = harness.run([self.pdt, "sidecar", "init", "--model", model, "--out", sidecar, "--layers", "0", *SMALL])
            if made.status != 0:
                return made.err
            peaks.append(self.peak(model, sidecar))
            sizes.append(os.path.getsize(f"{model}/model.safetensors"))
        device, process = (peaks[1][i] - peaks[0][i] for i in (0, 1))
        more = sizes[1] - sizes[0]
        # The device's memory is the process's too; of what is allocated the sanitizer keeps an eighth for itself.
        if device < more or process - device - device / 8 > more / 2:
            return f"{more / MIB:.1f} MiB more weights: {device / MIB:.1f} more on the device, {(process - device) / MIB:.1f} on the host"
        return None

    def random_model(self, width):
        config = os.path.join(self.folder, f"{width}.json")
        with open(f"{self.case}/model/config.json", encoding="utf-8") as f:
            shape = json.load(f)
        shape.update(hidden_size=128, intermediate_size=width, num_hidden_layers=2)
        with open(config, "w", encoding="utf-8") as f:
            json.dump(shape, f)
        model = os.path.join(self.folder, f"model{width}")
        made = harness.run([self.pdt, "model", "random", "--config", config, "--out", model], timeout=120)
        if made.status != 0:
            raise harness.Failed(made.err)
        return model

    def peak(self, model, sidecar):
        """Most bytes on the device, and of the whole process, which holds the device's too."""
        env = {"CUDA_ON_HOST_REPORT": self.report,
               "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1:thread_local_quarantine_size_kb=64"}
        result = harness.run([self.pdt, "decode", "--model", model, "--sidecar", sidecar, "--request", self.short_request(),
                              "--device", "cuda", "--threads", "2", "--verbose"], timeout=120, env=env)
        if result.status != 0:
            raise harness.Failed(result.err.strip())
        rank = [x.split() for x in result.err.splitlines() if x.split()[:1] == ["0"]][-1]
        with open(self.report, encoding="utf-8") as f:
            return json.load(f)["most_bytes"], float(rank[-1]) * MIB

    def short_request(self):
        path = os.path.join(self.folder, "short.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"prompt_ids": [5, 6, 7], "settings": {"streams": 1, "block_tokens": 2, "max_tokens": 2, "max_rounds": 1}}, f)
        return path

    # ---- lost in the middle ----

    def entries(self):
        """How many rounds the journal has; it must be sound as far as it goes."""
        result = harness.run([self.pdt, "inspect", "--json", self.journal])
        if result.status != 0:
            raise harness.Failed(f"the journal cannot be read: {result.err.strip()}")
        return json.loads(result.out.splitlines()[-1])["rounds"]

    def verified(self):
        result = harness.run([self.pdt, "inspect", "--verify", "--json", "--model", f"{self.case}/model", "--sidecar",
                              f"{self.case}/sidecar.safetensors", self.journal])
        return None if result.status == 0 else f"the journal is not what a run computes: {result.err.strip()}"

    def lost_at(self, call, *more, ranks=0, rank=0):
        result = self.decode("--device", "cuda", *more, ranks=ranks, lost=call, rank=rank if ranks else "")
        name = f"{ranks or 1} ranks, {' '.join(more)}, lost at call {call}"
        wrong = self.refused(name, result, f"rank {rank} on {socket.gethostname()}: GPU 0: ", "unspecified launch failure (CUDA error 719)")
        if wrong or not os.path.exists(self.journal):
            return wrong
        rounds = self.entries()
        self.rounds = max(self.rounds, rounds)
        wrong = self.verified() if rounds else None
        return f"{name}: {wrong}" if wrong else None

    def lost(self):
        """At calls all over a run; the journal is sound, and the same as far as it goes."""
        calls, self.rounds = self.whole()["calls"], 0
        for i in range(self.losses):
            wrong = self.lost_at(1 + calls * 97 * i // (100 * max(1, self.losses - 1)))
            if wrong:
                return wrong
        return None if self.rounds > 0 else "no run was lost while it decoded"

    def lost_on_one(self):
        """One of several ranks loses its device: all end, with that rank's message."""
        calls = self.whole()["calls"]
        for ranks in self.ranks:
            self.rounds = 0
            for tp in ("1", str(ranks)):
                for i in range(max(1, self.losses // 6)):
                    wrong = self.lost_at(1 + calls * i // max(2, self.losses // 3), "--tp", tp, ranks=ranks, rank=ranks - 1)
                    if wrong:
                        return wrong
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pdt")
    parser.add_argument("cases")
    parser.add_argument("--ranks", default="2")
    parser.add_argument("--losses", type=int, default=16)
    args = parser.parse_args()
    ranks = [int(x) for x in args.ranks.split(",") if int(x) > 1]
    if ranks:
        harness.need_mpirun()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        t = Device(os.path.abspath(args.pdt), os.path.join(args.cases, CASE), folder, ranks, args.losses)
        harness.run_checks([
            ("no device to use", t.none_to_use),
            ("auto falls back, and says why", t.falls_back),
            ("too little memory", t.too_small),
            ("memory of several ranks", t.shared),
            ("the host keeps no copy of weights", t.host_memory),
            ("lost in the middle", t.lost),
            ("lost on one rank", t.lost_on_one),
        ])


if __name__ == "__main__":
    sys.exit(main())
