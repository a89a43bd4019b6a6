//! Probes and life-cycle hooks.

use std::time::Duration;

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};

use super::signal::stop_signal;
use crate::{
    manifest::at::At,
    object::{ContainerPort, Handler, Probe},
    syntax,
};

/// Which of a container's probes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe` or `startupProbe`.
    Life,
}

/// One of the three probes; its port may be the name of one of the container's ports.
pub(super) fn probe(
    probe: Option<core::Probe>,
    asks: Asks,
    ports: &[ContainerPort],
    at: &At<'_>,
) -> Option<Probe> {
    let core::Probe {
        exec,
        failure_threshold,
        grpc,
        http_get,
        initial_delay_seconds,
        period_seconds,
        success_threshold,
        tcp_socket,
        termination_grace_period_seconds,
        timeout_seconds,
    } = probe?;
    at.field("grpc").refuse(
        grpc.is_some(),
        "never ask the container",
        "ask the port with tcpSocket, or the program with exec, in its place",
    );

    let handler = one_handler(
        Actions {
            exec,
            http_get,
            tcp_socket,
            sleep: None,
        },
        grpc.is_some(),
        ports,
        at,
    );

    // In Kubernetes zero means that the field is missing.
    let number = |field: &str, value: Option<i32>, default: u32| {
        let value = at.field(field).count(value.unwrap_or(0));
        if value == 0 { default } else { value }
    };
    let success_threshold = number("successThreshold", success_threshold, 1);
    if asks == Asks::Life && success_threshold != 1 {
        at.field("successThreshold")
            .error("must be 1 for a liveness or startup probe");
    }

    let grace = at.field("terminationGracePeriodSeconds");
    if asks == Asks::Readiness && termination_grace_period_seconds.is_some() {
        grace.error("a readiness probe stops nothing: remove it");
    }
    let termination_grace = termination_grace_period_seconds
        .map(|value| Duration::from_secs(grace.within(value, 1, i32::MAX.into()).unsigned_abs()));

    // Each number is read before a missing handler ends the reading: all problems are reported.
    let initial_delay = seconds(number("initialDelaySeconds", initial_delay_seconds, 0));
    let period = seconds(number("periodSeconds", period_seconds, 10));
    let timeout = seconds(number("timeoutSeconds", timeout_seconds, 1));
    let failure_threshold = number("failureThreshold", failure_threshold, 3);
    Some(Probe {
        handler: handler?,
        initial_delay,
        period,
        timeout,
        success_threshold,
        failure_threshold,
        termination_grace,
    })
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// What `lifecycle` says about the start and the end of a container.
pub(super) struct LifeHooks {
    pub(super) post_start: Option<Handler>,
    pub(super) pre_stop: Option<Handler>,
    pub(super) stop_signal: Option<String>,
}

/// `lifecycle`: the hooks after the start and before the stop, and the signal of the stop.
pub(super) fn lifecycle(
    lifecycle: Option<core::Lifecycle>,
    ports: &[ContainerPort],
    names_os: bool,
    at: &At<'_>,
) -> LifeHooks {
    let core::Lifecycle {
        post_start,
        pre_stop,
        stop_signal: signal,
    } = lifecycle.unwrap_or_default();
    LifeHooks {
        post_start: hook(post_start, ports, &at.field("postStart")),
        pre_stop: hook(pre_stop, ports, &at.field("preStop")),
        stop_signal: stop_signal(signal, names_os, &at.field("stopSignal")),
    }
}

fn hook(
    handler: Option<core::LifecycleHandler>,
    ports: &[ContainerPort],
    at: &At<'_>,
) -> Option<Handler> {
    let core::LifecycleHandler {
        exec,
        http_get,
        sleep,
        tcp_socket,
    } = handler?;
    if tcp_socket.is_some() {
        at.field("tcpSocket")
            .error("a hook cannot be a tcpSocket: write exec, httpGet or sleep");
    }
    one_handler(
        Actions {
            exec,
            http_get,
            tcp_socket: None,
            sleep,
        },
        tcp_socket.is_some(),
        ports,
        at,
    )
}

/// The possible actions of a hook or probe.
struct Actions {
    exec: Option<core::ExecAction>,
    http_get: Option<core::HTTPGetAction>,
    tcp_socket: Option<core::TCPSocketAction>,
    sleep: Option<core::SleepAction>,
}

/// The one action that is given; with `refused` another one was given that is already reported.
fn one_handler(
    actions: Actions,
    refused: bool,
    ports: &[ContainerPort],
    at: &At<'_>,
) -> Option<Handler> {
    let Actions {
        exec,
        http_get,
        tcp_socket,
        sleep,
    } = actions;
    let mut handlers = [
        exec.map(|action| exec_action(action, &at.field("exec"))),
        http_get.map(|action| http_get_action(action, ports, &at.field("httpGet"))),
        tcp_socket.map(|action| tcp_socket_action(action, ports, &at.field("tcpSocket"))),
        sleep.map(|action| sleep_action(action, &at.field("sleep"))),
    ]
    .into_iter()
    .flatten();

    let first = handlers.next();
    let more = handlers.next().is_some();
    if !refused && first.is_none() {
        at.error("does nothing: write exec, httpGet or another handler");
    } else if more {
        at.error("has more than one handler: keep one");
    }
    first
}

fn exec_action(action: core::ExecAction, at: &At<'_>) -> Handler {
    let core::ExecAction { command } = action;
    let command = command.unwrap_or_default();
    if command.is_empty() {
        at.field("command")
            .error("required: write the program and its arguments");
    }
    Handler::Exec { command }
}

fn http_get_action(action: core::HTTPGetAction, ports: &[ContainerPort], at: &At<'_>) -> Handler {
    let core::HTTPGetAction {
        host,
        http_headers,
        path,
        port,
        scheme,
    } = action;
    let headers = http_headers
        .unwrap_or_default()
        .into_iter()
        .enumerate()
        .map(|(index, header)| {
            let core::HTTPHeader { name, value } = header;
            let at = at.field("httpHeaders");
            let at = at.index(index);
            let name = at.field("name").checked(name, syntax::header_name);
            (name, value)
        });

    Handler::HttpGet {
        host: host.filter(|host| !host.is_empty()),
        port: port_number(port, ports, &at.field("port")),
        path: path
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".to_owned()),
        https: at.field("scheme").word(
            scheme.as_deref(),
            &[("HTTP", false), ("HTTPS", true)],
            false,
        ),
        headers: headers.collect(),
    }
}

fn tcp_socket_action(
    action: core::TCPSocketAction,
    ports: &[ContainerPort],
    at: &At<'_>,
) -> Handler {
    let core::TCPSocketAction { host, port } = action;
    Handler::TcpSocket {
        host: host.filter(|host| !host.is_empty()),
        port: port_number(port, ports, &at.field("port")),
    }
}

fn sleep_action(action: core::SleepAction, at: &At<'_>) -> Handler {
    let core::SleepAction { seconds } = action;
    let seconds = at.field("seconds").within(seconds, 0, i32::MAX.into());
    Handler::Sleep {
        duration: Duration::from_secs(seconds.unsigned_abs()),
    }
}

/// A port by its number, or by its name among the container's ports.
fn port_number(port: IntOrString, ports: &[ContainerPort], at: &At<'_>) -> u16 {
    match port {
        IntOrString::Int(number) => at.port(number),
        IntOrString::String(name) => {
            let named = ports
                .iter()
                .find(|port| port.name.as_deref() == Some(name.as_str()));

            if name.parse::<u16>().is_ok() {
                at.error("a number in quotes is the name of a port: remove the quotes");
            } else if named.is_none() {
                at.error(format_args!(
                    "no port of this container is named {name:?}: name one so under ports, or write its number"
                ));
            }
            // With an error reported, the commit is refused and nobody asks port 0.
            named.map_or(0, |port| port.port)
        }
    }
}
