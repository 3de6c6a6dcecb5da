#!/usr/bin/env python3
"""Who includes whom.

usage: rooms.py

The README lists the folders of runtime/ ("Where things are"): a folder includes only itself and
folders named before it. Kernels include base/ and themselves, and are included by what computes: model
and whatever is named behind it, and comm, which moves what devices hold. MPI is comm's alone, argp the
command line's, HTTP serve's; who includes a header of the engine gets no JSON with it.
"""
import os
import re
import sys

import harness

TOP = os.path.dirname(harness.TESTS)
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)
# A system header that only one folder may know.
PRIVATE = {"mpi.h": "comm", "argp.h": "cli", "microhttpd.h": "serve"}
FIRST_THAT_COMPUTES = "model"
# A folder whose headers, with all that they include, are free of a system header.
FREE = {"engine": "jansson.h"}


def listed_rooms():
    """The folders that the README names, in its order."""
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as f:
        text = f.read()
    # What a folder is stands in parentheses behind it; the list ends with the first semicolon outside.
    block = re.search(r"^runtime/\s+(.*?);", re.sub(r"\([^)]*\)", "", text), re.M | re.S)
    if not block:
        sys.exit("README.md: expected a list of runtime's folders, ended by a semicolon")
    return [name.strip() for name in block.group(1).split(",")]


def sources(folder):
    for root, _, names in os.walk(os.path.join(TOP, folder)):
        for name in sorted(names):
            if name.endswith((".c", ".h", ".cu", ".cuh")):
                yield os.path.join(root, name)


def included(path):
    with open(path, encoding="utf-8") as f:
        return INCLUDE.findall(f.read())


def wrong_in_runtime(rooms):
    places = {room: i for i, room in enumerate(rooms)}
    for room in rooms:
        for path in sources(os.path.join("runtime", room)):
            for header in included(path):
                other = header.split("/")[0] if "/" in header else None
                if PRIVATE.get(header, room) != room:
                    yield path, header, f"only {PRIVATE[header]}/ includes it"
                elif other == "kernels" and room != "comm" and places[room] < places[FIRST_THAT_COMPUTES]:
                    yield path, header, f"{room} is named before {FIRST_THAT_COMPUTES}, and computes nothing"
                elif places.get(other, -1) > places[room]:
                    yield path, header, f"{other} is named behind {room}"


def wrong_in_kernels(rooms):
    for path in sources("kernels"):
        for header in included(path):
            other = header.split("/")[0] if "/" in header else None
            if other in rooms and other != "base":
                yield path, header, "of runtime, kernels include base alone"


def closure(path, seen):
    """All headers that a file of runtime/ includes, and those that they include."""
    for header in included(path):
        if header in seen:
            continue
        seen.add(header)
        for top in ("runtime", "."):
            if os.path.isfile(os.path.join(TOP, top, header)):
                closure(os.path.join(TOP, top, header), seen)
    return seen


def wrong_in_headers():
    for room, header in FREE.items():
        for path in sources(os.path.join("runtime", room)):
            if path.endswith(".h") and header in closure(path, set()):
                yield path, header, "if not itself, then by what it includes"


def main():
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    rooms = listed_rooms()
    there = {entry.name for entry in os.scandir(os.path.join(TOP, "runtime")) if entry.is_dir()}
    wrong = [f"README.md: '{room}' is {'not in the list of folders' if room in there else 'no folder of runtime/'}"
             for room in sorted(there.symmetric_difference(rooms))]
    if not wrong:
        for path, header, why in [*wrong_in_runtime(rooms), *wrong_in_kernels(rooms), *wrong_in_headers()]:
            wrong.append(f"{os.path.relpath(path, TOP)} includes {header}: {why}")
    files = sum(1 for folder in ("runtime", "kernels") for _ in sources(folder))
    print("\n".join(wrong) if wrong else f"{files} files of {len(rooms)} folders include what they may")
    sys.exit(1 if wrong else 0)


main()
