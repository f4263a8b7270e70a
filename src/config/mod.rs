//! Settings of the service.
//!
//! [`Config`] defines the name, meaning, range and default of every setting. Each setting is a flag (`--max-batch 8`),
//! an environment variable (`PROXYGRAD_MAX_BATCH=8`) and a key of the TOML file given by `--config` (`max_batch = 8`),
//! in order of precedence. Unknown variables and keys are errors.

mod base_path;
mod environment;
mod error;
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
pub use error::ConfigError;
pub use file::with_file;
pub use host::{Authority, HostPattern};
pub use ip_range::IpRange;
pub use memory::{MemoryOptions, RunMemory};
pub use origin::Origin;

use proxygrad::engine::{CpuSettings, Instructions};
use proxygrad::maximize::Limits;
use proxygrad::network::catalog::{Hub, ModelsConfig, PackageIndex};
use proxygrad::study::Bounds;

/// Settings of `proxygrad serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address and port to listen on. Port 0 picks a free port.
    #[arg(long, env = "PROXYGRAD_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    #[arg(help_heading = "HTTP")]
    pub listen: SocketAddr,

    /// Maximum size of a request body, including images: 1KiB to 64MiB.
    #[arg(long, env = "PROXYGRAD_BODY_LIMIT", value_name = "BYTES", default_value = "8MiB")]
    #[arg(value_parser = quantity::bytes(1 << 10, 64 << 20), help_heading = "HTTP")]
    pub body_limit: usize,

    /// Time limit for a client to send the head of a request, to send its body, and to read each 16 KiB of the
    /// response; also the idle timeout of a connection: 1s to 1h.
    #[arg(long, env = "PROXYGRAD_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = quantity::duration(1, 3600), help_heading = "HTTP")]
    pub request_timeout: Duration,

    /// Maximum number of open connections: 1 to 100000. A new connection beyond the limit replaces the one that has
    /// been idle the longest; if none is idle, it gets 503, except for probes and metrics.
    #[arg(long, env = "PROXYGRAD_MAX_CONNECTIONS", value_name = "N", default_value = "512")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000), help_heading = "HTTP")]
    pub max_connections: usize,

    /// Maximum number of open connections per client address (IPv6: per /64 network), except for trusted proxies: 1 to
    /// 100000.
    #[arg(long, env = "PROXYGRAD_MAX_CONNECTIONS_PER_CLIENT", value_name = "N", default_value = "128")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000), help_heading = "HTTP")]
    pub max_connections_per_client: usize,

    /// Maximum number of requests that wait for a result (`Prefer: wait`) or for the download of a model: 1 to 100000,
    /// or 0 for a quarter of --max-connections. Further requests are answered immediately, with 202 if a job was
    /// accepted.
    #[arg(long, env = "PROXYGRAD_MAX_WAITING", value_name = "N", default_value = "0")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000), help_heading = "HTTP")]
    pub max_waiting: usize,

    /// Maximum number of open event streams: 1 to 100000, or 0 for a quarter of --max-connections. Further ones get
    /// 503.
    #[arg(long, env = "PROXYGRAD_MAX_STREAMS", value_name = "N", default_value = "0")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=100_000), help_heading = "HTTP")]
    pub max_streams: usize,

    /// Longest wait granted to `Prefer: wait=N`, counted from the arrival of the request: 0s to 10m. Must be less than
    /// the response timeout of a proxy (nginx: 60 seconds).
    #[arg(long, env = "PROXYGRAD_MAX_WAIT", value_name = "TIME", default_value = "50s")]
    #[arg(value_parser = quantity::duration(0, 600), help_heading = "HTTP")]
    pub max_wait: Duration,

    /// Accepted host names in addition to loopback names and addresses: xai.example.org, xai.example.org:8443,
    /// *.example.org, or * for all. Comma-separated.
    #[arg(long, env = "PROXYGRAD_ALLOWED_HOST", value_name = "HOSTS")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub allowed_host: Vec<HostPattern>,

    /// Origins whose pages may use the service from a browser (CORS), such as `https://dash.example`, or * for all.
    /// Comma-separated.
    #[arg(long, env = "PROXYGRAD_CORS_ORIGIN", value_name = "ORIGINS")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub cors_origin: Vec<Origin>,

    /// Base path under which a proxy publishes the service, such as /xai. It is the prefix of all links; requests may
    /// include it or not.
    #[arg(long, env = "PROXYGRAD_BASE_PATH", value_name = "PATH", default_value = "/")]
    #[arg(help_heading = "Proxies and browsers")]
    pub base_path: BasePath,

    /// Addresses and networks of proxies whose X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Prefix headers are
    /// trusted, and which are exempt from --max-connections-per-client. Comma-separated; `none` trusts no proxy.
    #[arg(long, env = "PROXYGRAD_TRUSTED_PROXY", value_name = "NETWORKS", default_value = "127.0.0.0/8,::1")]
    #[arg(value_delimiter = ',', help_heading = "Proxies and browsers")]
    pub trusted_proxy: Vec<IpRange>,

    /// Time for running jobs and open requests to finish after SIGTERM or Ctrl-C: 0s to 1h. Unfinished jobs go back to
    /// the queue.
    #[arg(long, env = "PROXYGRAD_SHUTDOWN_GRACE", value_name = "TIME", default_value = "20s")]
    #[arg(value_parser = quantity::duration(0, 3600), help_heading = "HTTP")]
    pub shutdown_grace: Duration,

    /// Devices that run jobs, one worker each: cpu, cuda:0, metal. The suffix +bf16 trades accuracy for speed, +tf32 on
    /// CUDA too. Comma-separated.
    #[arg(long, env = "PROXYGRAD_DEVICES", value_name = "DEVICES", default_value = "cpu")]
    #[arg(value_delimiter = ',', value_parser = device, help_heading = "Jobs")]
    pub devices: Vec<String>,

    /// Maximum number of stimuli in a batch: 1 to 1024.
    #[arg(long, env = "PROXYGRAD_MAX_BATCH", value_name = "N", default_value = "16")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024), help_heading = "Jobs")]
    pub max_batch: usize,

    /// Maximum number of queued jobs, of queued studies, and of queued trainings: 1 to 1000000. Further submissions get
    /// 503.
    #[arg(long, env = "PROXYGRAD_QUEUE_LIMIT", value_name = "N", default_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Jobs")]
    pub queue_limit: u32,

    /// Time limit of a job, or of a batch of a study: 1s to 7d.
    #[arg(long, env = "PROXYGRAD_JOB_TIME_LIMIT", value_name = "TIME", default_value = "10m")]
    #[arg(value_parser = quantity::duration(1, 7 * 86_400), help_heading = "Jobs")]
    pub job_time_limit: Duration,

    /// Maximum number of steps of a job, or of a run of a study: 1 to 1000000.
    #[arg(long, env = "PROXYGRAD_MAX_STEPS", value_name = "N", default_value_t = Limits::default().steps)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Jobs")]
    pub max_steps: u32,

    /// Maximum height and width of a stimulus in pixels: 1 to 8192.
    #[arg(long, env = "PROXYGRAD_MAX_SIDE", value_name = "PIXELS", default_value_t = Limits::default().side)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=8192), help_heading = "Jobs")]
    pub max_side: usize,

    /// Maximum number of objectives (stimuli) of a job: 1 to 1024.
    #[arg(long, env = "PROXYGRAD_MAX_OBJECTIVES", value_name = "N", default_value_t = Limits::default().objectives)]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024), help_heading = "Jobs")]
    pub max_objectives: usize,

    /// Maximum number of runs of a study: 1 to 1000000.
    #[arg(long, env = "PROXYGRAD_MAX_STUDY_RUNS", value_name = "N", default_value = "10000")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000), help_heading = "Jobs")]
    pub max_study_runs: usize,

    /// Folder of datasets for trainings, which name them relative to it: folders of images or of IDX or CIFAR files, and
    /// numpy archives. The server only reads them. Without it, trainings are refused.
    #[arg(long, env = "PROXYGRAD_DATASETS", value_name = "DIR")]
    #[arg(help_heading = "Storage and models")]
    pub datasets: Option<PathBuf>,

    /// Maximum number of steps of a training, over all its epochs: 1 to 1000000000.
    #[arg(long, env = "PROXYGRAD_MAX_TRAINING_STEPS", value_name = "N", default_value = "1000000")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), help_heading = "Jobs")]
    pub max_training_steps: u64,

    /// Options of the CPU engine.
    #[command(flatten)]
    pub cpu: CpuOptions,

    /// Memory limits of runs.
    #[command(flatten)]
    pub memory: MemoryOptions,

    /// Memory limit for decoding uploaded images, shared by all requests: 64MiB to 64GiB. A quarter is reserved for
    /// small images, so that they do not wait for large ones. Images that need more than the rest are rejected.
    #[arg(long, env = "PROXYGRAD_MAX_IMAGE_MEMORY", value_name = "BYTES", default_value = "512MiB")]
    #[arg(value_parser = quantity::bytes(64 << 20, 64 << 30), help_heading = "Memory")]
    pub max_image_memory: usize,

    /// Time after which an unused model is released from memory and reloaded on the next request: 1s to 365d.
    #[arg(long, env = "PROXYGRAD_MODEL_IDLE_TIME", value_name = "TIME", default_value = "1h")]
    #[arg(value_parser = quantity::duration(1, 365 * 86_400), help_heading = "Memory")]
    pub model_idle_time: Duration,

    /// Locations of jobs and models.
    #[command(flatten)]
    pub storage: StorageOptions,

    /// Time a request waits for its model to be downloaded and loaded before it gets 503: 1s to 1h. The download
    /// continues in the background.
    #[arg(long, env = "PROXYGRAD_MODEL_TIMEOUT", value_name = "TIME", default_value = "50s")]
    #[arg(value_parser = quantity::duration(1, 3600), help_heading = "Storage and models")]
    pub model_timeout: Duration,

    /// Log level: error, warn, info, debug or trace; or directives such as `info,proxygrad=debug`.
    #[arg(long, env = "PROXYGRAD_LOG", value_name = "LEVEL", default_value = "info")]
    #[arg(value_parser = log_filter, help_heading = "Log")]
    pub log: String,

    /// Log format.
    #[arg(long, env = "PROXYGRAD_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    #[arg(help_heading = "Log")]
    pub log_format: LogFormat,
}

/// Options of the CPU engine.
#[derive(Debug, Clone, clap::Args)]
pub struct CpuOptions {
    /// Number of threads of the CPU engine: 1 to 1024, or 0 for all available processors. Does not affect results.
    #[arg(long, env = "PROXYGRAD_THREADS", value_name = "N", default_value = "0")]
    #[arg(help_heading = "CPU engine")]
    #[arg(value_parser = RangedU64ValueParser::<usize>::new().range(0..=1024))]
    pub threads: usize,

    /// Vector instruction set of the CPU engine.
    #[arg(long, env = "PROXYGRAD_INSTRUCTIONS", value_name = "SET", default_value = "auto")]
    #[arg(help_heading = "CPU engine")]
    pub instructions: InstructionSet,

    /// On first use of a model, benchmark convolution algorithms and store the fastest in the data directory. The
    /// choice affects the last digits of results.
    #[arg(long, env = "PROXYGRAD_AUTOTUNE", value_name = "BOOL", default_value_t = false)]
    #[arg(help_heading = "CPU engine")]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub autotune: bool,
}

/// Vector instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum InstructionSet {
    /// The fastest supported by the processor.
    Auto,
    /// AVX-512: 16 values per instruction.
    Avx512,
    /// AVX2: 8 values per instruction.
    Avx2,
    /// Available on every processor.
    Portable,
}

impl CpuOptions {
    /// The engine's settings; benchmark results are stored in `data_dir`.
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
            ..CpuSettings::default()
        }
    }
}

/// Locations of jobs and models, and the source of downloads.
#[derive(Debug, Clone, clap::Args)]
pub struct StorageOptions {
    /// Data directory: jobs, stimuli, downloaded models. Used by one server at a time.
    #[arg(long, global = true, env = "PROXYGRAD_DATA_DIR", value_name = "DIR", default_value = "proxygrad-data")]
    #[arg(help_heading = "Storage and models")]
    pub data_dir: PathBuf,

    /// Additional read-only directories of models, each model a folder with a model.toml. Comma-separated.
    #[arg(long, global = true, env = "PROXYGRAD_MODELS_DIRS", value_name = "DIRS")]
    #[arg(value_delimiter = ',', help_heading = "Storage and models")]
    pub models_dirs: Vec<PathBuf>,

    /// Package index to download catalog models from.
    #[arg(long, global = true, env = "PROXYGRAD_PACKAGE_INDEX", value_name = "URL")]
    #[arg(default_value = PackageIndex::PUBLIC, value_parser = PackageIndex::new, help_heading = "Storage and models")]
    pub package_index: PackageIndex,

    /// Hugging Face Hub, or a mirror of it, for models added by hf://OWNER/NAME; by default the variable HF_ENDPOINT.
    #[arg(long, global = true, env = "PROXYGRAD_HUB", value_name = "URL", default_value = usual_hub())]
    #[arg(value_parser = Hub::new, help_heading = "Storage and models")]
    pub hub: Hub,

    /// Access token for private and gated repositories of the Hub; by default the variable HF_TOKEN.
    #[arg(long, global = true, env = "PROXYGRAD_HUB_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[arg(help_heading = "Storage and models")]
    pub hub_token: Option<String>,
}

/// The Hub that other programs of this user use.
fn usual_hub() -> String {
    std::env::var("HF_ENDPOINT").ok().filter(|url| !url.is_empty()).unwrap_or_else(|| Hub::PUBLIC.into())
}

impl StorageOptions {
    /// Configuration of the model catalog.
    pub fn models(&self) -> ModelsConfig {
        let usual = || std::env::var("HF_TOKEN").ok();
        let mut hub = self.hub.clone();
        hub.token = self.hub_token.clone().or_else(usual).filter(|token| !token.is_empty());
        ModelsConfig {
            folders: self.models_dirs.clone(),
            index: self.package_index.clone(),
            hub,
            ..ModelsConfig::new(&self.data_dir)
        }
    }
}

/// Format of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per message.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Default settings, ignoring the environment and configuration files.
    pub fn defaults() -> Self {
        use clap::{Args, FromArgMatches};
        let command = Self::augment_args(clap::Command::new("defaults")).mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(["defaults"]);
        // The defaults satisfy their own parsers, so neither call can exit.
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Maximum number of waiting requests.
    pub fn max_waiting(&self) -> usize {
        self.or_quarter_of_connections(self.max_waiting)
    }

    /// Maximum number of open event streams.
    pub fn max_streams(&self) -> usize {
        self.or_quarter_of_connections(self.max_streams)
    }

    /// `number`, or a quarter of the connections if it is 0.
    fn or_quarter_of_connections(&self, number: usize) -> usize {
        if number == 0 { (self.max_connections / 4).max(1) } else { number }
    }

    /// Whether an address belongs to a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxy.iter().any(|network| network.contains(address))
    }

    /// Limits on studies.
    pub fn bounds(&self) -> Bounds {
        Bounds { request: self.limits(), runs: self.max_study_runs }
    }

    /// Limits on job requests.
    pub fn limits(&self) -> Limits {
        Limits { steps: self.max_steps, side: self.max_side, objectives: self.max_objectives }
    }
}

fn device(text: &str) -> Result<String, String> {
    let name = text.trim();
    let index = |digits: &str| !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit());
    let (place, precision) = name.split_once('+').map_or((name, None), |(place, precision)| (place, Some(precision)));
    let is_place = place == "cpu" || place == "metal" || place.strip_prefix("cuda:").is_some_and(index);
    let is_precision = match precision {
        None | Some("bf16") => true,
        Some("tf32") => place != "cpu",
        Some(_) => false,
    };
    match is_place && is_precision {
        true => Ok(name.to_owned()),
        false => {
            Err("expected cpu, metal, or cuda: with the index of a GPU, such as cuda:0; with the suffix +bf16, or \
                      +tf32 for a GPU, to trade accuracy for speed"
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
    fn every_setting_is_a_flag_and_a_variable_and_has_a_default() {
        let command = Config::augment_args(clap::Command::new("proxygrad"));
        for arg in command.get_arguments() {
            let key = arg.get_id().as_str();
            assert_eq!(arg.get_long().unwrap(), key.replace('_', "-"), "{key}");
            assert_eq!(arg.get_env().unwrap().to_str().unwrap(), format!("PROXYGRAD_{}", key.to_uppercase()), "{key}");
            assert!(arg.get_help().is_some() && arg.get_help_heading().is_some(), "{key}");
            let absent = ["models_dirs", "hub_token", "allowed_host", "cors_origin", "datasets"];
            assert!(arg.get_default_values().len() == 1 || absent.contains(&key), "{key}");
        }
    }

    #[test]
    fn defaults_satisfy_their_own_ranges() {
        let config = Config::defaults();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.body_limit, 8 << 20);
        assert!(config.max_wait < Duration::from_secs(60), "nginx times out after 60 seconds");
        assert_eq!((config.max_waiting(), config.max_streams()), (128, 128));
        assert!(config.allowed_host.is_empty() && config.cors_origin.is_empty());
        assert!(config.trusts("127.0.0.1".parse().unwrap()) && !config.trusts("10.0.0.1".parse().unwrap()));
        assert_eq!(config.limits(), Limits::default());
        assert_eq!(config.devices, ["cpu"]);
    }

    #[test]
    fn device_names_are_those_of_the_engines() {
        for good in ["cpu", "metal", "cuda:0", " cuda:12 ", "cuda:0+tf32", "metal+bf16", "cpu+bf16"] {
            assert_eq!(device(good).unwrap(), good.trim());
        }
        for bad in
            ["", "gpu", "cuda", "cuda:", "cuda:x", "cuda:99999", "CPU", "cpu+tf32", "cuda:0+", "cuda:0+tf32+bf16"]
        {
            assert!(device(bad).is_err(), "{bad:?}");
        }
    }
}
