#!/usr/bin/env bash
# Builds the store, runs a cluster of it on this machine, and does things to its nodes.
set -euo pipefail
case ${DYNAMO_CLUSTER:-/} in
/*) ;;
*) DYNAMO_CLUSTER=$PWD/$DYNAMO_CLUSTER ;;
esac
# How to call this script again, for messages.
RUN=./run.sh
case $0 in */*) RUN=$(printf %q "$0") ;; esac
# This file may be a link into the checkout. With a CDPATH set, cd needs the whole path.
cd -- "$(dirname -- "$(readlink -f -- "$0")")"

BINARY=target/release/dynamo
# Cargo shows its progress on a terminal only.
QUIET=()
[ -t 2 ] || QUIET=(--quiet)
# With more threads than cores, a thread that wakes up need not interrupt the one that woke it: what
# that one still has to send then goes out in larger batches.
SCHEDULE=()
! chrt --batch 0 true 2>/dev/null || SCHEDULE=(chrt --batch 0)
# Any command takes --strategy WORD, which is the same as DYNAMO_STRATEGY=WORD.
REST=()
while [ $# -gt 0 ]; do
    case $1 in
    --strategy) DYNAMO_STRATEGY=${2:-} && shift ;;
    --strategy=*) DYNAMO_STRATEGY=${1#*=} ;;
    *) REST+=("$1") ;;
    esac
    shift || true
done
set -- ${REST[@]+"${REST[@]}"}
CLUSTER=()
STATE=target/cluster
if [ -n "${DYNAMO_CLUSTER:-}" ] && [ -n "${DYNAMO_STRATEGY:-}" ]; then
    echo "run.sh: the file that DYNAMO_CLUSTER names says itself which strategy it has" >&2
    exit 1
elif [ -z "${DYNAMO_CLUSTER:-}" ]; then
    case ${DYNAMO_STRATEGY-quorum} in
    quorum) unset DYNAMO_STRATEGY ;;
    chain) STATE+=-chain && RUN="DYNAMO_STRATEGY=chain $RUN" && export DYNAMO_STRATEGY ;;
    *) echo "run.sh: the strategy is quorum or chain, not ${DYNAMO_STRATEGY@Q}" >&2 && exit 1 ;;
    esac
fi
if [ -n "${DYNAMO_CLUSTER:-}" ]; then
    CLUSTER=(--cluster "$DYNAMO_CLUSTER")
    STATE+=-$(basename "$DYNAMO_CLUSTER" .json)
    RUN="DYNAMO_CLUSTER=$(printf %q "$DYNAMO_CLUSTER") $RUN"
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
  status [ID...]  whether every key can be read and written, and a line per node
  kill ID       kill -9 a node
  start ID [OPTIONS]  start it again; OPTIONS go to the node
  pause ID      stop a node (SIGSTOP)     resume ID  let it go on (SIGCONT)
  wait          wait until every node that runs answers and has what it missed; give up when none
                of them makes progress
  logs [ID]     print the last lines of the nodes' logs
  shell [ID]    type requests at a node
  chat GROUP NAME  talk in a group under this name; see ./run.sh chat --help
  bench [...]   measure the running cluster; see ./run.sh bench --help
  plot [...]    measure and draw a crash, a pause and the recovery; see ./run.sh plot --help
  soak [...]    run load and faults for long, and check that nothing grows; see ./run.sh soak --help
  grade [...]   run the course's six phases and count the points, or with the word messenger the
                two of its sibling assignment; see ./run.sh grade --help
  stress [...]  inject faults under load into a cluster of its own, and check that the clients'
                history is linearizable; see ./run.sh stress --help
  test          run the formatter, clippy and all tests but the longest
  clean         down, and delete the data

The nodes are the course's five, 5554 5556 5558 5560 5562, or those of the file that
DYNAMO_CLUSTER names. Their data and logs are in target/cluster, or target/cluster-NAME of a NAME.json.

With DYNAMO_STRATEGY=chain, or with --strategy chain after any command, the five nodes replicate each
key along a chain and not by a quorum. That is another cluster, in target/cluster-chain. A cluster
file names its strategy itself.
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
    local built
    need_cargo
    [ -t 2 ] || [ -e "$BINARY" ] || echo "building, which takes a minute or two the first time" >&2
    # Where the caller's cargo puts other builds does not matter here; but its configuration may name a
    # target, and then cargo puts the program into a folder of that name.
    built=$(env -u CARGO_BUILD_TARGET cargo build --release ${QUIET[@]+"${QUIET[@]}"} --target-dir target \
        --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    [ -n "$built" ] || fail "cargo built the program, and did not say where"
    [ "$built" -ef "$BINARY" ] || {
        mkdir -p target/release
        ln -sf -- "$built" "$BINARY"
    }
}

# Debian has ps in the package procps.
need_tools() {
    command -v ps >/dev/null || fail "ps is missing. Install it with your system's packages"
}

built() {
    [ -x "$BINARY" ] || fail "nothing is built yet; $RUN up builds and starts the cluster"
}

# A state folder belongs to one cluster file: another file of the same name must not use it. Nodes that
# run can be ended even if their file is gone.
own_state() {
    local owner
    if [ -e "$STATE/file" ]; then
        read -r owner <"$STATE/file"
        [ "$(readlink -m -- "$owner")" = "$(readlink -m -- "${DYNAMO_CLUSTER:-}")" ] ||
            fail "$STATE belongs to the cluster file $owner; give your cluster file another name"
    elif [ -n "${DYNAMO_CLUSTER:-}" ] && [ ! -e "$DYNAMO_CLUSTER" ]; then
        fail "there is no cluster file $DYNAMO_CLUSTER"
    fi
}

# Only one run.sh at a time starts or ends nodes of a cluster.
alone() {
    need_tools
    own_state
    ! command -v flock >/dev/null || {
        mkdir -p target
        exec 9>"$STATE.lock"
        flock -w 30 9 || fail "another run.sh has been starting or ending nodes for 30 s"
    }
}

dynamo() {
    "$BINARY" "$@" ${CLUSTER[@]+"${CLUSTER[@]}"}
}

# "id client_port peer_port" a line. Read into a variable first: the cluster file may be wrong.
nodes() {
    dynamo nodes
}

# Prints the process id of a node that runs. The number in the file may belong to another process by
# now, so this checks what that process runs. The file may be a copy from another checkout, so this
# also checks where it runs: start_node starts it here.
pid_of() {
    local pid
    { read -r pid <"$STATE/$1.pid" && kill -0 "$pid"; } 2>/dev/null || return 1
    [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == *"dynamo node $1 "* ]] || return 1
    [ "/proc/$pid/cwd" -ef . ] || return 1
    echo "$pid"
}

check_id() {
    [[ ${1:-} =~ ^[0-9]+$ ]] || fail "which node? Give an id, such as 5554"
}

running_pid() {
    check_id "$@"
    pid_of "$1" && return
    [ -d "$STATE/$1" ] || fail "node $1 has never run here; $RUN status tells which nodes there are"
    fail "node $1 is not running; $RUN start $1 starts it"
}

# The sockets that listen on a port, as Linux numbers them: those of this address first.
listeners() {
    local a b c d
    IFS=. read -r a b c d <<<"$1"
    awk -v port="$(printf ':%04X' "$2")" -v own="$(printf '%02X%02X%02X%02X' "$d" "$c" "$b" "$a" 2>/dev/null)" '
        $2 ~ port "$" && $4 == "0A" {if ($2 == own port) print $10; else others = others $10 "\n"}
        END {printf "%s", others}' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

port_taken() {
    case $1 in
    127.*) (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null ;;
    # Another machine may never answer.
    *) timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null ;;
    esac
}

# Says who listens on a port, where the system tells.
owner_of_port() {
    local socket pid=
    read -r socket < <(listeners "$1" "$2") || true
    [ -z "$socket" ] ||
        pid=$(find /proc/[0-9]*/fd -lname "socket:\[$socket\]" 2>/dev/null | cut -d/ -f3 | head -n 1) || true
    if [ -n "$pid" ]; then
        echo "process $pid, $(ps -ww -o args= -p "$pid")"
    else
        echo "a process that cannot be seen from here"
    fi
}

check_ports() {
    local id=$1 host=$4 port
    for port in "$2" "$3"; do
        if port_taken "$host" "$port"; then
            fail "port $port of node $id is in use by $(owner_of_port "$host" "$port")"
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
            ${CLUSTER[@]+"${CLUSTER[@]}"} "$@" </dev/null >>"$STATE/$id.log" 2>&1 9>&- &
        echo $! >"$STATE/$id.pid"
    )
}

up() {
    local option list id client peer host missing=()
    for option in "$@"; do
        case $option in
        --rebuild*) fail "--rebuild has a node copy everything from the others, so it is for one node:
    $RUN start ID --rebuild" ;;
        --data* | --cluster*) fail "up gives each node its own $option" ;;
        esac
    done
    build
    alone
    list=$(nodes)
    while read -r id client peer host; do
        if pid_of "$id" >/dev/null; then continue; fi
        missing+=("$id")
        check_ports "$id" "$client" "$peer" "$host"
    done <<<"$list"
    mkdir -p "$STATE"
    [ -z "${DYNAMO_CLUSTER:-}" ] || echo "$DYNAMO_CLUSTER" >"$STATE/file"
    for id in ${missing[@]+"${missing[@]}"}; do start_node "$id" "$@"; done
    exec 9>&-
    if [ ${#missing[@]} -gt 0 ]; then
        echo "starting ${missing[*]}"
    elif [ $# -eq 0 ]; then
        echo "every node is running already"
    else
        fail "every node is running already; end them first for other options: $RUN down"
    fi
    await
}

# Waits until every node that runs is ready. Fails at once if one has ended by itself or is paused:
# waiting for it would be in vain.
await() {
    local list ids=() waiter
    list=$(nodes)
    while read -r id _; do
        [ ! -e "$STATE/$id.pid" ] || ids+=("$id")
    done <<<"$list"
    [ ${#ids[@]} -gt 0 ] || fail "no node is running; $RUN up starts them"
    "$BINARY" status --wait 30 "${ids[@]}" ${CLUSTER[@]+"${CLUSTER[@]}"} &
    waiter=$!
    while sleep 0.1 && kill -0 "$waiter" 2>/dev/null; do
        for id in "${ids[@]}"; do
            if hinders "$id"; then
                kill "$waiter" 2>/dev/null || true
                exit 1
            fi
        done
    done
    wait "$waiter" || fail "$RUN logs ID tells more"
}

# Whether a node cannot get ready; prints why.
hinders() {
    local pid
    if ! pid=$(pid_of "$1"); then
        echo "run.sh: node $1 has ended:" >&2
        tail -n 8 "$STATE/$1.log" | grep -vFx -e "$STARTED" -e "" >&2 || true
    elif [[ $(ps -o state= -p "$pid" 2>/dev/null) == T* ]]; then
        echo "run.sh: node $1 is paused; $RUN resume $1 lets it go on" >&2
    else
        return 1
    fi
}

down() {
    alone
    local id ids=() pid
    for file in "$STATE"/*.pid; do
        [ -e "$file" ] || continue
        id=$(basename "$file" .pid)
        if pid=$(pid_of "$id"); then
            # A paused process ends only when it goes on.
            kill "$pid" && kill -CONT "$pid"
            ids+=("$id")
        else
            rm -f "$file"
        fi
    done
    if [ ${#ids[@]} -eq 0 ]; then
        echo "no node is running"
        return
    fi
    for id in "${ids[@]}"; do
        for _ in $(seq 200); do
            pid=$(pid_of "$id") || break
            sleep 0.05
        done
        if pid=$(pid_of "$id"); then
            echo "process $pid does not end; killing it"
            kill -9 "$pid" || true
        fi
        rm -f "$STATE/$id.pid"
    done
    echo "ended ${#ids[@]} nodes; the data stays in $STATE"
}

start() {
    check_id "$@"
    built
    alone
    local pid list id client peer host
    if pid=$(pid_of "$1"); then fail "node $1 is running already, as process $pid"; fi
    [ -d "$STATE" ] || fail "there is no cluster yet; $RUN up starts one"
    list=$(nodes)
    while read -r id client peer host && [ "$id" != "$1" ]; do :; done <<<"$list"
    [ "$id" = "$1" ] || fail "there is no node $1 in this cluster, only" $(cut -d' ' -f1 <<<"$list")
    check_ports "$1" "$client" "$peer" "$host"
    start_node "$@"
    echo "node $1 started; $RUN wait waits until it has what it missed"
}

signal() {
    alone
    local pid
    pid=$(running_pid "${3:-}")
    kill "-$1" "$pid"
    if [ "$1" = KILL ]; then
        # The process takes a moment to end, and a start must not find it. Each look takes some time too.
        for _ in 1 2 3 4; do pid_of "$3" >/dev/null || break; done
        rm -f "$STATE/$3.pid"
    fi
    echo "node $3 $2"
}

chat() {
    case " $* " in *" -h "* | *" --help "*) dynamo chat --help && return ;; esac
    [ $# -ge 2 ] || fail "chat takes a group and a name, as in $RUN chat friends ann"
    dynamo chat "$1" --as "${@:2}"
}

logs() {
    own_state
    if [ $# -gt 0 ]; then
        check_id "$1"
        [ -e "$STATE/$1.log" ] || fail "node $1 has no log: it has never run here"
        tail -n 40 "$STATE/$1.log"
    else
        for file in "$STATE"/*.log; do
            [ -e "$file" ] || fail "there are no logs yet; $RUN up starts the cluster"
            echo "== $file"
            tail -n 8 "$file"
        done
    fi
}

# Sends a request to a node and prints the reply: of a long reply the first lines and the last, and of
# long lines the start.
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
  $RUN kill $second         or pause $second: requests go on. Then start or resume $second
  $RUN bench             how fast it is
  $RUN down              end all nodes; the data stays. $RUN help lists the rest
END
}

check() {
    need_cargo
    cargo fmt --check || fail "the formatter disagrees: run cargo fmt"
    cargo clippy ${QUIET[@]+"${QUIET[@]}"} --all-targets -- -D warnings
    cargo clippy ${QUIET[@]+"${QUIET[@]}"} --test soak -- -D warnings
    cargo test ${QUIET[@]+"${QUIET[@]}"} --no-run
    # Most tests wait for time-outs and not for a core.
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} cargo test --quiet
}

# Builds a test program in a profile and replaces this script by it, so that its last line and its exit
# code are those of this script.
run_test() {
    local profile=$1 name=$2 messages program
    shift 2
    need_cargo
    messages=$(cargo test --profile "$profile" ${QUIET[@]+"${QUIET[@]}"} --test "$name" --no-run \
        --message-format json-render-diagnostics)
    program=$(sed -n 's/.*"kind":\["test"\].*"executable":"\([^"]*\)".*/\1/p' <<<"$messages")
    [ -x "$program" ] || fail "cargo built the test $name, and did not say where"
    exec "$program" "$@"
}

clean() {
    down
    rm -rf "$STATE"
    echo "deleted $STATE"
}

command=${1:-tour}
[ $# -eq 0 ] || shift
# How many arguments a command takes. Commands with options of their own have a --help of their own.
case $command in
status | shell | chat | bench | plot | soak | grade | stress) most=1000 own_help=yes ;;
up | start) most=1000 ;;
kill | pause | resume | logs) most=1 ;;
tour | down | wait | test | clean) most=0 ;;
help | -h | --help) usage && exit ;;
*) usage >&2 && fail "there is no command $command" ;;
esac
case ${own_help:-} in
"") case " $* " in *" -h "* | *" --help "*) usage && exit ;; esac ;;
esac
[ $# -le "$most" ] || fail "$command takes no ${*:most + 1}; $RUN help lists the commands"

case $command in
tour) tour ;;
up) up "$@" ;;
down) down ;;
status) built && dynamo status "$@" ;;
kill) signal KILL "is killed" "$@" ;;
pause) signal STOP "is paused" "$@" ;;
resume) signal CONT "goes on" "$@" ;;
start) start "$@" ;;
wait) built && need_tools && own_state && await ;;
logs) logs "$@" ;;
shell) built && dynamo shell "$@" ;;
chat) built && chat "$@" ;;
bench) built && dynamo bench "$@" ;;
plot) run_test release plot --secs 12 --out "report/plots${DYNAMO_STRATEGY:+-$DYNAMO_STRATEGY}" "$@" ;;
soak) run_test checked soak "$@" ;;
# A --seed in the arguments comes after --any-seed, and wins.
grade) run_test release grade --any-seed "$@" ;;
stress) run_test checked stress "$@" ;;
test) check ;;
clean) clean ;;
esac
