//! Command line: subcommands, configuration file and environment.

mod backup;
mod healthcheck;
mod image_reading;
mod log;
mod maximize;
mod models;
mod openapi;
mod progress_display;
mod serve;
mod start_model;
mod study;
mod train;
mod train_study;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use proxygrad::network::catalog;
use proxygrad_server::config::{Config, StorageOptions, check_environment, with_file};

/// Explains convolutional networks by activation maximization with ProxyGrad.
///
/// The default command is `serve`: `proxygrad --listen 0.0.0.0:8080` means `proxygrad serve --listen 0.0.0.0:8080`.
#[derive(Debug, Parser)]
#[command(name = "proxygrad", version, max_term_width = 120, subcommand_required = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the HTTP server (the default command).
    Serve(Box<WithConfigFile<Config>>),
    /// List, download, inspect and add models.
    Models(WithConfigFile<Models>),
    /// Generate stimuli on this machine, without a server.
    Maximize(Box<WithConfigFile<maximize::Maximize>>),
    /// Compare settings on the same units, starts and number of passes, with tables, statistics and a report.
    Study(Box<WithConfigFile<study::Study>>),
    /// Train a classifier with surrogate gradients, and export it to ONNX.
    Train(Box<WithConfigFile<train::Train>>),
    /// Compare surrogates on the same networks, data and seeds, with tables, statistics and a report.
    TrainStudy(Box<WithConfigFile<train_study::TrainStudy>>),
    /// Back up a data directory, even while a server uses it.
    Backup(WithConfigFile<backup::Backup>),
    /// Print the OpenAPI document.
    Openapi,
    /// Check whether a server is ready: exit status 0 if it is, 1 if not.
    Healthcheck(WithConfigFile<healthcheck::Healthcheck>),
}

/// Arguments that can also be set in a configuration file.
#[derive(Debug, Args)]
struct WithConfigFile<T: Args> {
    /// TOML file with settings. Keys are the long flags without leading dashes and with `_` for `-` (`max_batch = 8`).
    /// Flags and environment variables take precedence.
    #[arg(long, global = true, env = "PROXYGRAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: T,
}

/// Arguments of `proxygrad models`.
#[derive(Debug, Args)]
struct Models {
    #[command(flatten)]
    storage: StorageOptions,

    #[command(subcommand)]
    command: models::ModelsCommand,
}

/// Parses the arguments of the process and runs the command.
pub fn run() -> ExitCode {
    let parsed = parse(std::env::args_os()).and_then(|command| {
        let variables = check_environment(&CommandLine::command(), std::env::vars_os());
        variables.map(|()| command).map_err(ParseError::Configuration)
    });
    let command = match parsed {
        Ok(command) => command,
        Err(ParseError::Arguments(error)) => error.exit(),
        Err(ParseError::Configuration(error)) => return failed(&error.into()),
    };
    let done = match command {
        Command::Serve(serve) => serve::serve(serve.settings),
        Command::Models(WithConfigFile { settings: Models { storage, command }, .. }) => {
            catalog::Models::new(storage.models())
                .map_err(Into::into)
                .and_then(|models| models::run(command, &storage, &models))
        }
        Command::Maximize(maximize) => maximize.settings.run(),
        Command::Study(study) => study.settings.run(),
        Command::Train(train) => train.settings.run(),
        Command::TrainStudy(study) => study.settings.run(),
        Command::Backup(backup) => backup.settings.run(),
        Command::Openapi => openapi::print(),
        Command::Healthcheck(healthcheck) => healthcheck.settings.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// An error in the command line or the configuration.
#[derive(Debug)]
enum ParseError {
    /// The arguments are invalid, or request help.
    Arguments(clap::Error),
    /// The configuration file or an environment variable is invalid.
    Configuration(proxygrad_server::config::ConfigError),
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ParseError> {
    let arguments = with_default_command(arguments.into_iter().collect());
    let mut command = CommandLine::command();
    let read =
        |command: &clap::Command| command.clone().try_get_matches_from(&arguments).map_err(ParseError::Arguments);
    let mut matches = read(&command)?;
    let chosen = matches.subcommand().and_then(|(name, chosen)| {
        // Only some commands have a configuration file.
        let file = chosen.try_get_one::<PathBuf>("config").ok().flatten()?;
        Some((name.to_owned(), file.clone()))
    });
    if let Some((name, file)) = chosen {
        let settings = Config::augment_args(clap::Command::new("settings"));
        let filled = command.find_subcommand(&name).cloned().map(|chosen| with_file(chosen, &settings, &file));
        if let Some(filled) = filled.transpose().map_err(ParseError::Configuration)? {
            command = command.mut_subcommand(&name, |_| filled);
            matches = read(&command)?;
        }
    }
    CommandLine::from_arg_matches(&matches).map(|line| line.command).map_err(ParseError::Arguments)
}

/// Inserts `serve` if there is no command: without arguments, or if the first one is not a flag of the program itself.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let own = ["-h", "--help", "-V", "--version"];
    let first = arguments.get(1).map(|argument| argument.to_string_lossy().into_owned());
    if first.is_none_or(|first| first.starts_with('-') && !own.contains(&first.as_str())) {
        arguments.insert(arguments.len().min(1), "serve".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn served(arguments: &[&str]) -> Config {
        match parse(std::iter::once("proxygrad").chain(arguments.iter().copied()).map(OsString::from)).unwrap() {
            Command::Serve(serve) => serve.settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serving_needs_no_command() {
        assert_eq!(served(&["--max-batch", "3"]).max_batch, 3);
        assert_eq!(served(&["serve", "--max-batch", "3"]).max_batch, 3);
        served(&[]);
    }

    #[test]
    fn a_file_sets_values_that_the_flags_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxygrad.toml");
        std::fs::write(&file, "max_batch = 5\nqueue_limit = 7").unwrap();
        let file = file.to_str().unwrap();
        let config = served(&["--config", file, "--queue-limit", "9"]);
        assert_eq!((config.max_batch, config.queue_limit), (5, 9));

        std::fs::write(file, "max_batches = 5").unwrap();
        match parse(["proxygrad", "serve", "--config", file].map(OsString::from)) {
            Err(ParseError::Configuration(error)) => assert!(error.to_string().contains("max_batches"), "{error}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_and_version_belong_to_the_program() {
        for flag in ["--help", "--version", "-h", "-V"] {
            let error = parse(["proxygrad", flag].map(OsString::from)).unwrap_err();
            assert!(matches!(error, ParseError::Arguments(error) if error.exit_code() == 0), "{flag}");
        }
    }
}
