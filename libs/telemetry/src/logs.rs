//! Our log: lines for people on a terminal, JSON objects elsewhere, both to stderr, with a level that can be changed at
//! run time. Spans go to the tracer, if one is given.
//!
//! Spans are made per request and per tick, never per point, and only those of our own crates are exported: the HTTP and
//! gRPC libraries trace themselves, the exporter's included, which would feed on itself.

use std::io::IsTerminal;

use opentelemetry_sdk::trace::SdkTracer;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The target of the spans that are exported: one for each request and each tick. Without a tracer nobody wants them, and
/// then they cost nothing, not even where a point read takes microseconds.
pub const TRACE_TARGET: &str = "headroom_trace";

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// [`Self::Text`] if stderr is a terminal, else [`Self::Json`].
    #[default]
    Auto,
    /// A line for people, with colours on a terminal.
    Text,
    /// A JSON object a line.
    Json,
}

/// What to log, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level (`info`) or directives (`info,headroom_engine=debug`), as `RUST_LOG` has them.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// Why logging could not be set up or its level not be changed.
#[derive(Debug)]
pub struct LogError(String);

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// Changes the level of a log that is running.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Logs by other directives from now on.
    ///
    /// # Errors
    /// If they are malformed; the level then stays as it was.
    pub fn set_level(&self, directives: &str) -> Result<(), LogError> {
        let filter = parse(directives)?;
        self.0.reload(filter).map_err(|error| LogError(format!("the log level cannot be changed: {error}")))
    }

    /// The directives in force.
    pub fn level(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Begins to log, for the whole process. `RUST_LOG` is the caller's to read: configuration decides what wins.
///
/// # Errors
/// If the directives are malformed or the process logs already.
pub fn init(settings: &LogSettings, tracer: Option<SdkTracer>) -> Result<LogHandle, LogError> {
    let (layers, handle) = layers(settings, tracer, std::io::stderr)?;
    Registry::default()
        .with(layers)
        .try_init()
        .map_err(|error| LogError(format!("logging cannot be set up: {error}")))?;
    Ok(handle)
}

type Layers = Vec<Box<dyn Layer<Registry> + Send + Sync>>;

fn layers<W>(settings: &LogSettings, tracer: Option<SdkTracer>, writer: W) -> Result<(Layers, LogHandle), LogError>
where
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(&settings.level)?);
    let terminal = std::io::stderr().is_terminal();
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let filter = filter.and(filter_fn(|metadata| metadata.target() != TRACE_TARGET));
    let lines = fmt::layer().with_writer(writer).with_ansi(terminal);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if text {
        lines.with_filter(filter).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).with_filter(filter).boxed()
    };
    let mut layers = vec![lines];
    if let Some(tracer) = tracer {
        // A prefix: all our crates' names begin with it.
        let ours = Targets::new().with_target("headroom", LevelFilter::INFO);
        layers.push(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours).boxed());
    }
    Ok((layers, LogHandle(handle)))
}

fn parse(directives: &str) -> Result<EnvFilter, LogError> {
    // Not the lossy way, which would drop a malformed directive with a note on stderr.
    EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse(directives).map_err(|error| {
        LogError(format!(
            "the log level {directives:?} is malformed ({error}): write a level such as info, or target=level pairs"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_json_objects_and_the_level_changes_while_running() {
        let lines = Lines::default();
        let writer = lines.clone();
        let settings = LogSettings { level: "warn".to_owned(), format: LogFormat::Json };
        let (layers, handle) = layers(&settings, None, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(Registry::default().with(layers), || {
            tracing::info!(partition = 1, "not yet");
            handle.set_level("warn,headroom_telemetry=debug").unwrap();
            tracing::debug!(partition = 2, "now");
            assert!(handle.set_level("warn,=!").is_err());
            tracing::debug!(partition = 3, "still");
            assert_eq!(handle.level(), "headroom_telemetry=debug,warn");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = objects.iter().map(|line| (&line["message"], &line["partition"])).collect();
        assert_eq!(told, [(&"now".into(), &2.into()), (&"still".into(), &3.into())]);
    }

    #[test]
    fn spans_of_requests_are_made_only_where_somebody_exports_them() {
        let exported = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        for (tracer, is_made) in [(None, false), (Some(exported.tracer("test")), true)] {
            let settings = LogSettings { level: "trace".to_owned(), format: LogFormat::Json };
            let (layers, _handle) = layers(&settings, tracer, std::io::sink).unwrap();
            tracing::subscriber::with_default(Registry::default().with(layers), || {
                let span = tracing::info_span!(target: TRACE_TARGET, "request");
                assert_eq!(!span.is_disabled(), is_made);
            });
        }
    }

    #[test]
    fn malformed_levels_are_refused() {
        let settings = LogSettings { level: "headroom=loud".to_owned(), ..LogSettings::default() };
        assert!(layers(&settings, None, std::io::sink).is_err());
    }
}
