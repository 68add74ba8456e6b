#!/usr/bin/env bash
# A round trip with the `nats` command line: $1/nats against $NATS_URL.
set -euo pipefail
export XDG_CONFIG_HOME=$1/config
nats() { "$tool" --server "$NATS_URL" --timeout 20s "$@"; }
tool=$1/nats

# Fails unless the output of a command contains a text.
expect() {
    local text=$1
    shift
    local output
    output=$("$@" 2>&1) || { echo "$* failed:" >&2; echo "$output" >&2; exit 1; }
    grep -qF -- "$text" <<<"$output" || { echo "no '$text' in the output of $*:" >&2; echo "$output" >&2; exit 1; }
}
json() { python3 -c 'import json,sys; v=json.load(sys.stdin)
for key in sys.argv[1].split("."): v=v[int(key)] if isinstance(v,list) else v[key]
print(v)' "$1" 2>/dev/null || sed -n "s/.*\"${1##*.}\": *\"\{0,1\}\([^,\"]*\).*/\1/p" | head -n 1; }
equal() { [[ $2 == "$3" ]] || { echo "$1: $2 instead of $3" >&2; exit 1; }; }

expect 'ORDERS' nats stream add ORDERS --subjects 'orders.>' --defaults --dupe-window 2m
expect 'ORDERS' nats stream ls
expect 'ORDERS' nats stream report
expect 'LIMITED' nats stream add LIMITED --subjects limited --defaults --storage memory --max-msgs 10

for number in 1 2 3; do
    nats pub --jetstream orders.new "order $number" >/dev/null 2>&1
done
nats pub --jetstream orders.dup x -H 'Nats-Msg-Id:one' >/dev/null 2>&1
nats pub --jetstream orders.dup x -H 'Nats-Msg-Id:one' >/dev/null 2>&1
equal 'messages after a duplicate' "$(nats stream info ORDERS --json | json state.messages)" 4
nats pub orders.many 'message {{Count}}' --count 100 --quiet >/dev/null 2>&1
equal 'messages after 100 more' "$(nats stream info ORDERS --json | json state.messages)" 104
nats bench js pub sync orders.bench --stream ORDERS --msgs 500 --size 128 --no-progress >/dev/null 2>&1
nats bench js pub async orders.bench --stream ORDERS --msgs 5000 --size 128 --batch 100 --no-progress >/dev/null 2>&1
equal 'messages after bench' "$(nats stream info ORDERS --json | json state.messages)" 5604
for _ in $(seq 15); do nats pub --jetstream limited x >/dev/null 2>&1; done
equal 'messages of a limited stream' "$(nats stream info LIMITED --json | json state.messages)" 10

expect 'order 2' nats stream get ORDERS 2
expect 'order 3' nats stream get ORDERS --last-for orders.new
expect 'orders.bench' nats stream subjects ORDERS

expect 'worker' nats consumer add ORDERS worker --pull --defaults --ack explicit --filter orders.new
expect 'worker' nats consumer ls ORDERS
expect 'order 1' nats consumer next ORDERS worker --ack
expect 'order 2' nats consumer next ORDERS worker --no-ack
equal 'acknowledged' "$(nats consumer info ORDERS worker --json | json ack_floor.stream_seq)" 1
equal 'waiting for acks' "$(nats consumer info ORDERS worker --json | json num_ack_pending)" 1
expect 'worker' nats consumer report ORDERS
nats bench js consume --stream ORDERS --consumer bench --msgs 5000 --no-progress >/dev/null 2>&1 ||
    nats bench js fetch --stream ORDERS --msgs 5000 --no-progress >/dev/null 2>&1

expect 'OK' nats server check jetstream
expect 'OK' nats server check stream --stream ORDERS --peer-expect 0
expect 'OK' nats server check connection
expect 'JetStream' nats account info

expect '200' nats stream edit ORDERS --max-msgs 200 --force
equal 'messages after a smaller limit' "$(nats stream info ORDERS --json | json state.messages)" 200
nats stream rmm ORDERS 5604 --force
equal 'messages after removing one' "$(nats stream info ORDERS --json | json state.messages)" 199
nats stream purge ORDERS --force >/dev/null
equal 'messages after a purge' "$(nats stream info ORDERS --json | json state.messages)" 0
nats consumer rm ORDERS worker --force
nats stream rm ORDERS --force
nats stream rm LIMITED --force
expect 'No Streams defined' nats stream ls

# Publish and subscribe, request and reply.
"$tool" --server "$NATS_URL" reply help.me 'on my way' >/dev/null 2>&1 &
replier=$!
trap 'kill "$replier" 2>/dev/null || true' EXIT
answer=
for _ in $(seq 50); do
    # Until the replier listens, the answer is empty.
    answer=$(nats request help.me please --raw 2>/dev/null) || true
    [[ -z $answer ]] || break
    sleep 0.2
done
equal 'answer to a request' "$answer" 'on my way'
