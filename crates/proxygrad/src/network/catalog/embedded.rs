//! The model that is part of the program.

use super::manifest::{Manifest, ManifestError};

/// Id of the embedded model.
pub(super) const ID: &str = "fashion-resnet8";

/// Its weight file.
pub(super) const WEIGHTS: &[u8] = include_bytes!("../../../assets/fashion-resnet8/model.onnx");

/// Its manifest.
pub(super) fn manifest() -> Result<Manifest, ManifestError> {
    Manifest::parse(include_str!("../../../assets/fashion-resnet8/model.toml"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::load::{Weights, assemble};
    use super::*;
    use crate::network::onnx::ExternalData;

    #[test]
    fn the_manifest_describes_the_embedded_weights() {
        let manifest = manifest().unwrap();
        assert_eq!(manifest.id.as_deref(), Some(ID));
        let weights = Weights { bytes: WEIGHTS.into(), external: ExternalData::default() };
        let model = assemble(ID, &manifest, &weights, vec![], None).unwrap();
        assert_eq!(model.network.input_shape()[..], [1, 28, 28]);
    }
}
