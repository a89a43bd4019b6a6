# shellcheck shell=bash
# Sourced by scripts/demo: what both demos do.

BARE=$DIR/repo.git
WORK=$DIR/work
KEY=$DIR/keys/deployer
SIGNERS=$DIR/allowed_signers
BINARY=$DIR/bin/windlass
NODE_PORT=30080

# --- showing -----------------------------------------------------------------------------------

# typed PROMPT COMMAND...: a command as a person would type it.
typed() {
    local word line=$1
    shift
    for word in "$@"; do
        case $word in
        *[\ \&\;\*\(\)\?]*) line+=" '$word'" ;;
        *) line+=" $word" ;;
        esac
    done
    styled 2 "$line"
}

# show COMMAND...: shows a command, and runs it here.
show() {
    typed '$' "$@"
    "$@"
}

# at HOST COMMAND...: shows a command, and runs it on a host.
at() {
    local host=$1
    shift
    typed "$host#" "$@"
    on "$host" env PATH="$DIR/bin:$PATH" "$@"
}

windlass_on() { # HOST ARGUMENT...: without showing it
    local host=$1
    shift
    on "$host" "$BINARY" "$@"
}

# --- from nothing to hosts ---------------------------------------------------------------------

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
    local built=${WINDLASS_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/release/windlass}
    if [ -z "${WINDLASS_BIN:-}" ]; then
        (cd "$ROOT" && cargo build --release --locked -p windlass)
    fi
    mkdir -p "$(dirname "$BINARY")"
    # A copy: the demo goes on running while the work tree is built again.
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

# meet: lets this machine reach the hosts, for a browser; where it can do so without hiding another network.
meet() {
    if [ -n "$(ip -4 route show root "$BED_NET.0/24")" ]; then return; fi
    ip link add "$BED" type veth peer name port-here netns "$BED-switch"
    at_switch ip link set port-here master br0 up
    ip addr add "$BED_NET.2/24" dev "$BED"
    ip link set "$BED" up
}

# start_daemon HOST: as a service manager would; shown as what it runs.
start_daemon() {
    typed "$1#" windlass run --config /etc/windlass/windlass.toml
    start_daemon_on "$1" "$BINARY"
}

wait_daemon() {
    wait_for 60 "the daemon of $1" windlass_on "$1" status || {
        tail -20 "$DIR/$1/windlass.log" >&2
        die "the daemon of $1 does not answer: see $DIR/$1/windlass.log"
    }
}

# --- pushing and watching ----------------------------------------------------------------------

# push MESSAGE: commits, signed as the work tree is configured, and pushes: this is what deploys.
push() {
    (
        cd "$WORK"
        git add -A
        show git commit -q -m "$1"
        if [ "$(git rev-list --count HEAD)" = 1 ]; then
            git --no-pager show --format= --stat
        else
            # The lines that differ, without the places where they are.
            git --no-pager show --format= --unified=0 | sed -n -E '/^(\+\+\+|---) /d; s/^([-+])/    \1/p'
        fi
        show git push -q origin main
    )
}

settle() { # HOST: waits until the pushed commit is healthy
    at "$1" windlass sync --wait || {
        windlass_on "$1" status >&2 || true
        die "the commit did not become healthy: see above and $DIR/$1/windlass.log"
    }
}

is_healthy() { windlass_on "$1" status -o json | grep -q '"phase": "Healthy"'; }

CALLER=

# keep_calling PAUSE OPTIONS HOST...: fetches the page from these hosts by turns in the background, and notes how it went.
keep_calling() {
    local pause=$1 options=$2 host said
    shift 2
    : >"$DIR/calls"
    (
        while :; do
            for host in "$@"; do
                # shellcheck disable=SC2086
                if said=$(page_of "$host" -f $options -o /dev/null 2>&1); then echo answered; else echo "failed on $host, $(date +%T.%3N): $said"; fi
                sleep "$pause"
            done
        done >>"$DIR/calls"
    ) &
    CALLER=$!
}

# count_calls ALLOWED: ends that, and says how it went; more failures than that end the demo.
count_calls() {
    local calls failed
    stop_calling
    calls=$(wc -l <"$DIR/calls")
    failed=$(grep -c failed "$DIR/calls") || true
    styled 32 "the page was called $calls times meanwhile, and answered $((calls - failed)) times"
    [ "$failed" -le "$1" ] || {
        grep failed "$DIR/calls"
        die "the page was not there all the time"
    }
}

stop_calling() {
    [ -z "$CALLER" ] || kill "$CALLER" 2>/dev/null || true
    CALLER=
}

ended() {
    local code=$?
    stop_calling
    [ $code = 0 ] || say "The demo stopped half-way. To remove what there is of it: scripts/demo --clean"
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
        say "there is no demo in $DIR"
        return
    fi
    if [ -e "$DIR" ] && [ ! -d "$DIR/keys" ] && [ ! -d "$DIR/bin" ] && [ ! -d "$DIR/n1" ] && [ -n "$(ls -A "$DIR")" ]; then
        die "$DIR does not look like a demo: not removing it"
    fi
    say "stopping the hosts and all that runs on them"
    end_parts "$BED" "$DIR" n1 n2 n3 store switch
    # The cable from here goes with the switch.
    wait_for 10 "the cable to the switch to go" eval "! ip link show $BED"
    say "removed $DIR; packages, and the images in $CACHE, are kept"
}
