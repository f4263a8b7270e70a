//! Download of package archives from a Python package index.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::builtin::CatalogEntry;
use super::http::{self, redacted};
use super::package_index::{PackageIndex, Progress};
use super::pull_error::PullError;

/// Largest index page of a package, in bytes.
const MAX_PAGE_BYTES: u64 = 16 << 20;

impl PackageIndex {
    /// Downloads the archive of `entry` to the new file `to`, and verifies its size and checksum.
    ///
    /// # Errors
    /// See [`PullError`].
    pub(super) fn download(
        &self,
        entry: &CatalogEntry,
        to: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), PullError> {
        let base = Url::parse(&self.url).map_err(|e| PullError::transport(&self.url, &e, self.stall_timeout))?;
        let client = http::client(&base, self.connect_timeout, self.stall_timeout, true)?;
        let url = self.find(&client, &base, entry)?;
        let shown = redacted(&url);
        let mut response = self.get(&client, url, "*/*")?;
        let started = Instant::now();
        let (mut file, mut hash, mut done) = (File::create_new(to)?, Sha256::new(), 0);
        let mut buffer = vec![0; 64 << 10];
        progress(0, Some(entry.archive_bytes));
        loop {
            let read = response.read(&mut buffer).map_err(|e| PullError::transport(&shown, &e, self.stall_timeout))?;
            if read == 0 {
                break;
            }
            done += read as u64;
            if done > entry.archive_bytes {
                break;
            }
            if started.elapsed() > self.download_timeout {
                return Err(PullError::TooSlow { url: shown, limit: self.download_timeout });
            }
            hash.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
            progress(done, Some(entry.archive_bytes));
        }
        if done != entry.archive_bytes {
            return Err(PullError::Size { url: shown, found: done, expected: entry.archive_bytes });
        }
        let found = hex::encode(hash.finalize());
        if found != entry.archive_sha256 {
            let (file, expected) = (entry.archive.clone(), entry.archive_sha256.clone());
            return Err(PullError::Checksum { file, found, expected });
        }
        Ok(())
    }

    fn get(&self, client: &Client, url: Url, accept: &str) -> Result<Response, PullError> {
        let shown = redacted(&url);
        let request = client.get(url).header(ACCEPT, accept).send();
        let response = request.map_err(|e| PullError::transport(&shown, &e.without_url(), self.stall_timeout))?;
        if !response.status().is_success() {
            return Err(PullError::Status { url: shown, status: response.status().to_string() });
        }
        Ok(response)
    }

    /// Finds the address of the archive on the page of its package.
    fn find(&self, client: &Client, base: &Url, entry: &CatalogEntry) -> Result<Url, PullError> {
        let not_listed =
            |url: &Url, why: String| PullError::NotListed { url: redacted(url), archive: entry.archive.clone(), why };
        let page = base.join(&format!("{}/", entry.package)).map_err(|e| not_listed(base, e.to_string()))?;
        let response = self.get(client, page, "application/vnd.pypi.simple.v1+json, text/html;q=0.5")?;
        let base = response.url().clone();
        let json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().ends_with("json")))
        });
        let mut body = Vec::new();
        response
            .take(MAX_PAGE_BYTES)
            .read_to_end(&mut body)
            .map_err(|e| PullError::transport(&redacted(&base), &e, self.stall_timeout))?;
        let link = if json { link_in_json(&body, &entry.archive) } else { link_in_html(&body, &entry.archive) };
        let link = link.map_err(|why| not_listed(&base, why))?;
        let mut url = base.join(&link).map_err(|e| not_listed(&base, format!("its link is broken: {e}")))?;
        // Indexes put a checksum into the fragment.
        url.set_fragment(None);
        Ok(url)
    }
}

/// PEP 691: `{"files": [{"filename": …, "url": …}, …]}`.
fn link_in_json(body: &[u8], archive: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        filename: String,
        url: String,
    }
    let page: Page = serde_json::from_slice(body).map_err(|e| format!("its page is not a list of files: {e}"))?;
    let count = page.files.len();
    let listed = page.files.into_iter().find(|file| file.filename == archive);
    listed.map(|file| file.url).ok_or_else(|| format!("it lists {count} other files"))
}

/// PEP 503: anchors whose address ends in the file's name, optionally with a fragment.
fn link_in_html(body: &[u8], archive: &str) -> Result<String, String> {
    let text = String::from_utf8_lossy(body);
    let mut count = 0;
    for after in text.split("href=").skip(1) {
        let Some(quote) = after.chars().next().filter(|c| matches!(c, '"' | '\'')) else { continue };
        let Some((link, _)) = after[1..].split_once(quote) else { continue };
        let link = link.replace("&amp;", "&");
        let path = link.split(['#', '?']).next().unwrap_or_default();
        if path.rsplit('/').next() == Some(archive) {
            return Ok(link);
        }
        count += 1;
    }
    Err(format!("its page has {count} other links"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages_list_files_as_json_or_as_html() {
        let json = br#"{"meta": {"api-version": "1.1"}, "files": [
            {"filename": "a-1.tar.gz", "url": "../../x/a-1.tar.gz", "hashes": {}},
            {"filename": "a-2.tar.gz", "url": "../../x/a-2.tar.gz", "hashes": {}}]}"#;
        assert_eq!(link_in_json(json, "a-2.tar.gz").unwrap(), "../../x/a-2.tar.gz");
        assert_eq!(link_in_json(json, "a-3.tar.gz").unwrap_err(), "it lists 2 other files");
        assert!(link_in_json(b"<html>", "a").unwrap_err().contains("not a list of files"));

        let html = br#"<a href="../../x/a-1.tar.gz#sha256=00">a-1.tar.gz</a>
            <A HREF='/x/a-2.tar.gz?k=1&amp;l=2'></A><a href='/x/a-2.tar.gz?k=1&amp;l=2#sha256=0'>a-2.tar.gz</a>"#;
        assert_eq!(link_in_html(html, "a-1.tar.gz").unwrap(), "../../x/a-1.tar.gz#sha256=00");
        assert_eq!(link_in_html(html, "a-2.tar.gz").unwrap(), "/x/a-2.tar.gz?k=1&l=2#sha256=0");
        assert_eq!(link_in_html(html, "-2.tar.gz").unwrap_err(), "its page has 2 other links");
        assert!(link_in_html(b"href= href=\" href='\xff", "a").is_err());
    }
}
