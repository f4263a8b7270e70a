//! Client of the Hub: what a repository contains, and downloads that resume and are checked.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, LOCATION, RANGE};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::address::HubAddress;
use super::is_sha256;
use super::repository::{Repository, RepositoryFile};
use super::settings::Hub;
use crate::network::catalog::http::{self, redacted};
use crate::network::catalog::package_index::Progress;
use crate::network::catalog::pull_error::PullError;

/// Largest description of a repository, in bytes.
const MAX_LISTING_BYTES: u64 = 32 << 20;
/// Largest number of redirects of one request.
const MAX_REDIRECTS: usize = 8;
/// Largest number of requests for one file, while each brings new data.
const MAX_ATTEMPTS: usize = 8;
/// Headers of the Hub.
const LINKED_ETAG: &str = "x-linked-etag";
const REPO_COMMIT: &str = "x-repo-commit";
const ERROR_CODE: &str = "x-error-code";

/// A connection to the Hub, for one repository.
pub(super) struct HubClient<'h> {
    hub: &'h Hub,
    endpoint: Url,
    client: Client,
    address: HubAddress,
    started: Instant,
}

/// The part of `GET /api/models/OWNER/NAME/revision/REVISION` that is used.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Card {
    license: Option<serde_json::Value>,
}

impl<'h> HubClient<'h> {
    pub(super) fn new(hub: &'h Hub, address: &HubAddress) -> Result<Self, PullError> {
        let endpoint = Url::parse(&hub.endpoint);
        let endpoint = endpoint.map_err(|e| PullError::transport(&hub.endpoint, &e, hub.stall_timeout))?;
        // Redirects lead to storage elsewhere, and the first answer has headers that the last one lacks.
        let client = http::client(&endpoint, hub.connect_timeout, hub.stall_timeout, false)?;
        Ok(Self { hub, endpoint, client, address: address.repository(), started: Instant::now() })
    }

    /// What the repository contains at its revision.
    pub(super) fn repository(&self) -> Result<Repository, PullError> {
        let (owner, name) = (self.address.owner(), self.address.name());
        let path = format!("api/models/{owner}/{name}/revision/{}?blobs=true", self.address.revision());
        let (response, _) = self.get(&self.address, &path, 0)?;
        let shown = redacted(response.url());
        let mut body = Vec::new();
        let read = response.take(MAX_LISTING_BYTES + 1).read_to_end(&mut body);
        read.map_err(|e| PullError::transport(&shown, &e, self.hub.stall_timeout))?;
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|e| self.wrong(&self.address, format!("the Hub's description of it cannot be read: {e}")))?;
        if !(4..=64).contains(&listing.sha.len()) || !listing.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(self.wrong(&self.address, format!("{:?} is not a commit", listing.sha)));
        }
        let file = |sibling: Sibling| {
            RepositoryFile::new(&sibling.rfilename, sibling.size, sibling.lfs.and_then(|lfs| lfs.sha256))
        };
        let licence = listing.card.and_then(|card| card.license?.as_str().map(str::to_owned));
        Ok(Repository { commit: listing.sha, files: listing.siblings.into_iter().filter_map(file).collect(), licence })
    }

    /// Downloads a file of the commit to `to`, of at most `most` bytes, and checks its size and digest. What an
    /// interrupted attempt left there is continued.
    pub(super) fn download(
        &self,
        commit: &str,
        file: &RepositoryFile,
        most: u64,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), PullError> {
        let address = self.address.at(commit, &file.path);
        let too_large = |size: u64| self.wrong(&address, format!("has {size} bytes; expected at most {most}"));
        if let Some(size) = file.size.filter(|&size| size > most) {
            return Err(too_large(size));
        }
        let mut part = File::options().create(true).truncate(false).read(true).write(true).open(to)?;
        let mut last = Ok(());
        for _ in 0..MAX_ATTEMPTS {
            let before = part.metadata()?.len();
            match self.attempt(&address, file, most, &mut part, progress) {
                Ok(()) => return Ok(()),
                Err(why @ (PullError::Network { .. } | PullError::Stalled { .. })) => last = Err(why),
                Err(why) => {
                    // Other content than expected cannot be continued.
                    if matches!(why, PullError::Checksum { .. } | PullError::Size { .. }) {
                        part.set_len(0)?;
                    }
                    return Err(why);
                }
            }
            if part.metadata()?.len() <= before {
                break;
            }
        }
        last
    }

    /// One request for the rest of a file.
    fn attempt(
        &self,
        address: &HubAddress,
        file: &RepositoryFile,
        most: u64,
        part: &mut File,
        progress: &mut Progress<'_>,
    ) -> Result<(), PullError> {
        let (mut hash, mut done) = (Sha256::new(), 0);
        let mut buffer = vec![0; 64 << 10];
        part.seek(SeekFrom::Start(0))?;
        let kept = part.metadata()?.len();
        // A part as long as the file is only checked.
        if kept > 0 && file.size == Some(kept) && file.sha256.is_some() {
            add_to(&mut hash, part)?;
            return self.check(address, file, None, hash, kept, kept);
        }
        // Without a size, the part could be the whole file.
        let kept = if file.size.is_some_and(|size| kept < size) { kept } else { 0 };
        let path = format!(
            "{}/{}/resolve/{}/{}",
            address.owner(),
            address.name(),
            address.revision(),
            address.file().unwrap_or_default().split('/').map(encoded).collect::<Vec<_>>().join("/"),
        );
        let (mut response, headers) = self.get(address, &path, kept)?;
        if let Some(found) = header(&headers, REPO_COMMIT).filter(|found| *found != address.revision()) {
            return Err(self.wrong(address, format!("the Hub sent the commit {found} instead")));
        }
        if response.status() == StatusCode::PARTIAL_CONTENT {
            add_to(&mut hash, part)?;
            done = kept;
        } else {
            part.set_len(0)?;
            part.seek(SeekFrom::Start(0))?;
        }
        let total = file.size.or(response.content_length().map(|rest| done.saturating_add(rest)));
        if let Some(total) = total.filter(|&total| total > most) {
            return Err(self.wrong(address, format!("has {total} bytes; expected at most {most}")));
        }
        let shown = redacted(response.url());
        progress(done, total);
        loop {
            let read = response.read(&mut buffer);
            let read = read.map_err(|e| PullError::transport(&shown, &e, self.hub.stall_timeout))?;
            if read == 0 {
                break;
            }
            done += read as u64;
            if done > total.unwrap_or(most) {
                return Err(PullError::Size { url: shown, found: done, expected: total.unwrap_or(most) });
            }
            if self.started.elapsed() > self.hub.download_timeout {
                return Err(PullError::TooSlow { url: shown, limit: self.hub.download_timeout });
            }
            hash.update(&buffer[..read]);
            part.write_all(&buffer[..read])?;
            progress(done, total);
        }
        let linked = header(&headers, LINKED_ETAG).or_else(|| header(&headers, ETAG.as_str()));
        let linked = linked.map(|etag| etag.trim_start_matches("W/").trim_matches('"')).filter(|tag| is_sha256(tag));
        self.check(address, file, linked, hash, done, total.unwrap_or(done))
    }

    /// Compares size and digest of a complete file with those that the Hub states.
    fn check(
        &self,
        address: &HubAddress,
        file: &RepositoryFile,
        linked: Option<&str>,
        hash: Sha256,
        found: u64,
        expected: u64,
    ) -> Result<(), PullError> {
        if found != expected {
            return Err(PullError::Size { url: address.to_string(), found, expected });
        }
        let found = hex::encode(hash.finalize());
        match file.sha256.as_deref().or(linked).filter(|&expected| expected != found) {
            Some(expected) => {
                Err(PullError::Checksum { file: address.to_string(), found, expected: expected.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Requests a path of the endpoint, from byte `from` on. Returns the answer after redirects, and the headers of the
    /// first one.
    fn get(&self, address: &HubAddress, path: &str, from: u64) -> Result<(Response, HeaderMap), PullError> {
        let broken = |e: url::ParseError| PullError::transport(&self.hub.endpoint, &e, self.hub.stall_timeout);
        let mut url = Url::parse(&format!("{}/{path}", self.hub.endpoint)).map_err(broken)?;
        let mut first: Option<HeaderMap> = None;
        for _ in 0..=MAX_REDIRECTS {
            let shown = redacted(&url);
            let mut request = self.client.get(url.clone());
            // Storage elsewhere does not need to know it.
            if let Some(token) = self.hub.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send();
            let response =
                response.map_err(|e| PullError::transport(&shown, &e.without_url(), self.hub.stall_timeout))?;
            let first = first.get_or_insert_with(|| response.headers().clone());
            let status = response.status();
            if status.is_redirection() {
                let to = header(response.headers(), LOCATION.as_str()).unwrap_or_default();
                url = url.join(to).map_err(broken)?;
                if !matches!(url.scheme(), "http" | "https") {
                    return Err(self.wrong(address, format!("the Hub leads to {}", redacted(&url))));
                }
                continue;
            }
            if status.is_success() {
                let headers = first.clone();
                return Ok((response, headers));
            }
            return Err(self.refused(address, &shown, response));
        }
        Err(self.wrong(address, format!("the Hub redirected more than {MAX_REDIRECTS} times")))
    }

    /// What an error of the Hub means.
    fn refused(&self, address: &HubAddress, url: &str, response: Response) -> PullError {
        let code = header(response.headers(), ERROR_CODE).unwrap_or_default();
        let access = match self.hub.token {
            Some(_) => "the token has no access to it",
            None => "it needs an access token (--hub-token, HF_TOKEN)",
        };
        let why = match (response.status(), code) {
            (_, "GatedRepo") => {
                format!("the repository is gated: accept its terms on {}; {access}", self.hub.endpoint)
            }
            (_, "RevisionNotFound") => format!("the repository has no revision {}", address.revision()),
            (_, "EntryNotFound") => "the repository has no such file".into(),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                format!("the repository does not exist or is private: {access}")
            }
            (StatusCode::NOT_FOUND, _) => format!("not found on {}", self.hub.endpoint),
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                return PullError::Size { url: url.into(), found: 0, expected: 0 };
            }
            (status, _) => return PullError::Status { url: url.into(), status: status.to_string() },
        };
        self.wrong(address, why)
    }

    fn wrong(&self, address: &HubAddress, why: String) -> PullError {
        PullError::Repository { address: address.to_string(), why }
    }
}

/// Hashes a file from its position to its end.
fn add_to(hash: &mut Sha256, file: &mut File) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A part of a path, percent-encoded.
fn encoded(part: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    part.as_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
