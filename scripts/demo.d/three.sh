# shellcheck shell=bash
# Sourced by scripts/demo: three hosts that share a store and run a blog.

HOSTS=(n1 n2 n3)
# The host name of the blog. WordPress also sends requests to its own host name, so the name must resolve in its pods:
# it is the name of the Service.
SITE=wordpress
LESSON=$ROOT/sample-repo/14-cluster

# page_of HOST [OPTION...]: fetches the blog's feed through a host's NodePort. A page would need a theme, which Debian's
# package wordpress does not contain.
page_of() {
    local url
    url="http://$(host_address "$1"):$NODE_PORT/index.php/feed/"
    shift
    at_switch curl -sS --max-time 5 -H "Host: $SITE" "$@" "$url"
}

expect_page() { # HOST
    local page
    print_command curl -H "Host: $SITE" "http://$(host_address "$1"):$NODE_PORT/index.php/feed/"
    page=$(page_of "$1") || die "no answer from $1: see $DIR/$1/windlass.log"
    grep -m1 -o '<title>.*</title>' <<<"$page" | sed 's/^/    /'
    [[ $page == *'Hauled by git push'* ]] || die "the feed does not contain the blog's title: see $DIR/$1/windlass.log"
}

# make_hosts: starts the hosts at the same time, because an engine takes seconds to start.
make_hosts() {
    local host
    "$ROOT/scripts/registry" install
    "$ROOT/scripts/etcd" install
    for host in "${HOSTS[@]}"; do say "$host: $(host_address "$host")"; done
    start_switch
    for host in "${HOSTS[@]}"; do start_host "$host"; done
    say "the store: an etcd at $BED_NET.5 with certificates, where no host may write another host's keys"
    start_store "${HOSTS[@]}" >"$DIR/etcd.log" 2>&1 || die "the store does not start: see $DIR/etcd.log"
    for host in "${HOSTS[@]}"; do wait_engine "$host"; done
    connect_machine
}

# make_images: makes the images from Debian packages and pushes them to a registry, whose content is kept for the next
# demo.
make_images() {
    local image key kept
    say "a registry at $BED_NET.1:5000, which the engines ask for plain names such as 'wordpress'"
    key=$(for image in busybox mysql wordpress; do "$ROOT/scripts/images" --archive "$image"; done | sha256sum | cut -c1-12)
    kept=$CACHE/demo-registry-$key
    mkdir -p "$DIR/registry"
    if [ -d "$kept" ]; then
        ln -s "$kept" "$DIR/registry/images"
        start_registry
        return
    fi
    say "pushing busybox, mysql and wordpress to the registry (once)"
    start_registry
    for image in busybox mysql wordpress; do serve_image n1 "$image" "library/$image"; done
    rm -rf "$CACHE"/demo-registry-*
    mv "$DIR/registry/images" "$kept"
    ln -s "$kept" "$DIR/registry/images"
}

form_cluster() {
    local host token
    for host in "${HOSTS[@]}"; do configure "$host" "$BARE" "$SIGNERS" '[rollout]' 'soak = "3s"'; done
    at n1 cat /etc/windlass/windlass.toml
    at n1 windlass cluster init
    start_daemon n1
    wait_daemon n1
    for host in n2 n3; do
        token=$(at n1 windlass cluster token --node "$host" | grep -o 'wlj1\.[^ ]*' | tail -1)
        print_command_on "$host" windlass cluster join -
        on "$host" "$BINARY" cluster join - <<<"$token"
        start_daemon "$host"
    done
    for host in n2 n3; do wait_daemon "$host"; done
    wait_for 30 "three ready nodes" ready_nodes 3 || die "see '${DEMO[*]} --on n1 windlass get nodes'"
    at n1 windlass get nodes
}

ready_nodes() { [ "$(windlass_on n1 get nodes | awk '$2 == "Ready"' | wc -l)" = "$1" ]; }

# blog_pods HOST: prints node and pod of every ready WordPress, as a host publishes them.
blog_pods() {
    windlass_on "$1" get pods -o json | jq -r '.items[]
        | select(.metadata.name | startswith("wordpress-") and (startswith("wordpress-mysql") | not))
        | select(.metadata.deletionTimestamp == null)
        | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))
        | "\(.spec.nodeName) \(.metadata.name)"'
}

two_on_other_hosts() { # HOST READER: whether two replicas are ready on other hosts than HOST, as READER publishes it
    [ "$(blog_pods "$2" | grep -cv "^$1 ")" = 2 ]
}

two_pods_in_total() { [ "$(windlass_on n1 get pods | grep -c '^wordpress-[^m]')" = 2 ]; }

# install_blog: installs WordPress, as a person does in a browser.
install_blog() {
    say "(sending the form of WordPress' installation page; the database is on n1)"
    at_switch curl -fsS --max-time 60 -o /dev/null -H "Host: $SITE" --data-urlencode weblog_title='Hauled by git push' \
        -d user_name=deployer -d admin_password=change-me-too -d admin_password2=change-me-too -d pw_weak=on \
        -d admin_email=deployer@example.com -d blog_public=0 \
        "http://$(host_address n1):$NODE_PORT/wp-admin/install.php?step=2"
}

change_blog() { # SED_EXPRESSION
    sed -i "$1" "$WORK/wordpress.yml"
}

demo() {
    local began=$SECONDS host lost pod code=0
    step "Installing missing packages"
    install_all

    step "Building windlass"
    build

    step "Making three hosts on this machine, each with a network, an engine and a disk of its own, and a store"
    make_hosts
    make_images

    step "Making a signing key, the list of trusted signers, and a repository"
    make_repository

    step "Making a cluster of the hosts: certificates with one-time tokens, then a daemon on each"
    form_cluster

    step "Pushing WordPress with two replicas, and its database, in a signed commit"
    cp "$LESSON/wordpress.yml" "$LESSON/database.yml" "$WORK"
    push "Run a blog"
    settle n2
    at n3 windlass get pods -o wide
    [ "$(blog_pods n1 | cut -d' ' -f1 | sort -u | wc -l)" = 2 ] || die "the two replicas are not on two hosts: see '${DEMO[*]} --on n1 windlass get pods -o wide'"
    install_blog
    say "every host answers, whether it runs a pod of the blog or not:"
    for host in "${HOSTS[@]}"; do expect_page "$host"; done

    step "Pushing a change of the pod template, while a client requests the blog on all hosts"
    start_calls 0.2 '' "${HOSTS[@]}"
    change_blog 's/^        readinessProbe:/        - name: WORDPRESS_EDITION\n          value: second\n&/'
    push "Make a second edition"
    settle n1
    check_calls 0
    at n1 windlass get pods -o wide

    step "Pushing a DaemonSet: an agent on every host"
    cp "$LESSON/agent.yml" "$WORK"
    push "Watch over every host"
    settle n1
    at n1 windlass get daemonsets
    at n1 windlass get pods -o wide
    pod=$(windlass_on n1 get pods -o wide | awk '$1 ~ /^agent-/ && / n3 / {print $1; exit}')
    say "the log of the agent on n3, read on n1:"
    at n1 windlass logs "$pod"

    # The host to cut off is not n1, whose disk has the only copy of the database's data.
    lost=$(blog_pods n1 | awk '$1 != "n1" {print $1}' | tail -1)
    [ -n "$lost" ] || die "no replica runs on n2 or n3: see '${DEMO[*]} --on n1 windlass get pods -o wide'"

    step "Cutting $lost off from the network, while a client requests the blog on the other hosts"
    local others=()
    for host in "${HOSTS[@]}"; do [ "$host" = "$lost" ] || others+=("$host"); done
    start_calls 0.2 '--max-time 2' "${others[@]}"
    local cut
    cut=$(date +%s%3N)
    cut_off "$lost"
    poll_for 60 "two replicas on the other hosts" two_on_other_hosts "$lost" n1
    styled 32 "after $(awk -v ms=$(($(date +%s%3N) - cut)) 'BEGIN {printf "%.1f", ms / 1000}') s two replicas are ready on the other hosts"
    sleep 3
    at n1 windlass get nodes
    at n1 windlass get pods -o wide
    say "(requests that were sent to $lost before the other hosts removed its endpoint get no answer)"
    check_calls 40
    expect_page n1

    step "Connecting $lost again: it stops the replica that was replaced meanwhile"
    heal
    wait_for 60 "$lost to be ready" ready_nodes 3 || die "see '${DEMO[*]} --on n1 windlass get nodes'"
    wait_for 60 "the third replica to stop" two_pods_in_total || die "see '${DEMO[*]} --on n1 windlass get pods'"
    wait_for 60 "the commit to be healthy" is_healthy n1 || die "see '${DEMO[*]} --on n1 windlass status'"
    at "$lost" windlass get nodes
    at "$lost" windlass get pods -o wide

    step "Pushing a broken change, while a client requests the blog on all hosts"
    start_calls 0.2 '' "${HOSTS[@]}"
    change_blog "s/^        imagePullPolicy:.*/&\n        command: [sh, -c, 'echo no licence found >\&2; exit 1']/"
    push "Require a licence"
    say "(a commit fails for a crash loop after three restarts with growing pauses: about half a minute)"
    at n2 windlass sync --wait || code=$?
    [ $code = 3 ] || die "the broken commit should have been rolled back, but 'sync' ended with $code: see $DIR/n2/windlass.log"

    step "The broken commit was rolled back automatically on all hosts"
    for host in "${HOSTS[@]}"; do
        wait_for 60 "the rollback on $host" is_healthy "$host" || die "the commit is not healthy after the rollback: see $DIR/$host/windlass.log"
    done
    check_calls 0
    at n3 windlass status
    at n3 windlass history
    expect_page n3

    cat >&2 <<END

The demo took $((SECONDS - began)) s and keeps running. To try next:

  http://$(host_address n1):$NODE_PORT/wp-login.php, with the header 'Host: $SITE', is the blog's login page (user
  deployer, password change-me-too)

  ${DEMO[*]} --on n1        opens a shell on a host, for example for:
    windlass status             what runs, from which commit, and why; on any host
    windlass get pods -o wide   also nodes, services, deployments, events
    windlass logs POD           also of a pod on another host
    ip link set eth0 down       disconnects the host; 'ip link set eth0 up' does not restore its default route
    docker ps                   this host's containers

  cd $WORK
  edit wordpress.yml          remove the broken command, or change the number of replicas
  git commit -am 'Change it'  commits are signed here
  git push                    deploys the commit

The daemons' logs are $DIR/n*/windlass.log. To end the demo and remove everything: ${DEMO[*]} --clean
END
}

# poll_for SECONDS WHAT COMMAND...: like wait_for, with shorter pauses, for a wait whose length is printed.
poll_for() {
    local deadline=$((SECONDS + $1)) seconds=$1 what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "timed out after $seconds s waiting for $what"
        sleep 0.1
    done
}
