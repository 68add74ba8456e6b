//! Log output in the reference server's line form (CONF-006):
//!
//! `[PID] 2026/01/02 15:04:05.000000 [INF] text`
//!
//! The rest of the server logs through `tracing`; [`init`] installs the subscriber that writes
//! these lines to standard error, a file or the system log. Level, format and target can change
//! while the server runs. Only events of this workspace are shown: libraries have nothing to tell
//! an operator. No lock is held while a line is written; each line is one write.

mod file;
mod syslog;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::config::options::LogConfig;
use file::LogFile;
use syslog::SyslogSocket;

/// Target of events that end the process; they are shown as `FTL`.
const FATAL_TARGET: &str = "riverlog::fatal";

/// Target of the protocol trace of internal traffic, shown with `-VV` only.
pub const INTERNAL_TRACE_TARGET: &str = "riverlog::internal";

/// Events of targets that start like this are shown.
const TARGET_PREFIX: &str = "riverlog";

/// Why the log could not be set up.
#[derive(Debug)]
pub enum LogError {
    /// The file cannot be opened for appending.
    File {
        /// Its path.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The system log cannot be reached.
    Syslog {
        /// Where it was looked for.
        address: String,
        /// Why.
        reason: std::io::Error,
    },
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, reason } => {
                write!(f, "cannot open log file {}: {reason}", path.display())
            }
            Self::Syslog { address, reason } => {
                write!(f, "cannot reach system log {address}: {reason}")
            }
        }
    }
}

impl std::error::Error for LogError {}

/// Where lines go.
enum Sink {
    Stderr,
    File(LogFile),
    Syslog(SyslogSocket),
}

impl Sink {
    fn open(config: &LogConfig) -> Result<Self, LogError> {
        if let Some(target) = &config.syslog {
            return SyslogSocket::open(target).map(Self::Syslog);
        }
        match &config.file {
            Some(path) => LogFile::open(path, config.file_bytes_max, config.files_max)
                .map(Self::File)
                .map_err(|reason| LogError::File {
                    path: path.clone(),
                    reason,
                }),
            None => Ok(Self::Stderr),
        }
    }
}

/// The severity names of the line form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Fatal,
    Error,
    Warning,
    Info,
    Debug,
    Trace,
}

impl Severity {
    fn of(metadata: &Metadata<'_>) -> Self {
        match *metadata.level() {
            Level::ERROR if metadata.target() == FATAL_TARGET => Self::Fatal,
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Info,
            Level::DEBUG => Self::Debug,
            Level::TRACE => Self::Trace,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Fatal => "FTL",
            Self::Error => "ERR",
            Self::Warning => "WRN",
            Self::Info => "INF",
            Self::Debug => "DBG",
            Self::Trace => "TRC",
        }
    }
}

/// Longest message shown by the protocol trace; 0: unlimited.
static TRACED_BYTES_MAX: AtomicUsize = AtomicUsize::new(0);

/// Longest message shown by the protocol trace, in bytes; 0: unlimited (`max_traced_msg_len`).
#[must_use]
pub fn traced_bytes_max() -> usize {
    TRACED_BYTES_MAX.load(Ordering::Relaxed)
}

const SHOW_DEBUG: u8 = 1;
const SHOW_TRACE: u8 = 2;
const SHOW_INTERNAL_TRACE: u8 = 4;

/// The installed log. All handles mean the same one.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    sink: RwLock<Arc<Sink>>,
    shown: AtomicU8,
    timestamps: AtomicBool,
    utc: AtomicBool,
    pid: u32,
}

impl Shared {
    fn set_format(&self, config: &LogConfig) {
        let flag = |is_on: bool, bit: u8| if is_on { bit } else { 0 };
        let shown = flag(config.debug, SHOW_DEBUG)
            | flag(config.trace, SHOW_TRACE)
            | flag(config.trace_verbose, SHOW_INTERNAL_TRACE);
        self.shown.store(shown, Ordering::Relaxed);
        self.timestamps.store(config.timestamps, Ordering::Relaxed);
        self.utc.store(config.utc, Ordering::Relaxed);
        TRACED_BYTES_MAX.store(config.traced_bytes_max, Ordering::Relaxed);
    }

    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        let shown = self.shown.load(Ordering::Relaxed);
        let is_level_shown = match *metadata.level() {
            Level::DEBUG => shown & SHOW_DEBUG != 0,
            Level::TRACE if metadata.target() == INTERNAL_TRACE_TARGET => {
                shown & SHOW_INTERNAL_TRACE != 0
            }
            Level::TRACE => shown & SHOW_TRACE != 0,
            _ => true,
        };
        is_level_shown && metadata.target().starts_with(TARGET_PREFIX)
    }

    fn write(&self, severity: Severity, text: &str) {
        let sink = Arc::clone(&self.sink.read().unwrap_or_else(PoisonError::into_inner));
        match &*sink {
            // There is nobody left to tell when the log itself cannot be written.
            Sink::Stderr => {
                let _ = std::io::stderr().write_all(self.line(severity, text).as_bytes());
            }
            Sink::File(file) => file.append(self.line(severity, text).as_bytes()),
            Sink::Syslog(socket) => socket.send(severity, text),
        }
    }

    fn line(&self, severity: Severity, text: &str) -> String {
        let mut line = String::with_capacity(text.len() + 48);
        // Writing to a String cannot fail.
        let _ = write!(line, "[{}] ", self.pid);
        if self.timestamps.load(Ordering::Relaxed) {
            let now = jiff::Timestamp::now();
            let zone = if self.utc.load(Ordering::Relaxed) {
                jiff::tz::TimeZone::UTC
            } else {
                jiff::tz::TimeZone::system()
            };
            let _ = write!(
                line,
                "{} ",
                now.to_zoned_datetime(zone)
                    .strftime("%Y/%m/%d %H:%M:%S%.6f")
            );
        }
        let _ = write!(line, "[{}] ", severity.label());
        push_text(&mut line, text);
        line.push('\n');
        line
    }
}

/// Control characters are escaped: what a client sends must not forge lines of the log or drive
/// a terminal.
fn push_text(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

impl Log {
    fn open(config: &LogConfig) -> Result<Self, LogError> {
        let shared = Shared {
            sink: RwLock::new(Arc::new(Sink::open(config)?)),
            shown: AtomicU8::new(0),
            timestamps: AtomicBool::new(true),
            utc: AtomicBool::new(false),
            pid: std::process::id(),
        };
        shared.set_format(config);
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Changes level, format and target. The old target stays in use when the new one fails.
    ///
    /// # Errors
    /// The new target cannot be opened.
    pub fn apply(&self, config: &LogConfig) -> Result<(), LogError> {
        let sink = Sink::open(config)?;
        *self
            .shared
            .sink
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(sink);
        self.shared.set_format(config);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens the log file anew, for after it was renamed by a log rotation.
    ///
    /// # Errors
    /// The file cannot be opened; lines go to the old one still.
    pub fn reopen(&self) -> Result<(), LogError> {
        let sink = Arc::clone(
            &self
                .shared
                .sink
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        match &*sink {
            Sink::File(file) => file.reopen().map_err(|reason| LogError::File {
                path: file.path().to_owned(),
                reason,
            }),
            _ => Ok(()),
        }
    }
}

/// Installs the log for the process; a second call only changes it.
///
/// # Errors
/// The target cannot be opened.
pub fn init(config: &LogConfig) -> Result<Log, LogError> {
    static INSTALLED: OnceLock<Log> = OnceLock::new();
    if let Some(log) = INSTALLED.get() {
        log.apply(config)?;
        return Ok(log.clone());
    }
    let log = Log::open(config)?;
    let layer = LineLayer {
        shared: Arc::clone(&log.shared),
    };
    // Fails only when an embedding program has installed a subscriber, which then has the say.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer));
    Ok(INSTALLED.get_or_init(|| log).clone())
}

/// Logs the reason the process ends for.
pub fn fatal(reason: &dyn std::fmt::Display) {
    tracing::error!(target: FATAL_TARGET, "{reason}");
}

/// Turns events into lines.
struct LineLayer {
    shared: Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for LineLayer {
    // Never cached as "always" or "never", because the level changes on reload; the maximum
    // level hint keeps unused callsites cheap.
    fn register_callsite(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        if metadata.target().starts_with(TARGET_PREFIX) {
            tracing::subscriber::Interest::sometimes()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        !metadata.is_span() && self.shared.shows(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let shown = self.shared.shown.load(Ordering::Relaxed);
        Some(if shown & (SHOW_TRACE | SHOW_INTERNAL_TRACE) != 0 {
            LevelFilter::TRACE
        } else if shown & SHOW_DEBUG != 0 {
            LevelFilter::DEBUG
        } else {
            LevelFilter::INFO
        })
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = EventText::default();
        event.record(&mut text);
        self.shared
            .write(Severity::of(event.metadata()), &text.into_line());
    }
}

/// The message of an event and its other fields as `name=value`.
#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl EventText {
    fn into_line(mut self) -> String {
        self.message.push_str(&self.fields);
        self.message
    }
}

impl tracing::field::Visit for EventText {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => {
                let _ = write!(self.fields, " {name}={value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_log(config: &LogConfig, log_lines: impl FnOnce(&Log)) {
        let log = Log::open(config).unwrap();
        let layer = LineLayer {
            shared: Arc::clone(&log.shared),
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || log_lines(&log));
    }

    fn file_config(folder: &tempfile::TempDir) -> LogConfig {
        LogConfig {
            file: Some(folder.path().join("x.log")),
            ..LogConfig::default()
        }
    }

    fn read(config: &LogConfig) -> String {
        std::fs::read_to_string(config.file.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn the_line_form_of_the_reference() {
        let folder = tempfile::tempdir().unwrap();
        let config = file_config(&folder);
        with_log(&config, |_| tracing::info!("hello {}", 1));
        let line = read(&config);
        let pid = std::process::id().to_string();
        let shape: String = line
            .replace(&pid, "PID")
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "[PID] 0000/00/00 00:00:00.000000 [INF] hello 0\n");
    }

    #[test]
    fn levels_and_fields_without_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = file_config(&folder);
        config.timestamps = false;
        let log_all = || {
            tracing::warn!(cid = 5, name = "n", "w");
            tracing::error!("e");
            fatal(&"f");
            tracing::debug!("d");
            tracing::trace!("t");
            tracing::trace!(target: "riverlog::internal", "i");
            tracing::info!(target: "hyper", "from a library");
        };
        with_log(&config, |log| {
            log_all();
            let shown = LogConfig {
                debug: true,
                trace: true,
                ..config.clone()
            };
            log.apply(&shown).unwrap();
            log_all();
            log.apply(&LogConfig {
                trace: true,
                trace_verbose: true,
                ..config.clone()
            })
            .unwrap();
            log_all();
        });
        let text = read(&config).replace(&format!("[{}] ", std::process::id()), "");
        let base = "[WRN] w cid=5 name=n\n[ERR] e\n[FTL] f\n";
        let expected = format!("{base}{base}[DBG] d\n[TRC] t\n{base}[TRC] t\n[TRC] i\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_message_cannot_forge_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogConfig {
            timestamps: false,
            ..file_config(&folder)
        };
        with_log(&config, |_| tracing::info!("a\n[1] [INF] b\u{1b}[0m\tc"));
        let expected = format!(
            "[{}] [INF] a\\n[1] [INF] b\\u{{1b}}[0m\tc\n",
            std::process::id()
        );
        assert_eq!(read(&config), expected);
    }

    #[test]
    fn reopen_follows_a_renamed_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = file_config(&folder);
        let path = config.file.clone().unwrap();
        with_log(&config, |log| {
            tracing::info!("one");
            std::fs::rename(&path, path.with_extension("old")).unwrap();
            tracing::info!("two");
            log.reopen().unwrap();
            tracing::info!("three");
        });
        let old = std::fs::read_to_string(path.with_extension("old")).unwrap();
        assert_eq!(old.lines().count(), 2);
        assert!(read(&config).ends_with("three\n"));
    }

    #[test]
    fn a_target_that_cannot_be_opened_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = file_config(&folder);
        with_log(&config, |log| {
            let bad = LogConfig {
                file: Some("/no/such/folder/x.log".into()),
                ..config.clone()
            };
            let error = log.apply(&bad).unwrap_err().to_string();
            assert!(
                error.starts_with("cannot open log file /no/such/folder/x.log: "),
                "{error}"
            );
            tracing::info!("still here");
        });
        assert!(read(&config).contains("still here"));
    }
}
