#!/usr/bin/env bash
# Stock NATS clients against a running server: the Go command line, nats-py and the Node clients.
#
#   tests/interop/run.sh            all of them
#   tests/interop/run.sh python     only the named ones: go, python, node
#
# The clients are installed from their package registries into target/interop and kept there. A client
# that cannot be installed is skipped with a warning; with CI=true it is a failure.
# RIVERLOG_TEST_SERVER=/path/to/binary tests that binary instead of the workspace's debug build.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workspace=$(cd "$here/../.." && pwd)
tools=${CARGO_TARGET_DIR:-$workspace/target}/interop
mkdir -p "$tools"

if [[ -n ${RIVERLOG_TEST_SERVER:-} ]]; then
    binary=$RIVERLOG_TEST_SERVER
else
    cargo build --quiet --manifest-path "$workspace/Cargo.toml" -p riverlog-server --bin riverlog
    binary=${CARGO_TARGET_DIR:-$workspace/target}/debug/riverlog
fi

scratch=$(mktemp -d "$tools/run-XXXXXX")
server=
stop_server() {
    if [[ -n $server ]]; then
        kill -9 "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
cleanup() {
    status=$?
    stop_server
    if ((status != 0)) && [[ -f $scratch/server.log ]]; then
        echo "--- server log" >&2
        tail -n 50 "$scratch/server.log" >&2
    fi
    rm -rf "$scratch"
}
trap cleanup EXIT

# Starts a server on a fresh directory and sets NATS_URL.
start_server() {
    stop_server
    rm -rf "$scratch/store" "$scratch/ports"
    mkdir -p "$scratch/ports"
    "$binary" -js -a 127.0.0.1 -p -1 -sd "$scratch/store" --ports_file_dir "$scratch/ports" \
        >"$scratch/server.log" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        NATS_URL=$(cat "$scratch"/ports/*.ports 2>/dev/null | grep -o 'nats://[0-9.]*:[0-9]*' | head -n 1) || true
        if [[ -n $NATS_URL ]] && grep -q 'Server is ready' "$scratch/server.log"; then
            export NATS_URL
            return
        fi
        if ! kill -0 "$server" 2>/dev/null; then
            break
        fi
        sleep 0.1
    done
    echo "the server did not start" >&2
    exit 1
}

# Runs "$1/install.sh" and "$1/check.sh".
client() {
    local name=$1
    echo "== $name"
    if ! "$here/$name/install.sh" "$tools/$name" >"$tools/$name-install.log" 2>&1; then
        tail -n 5 "$tools/$name-install.log" >&2
        if [[ ${CI:-} == true ]]; then
            echo "FAILED: the $name client could not be installed" >&2
            exit 1
        fi
        echo "######## SKIPPED: the $name client could not be installed ########" >&2
        return
    fi
    start_server
    "$here/$name/check.sh" "$tools/$name"
    echo "== $name: ok"
}

if (($# == 0)); then
    set -- go python node
fi
for name in "$@"; do
    client "$name"
done
