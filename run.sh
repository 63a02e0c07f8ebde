#!/usr/bin/env bash
# Builds the store, runs a cluster of it on this machine, and does things to its nodes.
set -euo pipefail
cd "$(dirname "$0")"

BINARY=target/release/dynamo
# With more threads than cores, a thread that wakes up need not interrupt the one that woke it: what
# that one still has to send then goes out in larger batches.
SCHEDULE=()
! command -v chrt >/dev/null || SCHEDULE=(chrt --batch 0)
CLUSTER=()
STATE=target/cluster
if [ -n "${DYNAMO_CLUSTER:-}" ]; then
    CLUSTER=(--cluster "$DYNAMO_CLUSTER")
    STATE+=-$(basename "$DYNAMO_CLUSTER" .json)
fi

# A line between what a node logged before and after its start.
STARTED="-- ./run.sh starts the node"

usage() {
    cat <<'END'
usage: ./run.sh [COMMAND]

  (nothing)     build, start the cluster, take a short tour
  up [OPTIONS]  build, start every node that does not run, wait until they answer;
                OPTIONS go to the nodes, such as --sync os
  down          end every node in order; the data stays
  status        a line per node
  kill ID       kill -9 a node            start ID   start it again
  pause ID      stop a node (SIGSTOP)     resume ID  let it go on (SIGCONT)
  wait          until every node that runs answers and has what it missed
  logs [ID]     the last lines of the nodes' logs
  shell [ID]    type requests at a node
  bench [...]   measure the running cluster; see ./run.sh bench --help
  plot [...]    measure a crash, a pause and the way back, and draw them; see ./run.sh plot --help
  soak [...]    run load and faults for long, and see that nothing grows; see ./run.sh soak --help
  grade [...]   the course's six phases and their points; see ./run.sh grade --help
  stress [...]  a storm of faults over a cluster of its own, by a seed of yours, and whether what the
                clients saw is linearizable; see ./run.sh stress --help
  test          formatter, clippy and all tests but the longest
  clean         down, and delete the data

The nodes are the course's five, 5554 5556 5558 5560 5562, or those of the file that
DYNAMO_CLUSTER names. Their data and logs are in target/cluster, or target/cluster-NAME of a NAME.json.
END
}

fail() {
    echo "run.sh: $*" >&2
    exit 1
}

need_cargo() {
    command -v cargo >/dev/null || fail "cargo is missing. Install Rust (1.89 or later) with
    rustup, see https://rustup.rs, or with your system's packages, and try again"
}

build() {
    need_cargo
    cargo build --release --quiet
}

# Of the system's own: on Debian in the package procps.
need_tools() {
    command -v ps >/dev/null || fail "ps is missing. Install it with your system's packages"
}

built() {
    [ -x "$BINARY" ] || fail "nothing is built yet; ./run.sh up builds and starts the cluster"
}

dynamo() {
    "$BINARY" "$@" ${CLUSTER[@]+"${CLUSTER[@]}"}
}

# "id client_port peer_port" a line. Read into a variable first: the cluster file may be wrong.
nodes() {
    dynamo nodes
}

# The process id of a node that runs, or nothing. A number in a file may be another process's
# by now, so what it runs is looked at.
pid_of() {
    local pid
    { read -r pid <"$STATE/$1.pid" && kill -0 "$pid"; } 2>/dev/null || return 1
    [[ $(ps -o args= -p "$pid" 2>/dev/null) == *"dynamo node $1 "* ]] || return 1
    echo "$pid"
}

running_pid() {
    [[ ${1:-} =~ ^[0-9]+$ ]] || fail "which node? Give an id, such as 5554"
    pid_of "$1" || fail "node $1 is not running; ./run.sh start $1 starts it"
}

# The socket that listens on a port, as Linux numbers it.
listener() {
    awk -v port="$(printf ':%04X$' "$1")" '$2 ~ port && $4 == "0A" {print $10; exit}' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

port_taken() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Says who listens on a port, where the system tells.
owner_of_port() {
    local pid
    pid=$(find /proc/[0-9]*/fd -lname "socket:\[$(listener "$1")\]" 2>/dev/null | cut -d/ -f3 | head -n 1) || true
    if [ -n "$pid" ]; then
        echo "process $pid, $(ps -o args= -p "$pid")"
    else
        echo "a process that cannot be told from here"
    fi
}

check_ports() {
    local port
    for port in "$2" "$3"; do
        if port_taken "$port"; then
            fail "port $port of node $1 is in use by $(owner_of_port "$port")"
        fi
    done
}

start_node() {
    local id=$1
    shift
    mkdir -p "$STATE/$id"
    echo "$STARTED" >>"$STATE/$id.log"
    # A process group of its own (set -m), which Ctrl-C does not reach, but no session of its own:
    # Linux first shares the processors out among sessions, and one for each node costs a fifth of
    # the throughput.
    (
        set -m
        nohup ${SCHEDULE[@]+"${SCHEDULE[@]}"} "$BINARY" node "$id" --data "$STATE/$id" \
            ${CLUSTER[@]+"${CLUSTER[@]}"} "$@" </dev/null >>"$STATE/$id.log" 2>&1 &
        echo $! >"$STATE/$id.pid"
    )
}

up() {
    need_tools
    build
    mkdir -p "$STATE"
    local list id client peer missing=()
    list=$(nodes)
    while read -r id client peer _; do
        if pid_of "$id" >/dev/null; then continue; fi
        missing+=("$id")
        check_ports "$id" "$client" "$peer"
    done <<<"$list"
    for id in ${missing[@]+"${missing[@]}"}; do start_node "$id" "$@"; done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "every node is running already"
    else
        echo "started ${missing[*]}"
    fi
    await || { complain ${missing[@]+"${missing[@]}"}; incomplete; }
}

# The last words of nodes that ended right after their start.
complain() {
    local id
    for id in "$@"; do
        if pid_of "$id" >/dev/null; then continue; fi
        echo "node $id ended:" >&2
        tail -n 2 "$STATE/$id.log" | grep -vFx -e "$STARTED" >&2 || true
    done
}

await() {
    local list ids=() id
    list=$(nodes) || exit 1
    while read -r id _; do
        if pid_of "$id" >/dev/null; then ids+=("$id"); fi
    done <<<"$list"
    # Of those that were just started all may have ended already.
    [ ${#ids[@]} -gt 0 ] && dynamo status --wait 30 "${ids[@]}"
}

incomplete() {
    fail "not all are there: ./run.sh status says which; start ID starts one, resume ID lets it go on"
}

down() {
    local id pids=() pid
    for file in "$STATE"/*.pid; do
        [ -e "$file" ] || continue
        id=$(basename "$file" .pid)
        if pid=$(pid_of "$id"); then
            # A paused process ends only when it goes on.
            kill "$pid" && kill -CONT "$pid"
            pids+=("$pid")
        fi
        rm -f "$file"
    done
    if [ ${#pids[@]} -eq 0 ]; then
        echo "no node is running"
        return
    fi
    for pid in "${pids[@]}"; do
        for _ in $(seq 200); do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.05
        done
        echo "process $pid does not end; killing it"
        kill -9 "$pid" || true
    done
    echo "ended ${#pids[@]} nodes; the data stays in $STATE"
}

start() {
    [[ ${1:-} =~ ^[0-9]+$ ]] || fail "which node? Give an id, such as 5554"
    need_tools
    built
    local pid list id client peer
    if pid=$(pid_of "$1"); then fail "node $1 is running already, as process $pid"; fi
    [ -d "$STATE" ] || fail "there is no cluster yet; ./run.sh up starts one"
    list=$(nodes)
    while read -r id client peer _ && [ "$id" != "$1" ]; do :; done <<<"$list"
    [ "$id" = "$1" ] || fail "there is no node $1 in this cluster, only" $(cut -d' ' -f1 <<<"$list")
    check_ports "$1" "$client" "$peer"
    start_node "$@"
    echo "node $1 started; ./run.sh wait waits until it has what it missed"
}

signal() {
    local pid
    pid=$(running_pid "${3:-}")
    kill "-$1" "$pid"
    if [ "$1" = KILL ]; then
        # Its end takes a moment, and a start must not meet it. Each look takes some, too.
        for _ in 1 2 3 4; do pid_of "$3" >/dev/null || break; done
    fi
    echo "node $3 $2"
}

logs() {
    if [ $# -gt 0 ]; then
        [ -e "$STATE/$1.log" ] || fail "node $1 has no log yet; ./run.sh start $1 starts it"
        tail -n 40 "$STATE/$1.log"
    else
        for file in "$STATE"/*.log; do
            [ -e "$file" ] || fail "there are no logs yet; ./run.sh up starts the cluster"
            echo "== $file"
            tail -n 8 "$file"
        done
    fi
}

# Asks a node, and prints the reply: of many lines, which a store with data in it gives, the first
# ones and the last, and of long lines the start.
say() {
    local node=$1 reply
    shift
    reply=$(echo "$*" | dynamo shell "$node" 2>&1) || true
    printf '%5s> %s\n' "$node" "$*"
    awk '{line[NR] = "       " (length($0) > 90 ? substr($0, 1, 87) "..." : $0)}
        END {for (i = 1; i <= NR; i++)
            if (NR < 9 || i < 4 || i == NR) print line[i]
            else if (i == 4) print "       and so on"}' <<<"$reply"
}

tour() {
    local first second coordinator port count
    up
    { read -r first port _ && read -r second _; } < <(nodes)
    count=$(nodes | wc -l)
    echo
    say "$first" PUT key1 hello
    say "$second" GET key1
    say "$second" WHERE key1
    coordinator=$(echo WHERE key1 | dynamo shell "$first" | cut -d' ' -f3)
    signal KILL "is killed: it is the coordinator of key1" "$coordinator"
    [ "$second" != "$coordinator" ] || second=$first
    say "$second" GET key1
    say "$second" PUT key1 "hello again"
    start "$coordinator" >/dev/null
    await >/dev/null
    say "$coordinator" GET @
    cat <<END

$count processes are up. Now you:
  telnet 127.0.0.1 $port      PUT, GET, DEL, CAS, GET @, GET *, RING, STATS, HELP
  ./run.sh kill $second         or pause $second; requests go on. Then start, or resume
  ./run.sh bench             how fast it is
  ./run.sh down              end; the data stays. ./run.sh help lists the rest
END
}

check() {
    need_cargo
    cargo fmt --check || fail "the formatter disagrees: run cargo fmt"
    cargo clippy --quiet --all-targets -- -D warnings
    cargo clippy --quiet --test soak -- -D warnings
    cargo test --quiet
}

# A seed of one's own comes after the flag that lets it choose one, and wins.
grade() {
    need_cargo
    cargo test --release --quiet --test grade -- --any-seed "$@"
}

case ${1:-tour} in
tour) tour ;;
up) shift && up "$@" ;;
down) down ;;
status) built && dynamo status ;;
kill) signal KILL "is killed" "${2:-}" ;;
pause) signal STOP "is paused" "${2:-}" ;;
resume) signal CONT "goes on" "${2:-}" ;;
start) shift && start "$@" ;;
wait) built && { await || incomplete; } ;;
logs) shift && logs "$@" ;;
shell) shift && built && dynamo shell "$@" ;;
bench) shift && built && dynamo bench "$@" ;;
plot) shift && need_cargo && cargo test --release --quiet --test plot -- --secs 12 --out report/plots "$@" ;;
soak) shift && need_cargo && cargo test --profile checked --quiet --test soak -- "$@" ;;
grade) shift && grade "$@" ;;
stress) shift && need_cargo && cargo test --profile checked --quiet --test stress -- "$@" ;;
test) check ;;
clean) down && rm -rf "$STATE" && echo "deleted $STATE" ;;
help | -h | --help) usage ;;
*) usage >&2 && fail "there is no command $1" ;;
esac
