#!/usr/bin/env bash
# Installs nats-py into a virtual environment in $1.
set -euo pipefail
if [[ ! -x $1/bin/python ]] || ! "$1/bin/python" -c 'import nats' 2>/dev/null; then
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check nats-py
fi
"$1/bin/python" -c 'import nats'
