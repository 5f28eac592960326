#!/usr/bin/env bash
# ./run_all.sh [OPTIONS]       Tables I-V, the figures and the executed notebooks (`mafr reproduce OPTIONS`)
# ./run_all.sh test [OPTIONS]  the whole test suite, a few files at a time (pytest OPTIONS)
# Uses the active environment if `mafr` is installed there, else .venv beside this file, which it makes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
case "${1:-}" in -h | --help) sed -n '2,4s/^# //p' run_all.sh && exit 0 ;; esac

# As `requires-python` in pyproject.toml.
suitable='(3, 11) <= sys.version_info < (3, 14)'

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c "import sys; sys.exit(not $suitable)" 2>/dev/null; then
      echo "$candidate" && return
    fi
  done
  echo "run_all.sh: needs Python 3.11, 3.12 or 3.13, and found none of them on the PATH" >&2
  return 1
}

# An active environment counts only if this very checkout and what it needs are installed there: torch, and for
# `test` pytest with its workers. -I: the current folder alone, where a package `mafr` always lies, must not count.
installed() {
  python -I - "$PWD" torch $([ "${1:-}" != test ] || echo pytest xdist) <<PYTHON
import importlib.util, pathlib, sys
there = $suitable and all(importlib.util.find_spec(name) for name in sys.argv[2:])
found = importlib.util.find_spec("mafr") if there else None
sys.exit(found is None or pathlib.Path(found.origin).resolve().parent.parent != pathlib.Path(sys.argv[1]).resolve())
PYTHON
}

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || ! installed "${1:-}" 2>/dev/null; then
  base=$(find_python)
  stamp=$(cat requirements.lock pyproject.toml | "$base" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
  if [ "$(cat .venv/.installed 2>/dev/null)" != "$stamp" ]; then
    echo "== environment: installing into .venv (some 6 GB on Linux, a few minutes)" >&2
    [ -x .venv/bin/python ] || "$base" -m venv .venv || {
      echo "run_all.sh: '$base -m venv' failed; on Debian or Ubuntu: apt install python3-venv" >&2 && exit 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    # What pip would do on one processor only, without the two fifths that are seldom imported: those are compiled then.
    # Some packages hold files for other Pythons, which do not compile.
    seldom='/(tests|pip|debugpy/_vendored|pygments/lexers|torch/_inductor|torch/testing)/'
    .venv/bin/python -m compileall -qq -j 0 -x "$seldom" .venv/lib || true
    echo "$stamp" >.venv/.installed
  fi
  # shellcheck disable=SC1091
  . .venv/bin/activate
fi

if [ "${1:-}" = test ]; then
  shift
  exec python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
fi
exec python -m mafr.cli reproduce "$@"
