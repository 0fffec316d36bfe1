//! The table of the file's keys: one row says how a key is read, what it may be, how it is shown
//! and whether a running daemon can take it over. Everything that goes through all keys (reading,
//! comparing, the manual's completeness) uses this table.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Config;
use super::value::{self, FLUSH_EVERY, Fault, INTERVAL, Value};

const DAY: u64 = 24 * 3600;
const ROTATION_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3650 * DAY);
const RETENTION_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(36500 * DAY);
const FILE_SIZE: RangeInclusive<u64> = 4 << 10..=1 << 40;
const TOTAL_SIZE: RangeInclusive<u64> = 4 << 10..=1 << 50;
const FREE_SPACE: RangeInclusive<u64> = 0..=1 << 50;

/// One key of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section and name, for example `sampling.interval`.
    pub name: &'static str,
    /// What the value has to be: the end of "expected …".
    pub expects: &'static str,
    /// Whether a running daemon takes a new value over when it reloads.
    pub reloadable: bool,
    read: fn(&mut Config, &Value<'_>) -> Result<(), Fault>,
    show: fn(&Config) -> String,
}

impl Key {
    /// Reads the key's value into the configuration.
    pub fn read(&self, config: &mut Config, value: &Value<'_>) -> Result<(), Fault> {
        (self.read)(config, value)
    }

    /// The key's value in a configuration, as it would stand in the file.
    pub fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The section, for example `sampling`.
    pub fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within the section, for example `interval`.
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, name)| name)
    }
}

/// A row of [`KEYS`]: a field, how it is read, how it is shown.
macro_rules! key {
    ($section:ident . $field:ident, $expects:expr, $read:expr, $show:expr) => {
        Key {
            name: concat!(stringify!($section), ".", stringify!($field)),
            expects: $expects,
            reloadable: true,
            read: |config, value| {
                config.$section.$field = $read(value)?;
                Ok(())
            },
            show: |config| $show(&config.$section.$field),
        }
    };
}

/// Every key of the file, in the file's order.
pub const KEYS: &[Key] = &[
    key!(
        sampling.interval,
        "a length of time from 10ms to 1h such as \"5s\", or a number of seconds",
        |value| value::duration(value, &INTERVAL),
        show_duration
    ),
    Key {
        // Another probe means other programs in the kernel, and counts would be lost between them.
        reloadable: false,
        ..key!(sampling.probe, "\"auto\", \"btf\" or \"tracepoint\"", value::choice, show_choice)
    },
    Key {
        // Loading its programs needs capabilities that were given up after the start.
        reloadable: false,
        ..key!(sampling.bio, "true or false", value::boolean, bool::to_string)
    },
    key!(
        sampling.include,
        "a list of at least one glob of device names, such as [\"nvme*\", \"sd?\"]",
        |value| value::globs(value, 1),
        show_list
    ),
    key!(
        sampling.exclude,
        "a list of globs of device names, such as [\"loop*\"]",
        |value| value::globs(value, 0),
        show_list
    ),
    key!(output.enabled, "true or false", value::boolean, bool::to_string),
    key!(
        output.path,
        "the absolute path of a file, such as \"/var/log/blkiolatd/blkiolat.jsonl\"",
        value::absolute_path,
        |path: &std::path::PathBuf| show_text(&path.to_string_lossy())
    ),
    key!(
        output.flush_every,
        "a whole number from 1 to 100000",
        |value| value::whole(value, &FLUSH_EVERY),
        u32::to_string
    ),
    key!(output.fsync, "true or false", value::boolean, bool::to_string),
    key!(output.detail, "\"fine\" or \"log2\"", value::choice, show_choice),
    key!(
        rotation.max_size,
        "a size from 4KiB to 1TiB such as \"64MiB\", or a number of bytes",
        |value| value::size(value, &FILE_SIZE),
        show_size
    ),
    key!(
        rotation.max_age,
        "a length of time from 1s to 10 years such as \"24h\", or a number of seconds",
        |value| value::duration(value, &ROTATION_AGE),
        show_duration
    ),
    key!(
        rotation.gzip_level,
        "a whole number from 0 (no compression) to 9",
        |value| value::whole(value, &(0..=9)),
        u32::to_string
    ),
    key!(
        retention.max_age,
        "a length of time from 1s to 100 years such as \"30d\", or a number of seconds",
        |value| value::duration(value, &RETENTION_AGE),
        show_duration
    ),
    key!(
        retention.max_total_size,
        "a size from 4KiB to 1PiB such as \"2GiB\", or a number of bytes",
        |value| value::size(value, &TOTAL_SIZE),
        show_size
    ),
    key!(
        retention.min_free_space,
        "a share of the file system from \"0%\" to \"99%\", or a size such as \"1GiB\"",
        |value| value::free_space(value, &FREE_SPACE),
        |space: &super::FreeSpace| show_text(&value::show_free_space(*space))
    ),
    key!(
        log.level,
        "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        value::level,
        |level: &tracing::Level| show_text(&level.as_str().to_lowercase())
    ),
];

/// As a string of TOML, with nothing in it that a terminal or the journal would act on.
fn show_text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '\\' | '"' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn show_duration(time: &Duration) -> String {
    show_text(&value::show_duration(*time))
}

fn show_size(bytes: &u64) -> String {
    show_text(&value::show_size(*bytes))
}

fn show_choice<T: clap::ValueEnum + Copy>(choice: &T) -> String {
    show_text(&value::show_choice(*choice))
}

#[expect(clippy::ptr_arg, reason = "the table passes the field itself")]
fn show_list(list: &Vec<String>) -> String {
    let items: Vec<String> = list.iter().map(|item| show_text(item)).collect();
    format!("[{}]", items.join(", "))
}

/// One key that has another value in a new configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, for example `sampling.interval`.
    pub key: &'static str,
    /// The value that was in force.
    pub from: String,
    /// The value that was asked for.
    pub to: String,
    /// Whether a reload brings it into force; if not, the daemon has to be restarted.
    pub reloadable: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.from, self.to)?;
        if !self.reloadable {
            f.write_str(" (not until the daemon is restarted)")?;
        }
        Ok(())
    }
}

/// What a reload makes of `wanted` in a daemon that runs with `running`: the configuration that
/// comes into force, and everything that `wanted` changes, in the file's order. What cannot be
/// changed in a running daemon keeps its value and is among the changes with
/// [`Change::reloadable`] false.
pub fn reload(running: &Config, wanted: Config) -> (Config, Vec<Change>) {
    let changes = KEYS.iter().filter_map(|key| {
        let (from, to) = (key.show(running), key.show(&wanted));
        (from != to).then_some(Change { key: key.name, from, to, reloadable: key.reloadable })
    });
    let changes = changes.collect();
    let mut config = wanted;
    config.sampling.probe = running.sampling.probe;
    config.sampling.bio = running.sampling.bio;
    (config, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Detail, FreeSpace, ProbeChoice};

    /// Found by fuzzing: a reload logged the control characters of a path as they were.
    #[test]
    fn what_is_shown_is_toml_without_control_characters() {
        let text = "a\u{1b}[2J\"b\\c\u{9b}\u{7f}\r\né";
        let shown = show_text(text);
        assert_eq!(shown, r#""a\u001B[2J\"b\\c\u009B\u007F\u000D\u000Aé""#);
        let table: toml::Table = format!("x = {shown}").parse().unwrap();
        assert_eq!(table["x"].as_str(), Some(text));
    }

    #[test]
    fn nothing_changes_between_equals() {
        let (config, changes) = reload(&Config::default(), Config::default());
        assert_eq!(config, Config::default());
        assert_eq!(changes, []);
    }

    #[test]
    fn all_changes_but_those_of_the_programs_come_into_force() {
        let running = Config::default();
        let mut wanted = Config::default();
        wanted.sampling.interval = Duration::from_millis(1500);
        wanted.sampling.probe = ProbeChoice::Tracepoint;
        wanted.sampling.bio = true;
        wanted.retention.min_free_space = FreeSpace::Bytes(1 << 30);
        let (config, changes) = reload(&running, wanted.clone());
        let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert_eq!(
            changes,
            [
                "sampling.interval: \"5s\" -> \"1s 500ms\"",
                "sampling.probe: \"auto\" -> \"tracepoint\" (not until the daemon is restarted)",
                "sampling.bio: false -> true (not until the daemon is restarted)",
                "retention.min_free_space: \"5%\" -> \"1GiB\"",
            ]
        );
        wanted.sampling.probe = ProbeChoice::Auto;
        wanted.sampling.bio = false;
        assert_eq!(config, wanted);
    }

    /// A field without a row in the table would be neither readable nor reloadable.
    #[test]
    fn every_field_has_a_key() {
        let other = Config {
            sampling: crate::config::Sampling {
                interval: Duration::from_secs(1),
                probe: ProbeChoice::Btf,
                bio: true,
                include: vec!["a".into()],
                exclude: vec![],
            },
            output: crate::config::Output {
                enabled: false,
                path: "/x".into(),
                flush_every: 1,
                fsync: true,
                detail: Detail::Log2,
            },
            rotation: crate::config::Rotation {
                max_size: 1,
                max_age: Duration::ZERO,
                gzip_level: 1,
            },
            retention: crate::config::Retention {
                max_age: Duration::ZERO,
                max_total_size: 1,
                min_free_space: FreeSpace::Bytes(0),
            },
            log: crate::config::Log { level: tracing::Level::WARN },
        };
        let (_, changes) = reload(&Config::default(), other);
        let changed: Vec<&str> = changes.iter().map(|change| change.key).collect();
        let keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        assert_eq!(changed, keys);
    }
}
