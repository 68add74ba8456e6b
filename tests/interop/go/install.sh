#!/usr/bin/env bash
# Builds the `nats` command line into $1.
set -euo pipefail
if [[ ! -x $1/nats ]]; then
    GOBIN=$1 go install github.com/nats-io/natscli/nats@latest
fi
"$1/nats" --version
