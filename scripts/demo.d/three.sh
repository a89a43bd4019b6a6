# shellcheck shell=bash
# Sourced by scripts/demo: three hosts that share a store, and the story of a blog on them.

HOSTS=(n1 n2 n3)
# What the blog calls itself. WordPress calls itself, too, so its pods must know the name: it is the Service's.
SITE=wordpress
LESSON=$ROOT/sample-repo/14-cluster

# page_of HOST [OPTION...]: fetches the blog's feed through that host's NodePort: it needs no theme, which the package
# wordpress comes without.
page_of() {
    local url
    url="http://$(host_address "$1"):$NODE_PORT/index.php/feed/"
    shift
    at_switch curl -sS --max-time 5 -H "Host: $SITE" "$@" "$url"
}

expect_page() { # HOST
    local page
    typed '$' curl -H "Host: $SITE" "http://$(host_address "$1"):$NODE_PORT/index.php/feed/"
    page=$(page_of "$1") || die "no answer from $1: see $DIR/$1/windlass.log"
    grep -m1 -o '<title>.*</title>' <<<"$page" | sed 's/^/    /'
    [[ $page == *'Hauled by git push'* ]] || die "that is not the page which was to come"
}

# make_hosts: all at once, since engines take their time.
make_hosts() {
    local host
    "$ROOT/scripts/registry" install
    "$ROOT/scripts/etcd" install
    for host in "${HOSTS[@]}"; do say "$host: $(host_address "$host")"; done
    start_switch
    for host in "${HOSTS[@]}"; do start_host "$host"; done
    say "the store: an etcd at $BED_NET.5 with certificates, which lets a host write no other host's part"
    start_store "${HOSTS[@]}" >"$DIR/etcd.log" 2>&1 || die "the store does not start: see $DIR/etcd.log"
    for host in "${HOSTS[@]}"; do wait_engine "$host"; done
    meet
}

# make_images: made from Debian packages and put into a registry. What that holds is kept for the next time.
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
    say "putting busybox, mysql and wordpress there (once)"
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
        typed "$host#" windlass cluster join "${token:0:24}..."
        on "$host" "$BINARY" cluster join "$token"
        start_daemon "$host"
    done
    for host in n2 n3; do wait_daemon "$host"; done
    wait_for 30 "three ready nodes" ready_nodes 3 || die "see 'scripts/demo --on n1 windlass get nodes'"
    at n1 windlass get nodes
}

ready_nodes() { [ "$(windlass_on n1 get nodes | awk '$2 == "Ready"' | wc -l)" = "$1" ]; }

# blog_pods HOST: node and pod of every ready WordPress, as that host sees them.
blog_pods() {
    windlass_on "$1" get pods -o json | jq -r '.items[]
        | select(.metadata.name | startswith("wordpress-") and (startswith("wordpress-mysql") | not))
        | select(.metadata.deletionTimestamp == null)
        | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))
        | "\(.spec.nodeName) \(.metadata.name)"'
}

two_without() { # HOST SEEN_FROM: whether two are ready on other hosts
    [ "$(blog_pods "$2" | grep -cv "^$1 ")" = 2 ]
}

two_in_all() { [ "$(windlass_on n1 get pods | grep -c '^wordpress-[^m]')" = 2 ]; }

# install_blog: what a person does in a browser.
install_blog() {
    say "(filling in WordPress' installation page; the database is on n1)"
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
    step "Installing what is missing"
    install_all

    step "Building windlass"
    build

    step "Making three hosts on this machine, each with a network, an engine and a disk of its own, and a store"
    make_hosts
    make_images

    step "Making a signing key, the list of who may deploy, and a repository"
    make_repository

    step "Making a cluster of the hosts: certificates by one-time tokens, then a daemon each"
    form_cluster

    step "Pushing WordPress with two replicas, and its database, in a signed commit"
    cp "$LESSON/wordpress.yml" "$LESSON/database.yml" "$WORK"
    push "Run a blog"
    settle n2
    at n3 windlass get pods -o wide
    [ "$(blog_pods n1 | cut -d' ' -f1 | sort -u | wc -l)" = 2 ] || die "the two are not on two hosts"
    install_blog
    say "every host answers, wherever the pods are:"
    for host in "${HOSTS[@]}"; do expect_page "$host"; done

    step "Pushing a change of its template, while somebody reads the blog on all hosts"
    keep_calling 0.2 '' "${HOSTS[@]}"
    change_blog 's/^        readinessProbe:/        - name: WORDPRESS_EDITION\n          value: second\n&/'
    push "Make a second edition"
    settle n1
    count_calls 0
    at n1 windlass get pods -o wide

    step "Pushing a DaemonSet: an agent on every host"
    cp "$LESSON/agent.yml" "$WORK"
    push "Watch over every host"
    settle n1
    at n1 windlass get daemonsets
    at n1 windlass get pods -o wide
    pod=$(windlass_on n1 get pods -o wide | awk '$1 ~ /^agent-/ && / n3 / {print $1; exit}')
    say "what the one on n3 says, asked on n1:"
    at n1 windlass logs "$pod"

    # The database is on n1, and its data is nowhere else.
    lost=$(blog_pods n1 | awk '$1 != "n1" {print $1}' | tail -1)
    [ -n "$lost" ] || die "no replica is on n2 or n3"

    step "Cutting $lost off from everything, while somebody reads the blog on the other hosts"
    local others=()
    for host in "${HOSTS[@]}"; do [ "$host" = "$lost" ] || others+=("$host"); done
    keep_calling 0.2 '--max-time 2' "${others[@]}"
    local cut
    cut=$(date +%s%3N)
    cut_off "$lost"
    poll_for 60 "two replicas on the other hosts" two_without "$lost" n1
    styled 32 "after $(awk -v ms=$(($(date +%s%3N) - cut)) 'BEGIN {printf "%.1f", ms / 1000}') s there are two on the other hosts"
    sleep 3
    at n1 windlass get nodes
    at n1 windlass get pods -o wide
    say "(a call that was on its way to $lost when it went gets no answer)"
    count_calls 40
    expect_page n1

    step "Plugging $lost in again: it yields to what was decided without it"
    heal
    wait_for 60 "$lost to be ready" ready_nodes 3 || die "see 'scripts/demo --on n1 windlass get nodes'"
    wait_for 60 "the third replica to stop" two_in_all || die "see 'scripts/demo --on n1 windlass get pods'"
    wait_for 60 "health" is_healthy n1 || die "see 'scripts/demo --on n1 windlass status'"
    at "$lost" windlass get nodes
    at "$lost" windlass get pods -o wide

    step "Pushing a change that is broken, while somebody reads the blog on all hosts"
    keep_calling 0.2 '' "${HOSTS[@]}"
    change_blog "s/^        imagePullPolicy:.*/&\n        command: [sh, -c, 'echo no licence found >\&2; exit 1']/"
    push "Ask for a licence"
    say "(a crash loop is called one after three restarts with growing pauses: about half a minute)"
    at n2 windlass sync --wait || code=$?
    [ $code = 3 ] || die "the broken commit should have been rolled back, but 'sync' ended with $code: see $DIR/n2/windlass.log"

    step "It was rolled back by itself, everywhere"
    for host in "${HOSTS[@]}"; do
        wait_for 60 "the rollback on $host" is_healthy "$host" || die "the rollback did not settle: see $DIR/$host/windlass.log"
    done
    count_calls 0
    at n3 windlass status
    at n3 windlass history
    expect_page n3

    cat >&2 <<END

That took $((SECONDS - began)) s. The demo goes on running. To try next:

  http://$(host_address n1):$NODE_PORT/wp-login.php, with the header 'Host: $SITE', is the blog's back door (deployer, change-me-too)

  scripts/demo --on n1        a shell on a host, where there are:
    windlass status             what runs, from which commit, and why; on any host
    windlass get pods -o wide   and nodes, services, deployments, events
    windlass logs POD           also of a pod on another host
    ip link set eth0 down       takes the host away; 'ip link set eth0 up' does not bring its default route back
    docker ps                   this host's containers

  cd $WORK
  edit wordpress.yml          take the broken command out, or change the number of replicas
  git commit -am 'Go on'      commits are signed here
  git push                    this deploys

The daemons' logs are $DIR/n*/windlass.log. To end it and remove everything: scripts/demo --clean
END
}

# poll_for SECONDS WHAT COMMAND...: as wait_for, where the time is shown.
poll_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || die "gave up waiting for $what"
        sleep 0.1
    done
}
