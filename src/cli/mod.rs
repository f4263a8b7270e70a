//! The command line.

mod backup;
mod healthcheck;
mod log;
mod maximize;
mod models;
mod openapi;
mod serve;
mod study;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use proxygrad::network::catalog;
use proxygrad_server::config::{Config, StorageOptions, check_environment, with_file};

/// Explains convolutional networks by activation maximization with ProxyGrad.
///
/// Without a command it serves: `proxygrad --listen 0.0.0.0:8080` is `proxygrad serve --listen 0.0.0.0:8080`.
#[derive(Debug, Parser)]
#[command(name = "proxygrad", version, max_term_width = 120, subcommand_required = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve over HTTP (the default command).
    Serve(Box<FromFile<Config>>),
    /// List, fetch, inspect and add models.
    Models(FromFile<Models>),
    /// Find stimuli on this machine, without a server.
    Maximize(Box<FromFile<maximize::Maximize>>),
    /// Compare settings on the same units, starts and passes: tables, statistics and a report.
    Study(Box<FromFile<study::Study>>),
    /// Copy a data directory, also while a server uses it; a server starts on the copy.
    Backup(FromFile<backup::Backup>),
    /// Print the OpenAPI document.
    Openapi,
    /// Ask a running server whether it is ready: exit status 0 when it is, 1 when not.
    Healthcheck(FromFile<healthcheck::Healthcheck>),
}

/// Settings that may also stand in a file.
#[derive(Debug, Args)]
struct FromFile<T: Args> {
    /// A TOML file with settings: every long flag without the leading dashes and with `_` for `-` (`max_batch = 8`).
    /// Flags and environment variables stand above it.
    #[arg(long, global = true, env = "PROXYGRAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: T,
}

/// `proxygrad models`
#[derive(Debug, Args)]
struct Models {
    #[command(flatten)]
    storage: StorageOptions,

    #[command(subcommand)]
    command: models::ModelsCommand,
}

/// Runs the command that the process was called with.
pub fn run() -> ExitCode {
    let parsed = parse(std::env::args_os()).and_then(|command| {
        let variables = check_environment(&CommandLine::command(), std::env::vars_os());
        variables.map(|()| command).map_err(Refused::Configuration)
    });
    let command = match parsed {
        Ok(command) => command,
        Err(Refused::Arguments(error)) => error.exit(),
        Err(Refused::Configuration(error)) => return failed(&error.into()),
    };
    let done = match command {
        Command::Serve(serve) => serve::serve(serve.settings),
        Command::Models(FromFile { settings: Models { storage, command }, .. }) => {
            catalog::Models::new(storage.models())
                .map_err(Into::into)
                .and_then(|models| models::run(command, &storage, &models))
        }
        Command::Maximize(maximize) => maximize.settings.run(),
        Command::Study(study) => study.settings.run(),
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

/// Why a command line cannot be run.
#[derive(Debug)]
enum Refused {
    /// The arguments are wrong, or ask for help.
    Arguments(clap::Error),
    /// The configuration file or an environment variable is wrong.
    Configuration(proxygrad_server::config::ConfigError),
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Refused> {
    let arguments = with_default_command(arguments.into_iter().collect());
    let mut command = CommandLine::command();
    let read = |command: &clap::Command| command.clone().try_get_matches_from(&arguments).map_err(Refused::Arguments);
    let mut matches = read(&command)?;
    let chosen = matches.subcommand().and_then(|(name, chosen)| {
        // Only some commands take a file.
        let file = chosen.try_get_one::<PathBuf>("config").ok().flatten()?;
        Some((name.to_owned(), file.clone()))
    });
    if let Some((name, file)) = chosen {
        let settings = Config::augment_args(clap::Command::new("settings"));
        let filled = command.find_subcommand(&name).cloned().map(|chosen| with_file(chosen, &settings, &file));
        if let Some(filled) = filled.transpose().map_err(Refused::Configuration)? {
            command = command.mut_subcommand(&name, |_| filled);
            matches = read(&command)?;
        }
    }
    CommandLine::from_arg_matches(&matches).map(|line| line.command).map_err(Refused::Arguments)
}

/// Puts `serve` where no command is named: when there is no argument, or a flag that is no flag of the program itself.
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
    fn a_file_fills_in_what_the_flags_leave_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxygrad.toml");
        std::fs::write(&file, "max_batch = 5\nqueue_limit = 7").unwrap();
        let file = file.to_str().unwrap();
        let config = served(&["--config", file, "--queue-limit", "9"]);
        assert_eq!((config.max_batch, config.queue_limit), (5, 9));

        std::fs::write(file, "max_batches = 5").unwrap();
        match parse(["proxygrad", "serve", "--config", file].map(OsString::from)) {
            Err(Refused::Configuration(error)) => assert!(error.to_string().contains("max_batches"), "{error}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn help_and_version_belong_to_the_program() {
        for flag in ["--help", "--version", "-h", "-V"] {
            let refused = parse(["proxygrad", flag].map(OsString::from)).unwrap_err();
            assert!(matches!(refused, Refused::Arguments(error) if error.exit_code() == 0), "{flag}");
        }
    }
}
