//! `windlass logs`

use std::io::Write;

use super::{
    args::LogsArgs,
    client::{Client, query, segment},
    exit::{CliError, Exit},
};

/// Copies a log to the output.
pub(super) async fn run(client: &Client, args: &LogsArgs, out: &mut dyn Write) -> Result<Exit, CliError> {
    let pod = args.pod.strip_prefix("pod/").unwrap_or(&args.pod);
    let flag = |set: bool| set.then(|| "true".to_owned());
    let query = query(&[
        ("container", args.container.clone()),
        ("follow", flag(args.follow)),
        ("previous", flag(args.previous)),
        ("timestamps", flag(args.timestamps)),
        ("tailLines", args.tail.map(|lines| lines.to_string())),
        ("sinceSeconds", args.since_seconds.map(|seconds| seconds.to_string())),
    ]);
    let path = format!("/api/v1/namespaces/{}/pods/{}/log{query}", segment(&args.namespace)?, segment(pod)?);
    let mut log = client.stream(&path, "*/*").await?;
    while let Some(chunk) = log.chunk().await? {
        out.write_all(&chunk)?;
        out.flush()?;
    }
    Ok(Exit::Done)
}
