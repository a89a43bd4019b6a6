#!/bin/bash
# Hosts on one machine, for the tests, the demo and the benchmarks: each has a network, a host name, /etc, /run and
# /var/lib of its own and its own Docker engine, and is plugged into a switch, a namespace with a bridge.
#
#   bed.sh switch NETNS                         makes a switch in a namespace that exists
#   bed.sh plug SWITCH PORT NETNS               connects a namespace to a switch; the link in the namespace is eth0
#   bed.sh address ADDRESS                      inside a namespace: gives eth0 this address
#   bed.sh hold DIR NETNS NAME                  becomes the process that holds a host's namespaces; the file DIR/held
#                                               exists as soon as the namespaces are ready
#   bed.sh engine DIR NAME NUMBER [ARG...]      inside a host: becomes its dockerd
#   bed.sh guard DIR NETNS [CGROUP]             waits for the end of its input, then ends everything
#   bed.sh halt NETNS CGROUP KEEP_PID           ends all processes but one, at once
#
# Only processes that a part of the bed started are ended: those in the part's network namespace or in its control
# group. DIR, the directory of all files of a host, is not below /etc, /run or /var/lib, because a host has directories
# of its own there. NAME is the control group in which the engine runs its containers.
#
# The guard's input is a pipe whose other end only the test has. The pipe closes when the test drops its host, and also
# when the test is killed, so that no process outlives the test.
set -u

GATEWAY=192.168.77.1
# An address without a host.
UNUSED=192.168.77.254

switch() { # NETNS
    nsenter --net="/run/netns/$1" -- sh -ec "
        ip link set lo up
        ip link add br0 type bridge
        ip addr add $GATEWAY/24 dev br0
        ip link set br0 up
        # A connection to any other network is refused at once instead of timing out. A resolver only ends its query
        # on 'port unreachable', which the filter sends, so packets need a route to get as far as the filter.
        sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0
        sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.br0.send_redirects=0
        # Frames between hosts go over the bridge, and must not pass through the filter of forwarded packets.
        ! [ -e /proc/sys/net/bridge ] || sysctl -qw net.bridge.bridge-nf-call-iptables=0
        ip route add default via $UNUSED
        nft add table inet bed
        nft 'add chain inet bed forward { type filter hook forward priority 0; }'
        nft 'add rule inet bed forward meta l4proto tcp reject with tcp reset'
        nft 'add rule inet bed forward reject'
        # Rules in the chain cut drop the frames of hosts that are cut off.
        nft add table bridge bed
        nft add chain bridge bed cut
        for hook in input forward output; do
            nft \"add chain bridge bed \$hook { type filter hook \$hook priority 0; }\"
            nft add rule bridge bed \$hook jump cut
        done"
}

plug() { # SWITCH PORT NETNS
    nsenter --net="/run/netns/$1" -- sh -ec "
        ip link add $2 type veth peer name eth0 netns $3
        ip link set $2 master br0 up"
}

address() { # ADDRESS
    ip link set lo up &&
        ip addr add "$1/24" dev eth0 &&
        ip link set eth0 up &&
        ip route add default via "$GATEWAY"
}

hold() { # DIR NETNS NAME
    mkdir -p "$1/etc" "$1/run" "$1/var-lib"
    exec nsenter --net="/run/netns/$2" -- unshare --mount --uts --propagation private sh -ec "
        hostname $3
        mount --make-rshared /
        mount -t tmpfs tmpfs $1/etc
        mkdir $1/etc/upper $1/etc/work
        mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/etc/upper,workdir=$1/etc/work /etc
        mount --bind $1/run /run
        mount --bind $1/var-lib /var/lib
        mkdir -p /etc/windlass
        touch $1/held
        exec sleep infinity"
}

engine() { # DIR NAME NUMBER [ARG...]
    local dir=$1 name=$2 number=$3
    shift 3
    # dockerd refuses to start where the machine's configuration file contradicts its flags, so it reads an empty file.
    echo '{}' >"$dir/daemon.json"
    exec dockerd --config-file "$dir/daemon.json" --data-root /var/lib/docker --exec-root /run/docker \
        --pidfile /run/docker.pid --host unix:///run/docker.sock --exec-opt native.cgroupdriver=cgroupfs \
        --cgroup-parent "/$name" --bip "172.31.$number.1/24" \
        --registry-mirror "http://$GATEWAY:5000" --insecure-registry "$GATEWAY:5000" "$@"
}

# control_groups NAME: the directories of a control group, in every hierarchy of cgroup v1 or in the only one of v2.
control_groups() {
    local dir
    for dir in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
        [ ! -d "$dir" ] || echo "$dir"
    done
}

processes() { # NETNS CGROUP KEEP_PID
    local dir
    {
        ip netns pids "$1" 2>/dev/null
        [ -z "$2" ] || for dir in $(control_groups "$2"); do
            find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null
        done
    } | sort -un | grep -vx -e 0 -e "${3:-0}"
}

halt() { # NETNS CGROUP KEEP_PID
    local pids dir state
    # A process frozen by `docker pause` ends only after it is thawed, even on signal 9.
    [ -z "$2" ] || for dir in $(control_groups "$2"); do
        find "$dir" -name freezer.state 2>/dev/null | while read -r state; do
            echo THAWED >"$state"
        done
    done
    for _ in $(seq 200); do
        pids=$(processes "$@")
        [ -n "$pids" ] || return 0
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null
        sleep 0.05
    done
    echo "these processes do not die: $pids" >&2
    return 1
}

drop_control_groups() {
    local dir
    [ -n "$1" ] || return 0
    for dir in $(control_groups "$1"); do
        find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    done
}

guard() { # DIR NETNS [CGROUP]
    trap '' INT TERM HUP
    while read -r _; do :; done
    halt "$2" "${3:-}" 0
    ip netns del "$2"
    drop_control_groups "${3:-}"
    # Another part of the bed may still write here until its own guard has ended it.
    for _ in $(seq 50); do
        rm -rf "$1" 2>/dev/null
        [ -e "$1" ] || break
        sleep 0.1
    done
    # The guard's own log stays only where something was printed.
    [ -s "$1.guard.log" ] || rm -f "$1.guard.log"
}

case ${1:-} in
switch | plug | address | hold | engine | guard | halt) "$@" ;;
*)
    sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 64
    ;;
esac
