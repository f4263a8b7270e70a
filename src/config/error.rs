//! Configuration errors, with suggestions for misspelt names.

use std::path::PathBuf;

use proxygrad::text::distance;

/// Prefix of all environment variables of this program.
pub(super) const PREFIX: &str = "PROXYGRAD_";

/// An error in the configuration file or the environment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Position and cause.
        source: Box<toml::de::Error>,
    },
    /// The file has an unknown key.
    #[error("{}: {key} is not a setting; {expected}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// A similar setting, or a list of all settings.
        expected: String,
    },
    /// An environment variable with the prefix of this program is unknown.
    #[error("{name} is not a setting; {expected}")]
    Variable {
        /// The variable.
        name: String,
        /// A similar variable, or a list of all variables.
        expected: String,
    },
    /// A value is not valid for its setting.
    #[error("{}: {key} = {value} is not valid: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The setting.
        key: String,
        /// The value in TOML syntax.
        value: String,
        /// The reason, or what was expected.
        why: String,
    },
}

/// Suggests the known name closest to `meant`, or lists all known names.
pub(super) fn suggestion(known: &[&str], meant: &str, what: &str) -> String {
    let nearest = known.iter().map(|name| (distance(name, meant), name)).min();
    // At most a third of the letters may differ.
    match nearest.filter(|(distance, name)| 3 * distance <= unprefixed(name)) {
        Some((_, name)) => format!("did you mean {name}?"),
        None => format!("the {what} are {}", known.join(", ")),
    }
}

/// Length of a name without the common prefix.
fn unprefixed(name: &str) -> usize {
    name.strip_prefix(PREFIX).unwrap_or(name).len()
}
