#!/usr/bin/env bash
# Starts three nodes of etcd and five of this store on this machine, measures both in turn with the
# same load generator, prints the medians and their ratios, and ends what it started.
# This store is asked through any node, and straight at each key's coordinator.
set -euo pipefail
cd "$(dirname "$0")"

ROOT=../..
STATE=target/servers
STORE=$ROOT/target/release/dynamo
PEERS=target/release/peers
# The course's ids, on ports of their own: a cluster that runs already is not disturbed.
NODES=(5554 5556 5558 5560 5562)
FIRST_PORT=23700
ETCD=(a b c)
# As ./run.sh starts the nodes.
SCHEDULE=()
! command -v chrt >/dev/null || SCHEDULE=(chrt --batch 0)
rounds=3
seconds=5
sessions=one
connections=32,1
ahead=1,16
pids=()

usage() {
    cat <<'END'
usage: report/peers/compare.sh [--rounds COUNT] [--seconds SECONDS] [--sessions one|etcd|all]
                               [--connections COUNT,...] [--ahead COUNT,...]

  --rounds COUNT     how often each store is measured: 3
  --seconds SECONDS  how long each measurement takes: 5. A round has six for each number of connections
                     and of requests ahead: writes and reads of this store through any node, of this
                     store straight to the coordinators, and of etcd
  --connections COUNT,...  how many connections: 32,1
  --ahead COUNT,...  how many requests each keeps in flight: 1,16
  --sessions WHICH   which servers are in sessions of their own: Linux shares the processors out among
                     sessions before processes. none: one (all in that of the clients); those of etcd,
                     as if services beside a cluster of ./run.sh: etcd; each of both stores: all

Needs cargo, etcd and protoc. Uses the ports 23700 to 23709 and 23791 to 23806 of 127.0.0.1, and the
folder report/peers/target. With the defaults it takes about seven minutes, once it is built.
END
}

fail() {
    echo "compare.sh: $*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || fail "$1 is missing. $2"
}

check_number() {
    [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || fail "$1 takes a number from 1 to 99"
}

options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --rounds)
            check_number "$@"
            rounds=$2
            shift 2
            ;;
        --seconds)
            check_number "$@"
            seconds=$2
            shift 2
            ;;
        --sessions)
            check_sessions "${2:-}"
            sessions=$2
            shift 2
            ;;
        --connections)
            check_list "$@"
            connections=$2
            shift 2
            ;;
        --ahead)
            check_list "$@"
            ahead=$2
            shift 2
            ;;
        -h | --help)
            usage
            exit
            ;;
        *)
            usage >&2
            fail "there is no option $1"
            ;;
        esac
    done
}

check_list() {
    [[ ${2:-} =~ ^[1-9][0-9]{0,2}(,[1-9][0-9]{0,2})*$ ]] || fail "$1 takes numbers with commas between them"
}

check_sessions() {
    [[ ${1:-} =~ ^(one|etcd|all)$ ]] || fail "--sessions takes one, etcd or all"
}

check() {
    local debian="On Debian: apt-get install etcd-server protobuf-compiler"
    need cargo "Install Rust (1.89 or later), see https://rustup.rs"
    need etcd "$debian"
    need protoc "The etcd client is built with it. $debian"
    [ -r /proc/self/stat ] || fail "CPU time is read from /proc, as Linux has it"
    local port
    for port in $(seq 23700 23709) $(seq 23791 23793) $(seq 23804 23806); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            fail "port $port of 127.0.0.1 is in use"
        fi
    done
}

build() {
    echo "building" >&2
    cargo build --release --quiet --manifest-path $ROOT/Cargo.toml
    cargo build --release --quiet
}

# Ends whatever was started, also after an error or Ctrl-C. What the servers said stays after an
# error, until the next run.
clean_up() {
    local ended=$? pid
    trap - EXIT INT TERM
    for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
    # An etcd that leads looks for another leader first, which takes it some seconds.
    for _ in $(seq 300); do
        kill -0 ${pids[@]+"${pids[@]}"} 2>/dev/null || break
        sleep 0.05
    done
    for pid in ${pids[@]+"${pids[@]}"}; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null
    if [ "$ended" -eq 0 ]; then rm -rf "$STATE"; fi
}

start_etcd() {
    local place=0 name cluster session=(setsid)
    [ "$sessions" != one ] || session=()
    cluster="a=http://127.0.0.1:23804,b=http://127.0.0.1:23805,c=http://127.0.0.1:23806"
    for name in "${ETCD[@]}"; do
        local client=http://127.0.0.1:$((23791 + place)) peer=http://127.0.0.1:$((23804 + place))
        ${session[@]+"${session[@]}"} etcd --name "$name" --data-dir "$STATE/etcd-$name" --log-level error \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$cluster" --initial-cluster-state new \
            >"$STATE/etcd-$name.log" 2>&1 &
        pids+=($!)
        etcd_pids+=($!)
        etcd_urls+=("$client")
        place=$((place + 1))
    done
}

start_store() {
    local id port=$FIRST_PORT nodes="" session=(setsid)
    [ "$sessions" = all ] || session=()
    for id in "${NODES[@]}"; do
        nodes+="${nodes:+,}{\"id\":$id,\"client_port\":$port,\"peer_port\":$((port + 1))}"
        store_addresses+=("127.0.0.1:$port")
        port=$((port + 2))
    done
    echo "{\"name\":\"compare\",\"nodes\":[$nodes]}" >"$STATE/cluster.json"
    for id in "${NODES[@]}"; do
        ${session[@]+"${session[@]}"} ${SCHEDULE[@]+"${SCHEDULE[@]}"} "$STORE" node "$id" \
            --cluster "$STATE/cluster.json" --data "$STATE/$id" >"$STATE/$id.log" 2>&1 &
        pids+=($!)
        store_pids+=($!)
    done
    "$STORE" status --wait 30 --cluster "$STATE/cluster.json" >/dev/null ||
        fail "the store did not start: $(tail -n 2 "$STATE"/*.log)"
}

comma() {
    local IFS=,
    echo "$*"
}

# How many there are in a list with commas.
count() {
    local list
    IFS=, read -ra list <<<"$1"
    echo ${#list[@]}
}

options "$@"
check
build
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf "$STATE"
mkdir -p "$STATE"
etcd_pids=() etcd_urls=() store_pids=() store_addresses=()
start_etcd
start_store
measurements=$((rounds * 6 * $(count "$connections") * $(count "$ahead")))
# Some time for what comes before them. In the background, since bash heeds a signal only between
# commands, and while it waits.
timeout $((measurements * (seconds + 2) + 180)) "$PEERS" \
    --store "$(comma "${store_addresses[@]}")" --store-pids "$(comma "${store_pids[@]}")" \
    --etcd "$(comma "${etcd_urls[@]}")" --etcd-pids "$(comma "${etcd_pids[@]}")" \
    --rounds "$rounds" --seconds "$seconds" --connections "$connections" --ahead "$ahead" &
pids+=($!)
wait $! || fail "the comparison did not come to its end; the servers' logs are in report/peers/$STATE"
