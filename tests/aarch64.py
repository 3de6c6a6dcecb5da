#!/usr/bin/env python3
"""The kernels' portable source, compiled for 64-bit ARM, where the compiler makes NEON of it, and its unit tests under qemu's
emulation of a process. Skipped where the cross-compiler or qemu is missing (launch/setup --for test has both).

usage: aarch64.py [TEST ...]      (default: test_kernels test_cpu_primitives test_quantized_products)
"""
import concurrent.futures
import glob
import os
import shutil
import subprocess
import sys
import tempfile

import harness

COMPILER, EMULATORS = "aarch64-linux-gnu-gcc", ("qemu-aarch64-static", "qemu-aarch64")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-I.", "-Iruntime", "-fopenmp", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror"]
BASE = "cgroup clock dtype error file_state finite largest memory processors quantized sample stack waiting".split()
# The tests' plain loops at -O1: gcc 12 for ARM ends in an internal error when it vectorizes one of them.
SOURCES = ([(f, ["-O3"]) for f in glob.glob("kernels/*.c", root_dir=harness.ROOT) + glob.glob("kernels/cpu/*.c", root_dir=harness.ROOT)] +
           [(f, ["-O3", "-DPDT_ISA=portable"]) for f in glob.glob("kernels/cpu/isa/*.c", root_dir=harness.ROOT)] +
           [(f"runtime/base/{x}.c", ["-O2"]) for x in BASE] + [("kernels/cuda/device.c", ["-O2"])])
TESTS = {"test_kernels": ["portable", "4"], "test_cpu_primitives": [], "test_quantized_products": []}


def run(*words):
    result = subprocess.run(words, cwd=harness.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise harness.Failed(f"{' '.join(words)}: status {result.returncode}: {result.stdout[-2000:]}")
    return result.stdout


def compile_one(scratch, source, flags):
    to = os.path.join(scratch, source.replace("/", "_") + ".o")
    run(COMPILER, *FLAGS, *flags, "-c", source, "-o", to)
    return to


def vectorized(objects):
    """Products are made of NEON's vectors of four floats, or nothing of this is worth while."""
    matmul = next(x for x in objects if x.endswith("isa_matmul.c.o"))
    n = sum("fmul" in x and ".4s" in x for x in run("aarch64-linux-gnu-objdump", "-d", matmul).splitlines())
    return None if n >= 50 else f"{n} products of vectors in isa/matmul.c"


def passes(scratch, emulator, objects, name):
    test = compile_one(scratch, f"tests/unit/{name}.c", ["-O1", "-Itests", "-Itests/aarch64"])
    program = os.path.join(scratch, name)
    run(COMPILER, "-static", "-fopenmp", "-o", program, test, *objects, "-lm")
    print(run(emulator, program, *TESTS[name]), end="")


def main():
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    if not shutil.which(COMPILER) or not emulator:
        harness.skip(f"needs {COMPILER} and {EMULATORS[0]} (launch/setup --for test)")
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            objects = list(pool.map(lambda x: compile_one(scratch, *x), SOURCES))
        except harness.Failed as e:
            sys.exit(str(e))
        checks = [("vectors", lambda: vectorized(objects))]
        checks += [(x, lambda x=x: passes(scratch, emulator, objects, x)) for x in sys.argv[1:] or TESTS]
        harness.run_checks(checks)


if __name__ == "__main__":
    main()
