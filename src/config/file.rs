//! Configuration file: its values override the defaults, and are overridden by environment variables and flags.

use std::path::Path;

use clap::{Arg, Command};

use super::error::{ConfigError, suggestion};
use proxygrad::text;

/// Replaces the defaults of `command` by the values of the file at `path`.
///
/// The file may have any key of `settings`; keys that `command` does not have are ignored.
///
/// # Errors
/// If the file cannot be read, or has an unknown key or an invalid value.
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

/// Converts a value to command line arguments and validates them with the argument's parser.
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

/// The part of a command line error that applies to a file, too.
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
        // Without the environment, so that tests do not depend on it.
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
    fn the_file_overrides_defaults_and_is_overridden_by_flags() {
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
    fn a_byte_order_mark_at_the_start_of_the_file_is_ignored() {
        assert_eq!(read("\u{feff}max_batch = 4\r\n", &[]).unwrap().max_batch, 4);
    }

    #[test]
    fn a_flag_replaces_the_whole_list_of_the_file() {
        let config = read("devices = ['cuda:0', 'cuda:1']", &["--devices", "cpu"]).unwrap();
        assert_eq!(config.devices, ["cpu"]);
    }

    #[test]
    fn an_invalid_file_is_rejected_with_key_and_value() {
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
    fn a_missing_file_is_reported_with_its_path() {
        let error = with_file(settings(), &settings(), Path::new("/nowhere/p.toml")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/p.toml: "), "{error}");
    }
}
