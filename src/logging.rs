//! Where log lines go and what they look like.
//!
//! Invariants:
//! - Logs go to stderr; stdout is for data.
//! - A filter that could not mean what was typed is refused: `tracing` itself would take a
//!   mistyped level for the name of a module and log nothing.
//! - The filter can be changed while the process runs; the format cannot.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing::span::Record;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{
    DefaultFields, Format, FormatEvent, FormatFields, Json, JsonFields, Writer,
};
use tracing_subscriber::fmt::{FmtContext, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt as layer, reload};

use crate::config::LogFormat;

/// Reads `log_level`: one level, which holds for this program while the libraries under it say
/// only warnings and errors, or levels by module such as
/// `info,harborforge_connector::sender=debug`. Nothing is filtered by span or field: the library
/// for that is larger than everything else that has to do with logs.
///
/// # Errors
/// What is wrong with it, in words that name the part.
pub fn parse_filter(text: &str) -> Result<Targets, String> {
    let text = text.trim();
    let directives = if let (false, Ok(level)) = (text.is_empty(), text.parse::<LevelFilter>()) {
        if level > LevelFilter::WARN {
            OWN_TARGETS.iter().fold(String::from("warn"), |all, own| format!("{all},{own}={level}"))
        } else {
            text.to_owned()
        }
    } else {
        for part in text.split(',') {
            let part = part.trim();
            // An empty text would parse as a level, as `error`.
            let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
            if part.contains(['[', '{']) {
                return Err(format!(
                    "{part:?}: lines are filtered by module, not by span or field"
                ));
            }
            if !is_level && !part.contains('=') {
                return Err(format!("{part:?} is no level and sets none"));
            }
        }
        text.to_owned()
    };
    directives.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

/// The crates whose lines a bare level is about.
const OWN_TARGETS: [&str; 3] =
    ["harborforge_connector", "harborforge_storage", "harborforge_monitor"];

/// What `auto` comes to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Text with the time; with colour on a terminal.
    Text { colour: bool },
    /// Text after `<N>`, the syslog priority, and no time: the journal has its own.
    Journal,
    /// One JSON object a line.
    Json,
}

fn style(format: LogFormat, terminal: bool, journal: bool, no_colour: bool) -> Style {
    match format {
        LogFormat::Json => Style::Json,
        LogFormat::Auto if journal && !terminal => Style::Journal,
        LogFormat::Auto | LogFormat::Text => Style::Text { colour: terminal && !no_colour },
    }
}

/// Changes the filter of a running process.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogHandle")
    }
}

impl LogHandle {
    /// Puts another filter in place, effective at once.
    ///
    /// # Errors
    /// What is wrong with the filter; the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = parse_filter(filter)?;
        self.filter.reload(filter).map_err(|error| error.to_string())
    }
}

/// Sets up logging to stderr for the whole process. Call once, before anything is logged.
///
/// # Errors
/// What is wrong with the filter, or that logging was set up before.
pub fn init(filter: &str, format: LogFormat) -> Result<LogHandle, String> {
    let terminal = std::io::stderr().is_terminal();
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let style = style(format, terminal, set("JOURNAL_STREAM"), set("NO_COLOR"));
    let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
    tracing_subscriber::registry()
        .with(filter)
        .with(output(style, std::io::stderr))
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(LogHandle { filter: handle })
}

/// The layer that writes lines in a style.
fn output<S, W>(style: Style, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // A line that cannot be written (a closed pipe, a full disk) is lost; saying so on the
    // same stderr would fail as well.
    layer::layer()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(style == Style::Text { colour: true })
        .fmt_fields(Fields { json: style == Style::Json })
        .event_format(Lines {
            style,
            text: layer::format().with_target(false),
            json: layer::format().json().flatten_event(true).with_current_span(true),
        })
        .boxed()
}

/// A line in each style. One type, and so one layer: the library's takes 6 KB for each.
struct Lines {
    style: Style,
    text: Format,
    json: Format<Json>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, Fields> for Lines {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Fields>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.style {
            Style::Text { .. } => self.text.format_event(context, writer, event),
            Style::Journal => for_journal(context, writer, event),
            Style::Json => self.json.format_event(context, writer, event),
        }
    }
}

/// The fields of a span: a JSON object where the line is one.
struct Fields {
    json: bool,
}

impl<'a> FormatFields<'a> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        if self.json {
            JsonFields::new().format_fields(writer, fields)
        } else {
            DefaultFields::new().format_fields(writer, fields)
        }
    }

    fn add_fields(
        &self,
        current: &'a mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        if self.json {
            let mut more = FormattedFields::<JsonFields>::new(std::mem::take(&mut current.fields));
            let added = JsonFields::new().add_fields(&mut more, fields);
            current.fields = more.fields;
            return added;
        }
        if !current.fields.is_empty() {
            current.fields.push(' ');
        }
        DefaultFields::new().format_fields(current.as_writer(), fields)
    }
}

/// A line for the journal: `<6>message field=value`.
fn for_journal<S: Subscriber + for<'a> LookupSpan<'a>>(
    context: &FmtContext<'_, S, Fields>,
    mut writer: Writer<'_>,
    event: &Event<'_>,
) -> fmt::Result {
    write!(writer, "<{}>", priority(*event.metadata().level()))?;
    let spans = context.event_scope().into_iter().flat_map(|scope| scope.from_root());
    for span in spans {
        write!(writer, "{}", span.name())?;
        let extensions = span.extensions();
        if let Some(fields) = extensions.get::<FormattedFields<Fields>>()
            && !fields.is_empty()
        {
            write!(writer, "{{{fields}}}")?;
        }
        writer.write_str(": ")?;
    }
    context.format_fields(writer.by_ref(), event)?;
    writeln!(writer)
}

/// The syslog priority of a level, as `sd-daemon(3)` numbers them.
fn priority(level: Level) -> u8 {
    if level == Level::ERROR {
        3
    } else if level == Level::WARN {
        4
    } else if level == Level::INFO {
        6
    } else {
        7
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::testing::with_subscriber;
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written in a style when something is logged inside a span.
    fn written(style: Style) -> String {
        logged(style, || {
            let span = tracing::info_span!("link", attempt = 3);
            let _entered = span.enter();
            tracing::warn!(pending = 7, "the Monitor is away");
            tracing::debug!("not shown");
        })
    }

    fn logged(style: Style, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = Registry::default()
            .with(parse_filter("info").unwrap())
            .with(output(style, move || writer.clone()));
        with_subscriber(subscriber, log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_for_the_journal_have_a_priority_and_no_time() {
        assert_eq!(written(Style::Journal), "<4>link{attempt=3}: the Monitor is away pending=7\n");
        let numbers = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(numbers.map(priority), [3, 4, 6, 7, 7]);
    }

    #[test]
    fn json_lines_carry_fields_and_the_span() {
        let line: serde_json::Value = serde_json::from_str(&written(Style::Json)).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "the Monitor is away");
        assert_eq!(line["pending"], 7);
        assert_eq!(line["span"]["name"], "link");
        assert_eq!(line["span"]["attempt"], 3);
    }

    #[test]
    fn what_a_span_learns_later_is_added_to_it() {
        let late = |style| {
            logged(style, || {
                let span =
                    tracing::info_span!("link", attempt = 3, transport = tracing::field::Empty);
                span.record("transport", "http");
                span.in_scope(|| tracing::info!("up"));
            })
        };
        assert_eq!(late(Style::Journal), "<6>link{attempt=3 transport=\"http\"}: up\n");
        let line: serde_json::Value = serde_json::from_str(&late(Style::Json)).unwrap();
        assert_eq!(
            (&line["span"]["attempt"], &line["span"]["transport"]),
            (&3.into(), &"http".into())
        );
    }

    #[test]
    fn text_has_colour_only_when_asked_for() {
        let plain = written(Style::Text { colour: false });
        assert!(
            plain.ends_with("WARN link{attempt=3}: the Monitor is away pending=7\n"),
            "{plain}"
        );
        assert!(!plain.contains('\u{1b}'));
        assert!(written(Style::Text { colour: true }).contains('\u{1b}'));
    }

    #[test]
    fn auto_looks_where_it_writes_to() {
        use LogFormat::{Auto, Json, Text};
        assert_eq!(style(Auto, true, false, false), Style::Text { colour: true });
        assert_eq!(style(Auto, true, false, true), Style::Text { colour: false });
        assert_eq!(style(Auto, false, false, false), Style::Text { colour: false });
        assert_eq!(style(Auto, false, true, false), Style::Journal);
        // A shell inside a unit has its variables and still a terminal.
        assert_eq!(style(Auto, true, true, false), Style::Text { colour: true });
        assert_eq!(style(Text, false, true, false), Style::Text { colour: false });
        assert_eq!(style(Json, true, true, false), Style::Json);
    }

    #[test]
    fn filters_are_levels_or_directives() {
        for text in ["error", "WARN", "info", "off", "info,harborforge_connector::sender=debug"] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        let spans = ["info,[link]=debug", "harborforge_connector[link{attempt=3}]=trace"];
        for text in ["inof", "", "info,nonsense", "a=loud"].into_iter().chain(spans) {
            assert!(parse_filter(text).is_err(), "{text}");
        }
        // A bare level is about this program; libraries stay quiet.
        let shown = parse_filter("debug").unwrap().to_string();
        assert!(shown.contains("harborforge_connector=debug") && shown.contains("warn"), "{shown}");
        assert_eq!(parse_filter("error").unwrap().to_string(), "error");
    }

    #[test]
    fn the_filter_can_be_changed_while_running() {
        let (filter, handle) = reload::Layer::new(parse_filter("error").unwrap());
        let handle = LogHandle { filter: handle };
        let subscriber = Registry::default().with(filter);
        with_subscriber(subscriber, || {
            assert!(!tracing::enabled!(Level::INFO));
            assert!(handle.set_filter("nonsense").is_err());
            assert!(!tracing::enabled!(Level::INFO));
            handle.set_filter("info").unwrap();
            assert!(tracing::enabled!(Level::INFO));
        });
    }
}
