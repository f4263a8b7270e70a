//! A package index on the loopback interface that can misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxygrad::network::catalog::PackageIndex;

use super::published::Published;

/// How the server answers a request for an archive.
#[derive(Debug, Clone)]
pub enum Answer {
    /// As it should.
    Archive,
    /// Other bytes.
    Bytes(Vec<u8>),
    /// All headers, but only this many bytes before it hangs up.
    HangUpAfter(usize),
    /// All headers, but only this many bytes; then nothing, while the connection stays open.
    FallSilentAfter(usize),
    /// The archive, in small pieces with pauses.
    Trickle,
    /// This status.
    Status(&'static str),
    /// From another address.
    Redirect,
}

/// How it lists archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    Json,
    Html,
    Empty,
    Garbage,
}

struct Behaviour {
    answers: Mutex<Vec<Answer>>,
    listing: Listing,
    archive: (String, Vec<u8>),
    package: String,
    downloads: AtomicUsize,
    silent: Mutex<Vec<TcpStream>>,
}

/// The index, until dropped.
pub struct Index {
    url: String,
    behaviour: Arc<Behaviour>,
}

impl Index {
    /// Serves one package. `answers` are given in turn; after the last one all is well.
    pub fn serve(published: &Published, listing: Listing, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple", listener.local_addr().unwrap());
        let behaviour = Arc::new(Behaviour {
            answers: Mutex::new(answers.iter().rev().cloned().collect()),
            listing,
            archive: (published.entry.archive.clone(), published.archive.clone()),
            package: published.entry.package.clone(),
            downloads: AtomicUsize::new(0),
            silent: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&behaviour);
        // The thread ends with the test's process; it holds nothing but this port.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        Self { url, behaviour }
    }

    /// Where to find it, with little patience.
    pub fn index(&self) -> PackageIndex {
        let mut index = PackageIndex::new(&self.url).unwrap();
        index.stall_timeout = Duration::from_millis(1500);
        index
    }

    /// Ends the connections on which it fell silent.
    pub fn hang_up(&self) {
        self.behaviour.silent.lock().unwrap().clear();
    }

    /// How often the archive was asked for.
    pub fn downloads(&self) -> usize {
        self.behaviour.downloads.load(Ordering::SeqCst)
    }
}

impl Behaviour {
    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut request = String::new();
        reader.read_line(&mut request).ok()?;
        let mut header = String::from("-");
        while !header.trim().is_empty() {
            header.clear();
            reader.read_line(&mut header).ok()?;
        }
        let path = request.split(' ').nth(1)?.to_owned();
        let (name, archive) = &self.archive;
        if path == format!("/simple/{}/", self.package) {
            let (kind, page) = match self.listing {
                Listing::Json => ("application/vnd.pypi.simple.v1+json", json(&[name])),
                Listing::Empty => ("application/vnd.pypi.simple.v1+json", json(&["other-1.0.tar.gz"])),
                Listing::Html => ("text/html", format!("<a href=\"../../files/{name}#sha256=0\">{name}</a>")),
                Listing::Garbage => ("application/json", "{\"files\": 7}".into()),
            };
            return reply(&mut stream, "200 OK", kind, page.as_bytes(), page.len());
        }
        if path == format!("/moved/{name}") {
            return reply(&mut stream, "200 OK", "application/zip", archive, archive.len());
        }
        if path != format!("/files/{name}") {
            return reply(&mut stream, "404 Not Found", "text/plain", b"", 0);
        }
        self.downloads.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.lock().unwrap().pop().unwrap_or(Answer::Archive);
        let kind = "application/octet-stream";
        match answer {
            Answer::Archive => reply(&mut stream, "200 OK", kind, archive, archive.len()),
            Answer::Bytes(bytes) => reply(&mut stream, "200 OK", kind, &bytes, bytes.len()),
            Answer::HangUpAfter(length) => reply(&mut stream, "200 OK", kind, &archive[..length], archive.len()),
            Answer::FallSilentAfter(length) => {
                // Whoever saw these bytes and hangs up finds this connection.
                let mut silent = self.silent.lock().unwrap();
                reply(&mut stream, "200 OK", kind, &archive[..length], archive.len())?;
                silent.push(stream);
                Some(())
            }
            Answer::Trickle => {
                reply(&mut stream, "200 OK", kind, &[], archive.len())?;
                for piece in archive.chunks(archive.len().div_ceil(5)) {
                    std::thread::sleep(Duration::from_millis(100));
                    stream.write_all(piece).ok()?;
                }
                Some(())
            }
            Answer::Status(status) => reply(&mut stream, status, "text/plain", b"", 0),
            Answer::Redirect => {
                let to = format!("Location: /moved/{name}\r\nContent-Length: 0\r\nConnection: close");
                write!(stream, "HTTP/1.1 302 Found\r\n{to}\r\n\r\n").ok()
            }
        }
    }
}

fn json(names: &[&str]) -> String {
    let files: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"filename": name, "url": format!("../../files/{name}"), "hashes": {}}))
        .collect();
    serde_json::json!({"meta": {"api-version": "1.1"}, "name": "test", "files": files}).to_string()
}

fn reply(stream: &mut TcpStream, status: &str, kind: &str, body: &[u8], length: usize) -> Option<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    stream.write_all(body).ok()?;
    stream.flush().ok()
}
