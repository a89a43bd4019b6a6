# shellcheck shell=bash
# Sourced by scripts/demo: one host, which needs nothing but Docker and a repository.

# write_httpd [EXTRA]: two httpds behind a NodePort, as a Deployment; EXTRA goes into the container.
write_httpd() {
    cat >"$WORK/httpd.yml" <<END
apiVersion: apps/v1
kind: Deployment
metadata:
  name: httpd
spec:
  replicas: 2
  selector:
    matchLabels:
      app: httpd
  template:
    metadata:
      labels:
        app: httpd
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: httpd
        image: httpd
        imagePullPolicy: IfNotPresent
        readinessProbe:
          httpGet:
            path: /
            port: 80
          periodSeconds: 1${1:+
$1}
---
apiVersion: v1
kind: Service
metadata:
  name: httpd-svc
spec:
  type: NodePort
  ports:
    - port: 80
      nodePort: $NODE_PORT
  selector:
    app: httpd
END
}

# The page of the second push, and where the container finds it.
PAGE='        volumeMounts:
        - name: page
          mountPath: /usr/local/apache2/htdocs
      volumes:
      - name: page
        configMap:
          name: page'

write_page() {
    cat >"$WORK/page.yml" <<'END'
apiVersion: v1
kind: ConfigMap
metadata:
  name: page
data:
  index.html: |
    <html><body><h1>Deployed by git push</h1></body></html>
END
}

# page_of HOST [OPTION...]: fetches it through the NodePort. Every address of a host answers, but not 127.0.0.1.
page_of() {
    local url
    url=http://$(host_address "$1"):$NODE_PORT/
    shift
    at_switch curl -sS --max-time 5 "$@" "$url"
}

expect_page() {
    local page
    typed '$' curl "http://$(host_address n1):$NODE_PORT/"
    page=$(page_of n1) || die "no answer on port $NODE_PORT: see 'windlass status' and $DIR/n1/windlass.log"
    say "$page"
    case $page in
    *"$1"*) ;;
    *) die "that is not the page which was to come: $1" ;;
    esac
}

demo() {
    step "Installing what is missing"
    install_all

    step "Building windlass"
    build

    step "Making a host: a network, an engine, and an image made from Debian's apache2"
    start_switch
    start_host n1
    wait_engine n1
    DOCKER_HOST=unix://$DIR/n1/run/docker.sock "$ROOT/scripts/images" httpd
    meet

    step "Making a signing key, the list of who may deploy, and a repository"
    make_repository

    step "Starting the daemon"
    configure n1 "$BARE" "$SIGNERS"
    at n1 cat /etc/windlass/windlass.toml
    start_daemon n1
    wait_daemon n1

    step "Pushing two httpds and a Service, in a signed commit"
    write_httpd
    push "Run httpd behind port $NODE_PORT"
    settle n1
    at n1 windlass get pods
    expect_page 'It works!'

    step "Pushing a change: a page from a ConfigMap, while somebody reads the old one"
    write_httpd "$PAGE"
    write_page
    keep_calling 0.1 '' n1
    push "Serve our own page"
    settle n1
    count_calls 0
    expect_page 'Deployed by git push'
    at n1 windlass history

    step "Pushing a change that is broken: the server ends as soon as it starts"
    write_httpd "        command: ['sh', '-c', 'echo no licence found >&2; exit 1']
$PAGE"
    keep_calling 0.1 '' n1
    push "Ask for a licence"
    say "(a crash loop is called one after three restarts with growing pauses: about half a minute)"
    local code=0
    at n1 windlass sync --wait || code=$?
    [ $code = 3 ] || die "the broken commit should have been rolled back, but 'sync' ended with $code: see $DIR/n1/windlass.log"

    step "It was rolled back by itself"
    wait_for 60 "the rollback" is_healthy n1 || die "the rollback did not settle: see $DIR/n1/windlass.log"
    count_calls 0
    at n1 windlass status
    at n1 windlass history
    expect_page 'Deployed by git push'

    cat >&2 <<END

The demo goes on running. To try next:

  scripts/demo --on n1        a shell on the host, where there are:
    windlass status             what runs, from which commit, and why
    windlass get pods           and services, deployments, events: kubectl's words and columns
    windlass logs POD           what a pod of the list above has said
    docker kill CONTAINER       one of 'docker ps': it comes back

  cd $WORK
  edit httpd.yml              take the broken command out, or change the number of replicas
  git commit -am 'Go on'      commits are signed here
  git push                    this deploys; on the host:
    windlass sync --wait        shows how far it is
    windlass rollback           back to the healthy commit before; 'windlass resume' ends that

  git commit --no-gpg-sign    is refused once it is pushed: 'windlass status' says why. To go on:
                              git commit --amend --no-edit -S && git push --force

The daemon's log is $DIR/n1/windlass.log. To end it and remove everything: scripts/demo --clean
END
}
