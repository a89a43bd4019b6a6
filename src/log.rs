//! The daemon's log: an event is one line, whatever text it contains.

use std::io::{self, IsTerminal, Write};

use reconciler::foreign::{self, ForeignText};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        self, FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
    },
    util::SubscriberInitExt,
};

use crate::cli::LogFormat;

/// The filter unless `RUST_LOG` sets one: hickory logs a line for every DNS query, and rustls a
/// warning for many a wrong handshake, which any client can send.
const DEFAULT_FILTER: &str =
    "info,hickory_server=warn,hickory_net=warn,hickory_proto=warn,rustls=error";
/// The longest message with its fields: journald cuts a line at 48 KiB.
const EVENT_BYTES: usize = 16 * 1024;

/// Writes log lines to standard error; `RUST_LOG` sets the level.
pub(crate) fn start(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let colours = io::stderr().is_terminal();
    match format {
        LogFormat::Text => text(filter, colours, io::stderr).init(),
        LogFormat::Json => json(filter, io::stderr).init(),
    }
}

fn text(
    filter: EnvFilter,
    colours: bool,
    to: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let builder = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(to)
        .with_target(false);
    builder
        .fmt_fields(EscapedFields)
        .with_ansi(colours)
        .finish()
}

fn json(
    filter: EnvFilter,
    to: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let builder = fmt::fmt()
        .with_env_filter(filter)
        .with_writer(EscapedJson(to))
        .with_target(false);
    builder.json().flatten_event(true).finish()
}

/// The message and the fields of an event or a span, escaped and bounded. Only these contain
/// foreign text.
struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'w>,
        fields: R,
    ) -> std::fmt::Result {
        let mut plain = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut plain), fields)?;
        writer.write_str(ForeignText::bounded(&plain, EVENT_BYTES).as_str())
    }
}

/// JSON escapes line breaks and ESC itself, but neither DEL nor C1 nor marks of direction.
struct EscapedJson<M>(M);

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for EscapedJson<M> {
    type Writer = EscapedJsonWriter<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapedJsonWriter(self.0.make_writer())
    }
}

/// Writes events, each in one piece.
struct EscapedJsonWriter<W>(W);

impl<W: Write> Write for EscapedJsonWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(foreign::escape_json(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const ODD: &str = "start\nINFO forged\r\u{1b}[2J\u{9b}1m\u{7f}\u{85}\u{2028}\u{202e}\u{2066}\u{200b}\u{e0041}\tend";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(subscriber: impl FnOnce(Lines) -> Box<dyn Subscriber + Send + Sync>) -> String {
        let lines = Lines::default();
        tracing::subscriber::with_default(subscriber(lines.clone()), || {
            let span = tracing::info_span!("span", text = ODD, shown = %ODD);
            let _entered = span.enter();
            tracing::info!(text = ODD, shown = %ODD, debug = ?ODD, "{ODD}");
            tracing::error!("second");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn one_line_each(log: &str) -> [&str; 2] {
        assert!(log.ends_with('\n'), "{log}");
        assert!(
            !log.contains(|c: char| c != '\n' && foreign::is_unprintable(c)),
            "{log:?}"
        );
        let lines: Vec<&str> = log.split_terminator('\n').collect();
        lines.try_into().unwrap()
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        let log = logged(|to| Box::new(text(EnvFilter::new("info"), false, move || to.clone())));
        let [first, second] = one_line_each(&log);
        assert!(
            first.contains(r"start\nINFO forged\r") && first.contains(r"\u{202e}"),
            "{first}"
        );
        assert!(second.ends_with("second"), "{second}");
    }

    #[test]
    fn an_event_is_one_line_of_json_that_means_the_same() {
        let log = logged(|to| Box::new(json(EnvFilter::new("info"), move || to.clone())));
        let [first, second] = one_line_each(&log);
        let first: serde_json::Value = serde_json::from_str(first).unwrap();
        assert_eq!(
            (first["text"].as_str(), first["shown"].as_str()),
            (Some(ODD), Some(ODD))
        );
        assert!(serde_json::from_str::<serde_json::Value>(second).is_ok());
    }

    #[test]
    fn colours_are_ours_alone() {
        let log = logged(|to| Box::new(text(EnvFilter::new("info"), true, move || to.clone())));
        let plain = anstream::adapter::strip_str(&log).to_string();
        one_line_each(&plain);
        assert!(log.contains("\u{1b}[") && plain.contains("[2J"), "{log:?}");
    }

    #[test]
    fn an_event_is_bounded() {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = text(EnvFilter::new("info"), false, move || to.clone());
        tracing::subscriber::with_default(subscriber, || tracing::info!("{}", "x".repeat(1 << 20)));
        let log = lines.0.lock().unwrap();
        assert!(
            log.len() < EVENT_BYTES + 100 && log.ends_with(b"...\n"),
            "{}",
            log.len()
        );
    }
}
