# shellcheck shell=bash
# Sourced by scripts/demo: functions of both demos.

BARE=$DIR/repo.git
WORK=$DIR/work
KEY=$DIR/keys/deployer
SIGNERS=$DIR/allowed_signers
BINARY=$DIR/bin/windlass
NODE_PORT=30080

# --- showing -----------------------------------------------------------------------------------

# print_command COMMAND...: prints a command so that it can be pasted into a shell in the root of the work tree.
print_command() {
    local word line=
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=@%+,-]* | '') line+=" ${word@Q}" ;;
        *) line+=" $word" ;;
        esac
    done
    styled 2 "$line"
}

# print_command_on HOST COMMAND...: the same of a command on one of the hosts.
print_command_on() { print_command "${DEMO[@]}" --on "$@"; }

# show COMMAND...: shows a command, and runs it here.
show() {
    print_command "$@"
    "$@"
}

# at HOST COMMAND...: shows a command, and runs it on a host.
at() {
    local host=$1
    shift
    print_command_on "$host" "$@"
    on "$host" env PATH="$DIR/bin:$PATH" "$@"
}

windlass_on() { # HOST ARGUMENT...: runs windlass on a host, without showing the command
    local host=$1
    shift
    on "$host" "$BINARY" "$@"
}

# --- hosts, binary, repository -----------------------------------------------------------------

install_all() {
    [ -n "${WINDLASS_BIN:-}" ] || ensure_rust
    need_command git git
    need_command ssh-keygen openssh-client
    need_command curl curl
    need_command jq jq
    ensure_nft
    ensure_docker_client
    need_command dockerd docker.io
}

build() {
    local built=${WINDLASS_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/demo/windlass}
    if [ -z "${WINDLASS_BIN:-}" ]; then
        # The host's OpenSSL, and no optimisation at link time: a release takes more than twice as long.
        (cd "$ROOT" && OPENSSL_NO_VENDOR=1 cargo build --profile demo --locked -p windlass)
    fi
    mkdir -p "$(dirname "$BINARY")"
    # A copy, so that the demo keeps running while the work tree is built again.
    install -m 755 "$built" "$BINARY"
    "$BINARY" --version
}

make_repository() {
    mkdir -p "$DIR/keys"
    chmod 700 "$DIR/keys"
    show ssh-keygen -q -t ed25519 -N '' -C deployer@example.com -f "$KEY"
    echo "deployer@example.com namespaces=\"git\" $(cut -d' ' -f1,2 "$KEY.pub")" >"$SIGNERS"
    show cat "$SIGNERS"
    git init -q --bare -b main "$BARE"
    git init -q -b main "$WORK"
    git -C "$WORK" config user.name Deployer
    git -C "$WORK" config user.email deployer@example.com
    git -C "$WORK" config gpg.format ssh
    git -C "$WORK" config user.signingkey "$KEY"
    git -C "$WORK" config commit.gpgsign true
    git -C "$WORK" remote add origin "$BARE"
    git -C "$WORK" config push.autoSetupRemote true
}

# connect_machine: connects this machine to the hosts, for a browser, unless it has a route to such a network already.
connect_machine() {
    if [ -n "$(ip -4 route show root "$BED_NET.0/24")" ]; then return; fi
    ip link add "$BED" type veth peer name port-here netns "$BED-switch"
    at_switch ip link set port-here master br0 up
    ip addr add "$BED_NET.2/24" dev "$BED"
    ip link set "$BED" up
}

# start_daemon HOST: shows the daemon's command line, and starts the daemon as a service manager would.
start_daemon() {
    print_command_on "$1" windlass run --config /etc/windlass/windlass.toml
    start_daemon_on "$1" "$BINARY"
}

wait_daemon() {
    wait_for 60 "the daemon of $1" windlass_on "$1" status || {
        tail -20 "$DIR/$1/windlass.log" >&2
        die "the daemon of $1 does not answer: see $DIR/$1/windlass.log"
    }
}

# --- pushing and watching ----------------------------------------------------------------------

# push MESSAGE: commits, signed as the work tree is configured, and pushes, which deploys the commit.
push() {
    (
        cd "$WORK"
        git add -A
        show git commit -q -m "$1"
        if [ "$(git rev-list --count HEAD)" = 1 ]; then
            git --no-pager show --format= --stat
        else
            # Only the changed lines, without the lines that name their places.
            git --no-pager show --format= --unified=0 | sed -n -E '/^(\+\+\+|---) /d; s/^([-+])/    \1/p'
        fi
        show git push -q origin main
    )
}

settle() { # HOST: waits on a host until the pushed commit is healthy
    at "$1" windlass sync --wait || {
        windlass_on "$1" status >&2 || true
        die "the commit did not become healthy: see above and $DIR/$1/windlass.log"
    }
}

is_healthy() { windlass_on "$1" status -o json | grep -q '"phase": "Healthy"'; }

CALLER=

# start_calls PAUSE OPTIONS HOST...: fetches the page from these hosts in turn in the background, and records each result.
start_calls() {
    local pause=$1 options=$2 host error
    shift 2
    : >"$DIR/calls"
    (
        while :; do
            for host in "$@"; do
                # shellcheck disable=SC2086
                if error=$(page_of "$host" -f $options -o /dev/null 2>&1); then echo answered; else echo "failed on $host, $(date +%T.%3N): $error"; fi
                sleep "$pause"
            done
        done >>"$DIR/calls"
    ) &
    CALLER=$!
}

# check_calls ALLOWED: ends the calls and prints how many were answered; more than ALLOWED failures end the demo.
check_calls() {
    local calls failed
    stop_calls
    calls=$(wc -l <"$DIR/calls")
    failed=$(grep -c failed "$DIR/calls") || true
    styled 32 "the page was requested $calls times meanwhile, and $((calls - failed)) requests were answered"
    [ "$failed" -le "$1" ] || {
        grep failed "$DIR/calls"
        die "$failed requests of the page failed, and at most $1 may"
    }
}

stop_calls() {
    [ -z "$CALLER" ] || kill "$CALLER" 2>/dev/null || true
    CALLER=
}

ended() {
    local code=$?
    stop_calls
    [ $code = 0 ] || say "The demo ended before its last step. To remove everything that it made: ${DEMO[*]} --clean"
}

# --- afterwards --------------------------------------------------------------------------------

# visit HOST [COMMAND...]
visit() {
    local host=$1
    shift
    need_root
    [ $# -gt 0 ] || set -- env PS1="$host# " bash --norc -i
    on "$host" env PATH="$DIR/bin:$PATH" "$@"
}

clean() {
    if [ ! -e "$DIR" ] && ! ls /run/netns/"$BED"-* >/dev/null 2>&1; then
        say "$DIR contains no demo"
        return
    fi
    if [ -e "$DIR" ] && [ ! -d "$DIR/keys" ] && [ ! -d "$DIR/bin" ] && [ ! -d "$DIR/n1" ] && [ -n "$(ls -A "$DIR")" ]; then
        die "$DIR contains no demo but other files, so it is not removed: choose the right DEMO_DIR"
    fi
    say "stopping the hosts with all their processes"
    end_parts "$BED" "$DIR" n1 n2 n3 store switch
    # The kernel removes this machine's link to the switch with the switch's namespace.
    wait_for 10 "the link to the switch to be removed" eval "! ip link show $BED"
    say "removed $DIR; packages, and the images in $CACHE, are kept"
}
