//! Fetches a network and its configuration from a repository into a folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::address::HubAddress;
use super::client::HubClient;
use super::config::Described;
use super::repository::{Repository, RepositoryFile};
use super::settings::Hub;
use crate::network::catalog::add::Described as Facts;
use crate::network::catalog::builtin::imagenet_classes;
use crate::network::catalog::load;
use crate::network::catalog::package_index::Progress;
use crate::network::catalog::pull_error::PullError;

/// Largest configuration file, in bytes; label descriptions of 20 000 classes take one million.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// A network in a folder.
pub(in crate::network::catalog) struct Fetched {
    /// The file with the network.
    pub(in crate::network::catalog) file: PathBuf,
    /// What the repository says about it.
    pub(in crate::network::catalog) facts: Facts,
}

/// Downloads the network at `address`, with its external data and configuration, into `folder`. What an interrupted
/// attempt left there is continued.
pub(in crate::network::catalog) fn fetch(
    hub: &Hub,
    address: &HubAddress,
    folder: &Path,
    progress: &mut Progress<'_>,
) -> Result<Fetched, PullError> {
    let client = HubClient::new(hub, address)?;
    let repository = client.repository()?;
    let wrong = |why: String| PullError::Repository { address: address.to_string(), why };
    let network = repository.network(address).map_err(wrong)?;
    // Files of another commit cannot be continued.
    let folder = kept_only(folder, &repository.commit)?;
    let mut get = |file: &RepositoryFile, most: u64| {
        let to = folder.join(file.name());
        client.download(&repository.commit, file, most, &to, progress).map(|()| to)
    };
    let file = get(network, load::MAX_BYTES)?;
    let bytes = load::read(&file)?;
    let external = load::external_files(network.name(), &bytes);
    let external = external.map_err(|why| wrong(format!("{}: {why}", network.path)))?;
    drop(bytes);
    let mut left = load::MAX_BYTES;
    for name in external {
        let data = repository.sibling(&network.path, &name);
        let data = data.ok_or_else(|| wrong(format!("{} needs the file {name}, which is missing", network.path)))?;
        let to = get(data, left)?;
        left = left.saturating_sub(fs::metadata(to)?.len());
    }
    let mut described = Described::default();
    for (name, add) in [
        ("config.json", Described::add_config as fn(&mut Described, &[u8]) -> Result<(), String>),
        ("preprocessor_config.json", Described::add_processor),
    ] {
        let Some(config) = repository.beside(&network.path, name) else { continue };
        let bytes = fs::read(get(config, MAX_CONFIG_BYTES)?)?;
        add(&mut described, &bytes).map_err(|why| wrong(format!("{}: {why}", config.path)))?;
    }
    let facts = facts(described, &repository, address.at(&repository.commit, &network.path));
    Ok(Fetched { file, facts })
}

fn facts(described: Described, repository: &Repository, source: HubAddress) -> Facts {
    let Described { architecture, size, preprocessing, mut classes, class_count } = described;
    // timm leaves out the names of its most common classes.
    if classes.is_empty() && architecture.is_some() && class_count == Some(1000) {
        classes = imagenet_classes();
    }
    Facts { source: source.to_string(), licence: repository.licence.clone(), size, preprocessing, classes }
}

/// The folder `name` in `folder`, without all other contents of `folder`.
fn kept_only(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    let own = folder.join(name);
    fs::create_dir_all(&own)?;
    let others: BTreeSet<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    for other in others.into_iter().filter(|other| *other != own) {
        if other.is_dir() { fs::remove_dir_all(other)? } else { fs::remove_file(other)? }
    }
    Ok(own)
}
