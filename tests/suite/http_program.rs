//! The `proxygrad` program: commands, settings, shutdown and recovery after a crash.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http_service::{DEADLINE, Server};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PROXYGRAD_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server process; killed when dropped.
pub struct Process {
    child: Child,
    pub base: String,
}

impl Process {
    pub fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::run(Self::command(data_dir, arguments))
    }

    /// Like `start`, with a log file in the data directory.
    pub fn start_with_log_file(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Self::command(data_dir, arguments);
        command.stderr(std::fs::File::create(data_dir.join("log")).unwrap());
        Self::run(command)
    }

    fn command(data_dir: &Path, arguments: &[&str]) -> Command {
        let mut command = program();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "error", "--data-dir"])
            .arg(data_dir)
            .args(arguments);
        command
    }

    /// Starts a server and waits until it listens.
    pub fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let base = line.split_whitespace().find(|word| word.starts_with("http://"));
        let base = base.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        assert!(line.contains("/docs"), "{line}");
        Self { child, base }
    }

    /// Peak memory in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9` or its equivalent.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Submits a long job and, while it runs, 20 short ones; then kills the process. Returns the ids of all jobs, the long
/// one first.
async fn kill_with_queued_jobs(data_dir: &Path, steps: u32) -> Vec<String> {
    let process = Process::start(data_dir, &["--max-batch", "1", "--max-steps", "1000000"]);
    let server = Server::at(process.base.clone());
    let job = |steps: u32| json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": steps});
    let long = server.submit(job(steps)).await["id"].as_str().unwrap().to_owned();
    server.until(&long, |job| job["state"] != "queued").await;
    let short = futures_util::future::join_all((0..20).map(|n| server.submit(job(2 + n % 3)))).await;
    process.kill();
    let ids = short.iter().map(|job| job["id"].as_str().unwrap().to_owned());
    std::iter::once(long).chain(ids).collect()
}

/// Restarts the server and waits until every job has ended. Returns whether the long job was interrupted by the kill.
async fn restart(data_dir: &Path, ids: &[String]) -> bool {
    let process = Process::start(data_dir, &["--max-batch", "8"]);
    let server = Server::at(process.base.clone());
    let start = Instant::now();
    let counts = loop {
        let counts = server.get("/readyz").await.json()["jobs"].clone();
        if counts["queued"] == 0 && counts["running"] == 0 {
            break counts;
        }
        assert!(start.elapsed() < 4 * DEADLINE, "{counts}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(counts["succeeded"], 21, "{counts}");
    let page = server.get("/v1/jobs?limit=100").await.json();
    let listed: BTreeSet<&str> =
        page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids.iter().map(String::as_str).collect(), "no job is lost, none is there twice");

    let mut attempts = Vec::new();
    for id in ids {
        let job = server.get(&format!("/v1/jobs/{id}")).await.json();
        assert_eq!(job["stimuli"].as_array().unwrap().len(), 1, "{id}");
        assert_eq!(server.get(job["stimuli"][0]["png"].as_str().unwrap()).await.status, 200);
        attempts.push(job["attempts"].as_u64().unwrap());
    }
    if attempts[0] == 1 {
        return false;
    }
    assert_eq!(attempts[0], 2);
    assert!(attempts[1..].iter().all(|&attempts| attempts == 1), "only the running one runs again: {attempts:?}");
    let metrics = server.get("/metrics").await;
    let ended = metrics.text().lines().find(|line| line.starts_with("proxygrad_jobs_total{state=\"succeeded\"}"));
    assert_eq!(ended.and_then(|line| line.rsplit(' ').next()), Some("21"), "each ended once");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_no_job_and_runs_none_twice() {
    // The number of steps for a long job depends on the machine: increased until the kill interrupts it.
    for doublings in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let ids = kill_with_queued_jobs(folder.path(), 1000 << doublings).await;
        if restart(folder.path(), &ids).await {
            return;
        }
    }
    panic!("no job was long enough");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_shuts_the_program_down_gracefully() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]);
    let killed = Command::new("kill").args(["-TERM", &process.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.child.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_never_share_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[]);
    let second = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", folder.path().to_str().unwrap()], &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("another process uses this data directory"), "{}", text(&second.stderr));
    drop(process);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_says_whether_the_server_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &[]);
    let base = process.base.clone();
    assert_eq!(run(&["healthcheck", "--url", &base], &[]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck"], &[("PROXYGRAD_HEALTHCHECK_URL", &base)]).status.code(), Some(0));
    // It uses the server's listen address.
    let port = base.rsplit(':').next().unwrap().to_owned();
    let everywhere = format!("0.0.0.0:{port}");
    let file = folder.path().join("proxygrad.toml");
    std::fs::write(&file, format!("listen = '{everywhere}'\nmax_batch = 3")).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(run(&["healthcheck"], &[("PROXYGRAD_LISTEN", &everywhere)]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck"], &[("PROXYGRAD_CONFIG", file)]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck", "--config", file], &[]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck"], &[("PROXYGRAD_LISTEN", "127.0.0.1:1")]).status.code(), Some(1));
    process.kill();
    let dead = run(&["healthcheck", "--url", &base], &[]);
    assert_eq!(dead.status.code(), Some(1));
    assert!(text(&dead.stderr).contains("does not answer"), "{}", text(&dead.stderr));
}

#[test]
fn the_program_prints_the_openapi_document() {
    let printed = run(&["openapi"], &[]);
    assert_eq!(text(&printed.stdout), proxygrad_server::api::openapi_document().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_from_flags_then_the_environment_then_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxygrad.toml");
    std::fs::write(&file, "max_steps = 11\nmax_side = 22\nmax_objectives = 33\n").unwrap();
    let mut command = program();
    command
        .args(["--listen", "127.0.0.1:0", "--log", "error", "--max-steps", "111", "--config"])
        .arg(&file)
        .env("PROXYGRAD_MAX_STEPS", "1111")
        .env("PROXYGRAD_MAX_SIDE", "222")
        .env("PROXYGRAD_DATA_DIR", folder.path().join("data"));
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let process = Process { child, base: line.split_whitespace().find(|w| w.starts_with("http")).unwrap().to_owned() };
    let request = Server::at(process.base.clone()).get("/openapi.json").await.json();
    let limit = |pointer: &str| request.pointer(&format!("/components/schemas/Request/properties/{pointer}")).cloned();
    assert_eq!(limit("steps/maximum"), Some(json!(111)), "the flag");
    assert_eq!(limit("size/items/maximum"), Some(json!(222)), "the environment");
    assert_eq!(limit("objectives/maxItems"), Some(json!(33)), "the file");
}

#[test]
fn invalid_settings_are_rejected_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = |toml: &str| {
        let path = folder.path().join("wrong.toml");
        std::fs::write(&path, toml).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (arguments, variables, parts) in [
        (vec!["--max-batch", "0"], vec![], vec!["--max-batch", "'0'", "1..=1024"]),
        (vec!["--listen", "nowhere"], vec![], vec!["--listen", "'nowhere'"]),
        (vec!["--devices", "cpu,gpu"], vec![], vec!["--devices", "'gpu'", "cuda:0"]),
        (vec!["--job-time-limit", "soon"], vec![], vec!["--job-time-limit", "'soon'", "1s to 7d"]),
        (vec!["--body-limit", "1TB"], vec![], vec!["--body-limit", "'1TB'"]),
        (vec!["--package-index", "ftp://x"], vec![], vec!["--package-index", "http"]),
        (vec!["--colour", "red"], vec![], vec!["--colour"]),
        (vec![], vec![("PROXYGRAD_MAX_STEPS", "many")], vec!["--max-steps", "'many'"]),
        (vec!["--config", "/nowhere.toml"], vec![], vec!["/nowhere.toml"]),
        (vec![], vec![("PROXYGRAD_LISTN", "[::]:1")], vec!["PROXYGRAD_LISTN", "did you mean PROXYGRAD_LISTEN?"]),
        (vec!["models", "list"], vec![("PROXYGRAD_THREDS", "1")], vec!["PROXYGRAD_THREDS", "PROXYGRAD_THREADS?"]),
        (vec!["healthcheck"], vec![("PROXYGRAD_URL", "http://x")], vec!["PROXYGRAD_URL is not a setting"]),
        (vec!["dance"], vec![], vec!["dance"]),
    ] {
        let refused = run(&arguments, &variables);
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{arguments:?}");
        for part in parts {
            assert!(text(&refused.stderr).contains(part), "{arguments:?}: {part} in {}", text(&refused.stderr));
        }
    }
    for (toml, parts) in [
        ("max_batches = 3", vec!["max_batches is not a setting", "did you mean max_batch?"]),
        ("max_batch = 0", vec!["max_batch = 0 is not valid"]),
        ("queue_limit = '7d'", vec!["queue_limit = \"7d\" is not valid"]),
    ] {
        let refused = run(&["serve", "--config", &file(toml)], &[]);
        assert_eq!(refused.status.code(), Some(1), "{toml}");
        for part in parts {
            assert!(text(&refused.stderr).contains(part), "{toml}: {}", text(&refused.stderr));
        }
    }
}

#[test]
fn a_variable_of_any_command_is_fine_under_every_command() {
    let variables = [
        ("PROXYGRAD_LISTEN", "127.0.0.1:8080"),
        ("PROXYGRAD_DEVICE", "cpu"),
        ("PROXYGRAD_HEALTHCHECK_URL", "http://127.0.0.1:1"),
        ("PROXYGRAD_MAX_BATCH", "4"),
        // Set by Kubernetes for a Service of this name.
        ("PROXYGRAD_SERVICE_HOST", "10.0.0.7"),
        ("PROXYGRAD_PORT", "tcp://10.0.0.7:8080"),
        ("PROXYGRAD_PORT_8080_TCP_ADDR", "10.0.0.7"),
    ];
    for arguments in [&["models", "list"][..], &["openapi"]] {
        let done = run(arguments, &variables);
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", text(&done.stderr));
    }
}

#[test]
fn help_shows_every_setting_with_its_default() {
    let help = text(&run(&["serve", "--help"], &[]).stdout);
    for part in ["--listen", "PROXYGRAD_LISTEN", "[default: 127.0.0.1:8080]", "--max-batch", "[default: 16]", "HTTP:"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let help = text(&run(&["--help"], &[]).stdout);
    for command in ["serve", "models", "openapi", "healthcheck"] {
        assert!(help.contains(command), "{command} in {help}");
    }
    let _: Value = serde_json::from_slice(&run(&["models", "list", "--json"], &[]).stdout).unwrap();
}
