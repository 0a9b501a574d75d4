# shellcheck shell=bash
# What the scripts share: words, finding programs, and processes that end with the script.
# Sourced, never run. Keeps to bash 3.2, which is what macOS has.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# How long anything may take that normally takes a moment, and how long a process has to
# end (its own deadline is 25 s), in tenths of a second.
readonly PATIENCE=600 FAREWELL=300

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# So that the programs and the tests share what is compiled: see tests/Cargo.toml.
# shellcheck disable=SC2034 # those that source this use it
readonly AS_TESTS=(--features tests/as-tests)

# --- What is on this machine

# The path of a program: in PATH, or where packages put what comes in several versions.
find_program() {
    local directory
    if command -v "$1"; then
        return 0
    fi
    for directory in $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/libexec/postgresql* \
        /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        /opt/homebrew/bin /usr/local/bin | sort -rV); do
        if [ -x "$directory/$1" ]; then
            printf '%s\n' "$directory/$1"
            return 0
        fi
    done
    return 1
}

# The path of a server that speaks Redis's protocol.
find_redis() { find_program redis-server || find_program valkey-server; }

# Whether somebody listens on a port of this machine.
is_taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port that is free at this moment.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && is_taken "$port"; do :; done
    printf '%s\n' "$port"
}

# What is shipped.
readonly PROGRAMS=(aggregator worker publisher operator)

# Builds programs as they are shipped, by default all of them, and sets `binaries` to where
# they are. Whichever they are, it is with the workspace's features, so that nothing is
# compiled again for the others.
build() { # [PROGRAM...]
    local program flags=()
    # A test has built them.
    if [ -n "${BINARIES:-}" ]; then
        binaries=$BINARIES
        return
    fi
    [ $# -gt 0 ] || set -- "${PROGRAMS[@]}"
    for program; do
        flags+=(--bin "sekali-$program")
    done
    say 'building (the first time this takes some minutes)'
    cargo build --release --workspace --exclude tests "${flags[@]}"
    binaries=$(cargo metadata --format-version 1 --no-deps |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release
}

# The release, as the workspace has it.
version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml; }

# Builds the programs and sets `assembled` to a directory that holds them and nothing else,
# without their symbols, with which the image would not stay below 60 MiB: what the stage
# `prebuilt` of the Dockerfile copies.
assemble() {
    local program
    build
    assembled=$binaries/image
    rm -rf "$assembled"
    mkdir "$assembled"
    for program in "${PROGRAMS[@]}"; do
        strip -o "$assembled/sekali-$program" "$binaries/sekali-$program"
    done
}

# --- Processes. Each has a process group of its own, so that Ctrl-C reaches the script
# --- alone, which then ends them politely, the last one first.

# Of each: the signal that ends it, its number, its name.
started=()
# Where data and logs are; removed when the script ends.
directory=

make_directory() {
    directory=$(mktemp -d "${TMPDIR:-/tmp}/sekali.XXXXXX")
    # The user that PostgreSQL runs as has to come in.
    chmod 755 "$directory"
    trap end_all EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

# Starts a process. Nothing of the environment that means something to a program of ours
# reaches it, so that it does what its flags say.
start() { # NAME COMMAND...
    local name=$1
    shift
    set -m
    env -i PATH="$PATH" HOME="${HOME:-/}" LANG="${LANG:-C}" RUST_LOG="${RUST_LOG:-info}" \
        "$@" </dev/null >"$directory/$name.log" 2>&1 &
    set +m
    started+=("${signal:-TERM} $! $name")
}

is_alive() { kill -0 "$1" 2>/dev/null; }

# Waits until a command succeeds; ends the script should a process end before.
wait_until() { # WHAT COMMAND...
    local what=$1 tenths=0
    shift
    until "$@" >/dev/null 2>&1; do
        check_all
        [ "$tenths" -lt "$PATIENCE" ] || die "$what: it does not come true"
        tenths=$((tenths + 1))
        sleep 0.1
    done
}

check_all() {
    local entry pid name
    for entry in "${started[@]}"; do
        read -r _ pid name <<<"$entry"
        if ! is_alive "$pid"; then
            tail -n 20 "$directory/$name.log" >&2 || true
            die "$name has ended; the lines above are its last"
        fi
    done
}

end_all() {
    local status=$? at signal pid tenths
    trap - EXIT
    trap '' HUP
    # Who can't wait interrupts again.
    trap 'tenths=$FAREWELL' INT TERM
    for ((at = ${#started[@]} - 1; at >= 0; at--)); do
        read -r signal pid _ <<<"${started[at]}"
        kill "-$signal" "$pid" 2>/dev/null || continue
        tenths=0
        while is_alive "$pid" && [ "$tenths" -lt "$FAREWELL" ]; do
            tenths=$((tenths + 1))
            sleep 0.1 || true
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    trap '' INT TERM
    rm -rf "$directory"
    exit "$status"
}

# --- Servers

# A Redis that keeps what it acknowledges.
start_redis() { # PORT
    mkdir "$directory/redis"
    start redis "$(find_redis)" --port "$1" --bind 127.0.0.1 --dir "$directory/redis" \
        --appendonly yes --appendfsync always --save '' --auto-aof-rewrite-min-size 1gb \
        --maxmemory 1gb --maxmemory-policy noeviction
    wait_until 'redis answers' is_taken "$1"
}

# A PostgreSQL with a database `sekali`.
start_postgres() { # PORT
    local data=$directory/postgres become=(env)
    mkdir "$data"
    if [ "$(id -u)" -eq 0 ]; then
        become_server_user
        chown "$server_user" "$data"
    fi
    (
        cd / # where every user may be
        "${become[@]}" "$(find_program initdb)" --pgdata "$data" --username postgres \
            --auth trust --encoding UTF8 --locale C >"$directory/initdb.log" 2>&1
    ) || die "initdb: $(cat "$directory/initdb.log")"
    # SIGTERM would wait for its clients.
    signal=INT start postgres "${become[@]}" "$(find_program postgres)" -D "$data" -p "$1" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories=
    wait_until 'postgres answers' "$(find_program pg_isready)" -h 127.0.0.1 -p "$1"
    "$(find_program createdb)" -h 127.0.0.1 -p "$1" -U postgres sekali
}

# PostgreSQL refuses to run as root: sets `server_user`, and `become` to what makes a
# command that user's.
become_server_user() {
    server_user=postgres
    id "$server_user" >/dev/null 2>&1 || server_user=nobody
    if setpriv --reuid "$server_user" --regid "$(id -g "$server_user")" --clear-groups true 2>/dev/null; then
        become=(setpriv --reuid "$server_user" --regid "$(id -g "$server_user")" --clear-groups)
    elif command -v runuser >/dev/null; then
        become=(runuser -u "$server_user" --)
    else
        # shellcheck disable=SC2016 # the other shell expands it
        become=(su -s /bin/sh "$server_user" -c 'exec "$0" "$@"')
    fi
}

# --- A gateway to look at

# Where it is to listen: HOST and PORT, by default for this machine alone.
choose_port() { # TARGET
    host=${HOST:-127.0.0.1} port=${PORT:-8080}
    ! is_taken "$port" ||
        die "port $port is taken: end what listens there, or take another with make $1 PORT=8081"
}

start_gateway() { # FLAGS...
    start aggregator "$binaries/sekali-aggregator" --http-addr "$host:$port" \
        --admin-addr 127.0.0.1:0 "$@"
    wait_until 'the aggregator is ready' get /readyz
}

# The body of its answer to GET; fails unless the status is 200.
get() ( # PATH
    exec 9<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&9
    answer=$(cat <&9)
    case $answer in
        HTTP/1.?' 200 '*) printf '%s\n' "${answer#*$'\r\n\r\n'}" ;;
        *) exit 1 ;;
    esac
)

# Sends it events, shows what became of them, and serves until Ctrl-C.
show() {
    local base=http://localhost:$port path
    wait_until 'the statistics can be read' get /stats
    say 'publishing 20,000 events, 30 % of them duplicates, and reading them back'
    "$binaries/sekali-publisher" --target-url "$base" --events 20000 --duplicates 0.3 \
        --batch 100 --verify || die 'the verdict is bad'
    printf '\nGET /stats\n'
    get /stats | awk '{
        gsub(/,"[a-z_]+":/, "\n&"); gsub(/\n,/, "\n  "); sub(/^\{/, "  "); sub(/\}$/, ""); print
    }'
    printf '\nLook at:\n'
    for path in / /docs /stats /events /metrics; do
        printf '  %s%s\n' "$base" "$path"
    done
    printf '\nLogs and data are in %s until the end.\nServing; Ctrl-C ends it.\n' "$directory"
    trap 'exit 0' INT TERM
    while sleep 0.5; do
        check_all
    done
}
