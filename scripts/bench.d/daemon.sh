# shellcheck shell=bash
# Sourced by `measure`: a daemon, the repository that it follows, and the engine's containers.

WORK_DIR=$DIR/bench
REPO=$WORK_DIR/repo.git
TREE=$WORK_DIR/tree
METRICS=http://127.0.0.1:9464
mkdir "$WORK_DIR"

now() { date +%s%3N; }

# --- repository --------------------------------------------------------------------------------

ssh-keygen -q -t ed25519 -N '' -C deployer@example.com -f "$WORK_DIR/key"
echo "deployer@example.com namespaces=\"git\" $(cut -d' ' -f1,2 "$WORK_DIR/key.pub")" >"$WORK_DIR/allowed_signers"
export GIT_CONFIG_GLOBAL=$WORK_DIR/gitconfig GIT_CONFIG_NOSYSTEM=1
git config --global user.name Deployer
git config --global user.email deployer@example.com
git config --global gpg.format ssh
git config --global user.signingkey "$WORK_DIR/key"
git config --global commit.gpgsign true
git config --global push.autoSetupRemote true
git config --global gc.auto 0
git config --global gpg.ssh.allowedSignersFile "$WORK_DIR/allowed_signers"

# fresh_repository: a repository with one commit, which has no workload.
fresh_repository() {
    rm -rf "$REPO" "$TREE"
    git init -q --bare -b main "$REPO"
    git init -q -b main "$TREE"
    git -C "$TREE" remote add origin "$REPO"
    printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bench}\n' >"$TREE/config.yaml"
    commit Begin
    push
}

# commit MESSAGE: makes a signed commit of the work tree, and does not push it.
commit() {
    git -C "$TREE" add -A
    git -C "$TREE" commit -q -m "$1"
}

push() { git -C "$TREE" push -q origin main; }

# --- daemon ------------------------------------------------------------------------------------

DAEMON=

configure() { printf '%s\n' "$@" >"$WORK_DIR/config.toml"; }

# The default configuration but for the soak, whose ten seconds would only make each round longer.
ORDINARY=('[rollout]' 'soak = "1s"')
configure "${ORDINARY[@]}"

# launch REPOSITORY ALLOWED_SIGNERS [ARGS...]: starts the daemon with its data directory as it is.
launch() {
    local repository=$1 signers=$2
    shift 2
    "$WINDLASS" run --config "$WORK_DIR/config.toml" --repo "file://$repository" --allowed-signers "$signers" "$@" >>"$WORK_DIR/windlass.log" 2>&1 </dev/null &
    DAEMON=$!
}

launch_daemon() { launch "$REPO" "$WORK_DIR/allowed_signers"; }

# start_daemon: a daemon without recorded state, which follows a repository without a workload.
start_daemon() {
    fresh_repository
    launch_daemon
    wait_ready
    "$WINDLASS" sync --wait >/dev/null
}

stop_daemon() {
    kill "$DAEMON"
    wait "$DAEMON" || die "the daemon did not end with status 0: see $WORK_DIR/windlass.log"
}

# end_daemon: stops the daemon and removes its containers and data. The nftables table, which the next daemon replaces,
# and the image of sandboxes stay, as on every host that has run a pod before.
end_daemon() {
    stop_daemon
    remove_containers
    rm -rf /var/lib/windlass
}

# poll WHAT COMMAND...: runs COMMAND until it succeeds. The pauses are short, because the wait is a part of what is
# measured.
poll() {
    local deadline=$((SECONDS + 120)) what=$1
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "timed out after 120 s waiting for $what; the end of the daemon's log: $(tail -20 "$WORK_DIR/windlass.log")"
        sleep 0.005
    done
}

wait_ready() { poll "the first converged cycle" curl -fs "$METRICS/readyz"; }

wait_answer() { poll "an answer on port $1" curl -fs --max-time 1 "http://$ADDRESS:$1/"; }

# --- containers --------------------------------------------------------------------------------

# wait_containers COUNT SECOND: waits until COUNT containers of pods have started since a time in seconds.
wait_containers() {
    local events
    rm -f "$WORK_DIR/events"
    mkfifo "$WORK_DIR/events"
    timeout 120 docker events --since "$2" --filter type=container --filter event=start \
        --filter label=io.windlass.role=main --format '{{.ID}}' >"$WORK_DIR/events" &
    events=$!
    [ "$(head -n "$1" "$WORK_DIR/events" | wc -l)" = "$1" ] ||
        die "not all containers started; the end of the daemon's log: $(tail -20 "$WORK_DIR/windlass.log")"
    kill "$events"
    wait "$events" 2>/dev/null || true
}

# last_started FILTER: prints when the last of the running containers was started, in milliseconds.
last_started() {
    docker ps -q --no-trunc --filter "$1" | xargs docker inspect -f '{{.State.StartedAt}}' | sort | tail -1 |
        xargs -I{} date -d {} +%s%3N
}

remove_containers() {
    docker ps -aq | xargs -r -P 4 -n 8 docker rm -f >/dev/null
}
