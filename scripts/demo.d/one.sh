# shellcheck shell=bash
# Sourced by scripts/demo: one host, which needs only Docker and a repository.

# write_httpd [EXTRA]: writes a Deployment of two httpds behind a NodePort; EXTRA is added to the container.
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

# The volume with the page of the second push.
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

# page_of HOST [OPTION...]: fetches the page through the NodePort, which answers on every address of a host but 127.0.0.1.
page_of() {
    local url
    url=http://$(host_address "$1"):$NODE_PORT/
    shift
    at_switch curl -sS --max-time 5 "$@" "$url"
}

expect_page() {
    local page
    print_command curl "http://$(host_address n1):$NODE_PORT/"
    page=$(page_of n1) || die "no answer on port $NODE_PORT: see 'windlass status' and $DIR/n1/windlass.log"
    say "$page"
    case $page in
    *"$1"*) ;;
    *) die "the page does not contain '$1': see $DIR/n1/windlass.log" ;;
    esac
}

demo() {
    step "Installing missing packages"
    install_all

    step "Building windlass"
    build

    step "Making a host: a network, an engine, and an image made from Debian's apache2"
    start_switch
    start_host n1
    wait_engine n1
    DOCKER_HOST=unix://$DIR/n1/run/docker.sock "$ROOT/scripts/images" httpd
    connect_machine

    step "Making a signing key, the list of trusted signers, and a repository"
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

    step "Pushing a change: a page from a ConfigMap, while a client requests the page"
    write_httpd "$PAGE"
    write_page
    start_calls 0.1 '' n1
    push "Serve a page of our own"
    settle n1
    check_calls 0
    expect_page 'Deployed by git push'
    at n1 windlass history

    step "Pushing a broken change: the server exits as soon as it starts"
    write_httpd "        command: ['sh', '-c', 'echo no licence found >&2; exit 1']
$PAGE"
    start_calls 0.1 '' n1
    push "Require a licence"
    say "(a commit fails for a crash loop after three restarts with growing pauses: about half a minute)"
    local code=0
    at n1 windlass sync --wait || code=$?
    [ $code = 3 ] || die "the broken commit should have been rolled back, but 'sync' ended with $code: see $DIR/n1/windlass.log"

    step "The broken commit was rolled back automatically"
    wait_for 60 "the rollback" is_healthy n1 || die "the commit is not healthy after the rollback: see $DIR/n1/windlass.log"
    check_calls 0
    at n1 windlass status
    at n1 windlass history
    expect_page 'Deployed by git push'

    cat >&2 <<END

The demo keeps running. To try next:

  ${DEMO[*]} --on n1        opens a shell on the host, for example for:
    windlass status             what runs, from which commit, and why
    windlass get pods           also services, deployments, events, in kubectl's words and columns
    windlass logs POD           the log of a pod from the list above
    docker kill CONTAINER       with a container of 'docker ps': Windlass restarts it

  cd $WORK
  edit httpd.yml              remove the broken command, or change the number of replicas
  git commit -am 'Change it'  commits are signed here
  git push                    deploys the commit; on the host:
    windlass sync --wait        shows the progress of the rollout
    windlass rollback           rolls back to the last healthy commit; 'windlass resume' ends that

  git commit --no-gpg-sign    such a commit is refused after its push: 'windlass status' names the reason. To correct it:
                              git commit --amend --no-edit -S && git push --force

The daemon's log is $DIR/n1/windlass.log. To end the demo and remove everything: ${DEMO[*]} --clean
END
}
