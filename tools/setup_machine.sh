#!/usr/bin/env bash
# Sets up everything that `make demo` and `make test` need: system programs, then the environment.
# Where it may not install, it says exactly what to install. Usage: setup_machine.sh VENV
set -euo pipefail
venv=$1
packages=()
need() { # need PROGRAM PACKAGE
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || packages+=("$2")
}
need mosquitto mosquitto
need dbus-daemon dbus-daemon
need gcc gcc
need make make
need systemd-analyze systemd
python=""
for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null &&
    "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "$python" ] || packages+=(python3 python3-venv)

if [ ${#packages[@]} -gt 0 ]; then
  install="apt-get install -y -q --no-install-recommends ${packages[*]}"
  as=""
  [ "$(id -u)" = 0 ] || as="sudo -n"
  if command -v apt-get >/dev/null && { [ -z "$as" ] || $as true 2>/dev/null; }; then
    echo "setup: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    $as apt-get update -q >/dev/null 2>&1 || echo "setup: the package lists could not be renewed"
    # A broker that the package starts by itself is not wanted: the street starts its own.
    $as $install >/dev/null || echo "setup: not all of them could be installed: $install"
  else
    echo "setup: some programs are missing and may not be installed from here; please run:"
    echo "    sudo $install"
  fi
fi
if [ -z "$python" ]; then
  python=python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "setup: Python 3.11 or newer is needed: apt-get install python3 python3-venv"; exit 1; }
fi

[ -x "$venv/bin/python" ] || { echo "setup: making $venv"; "$python" -m venv "$venv"; }
echo "setup: installing the locked Python packages (a minute or two the first time)"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-warn-script-location \
  --require-hashes -r requirements.txt 2> >(grep -v '^WARNING' >&2)
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
  -e . 2> >(grep -v '^WARNING' >&2)
