//! Settings of the service.
//!
//! [`Config`] is the one place where a setting is defined: its name, its meaning, its range and its default. Each is a
//! flag (`--max-batch 8`), an environment variable (`PROXYGRAD_MAX_BATCH=8`) and a key of the TOML file named by
//! `--config` (`max_batch = 8`); the first of these that says something counts. A variable or key that is no setting is an
//! error.

mod base_path;
mod environment;
mod file;
mod host;
mod ip_range;
mod memory;
mod origin;
mod quantity;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

pub use base_path::BasePath;
pub use environment::check_environment;
pub use file::{ConfigError, with_file};
pub use host::{Authority, HostPattern};
pub use ip_range::IpRange;
pub use memory::{MemoryOptions, RunMemory};
pub use origin::Origin;

use proxygrad::engine::{CpuSettings, Instructions};
use proxygrad::maximize::Limits;
use proxygrad::network::catalog::{ModelsConfig, PackageIndex};
use proxygrad::study::Bounds;

/// Every setting of `proxygrad serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "PROXYGRAD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    #[arg(help_heading = "HTTP")]
    pub listen: SocketAddr,

    /// Largest body of a request, with the images in it: 1KiB to 64MiB.
    #[arg(long, env = "PROXYGRAD_BODY_LIMIT", value_name = "BYTES", default_value = "8MiB")]
    #[arg(value_parser = quantity::bytes(1 << 10, 64 << 20), help_heading = "HTTP")]
    pub body_limit: usize,

    /// Time that a client has to send the head of a request, again to send its body, and again to take each 16 KiB of the
    /// answer; also how long a connection may stay open without a request: 1s to 1h.
    #[arg(long, env = "PROXYGRAD_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = quantity::duration(1, 3600), help_heading = "HTTP")]
    pub request_timeout: Duration,

    /// Connections at a time. A further one takes the place of the one that has kept the server waiting the longest; where
    /// none does, it is answered with 503, except for probes and metrics: 1 to 100000.
    #[arg(long, env = "PROXYGRAD_MAX_CONNECTIONS", value_name = "N", default_value = "512")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000), help_heading = "HTTP")]
    pub max_connections: usize,

    /// Connections of one address (IPv6: of one /64 network) at a time; does not hold for trusted proxies: 1 to 100000.
    #[arg(long, env = "PROXYGRAD_MAX_CONNECTIONS_PER_CLIENT", value_name = "N", default_value = "128")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000), help_heading = "HTTP")]
    pub max_connections_per_client: usize,

    /// Requests that wait at a time, for their job (`Prefer: wait`) or for a model to arrive; a further one is answered at
    /// once, with 202 where a job was accepted: 1 to 100000, or 0 for a quarter of --max-connections.
    #[arg(long, env = "PROXYGRAD_MAX_WAITING", value_name = "N", default_value = "0")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000), help_heading = "HTTP")]
    pub max_waiting: usize,

    /// Event streams at a time; a further one is refused with 503: 1 to 100000, or 0 for a quarter of --max-connections.
    #[arg(long, env = "PROXYGRAD_MAX_STREAMS", value_name = "N", default_value = "0")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000), help_heading = "HTTP")]
    pub max_streams: usize,

    /// Longest wait that `Prefer: wait=N` gets, from the arrival of the request; stay below the time that a proxy waits for
    /// an answer (nginx: 60 seconds): 0s to 10m.
    #[arg(long, env = "PROXYGRAD_MAX_WAIT", value_name = "TIME", default_value = "50s")]
    #[arg(value_parser = quantity::duration(0, 600), help_heading = "HTTP")]
    pub max_wait: Duration,

    /// Names under which clients reach the server, beside loopback names and addresses: xai.example.org,
    /// xai.example.org:8443, *.example.org, or * for all. Several are separated by commas.
    #[arg(long, env = "PROXYGRAD_ALLOWED_HOST", value_name = "HOSTS")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub allowed_host: Vec<HostPattern>,

    /// Origins whose pages may use the service from a browser (CORS), such as `https://dash.example`, or * for all. Several
    /// are separated by commas.
    #[arg(long, env = "PROXYGRAD_CORS_ORIGIN", value_name = "ORIGINS")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub cors_origin: Vec<Origin>,

    /// Path under which a proxy publishes the service, such as /xai; links begin with it. Requests may come with or without
    /// it.
    #[arg(long, env = "PROXYGRAD_BASE_PATH", value_name = "PATH", default_value = "/")]
    #[arg(help_heading = "Proxies and browsers")]
    pub base_path: BasePath,

    /// Addresses and networks of proxies: what they say in X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Prefix is
    /// believed, and --max-connections-per-client does not hold for them. Several are separated by commas; none trusts
    /// nobody.
    #[arg(long, env = "PROXYGRAD_TRUSTED_PROXY", value_name = "NETWORKS", default_value = "127.0.0.0/8,::1")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub trusted_proxy: Vec<IpRange>,

    /// On SIGTERM or Ctrl-C: time that running jobs and open requests have to end; jobs that have not ended by then go
    /// back to the queue: 0s to 1h.
    #[arg(long, env = "PROXYGRAD_SHUTDOWN_GRACE", value_name = "TIME", default_value = "20s")]
    #[arg(value_parser = quantity::duration(0, 3600), help_heading = "HTTP")]
    pub shutdown_grace: Duration,

    /// Devices that run jobs, one worker each: cpu, cuda:0, metal; several are separated by commas. Behind a GPU, +tf32
    /// or +bf16 trades accuracy for speed.
    #[arg(long, env = "PROXYGRAD_DEVICES", value_name = "DEVICES", default_value = "cpu")]
    #[arg(value_delimiter = ',', value_parser = device, help_heading = "Jobs")]
    pub devices: Vec<String>,

    /// Most stimuli that a device makes in one batch: 1 to 1024.
    #[arg(long, env = "PROXYGRAD_MAX_BATCH", value_name = "N", default_value = "16")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024), help_heading = "Jobs")]
    pub max_batch: usize,

    /// Most jobs that wait, and as many studies; a further one is refused with 503 until there is room: 1 to 1000000.
    #[arg(long, env = "PROXYGRAD_QUEUE_LIMIT", value_name = "N", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Jobs")]
    pub queue_limit: u32,

    /// Longest time that a job, or a batch of a study, may run: 1s to 7d.
    #[arg(long, env = "PROXYGRAD_JOB_TIME_LIMIT", value_name = "TIME", default_value = "10m")]
    #[arg(value_parser = quantity::duration(1, 7 * 86_400), help_heading = "Jobs")]
    pub job_time_limit: Duration,

    /// Most steps of a job or of a run of a study: 1 to 1000000.
    #[arg(long, env = "PROXYGRAD_MAX_STEPS", value_name = "N", default_value_t = Limits::default().steps)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Jobs")]
    pub max_steps: u32,

    /// Greatest height or width of a stimulus in pixels: 1 to 8192.
    #[arg(long, env = "PROXYGRAD_MAX_SIDE", value_name = "PIXELS", default_value_t = Limits::default().side)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=8192), help_heading = "Jobs")]
    pub max_side: usize,

    /// Most objectives (stimuli) of a job: 1 to 1024.
    #[arg(long, env = "PROXYGRAD_MAX_OBJECTIVES", value_name = "N", default_value_t = Limits::default().objectives)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024), help_heading = "Jobs")]
    pub max_objectives: usize,

    /// Most runs of a study: 1 to 1000000.
    #[arg(long, env = "PROXYGRAD_MAX_STUDY_RUNS", value_name = "N", default_value = "10000")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000), help_heading = "Jobs")]
    pub max_study_runs: usize,

    /// How the CPU computes.
    #[command(flatten)]
    pub cpu: CpuOptions,

    /// How much memory runs may take.
    #[command(flatten)]
    pub memory: MemoryOptions,

    /// Most memory that images of clients are decoded in at a time, all requests together: 64MiB to 64GiB. A quarter of it
    /// is kept for small images, so that these do not wait for large ones. An image that needs more than the rest is
    /// refused.
    #[arg(long, env = "PROXYGRAD_MAX_IMAGE_MEMORY", value_name = "BYTES", default_value = "512MiB")]
    #[arg(value_parser = quantity::bytes(64 << 20, 64 << 30), help_heading = "Memory")]
    pub max_image_memory: usize,

    /// Time after which a model that nothing asked for leaves memory; the next request reads its files again: 1s to 365d.
    #[arg(long, env = "PROXYGRAD_MODEL_IDLE_TIME", value_name = "TIME", default_value = "1h")]
    #[arg(value_parser = quantity::duration(1, 365 * 86_400), help_heading = "Memory")]
    pub model_idle_time: Duration,

    /// Where jobs and models lie.
    #[command(flatten)]
    pub storage: StorageOptions,

    /// Time that a request waits for its model to be pulled or read before it is answered with 503; the pull goes on:
    /// 1s to 1h.
    #[arg(long, env = "PROXYGRAD_MODEL_TIMEOUT", value_name = "TIME", default_value = "50s")]
    #[arg(value_parser = quantity::duration(1, 3600), help_heading = "Storage and models")]
    pub model_timeout: Duration,

    /// What is logged: error, warn, info, debug or trace, or directives such as `info,proxygrad=debug`.
    #[arg(long, env = "PROXYGRAD_LOG", value_name = "LEVEL", default_value = "info")]
    #[arg(value_parser = log_filter, help_heading = "Log")]
    pub log: String,

    /// How it is logged.
    #[arg(long, env = "PROXYGRAD_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    #[arg(help_heading = "Log")]
    pub log_format: LogFormat,
}

/// How the CPU engine computes.
#[derive(Debug, Clone, clap::Args)]
pub struct CpuOptions {
    /// Threads of the CPU engine: 1 to 1024, or 0 for as many as the process may use. Results do not depend on it.
    #[arg(long, env = "PROXYGRAD_THREADS", value_name = "N", default_value = "0")]
    #[arg(help_heading = "CPU engine")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub threads: usize,

    /// Vector instructions of the CPU engine.
    #[arg(long, env = "PROXYGRAD_INSTRUCTIONS", value_name = "SET", default_value = "auto")]
    #[arg(help_heading = "CPU engine")]
    pub instructions: InstructionSet,

    /// Measure at a model's first use which way of computing its convolutions is the fastest, and keep the answers in
    /// the data directory. Which way is taken shows in a result's last digits.
    #[arg(long, env = "PROXYGRAD_AUTOTUNE", value_name = "BOOL", default_value_t = false)]
    #[arg(help_heading = "CPU engine")]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub autotune: bool,
}

/// A choice of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum InstructionSet {
    /// The fastest that the processor has.
    Auto,
    /// 16 values at once.
    Avx512,
    /// 8 values at once.
    Avx2,
    /// What every processor has.
    Portable,
}

impl CpuOptions {
    /// The engine's settings; measurements are kept in `data_dir`.
    pub fn settings(&self, data_dir: &Path) -> CpuSettings {
        CpuSettings {
            threads: NonZeroUsize::new(self.threads),
            instructions: match self.instructions {
                InstructionSet::Auto => None,
                InstructionSet::Avx512 => Some(Instructions::Avx512),
                InstructionSet::Avx2 => Some(Instructions::Avx2),
                InstructionSet::Portable => Some(Instructions::Portable),
            },
            tuning: self.autotune.then(|| data_dir.join("tuning.json")),
            timed: false,
        }
    }
}

/// Where jobs and models lie, and where models come from.
#[derive(Debug, Clone, clap::Args)]
pub struct StorageOptions {
    /// Folder of everything that must last: jobs, stimuli, pulled models. One server at a time.
    #[arg(long, global = true, env = "PROXYGRAD_DATA_DIR", value_name = "DIR", default_value = "proxygrad-data")]
    #[arg(help_heading = "Storage and models")]
    pub data_dir: PathBuf,

    /// More folders with models, each a folder with a model.toml; only read. Several are separated by commas.
    #[arg(long, global = true, env = "PROXYGRAD_MODELS_DIRS", value_name = "DIRS")]
    #[arg(value_delimiter = ',', help_heading = "Storage and models")]
    pub models_dirs: Vec<PathBuf>,

    /// Package index that models of the catalog are pulled from: the public one, or a mirror.
    #[arg(long, global = true, env = "PROXYGRAD_PACKAGE_INDEX", value_name = "URL")]
    #[arg(default_value = PackageIndex::PUBLIC, value_parser = PackageIndex::new, help_heading = "Storage and models")]
    pub package_index: PackageIndex,
}

impl StorageOptions {
    /// The registry of models of these places.
    pub fn models(&self) -> ModelsConfig {
        ModelsConfig {
            folders: self.models_dirs.clone(),
            index: self.package_index.clone(),
            ..ModelsConfig::new(&self.data_dir)
        }
    }
}

/// Forms of the log, which goes to standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per message.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Every setting at its default, untouched by environment and files.
    pub fn defaults() -> Self {
        use clap::{Args, FromArgMatches};
        let command = Self::augment_args(clap::Command::new("defaults")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(["defaults"]);
        // The defaults of the struct satisfy the struct's own parsers, so neither call can end the process.
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Requests that may wait at a time.
    pub fn max_waiting(&self) -> usize {
        self.share(self.max_waiting)
    }

    /// Event streams that may be open at a time.
    pub fn max_streams(&self) -> usize {
        self.share(self.max_streams)
    }

    /// The number, or a quarter of all connections for 0.
    fn share(&self, number: usize) -> usize {
        if number == 0 { (self.max_connections / 4).max(1) } else { number }
    }

    /// Whether the address is that of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxy.iter().any(|network| network.contains(address))
    }

    /// The largest studies that are accepted.
    pub fn bounds(&self) -> Bounds {
        Bounds { request: self.limits(), runs: self.max_study_runs }
    }

    /// The largest requests that are accepted.
    pub fn limits(&self) -> Limits {
        Limits { steps: self.max_steps, side: self.max_side, objectives: self.max_objectives }
    }
}

fn device(text: &str) -> Result<String, String> {
    let name = text.trim();
    let index = |digits: &str| !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let place = ["+tf32", "+bf16"].iter().find_map(|ending| name.strip_suffix(ending));
    let place = place.filter(|&place| place != "cpu").unwrap_or(name);
    match place == "cpu" || place == "metal" || place.strip_prefix("cuda:").is_some_and(index) {
        true => Ok(name.to_owned()),
        false => {
            Err("a device is cpu, metal, or cuda: and the number of a card, such as cuda:0; +tf32 or +bf16 may stand \
                      behind a GPU"
                .into())
        }
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::filter::EnvFilter>() {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        Ok(_) => Err("expected error, warn, info, debug or trace".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::Args;

    use super::*;

    #[test]
    fn every_setting_is_a_flag_a_variable_and_has_a_default() {
        let command = Config::augment_args(clap::Command::new("proxygrad"));
        for arg in command.get_arguments() {
            let key = arg.get_id().as_str();
            assert_eq!(arg.get_long().unwrap(), key.replace('_', "-"), "{key}");
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), format!("PROXYGRAD_{}", key.to_uppercase()), "{key}");
            assert!(arg.get_help().is_some() && arg.get_help_heading().is_some(), "{key}");
            let absent = ["models_dirs", "allowed_host", "cors_origin"];
            assert!(arg.get_default_values().len() == 1 || absent.contains(&key), "{key}");
        }
    }

    #[test]
    fn defaults_satisfy_their_own_ranges() {
        let config = Config::defaults();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.body_limit, 8 << 20);
        assert!(config.max_wait < Duration::from_secs(60), "nginx gives up after 60 seconds");
        assert_eq!((config.max_waiting(), config.max_streams()), (128, 128));
        assert!(config.allowed_host.is_empty() && config.cors_origin.is_empty());
        assert!(config.trusts("127.0.0.1".parse().unwrap()) && !config.trusts("10.0.0.1".parse().unwrap()));
        assert_eq!(config.limits(), Limits::default());
        assert_eq!(config.devices, ["cpu"]);
    }

    #[test]
    fn a_device_is_named_as_engines_name_it() {
        for good in ["cpu", "metal", "cuda:0", " cuda:12 ", "cuda:0+tf32", "metal+bf16"] {
            assert_eq!(device(good).unwrap(), good.trim());
        }
        for bad in
            ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:99999", "CPU", "cpu+bf16", "cuda:0+", "cuda:0+tf32+bf16"]
        {
            assert!(device(bad).is_err(), "{bad:?}");
        }
    }
}
