#!/usr/bin/env bash
# Installs the Node clients into $1.
set -euo pipefail
mkdir -p "$1"
cd "$1"
if ! node -e 'require("@nats-io/transport-node"); require("@nats-io/jetstream")' 2>/dev/null; then
    [[ -f package.json ]] || echo '{"private": true}' >package.json
    npm install --no-audit --no-fund --loglevel=error @nats-io/transport-node @nats-io/jetstream
fi
node -e 'require("@nats-io/transport-node"); require("@nats-io/jetstream")'
