#!/usr/bin/env bash
# Pyright over firmware/ and shared/ with the ESP32's stubs, which go into the git-ignored typings/.
# Usage: typecheck_firmware.sh VENV
set -euo pipefail
venv=$1
mkdir -p build
if [ requirements-stubs.txt -nt typings/.installed ]; then
  rm -rf typings
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes --no-deps \
    --target typings -r requirements-stubs.txt 2> >(grep -v '^WARNING' >&2)
  touch typings/.installed
fi
"$venv/bin/pyright" -p pyrightconfig.json > build/pyright.log 2>&1 ||
  { tail -60 build/pyright.log; exit 1; }
