#!/usr/bin/env bash
set -euo pipefail
exec "$1/bin/python" "$(dirname "${BASH_SOURCE[0]}")/check.py"
