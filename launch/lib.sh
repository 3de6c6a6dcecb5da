# shellcheck shell=bash
# What the launch scripts share. Sourced, never run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Progress, for a person who watches; nothing when standard error is not a terminal.
step() {
  if [ -t 2 ]; then printf '\033[1m==>\033[0m %s\n' "$*" >&2; fi
}

# Something to be read in any case.
note() { printf '%s\n' "$*" >&2; }

die() {
  note "launch/${0##*/}: $*"
  exit 1
}

# Wrong usage of a script.
usage_error() {
  note "launch/${0##*/}: $*"
  note "launch/${0##*/} --help says how it is called"
  exit 2
}

# The comment at the top of a script is its manual.
print_help() { sed -n '2,/^$/{s/^# \{0,1\}//;p}' "$1"; }

# Runs a command with its output in a log file, which is shown only when the command fails.
logged() {
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    note "failed: $*"
    note "all of its output: $log"
    return 1
  fi
}

# (nproc would answer with OMP_NUM_THREADS where that is set)
cores() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || echo 1; }

# A Python that can import numpy: the one first on PATH may be another than Debian's. Prints its
# path; fails when there is none.
numpy_python() {
  local python
  for python in python3 /usr/bin/python3 "$top/build/venv/bin/python"; do
    if "$python" -c 'import numpy' 2>/dev/null; then
      command -v "$python"
      return
    fi
  done
  return 1
}
