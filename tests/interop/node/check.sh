#!/usr/bin/env bash
# Node looks for packages from the directory of the script.
set -euo pipefail
cp "$(dirname "${BASH_SOURCE[0]}")/check.cjs" "$1/check.cjs"
exec node "$1/check.cjs"
