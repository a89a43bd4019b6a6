# shellcheck shell=bash
# shellcheck disable=SC2034
# Shared by the scripts beside this file, which source it: messages, and making sure that a
# Debian or Ubuntu machine has what they need.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Trees and images which take long to make are kept here.
CACHE=${WINDLASS_CACHE:-/var/cache/windlass}

say() { printf '%s\n' "$*" >&2; }

# styled SGR TEXT: a line in a colour or weight, where somebody looks at it.
styled() {
    if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '\033[%sm%s\033[0m\n' "$1" "$2" >&2
    else
        say "$2"
    fi
}

step() {
    say ''
    styled 1 "==> $*"
}
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root: run it with sudo"
}

apt_is_fresh=

# apt_update: reads the package lists, once a run. A third-party source that does not answer is no reason to stop.
apt_update() {
    [ -z "$apt_is_fresh" ] || return 0
    have apt-get || die "no apt-get: this is no Debian or Ubuntu"
    need_root
    apt-get update -qq >&2 || warn "apt-get update failed; going on with the package lists there are"
    apt_is_fresh=yes
}

# need PKG...: installs the Debian packages which are not installed yet.
need() {
    local package missing=()
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "not installed: ${missing[*]}; this is no Debian or Ubuntu, so install them by hand"
    need_root
    say "installing ${missing[*]}"
    apt_update
    local log
    log=$(mktemp)
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1 || {
        tail -20 "$log" >&2
        die "apt-get could not install ${missing[*]}: its output is in $log"
    }
    rm -f "$log"
}

# need_command COMMAND PKG: installs PKG unless COMMAND is there from anywhere.
need_command() {
    have "$1" || need "$2"
    have "$1" || die "$1 is not on the PATH even with package $2 installed"
}

# need_tool COMMAND PKG [SERVICE]: like need_command, for a package that comes with a service which nobody asked
# for; the service has the package's name unless it is given.
need_tool() {
    local service=${3:-$2}
    have "$1" && return 0
    need "$2"
    if [ -d /run/systemd/system ]; then
        systemctl disable --now "$service" >/dev/null 2>&1 || warn "the service $service, which came with its package, could not be stopped"
    fi
    have "$1" || die "$1 is not on the PATH even with package $2 installed"
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds or the dead line has passed.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || {
            say "error: gave up waiting for $what"
            return 1
        }
        sleep 0.2
    done
}

ensure_docker_client() { need_command docker docker.io; }

# ensure_docker: a Docker engine answers afterwards. One that DOCKER_HOST names is never started.
ensure_docker() {
    ensure_docker_client
    docker version >/dev/null 2>&1 && return 0
    [ -z "${DOCKER_HOST:-}" ] || die "no Docker engine answers at $DOCKER_HOST"
    need_root
    need_command dockerd docker.io
    if [ -d /run/systemd/system ]; then
        systemctl start docker >&2 || die "docker.service does not start: see 'journalctl -u docker'"
    else
        say "starting dockerd, for want of a service manager"
        setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
    fi
    wait_for 60 "the Docker engine" docker version || die "the Docker engine does not answer: see /var/log/dockerd.log or 'journalctl -u docker'"
}

ensure_nft() {
    need_command nft nftables
    need_command iptables iptables
    need_command ip iproute2
}

# ensure_rust: cargo is on the PATH, with what building libgit2, ring and the client of etcd takes.
ensure_rust() {
    if ! have cargo && [ -f "$HOME/.cargo/env" ]; then
        # shellcheck source=/dev/null
        . "$HOME/.cargo/env"
    fi
    have cargo || die "no Rust toolchain: install one with rustup (or package cargo, if it is 1.89 or newer), then run this again"
    need gcc libc6-dev pkg-config libssl-dev protobuf-compiler libprotobuf-dev
    # libgit2 links the host's OpenSSL; building OpenSSL itself takes three minutes.
    export OPENSSL_NO_VENDOR=1
}
