#!/bin/bash
# Ends what a part of the test bed started, and nothing else: a process is ours if it lives in our
# network namespace or in our control group.
#
#   bed.sh guard DIR NETNS [CGROUP]       waits for the end of its input, then ends everything
#   bed.sh halt NETNS CGROUP KEEP_PID     ends all processes but one, now
#
# The guard's input is a pipe whose other end only the test holds: it closes when the test lets go of
# its host, and also when the test is killed, so that nothing outlives it.
set -u

# control_groups NAME: its directories, in every hierarchy of cgroup v1 or in the one of v2.
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
    # A process frozen by `docker pause` does not even die before it is thawed.
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
    # A part beside this one may still write here while its own guard ends it.
    for _ in $(seq 50); do
        rm -rf "$1" 2>/dev/null
        [ -e "$1" ] || break
        sleep 0.1
    done
    # Its own log, which stays only if there was something to say.
    [ -s "$1.guard.log" ] || rm -f "$1.guard.log"
}

"$@"
