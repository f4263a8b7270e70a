//! Environment variables: unknown `PROXYGRAD_` variables are rejected, like unknown keys of the configuration file.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::Command;

use super::error::{ConfigError, PREFIX, suggestion};

/// Checks that `command` or one of its subcommands reads every variable with the prefix of this program.
///
/// # Errors
/// [`ConfigError::Variable`] names the first unknown variable and suggests a known one.
pub fn check_environment(
    command: &Command,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && !known.contains(&&*name) && !is_service_link(&name, &value) {
            let expected = suggestion(&known, &name.to_uppercase().replace('-', "_"), "variables");
            return Err(ConfigError::Variable { name: name.into_owned(), expected });
        }
    }
    Ok(())
}

/// Collects the variables that a command and its subcommands read.
fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    known.extend(names.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// Whether Kubernetes sets this variable in every container because of a Service whose name starts with `proxygrad`:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let is = |end: &str| rest == end || rest.ends_with(&format!("_{end}"));
    let after = |part: &str| {
        let begins = rest.strip_prefix(part);
        begins.or_else(|| rest.split_once(&format!("_{part}")).map(|(_, after)| after))
    };
    let is_address = value.to_str().is_some_and(|value| value.contains("://"));
    is("SERVICE_HOST")
        || is("SERVICE_PORT")
        || after("SERVICE_PORT_").is_some()
        || (is("PORT") && is_address)
        || after("PORT_").is_some_and(|port| port.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Args;

    use super::*;
    use crate::config::Config;

    fn check(name: &str, value: &str) -> Result<(), String> {
        let command = Command::new("proxygrad").subcommand(Config::augment_args(Command::new("serve")));
        let variables = [("PATH", "/bin"), ("PROXYGRAD_LISTEN", "[::]:1"), (name, value)];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        check_environment(&command, variables).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_variable_is_named_with_a_suggestion() {
        for (name, parts) in [
            ("PROXYGRAD_LISTN", ["PROXYGRAD_LISTN is not a setting", "did you mean PROXYGRAD_LISTEN?"]),
            ("PROXYGRAD_MAX-BATCH", ["PROXYGRAD_MAX-BATCH", "did you mean PROXYGRAD_MAX_BATCH?"]),
            ("PROXYGRAD_max_batch", ["PROXYGRAD_max_batch", "did you mean PROXYGRAD_MAX_BATCH?"]),
            ("PROXYGRAD_WORKERS_PER_CARD_AND_HOUR", ["the variables are ", "PROXYGRAD_MAX_BATCH"]),
            ("PROXYGRAD_PORT", ["PROXYGRAD_PORT is not a setting", "PROXYGRAD_LISTEN"]),
            ("PROXYGRAD_", ["PROXYGRAD_ is not a setting", ""]),
        ] {
            let error = check(name, "9000").unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        }
    }

    #[test]
    fn variables_of_settings_and_of_others_are_fine() {
        for name in ["PROXYGRAD_QUEUE_LIMIT", "PROXY", "MY_PROXYGRAD_X", "proxygrad_x"] {
            assert_eq!(check(name, "7"), Ok(()), "{name}");
        }
        for name in ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR"]
        {
            for service in ["", "GPU_", "METRICS_V2_"] {
                assert_eq!(
                    check(&format!("PROXYGRAD_{service}{name}"), "tcp://10.0.0.7:8080"),
                    Ok(()),
                    "{service}{name}"
                );
            }
        }
    }
}
