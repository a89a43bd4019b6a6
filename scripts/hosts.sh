# shellcheck shell=bash
# Sourced by scripts/demo and scripts/bench: hosts on one machine, each with a network, a host name, /etc, /run
# and /var/lib of its own and its own Docker engine, connected by a switch that can drop frames.
#
#   n1, n2, ...     192.168.77.11, .12, ...
#   the switch      192.168.77.1, where the registry is; it forwards nothing to other networks
#   the store       192.168.77.5, a machine without an engine
#
# The sourcing script sets BED, a short name with which the names of all namespaces and control groups begin, and
# BED_DIR, the directory of all files. BED_DIR must not be below /etc, /run or /var/lib, because the hosts have such
# directories of their own.

BED_NET=192.168.77
BED_HOSTS=()

bed_sh=$ROOT/tests/support/bed.sh

host_address() { echo "$BED_NET.$((10 + ${1#n}))"; }

# holder HOST: prints the id of the process that holds a host's namespaces; fails where that process has ended.
holder() {
    local pid
    pid=$(cat "$BED_DIR/$1/holder.pid" 2>/dev/null) || return 1
    # Another process may have the same id by now, but is not in the host's namespace.
    [ "/proc/$pid/ns/net" -ef "/run/netns/$BED-$1" ] || return 1
    echo "$pid"
}

# on HOST COMMAND...: runs a command on a host.
on() {
    local pid
    pid=$(holder "$1") || die "the host $1 does not run"
    shift
    nsenter -t "$pid" --mount --uts --net -- env -u DOCKER_HOST "$@"
}

# at_switch COMMAND...: runs a command at the switch, which is another machine for the hosts.
at_switch() { nsenter --net="/run/netns/$BED-switch" -- "$@"; }

at_store() { nsenter --net="/run/netns/$BED-store" -- "$@"; }

# engine HOST ARGUMENT...: runs the docker client with a host's engine.
engine() {
    local host=$1
    shift
    DOCKER_HOST=unix://$BED_DIR/$host/run/docker.sock docker "$@"
}

start_switch() {
    mkdir -p "$BED_DIR"
    ip netns add "$BED-switch"
    "$bed_sh" switch "$BED-switch"
}

plug() { # NETNS PORT ADDRESS
    "$bed_sh" plug "$BED-switch" "$2" "$1"
    nsenter --net="/run/netns/$1" -- "$bed_sh" address "$3"
}

# start_host HOST: makes a host and starts its engine; wait_engine waits until the engine answers.
start_host() {
    local dir=$BED_DIR/$1 netns=$BED-$1
    mkdir -p "$dir"
    ip netns add "$netns"
    setsid "$bed_sh" hold "$dir" "$netns" "$1" >"$dir/holder.log" 2>&1 </dev/null &
    echo $! >"$dir/holder.pid"
    wait_for 10 "the namespaces of $1" test -e "$dir/held" || die "$(cat "$dir/holder.log")"
    plug "$netns" "port-$1" "$(host_address "$1")"
    # Docker sets this policy on a host where it enables forwarding itself.
    on "$1" iptables -w -P FORWARD DROP
    nsenter -t "$(holder "$1")" --mount --uts --net -- env -u DOCKER_HOST setsid "$bed_sh" engine "$dir" "$netns" "${1#n}" \
        >"$dir/dockerd.log" 2>&1 </dev/null &
    BED_HOSTS+=("$1")
}

wait_engine() {
    wait_for 60 "the engine of $1" engine "$1" version || die "see $BED_DIR/$1/dockerd.log"
}

# start_store HOST...: starts an etcd with certificates and users for these hosts.
start_store() {
    local host nodes=()
    ip netns add "$BED-store"
    plug "$BED-store" port-store "$BED_NET.5"
    for host in "$@"; do nodes+=(--node "$host"); done
    "$ROOT/scripts/etcd" init --dir "$BED_DIR/etcd" --address "$BED_NET.5" --prefix /windlass/fleet "${nodes[@]}"
    at_store "$ROOT/scripts/etcd" start --dir "$BED_DIR/etcd"
}

start_registry() { at_switch "$ROOT/scripts/registry" start --dir "$BED_DIR/registry" --listen "$BED_NET.1:5000"; }

# serve_image HOST IMAGE [NAME]: pushes an image to the registry with a host's engine, and removes it from that engine.
serve_image() {
    local target=$BED_NET.1:5000/${3:-$2}
    DOCKER_HOST=unix://$BED_DIR/$1/run/docker.sock "$ROOT/scripts/images" "$2" >&2
    engine "$1" tag "$2" "$target"
    engine "$1" push -q "$target" >/dev/null
    engine "$1" rmi "$target" "$2" >/dev/null
}

# configure HOST REPOSITORY SIGNERS [LINE...]: writes a host's /etc/windlass/windlass.toml, its allowed_signers and its
# certificate for the store.
configure() {
    local host=$1 repository=$2 signers=$3 store=$BED_DIR/etcd
    shift 3
    {
        printf '[source]\nurl = "file://%s"\n\n' "$repository"
        printf '[trust]\nallowed-signers = "/etc/windlass/allowed_signers"\n'
        if [ -d "$store" ]; then
            printf '\n[store]\nendpoints = ["https://%s:2379"]\nprefix = "/windlass/fleet"\n' "$BED_NET.5"
            printf 'ca-file = "/etc/windlass/etcd-ca.pem"\n'
            printf 'certificate-file = "/etc/windlass/etcd.pem"\nkey-file = "/etc/windlass/etcd-key.pem"\n'
        fi
        [ $# = 0 ] || printf '\n'
        [ $# = 0 ] || printf '%s\n' "$@"
    } | on "$host" sh -c 'cat >/etc/windlass/windlass.toml'
    on "$host" install -m 644 "$signers" /etc/windlass/allowed_signers
    [ -d "$store" ] || return 0
    on "$host" install -m 644 "$store/ca.pem" /etc/windlass/etcd-ca.pem
    on "$host" install -m 644 "$store/nodes/$host.pem" /etc/windlass/etcd.pem
    on "$host" install -m 600 "$store/nodes/$host-key.pem" /etc/windlass/etcd-key.pem
}

# start_daemon_on HOST BINARY: starts windlass on a host as a service manager would.
start_daemon_on() {
    nsenter -t "$(holder "$1")" --mount --uts --net -- env -u DOCKER_HOST setsid "$2" run \
        --config /etc/windlass/windlass.toml >>"$BED_DIR/$1/windlass.log" 2>&1 </dev/null &
    echo $! >"$BED_DIR/$1/windlass.pid"
    # Without this the shell prints a message when the daemon is killed.
    disown
}

# daemon_of HOST: prints the process id of a host's daemon; fails where the daemon has ended.
daemon_of() {
    local pid
    pid=$(cat "$BED_DIR/$1/windlass.pid" 2>/dev/null) || return 1
    [ "/proc/$pid/ns/net" -ef "/run/netns/$BED-$1" ] || return 1
    echo "$pid"
}

# cut_off HOST: makes the switch drop all frames from and to a host, whose link stays up.
cut_off() {
    at_switch nft "add rule bridge bed cut iifname port-$1 drop; add rule bridge bed cut oifname port-$1 drop"
}

heal() { at_switch nft flush chain bridge bed cut; }

# end_parts NAME DIR PART...: ends every process of these parts of a bed and removes their namespaces and files, also of
# a bed that was made only in part.
end_parts() {
    local bed=$1 dir=$2 part
    shift 2
    for part in "$@"; do
        [ -e "/run/netns/$bed-$part" ] || [ -e "$dir/$part" ] || continue
        "$bed_sh" guard "$dir/$part" "$bed-$part" "$bed-$part" </dev/null >/dev/null 2>&1 &
    done
    wait
    rm -rf "$dir"
}
