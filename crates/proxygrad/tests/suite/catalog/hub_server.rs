//! A stand-in for the Hugging Face Hub on the loopback interface: descriptions of repositories, files as redirects to a
//! storage on another port, tokens, gates, and interruptions.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxygrad::network::catalog::Hub;

use super::weights::sha256;

/// The commit of every revision.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Last headers of an answer without a body.
const CLOSE: &str = "Content-Length: 0\r\nConnection: close\r\n";

/// How the repository `me/net` behaves.
#[derive(Clone, Default)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    /// The token it needs; none for a public one.
    pub token: Option<&'static str>,
    pub gated: bool,
    /// The description does not say sizes and digests.
    pub terse: bool,
    /// Digest in the header of a file, instead of the right one.
    pub etag: Option<String>,
    /// Commit in the header of a file, instead of the right one.
    pub commit: Option<&'static str>,
    /// The storage hangs up after this many bytes of its next answers.
    pub hang_ups: Vec<usize>,
    /// The storage ignores ranges.
    pub no_ranges: bool,
}

/// The Hub, until the test ends.
pub struct Server {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    repository: Mutex<Repository>,
    storage: String,
    /// Paths and ranges that the storage was asked for, and whether it saw a token.
    requests: Mutex<Vec<(String, u64, bool)>>,
}

impl Server {
    pub fn serve(repository: Repository) -> Self {
        let [hub, storage] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [url, storage_url] = [&hub, &storage].map(|socket| format!("http://{}", socket.local_addr().unwrap()));
        let (repository, requests) = (Mutex::new(repository), Mutex::default());
        let shared = Arc::new(Shared { repository, storage: storage_url, requests });
        for (listener, is_hub) in [(hub, true), (storage, false)] {
            let shared = Arc::clone(&shared);
            // The thread ends with the test's process; it holds nothing but this port.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || shared.answer(stream, is_hub));
                }
            });
        }
        Self { url, shared }
    }

    /// Where to find it, with little patience.
    pub fn hub(&self, token: Option<&str>) -> Hub {
        let mut hub = Hub::new(&self.url).unwrap();
        hub.token = token.map(str::to_owned);
        hub.stall_timeout = Duration::from_millis(1500);
        hub
    }

    /// The repository, to change it.
    pub fn repository(&self) -> std::sync::MutexGuard<'_, Repository> {
        self.shared.repository.lock().unwrap()
    }

    /// What the storage was asked for: file, first byte, and whether with a token.
    pub fn requests(&self) -> Vec<(String, u64, bool)> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream, is_hub: bool) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut request = String::new();
        reader.read_line(&mut request).ok()?;
        let (mut token, mut from) = (None, 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            match name.to_lowercase().as_str() {
                "authorization" => token = value.strip_prefix("Bearer ").map(str::to_owned),
                "range" => from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?,
                _ => {}
            }
        }
        let path = request.split(' ').nth(1)?.to_owned();
        let mut repository = self.repository.lock().unwrap();
        if !is_hub {
            return self.store(&mut stream, &mut repository, &path, from, token.is_some());
        }
        let refused = |stream: &mut TcpStream, status: &str, code: &str| {
            write!(stream, "HTTP/1.1 {status}\r\nX-Error-Code: {code}\r\n{CLOSE}\r\n").ok()
        };
        if repository.token.is_some_and(|needed| token.as_deref() != Some(needed)) {
            return refused(&mut stream, "401 Unauthorized", "RepoNotFound");
        }
        if repository.gated {
            return refused(&mut stream, "403 Forbidden", "GatedRepo");
        }
        if let Some(revision) = path.strip_prefix("/api/models/me/net/revision/") {
            return match revision.split('?').next()? {
                "main" | "v1" | COMMIT => {
                    let body = describe(&repository).to_string();
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    )
                    .ok()
                }
                _ => refused(&mut stream, "404 Not Found", "RevisionNotFound"),
            };
        }
        let Some(file) = path.strip_prefix(&format!("/me/net/resolve/{COMMIT}/")) else {
            return refused(&mut stream, "404 Not Found", "RepoNotFound");
        };
        let Some(content) = repository.files.get(file) else {
            return refused(&mut stream, "404 Not Found", "EntryNotFound");
        };
        let etag = repository.etag.clone().unwrap_or_else(|| sha256(content));
        let commit = repository.commit.unwrap_or(COMMIT);
        write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {}/{file}?signature=secret\r\nX-Linked-Etag: \"{etag}\"\r\n\
             X-Linked-Size: {}\r\nX-Repo-Commit: {commit}\r\n{CLOSE}\r\n",
            self.storage,
            content.len()
        )
        .ok()
    }

    fn store(
        &self,
        stream: &mut TcpStream,
        repository: &mut Repository,
        path: &str,
        from: u64,
        has_token: bool,
    ) -> Option<()> {
        let file = path.trim_start_matches('/').split('?').next()?;
        self.requests.lock().unwrap().push((file.to_owned(), from, has_token));
        let content = repository.files.get(file)?;
        let from = if repository.no_ranges { 0 } else { usize::try_from(from).ok()? };
        let rest = content.get(from..)?;
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len()).ok()?;
        let sent = match repository.hang_ups.is_empty() {
            true => rest.len(),
            false => repository.hang_ups.remove(0).min(rest.len()),
        };
        stream.write_all(&rest[..sent]).ok()?;
        stream.flush().ok()
    }
}

fn describe(repository: &Repository) -> serde_json::Value {
    let file = |(path, content): (&String, &Vec<u8>)| match repository.terse {
        true => serde_json::json!({"rfilename": path}),
        // Only large files have a digest.
        false if content.len() < 1000 => serde_json::json!({"rfilename": path, "size": content.len()}),
        false => serde_json::json!({
            "rfilename": path, "size": content.len(), "lfs": {"sha256": sha256(content), "size": content.len()}
        }),
    };
    let files: Vec<_> = repository.files.iter().map(file).collect();
    serde_json::json!({"id": "me/net", "sha": COMMIT, "siblings": files, "cardData": {"license": "apache-2.0"}})
}
