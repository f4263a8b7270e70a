//! A server whose disk fails: its responses, and its recovery. Linux only: a limit on file sizes makes every write
//! fail, and a file system of a few megabytes simulates a full disk.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::http_program::Process;
use crate::http_service::{Answer, DEADLINE, Server, quick};
use crate::http_studies::small;
use crate::http_trainings;

/// Time limit for the recovery after a fault.
const RECOVERY: Duration = Duration::from_secs(5);

/// Makes all writes of the process fail or succeed. Only changes the soft limit: raising a lowered hard limit again
/// needs a privilege.
fn writes(process: &Process, work: bool) {
    let pid = process.id().to_string();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let size = limits.lines().find_map(|line| line.strip_prefix("Max file size")).unwrap();
    let hard = size.split_whitespace().nth(1).unwrap();
    let limit = format!("--fsize={}:", if work { hard } else { "0" });
    assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
}

async fn submit_as(server: &Server, key: &str, body: &Value) -> Answer {
    server.send(server.request(Method::POST, "/v1/jobs").header("Idempotency-Key", key).json(body)).await
}

async fn delete(server: &Server, path: &str) -> Answer {
    server.send(server.request(Method::DELETE, path)).await
}

/// Polls the readiness probe until it returns this status; each response must be immediate.
async fn ready(server: &Server, expected: u16) -> Answer {
    let begin = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = server.get("/readyz").await;
        assert!(asked.elapsed() < Duration::from_secs(1), "a probe took {:?}", asked.elapsed());
        if answer.status == expected {
            return answer;
        }
        assert!(begin.elapsed() < RECOVERY, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn job(steps: u32) -> Value {
    json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "steps": steps})
}

async fn submitted(server: &Server, body: &Value) -> String {
    format!("/v1/jobs/{}", server.submit(body.clone()).await["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_writes_fail_clients_get_503_and_the_server_recovers_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_with_log_file(folder.path(), &["--threads", "1", "--max-batch", "1"]);
    let server = Server::at(process.base.clone());
    let known = submit_as(&server, "known", &quick()).await;
    let known = format!("/v1/jobs/{}", known.json()["id"].as_str().unwrap());
    server.state_at(&known, "succeeded").await;
    let canceled = submitted(&server, &quick()).await;
    server.post(&format!("{canceled}/cancel"), &Value::Null).await;
    let ends_meanwhile = submitted(&server, &job(300)).await;
    server.state_at(&ends_meanwhile, "running").await;
    let waits = submitted(&server, &quick()).await;
    let study = crate::http_studies::submit(&server, &small()).await;

    writes(&process, false);
    let refused = |what: &str, answer: &Answer| {
        assert_eq!((answer.status, &answer.json()["type"]), (503, &"/problems/storage-unavailable".into()), "{what}");
        assert!(answer.headers["retry-after"].parse::<u32>().unwrap() > 0, "{what}");
        assert!(!answer.text().contains("An internal error"), "{what}: {}", answer.text());
    };
    for _ in 0..2 {
        refused("job", &server.post("/v1/jobs", &quick()).await);
        refused("job with a key", &submit_as(&server, "fresh", &quick()).await);
        refused("study", &server.post("/v1/studies", &small()).await);
        refused("cancel", &server.post(&format!("{waits}/cancel"), &Value::Null).await);
        refused("delete", &delete(&server, &known).await);
        refused("cancel a study", &server.post(&format!("{study}/cancel"), &Value::Null).await);
    }
    assert!(ready(&server, 503).await.text().contains("cannot be written"));
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get(&known).await.status, 200, "reads still work");
    assert_eq!(submit_as(&server, "known", &quick()).await.status, 200, "a known key needs no write");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.get(&ends_meanwhile).await.json()["state"], "running");

    writes(&process, true);
    let over = Instant::now();
    ready(&server, 200).await;
    let fresh = submit_as(&server, "fresh", &quick()).await;
    assert_eq!(fresh.status, 202, "{fresh:?}");
    assert!(over.elapsed() < RECOVERY, "{:?}", over.elapsed());
    let ended = server.state_at(&ends_meanwhile, "succeeded").await;
    assert_eq!(ended["attempts"], 1);
    assert_eq!(server.get(ended["stimuli"][0]["png"].as_str().unwrap()).await.status, 200);
    server.state_at(&waits, "succeeded").await;
    server.state_at(&format!("/v1/jobs/{}", fresh.json()["id"].as_str().unwrap()), "succeeded").await;
    server.state_at(&study, "succeeded").await;
    assert_eq!(delete(&server, &known).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_with_failed_writes_still_has_every_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_with_log_file(folder.path(), &["--threads", "1", "--max-batch", "2"]);
    let server = Server::at(process.base.clone());
    let study = crate::http_studies::submit(&server, &small()).await;
    server.until_at(&study, |study| study["progress"]["done"].as_f64().unwrap() >= 2.0).await;
    for _ in 0..3 {
        writes(&process, false);
        tokio::time::sleep(Duration::from_millis(700)).await;
        writes(&process, true);
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    let total = server.state_at(&study, "succeeded").await["progress"]["total"].as_u64().unwrap();
    let runs = server.get(&format!("{study}/runs.csv")).await;
    let mut lines: Vec<&str> = runs.text().lines().skip(1).collect();
    assert_eq!(lines.len() as u64, total);
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len() as u64, total);
}

/// A server on a separate file system of a few megabytes.
struct SmallDisk {
    process: Process,
    /// Root of the file system as seen by this process.
    root: PathBuf,
    _place: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` if this process may not mount file systems.
    fn start(size: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let probe = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs"]).arg(place.path()).status();
        if !probe.is_ok_and(|status| status.success()) {
            eprintln!("not run: this process may not mount a file system");
            return None;
        }
        let script = "mount -t tmpfs -o size=$1 tmpfs \"$2\" && exec \"$0\" serve --listen 127.0.0.1:0 --log error \
                      --threads 1 --max-batch 4 --data-dir \"$2\" 2> \"$2/log\"";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", script, env!("CARGO_BIN_EXE_proxygrad"), size]).arg(place.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        let process = Process::run(command);
        let root = Path::new("/proc").join(process.id().to_string()).join("root");
        let root = root.join(place.path().strip_prefix("/").unwrap());
        assert!(root.join("jobs.sqlite3").exists(), "the file system is not where it should be");
        Some(Self { process, root, _place: place })
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Fills the file system completely.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        let mut size = 1 << 16;
        while size > 0 {
            if file.write(&vec![b'x'; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_submissions_get_507_and_jobs_can_be_canceled_and_deleted() {
    let Some(disk) = SmallDisk::start("3m") else { return };
    let server = Server::at(disk.process.base.clone());
    let mut over = Vec::new();
    for _ in 0..12 {
        over.push(submitted(&server, &quick()).await);
    }
    for job in &over {
        server.state_at(job, "succeeded").await;
    }
    let study = crate::http_studies::submit(&server, &small()).await;
    server.state_at(&study, "succeeded").await;
    let long = submitted(&server, &job(4096)).await;
    server.state_at(&long, "running").await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(
            submitted(&server, &json!({"model": "fashion-resnet8", "objective": "logits:1", "steps": 4096})).await,
        );
    }

    disk.fill();
    for answer in [server.post("/v1/jobs", &quick()).await, server.post("/v1/studies", &small()).await] {
        assert_eq!((answer.status, &answer.json()["type"]), (507, &"/problems/no-space".into()), "{answer:?}");
        assert!(answer.headers.contains_key("retry-after") && answer.text().contains("no space"), "{answer:?}");
    }
    assert!(ready(&server, 503).await.text().contains("no space"));
    assert_eq!(server.get("/livez").await.status, 200);
    for job in &waiting {
        assert_eq!(server.post(&format!("{job}/cancel"), &Value::Null).await.json()["state"], "canceled");
    }
    assert_eq!(server.post(&format!("{long}/cancel"), &Value::Null).await.status, 202);
    server.state_at(&long, "canceled").await;
    for job in over.iter().chain(&waiting).chain([&long, &study]) {
        assert_eq!(delete(&server, job).await.status, 204, "{job}");
        // Freed space is filled again immediately.
        disk.fill();
    }

    disk.empty();
    let begin = Instant::now();
    ready(&server, 200).await;
    let again = submitted(&server, &quick()).await;
    assert!(begin.elapsed() < RECOVERY, "{:?}", begin.elapsed());
    server.state_at(&again, "succeeded").await;
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_space() {
    let Some(disk) = SmallDisk::start("3m") else { return };
    let server = Server::at(disk.process.base.clone());
    let mut jobs = Vec::new();
    for n in 0..8 {
        jobs.push(submitted(&server, &job(200 + n)).await);
    }
    disk.fill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    disk.empty();
    let begin = Instant::now();
    for job in &jobs {
        let ended = server.state_at(job, "succeeded").await;
        assert_eq!(ended["attempts"], 1);
        assert_eq!(server.get(ended["stimuli"][0]["png"].as_str().unwrap()).await.status, 200);
    }
    assert!(begin.elapsed() < DEADLINE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_with_failed_writes_has_the_numbers_of_an_undisturbed_one() {
    let (folder, datasets) = (tempfile::tempdir().unwrap(), http_trainings::datasets());
    let sets = http_trainings::sets(&datasets);
    let arguments = ["--threads", "1", "--datasets", sets.to_str().unwrap()];
    let process = Process::start_with_log_file(folder.path(), &arguments);
    let server = Server::at(process.base.clone());
    let mut body = http_trainings::small();
    body["epochs"] = 100.into();
    let training = http_trainings::submit(&server, &body).await;
    let done = |training: &Value| training["progress"]["epochs_done"].as_u64().unwrap();
    server.until_at(&training, |training| done(training) >= 2).await;
    writes(&process, false);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(server.get(&training).await.json()["state"], "running", "a full disk ends no training");
    writes(&process, true);
    server.state_at(&training, "succeeded").await;
    let library = tokio::task::spawn_blocking(move || http_trainings::trained(&body, &sets)).await.unwrap();
    let metrics = server.get(&format!("{training}/metrics.csv")).await;
    assert_eq!(metrics.text(), proxygrad::train::csv(library.epochs()));
}
