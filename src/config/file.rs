//! The configuration file: its values take the place of the defaults, below environment and flags.

use std::path::{Path, PathBuf};

use clap::{Arg, Command};

use proxygrad::text::{self, distance};

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A key that is no setting.
    #[error("{}: {key} is not a setting; {expected}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The setting that was probably meant, or all of them.
        expected: String,
    },
    /// An environment variable of this program that is no setting.
    #[error("{name} is not a setting of the environment; {expected}")]
    Variable {
        /// The variable.
        name: String,
        /// The variable that was probably meant, or all of them.
        expected: String,
    },
    /// A value that its setting cannot take.
    #[error("{}: {key} = {value} is not valid: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// The value, as written in TOML.
        value: String,
        /// What would be right.
        why: String,
    },
}

/// `command` with the values of the file at `path` as the defaults of its arguments.
///
/// `settings` knows every key that the file may have; `command` may take part of them only.
///
/// # Errors
/// When the file cannot be read, has a key that `settings` does not know, or a value that the argument's parser refuses.
pub fn with_file(mut command: Command, settings: &Command, path: &Path) -> Result<Command, ConfigError> {
    let text = text::read(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let table: toml::Table =
        text.parse().map_err(|source| ConfigError::Syntax { path: path.into(), source: Box::new(source) })?;
    for (key, value) in table {
        let arg = settings.get_arguments().find(|arg| arg.get_id() == key.as_str());
        let arg = arg.ok_or_else(|| unknown(path, &key, settings))?;
        let values = check(arg, &value).map_err(|why| ConfigError::Value {
            path: path.into(),
            key: key.clone(),
            value: value.to_string(),
            why,
        })?;
        if command.get_arguments().any(|arg| arg.get_id() == key.as_str()) {
            command = command.mut_arg(key, |arg| arg.default_values(values));
        }
    }
    Ok(command)
}

fn unknown(path: &Path, key: &str, settings: &Command) -> ConfigError {
    let known: Vec<&str> = settings.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let expected = suggestion(&known, &key.replace('-', "_").to_lowercase(), "settings");
    ConfigError::Unknown { path: path.into(), key: key.into(), expected }
}

/// The name that was probably meant, of those that there are; or all of them.
pub(super) fn suggestion(known: &[&str], meant: &str, what: &str) -> String {
    let nearest = known.iter().map(|name| (distance(name, meant), name)).min();
    // A name of the same length with a third of its letters wrong is another name.
    match nearest.filter(|(distance, name)| 3 * distance <= unprefixed(name)) {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("the {what} are {}", known.join(", ")),
    }
}

/// Length of a name without what all of them have in common.
fn unprefixed(name: &str) -> usize {
    name.strip_prefix(super::environment::PREFIX).unwrap_or(name).len()
}

/// The value as the texts that a command line would have, accepted by the argument's own parser.
fn check(arg: &Arg, value: &toml::Value) -> Result<Vec<String>, String> {
    let values = match value {
        toml::Value::Array(items) if arg.get_value_delimiter().is_some() && !items.is_empty() => {
            items.iter().map(scalar).collect::<Result<Vec<_>, _>>()?
        }
        toml::Value::Array(items) if items.is_empty() => return Err("expected at least one value".into()),
        value => vec![scalar(value)?],
    };
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    for text in &values {
        let alone = Command::new("check").arg(arg.clone().env(None::<&str>));
        alone.try_get_matches_from(["check", &format!("{flag}={text}")]).map_err(|error| reason(&error))?;
    }
    Ok(values)
}

fn scalar(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        other => Err(format!("expected a single value, not {}", other.type_str())),
    }
}

/// The part of a command line error that also makes sense for a file.
fn reason(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    match (std::error::Error::source(error), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => format!("expected {}", valid.join(" or ")),
        (None, _) => error.to_string().trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::{Args, FromArgMatches};

    use super::*;
    use crate::config::Config;

    fn settings() -> Command {
        // Environment off: what is tested must not depend on who runs the test.
        Config::augment_args(Command::new("proxygrad")).mut_args(|arg| arg.env(None::<&str>))
    }

    fn read(toml: &str, flags: &[&str]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxygrad.toml");
        std::fs::write(&path, toml).unwrap();
        let command = with_file(settings(), &settings(), &path)?;
        let matches = command.try_get_matches_from(std::iter::once(&"proxygrad").chain(flags)).unwrap();
        Ok(Config::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn the_file_stands_above_the_defaults_and_below_flags() {
        let toml = "listen = '0.0.0.0:9000'\nmax_batch = 4\njob_time_limit = '1h'\ndevices = ['cuda:0', 'cuda:1']\n\
                    log_format = 'json'";
        let config = read(toml, &["--max-batch", "8"]).unwrap();
        assert_eq!(config.listen.port(), 9000);
        assert_eq!(config.max_batch, 8);
        assert_eq!(config.job_time_limit.as_secs(), 3600);
        assert_eq!(config.devices, ["cuda:0", "cuda:1"]);
        assert_eq!(config.log_format, crate::config::LogFormat::Json);
        assert_eq!(config.queue_limit, Config::defaults().queue_limit);
    }

    #[test]
    fn a_file_may_come_from_an_editor_that_writes_a_byte_order_mark() {
        assert_eq!(read("\u{feff}max_batch = 4\r\n", &[]).unwrap().max_batch, 4);
    }

    #[test]
    fn a_flag_replaces_the_whole_list_of_the_file() {
        let config = read("devices = ['cuda:0', 'cuda:1']", &["--devices", "cpu"]).unwrap();
        assert_eq!(config.devices, ["cpu"]);
    }

    #[test]
    fn a_wrong_file_is_refused_with_key_and_value() {
        for (toml, parts) in [
            ("max-batch = 4", vec!["max-batch is not a setting", "did you mean max_batch?"]),
            ("max_bach = 4", vec!["max_bach is not a setting", "did you mean max_batch?"]),
            ("colour = 'red'", vec!["colour is not a setting", "listen", "max_batch"]),
            ("max_batch = 0", vec!["max_batch = 0 is not valid", "1..=1024"]),
            ("max_batch = 'many'", vec!["max_batch = \"many\" is not valid"]),
            ("max_batch = [4]", vec!["max_batch = [4] is not valid", "single value"]),
            ("max_batch = { n = 4 }", vec!["max_batch = { n = 4 } is not valid", "not table"]),
            ("devices = []", vec!["devices = [] is not valid", "at least one"]),
            ("devices = ['cpu', 'gpu']", vec!["devices = [\"cpu\", \"gpu\"]", "cuda:0"]),
            ("log_format = 'xml'", vec!["log_format = \"xml\"", "expected text or json"]),
            ("job_time_limit = '0s'", vec!["job_time_limit = \"0s\"", "1s to 7d"]),
            ("listen = 'localhost'", vec!["listen = \"localhost\"", "invalid socket address"]),
            ("listen =", vec!["is not valid TOML"]),
        ] {
            let error = read(toml, &[]).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{toml}: {error}");
            }
        }
    }

    #[test]
    fn a_missing_file_is_refused_with_its_path() {
        let error = with_file(settings(), &settings(), Path::new("/nowhere/p.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/p.toml: "), "{error}");
    }
}
