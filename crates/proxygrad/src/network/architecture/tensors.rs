//! Names and shapes of the tensors of a state dict, and how they differ from those that an architecture needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::weights::Tensor;

/// Shapes of the tensors of a state dict, by name.
pub type TensorShapes = BTreeMap<String, Vec<usize>>;

/// Largest number of names that a message lists.
const MAX_NAMES: usize = 4;

/// How the tensors of a state dict differ from those that an architecture needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// Names of tensors that are missing.
    pub missing: Vec<String>,
    /// Names, found and expected shapes of tensors that have another shape.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Names of tensors that the architecture does not have.
    pub unexpected: Vec<String>,
}

impl Differences {
    pub(super) fn between<'t>(needed: impl Iterator<Item = &'t Tensor>, given: &TensorShapes) -> Self {
        let mut differences = Self::default();
        let mut rest: BTreeMap<&str, ()> = given.keys().map(|name| (name.as_str(), ())).collect();
        for tensor in needed {
            rest.remove(tensor.name.as_str());
            match given.get(&tensor.name) {
                None => differences.missing.push(tensor.name.clone()),
                Some(shape) if tensor.fits(shape) => {}
                Some(shape) => {
                    differences.misshapen.push((tensor.name.clone(), shape.clone(), tensor.shape.clone()));
                }
            }
        }
        differences.unexpected = rest.into_keys().map(str::to_owned).collect();
        differences
    }

    /// Number of tensors that differ.
    pub fn len(&self) -> usize {
        self.missing.len() + self.misshapen.len() + self.unexpected.len()
    }

    /// Whether the tensors are exactly those that the architecture needs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |(name, found, expected): &(String, Vec<usize>, Vec<usize>)| {
            format!("{name} of shape {found:?} instead of {expected:?}")
        };
        let misshapen: Vec<String> = self.misshapen.iter().map(shape).collect();
        let mut parts = Vec::new();
        for (what, names) in
            [("has no tensor ", &self.missing), ("has ", &misshapen), ("has unexpected tensors ", &self.unexpected)]
        {
            let more = match names.len().saturating_sub(MAX_NAMES) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            if !names.is_empty() {
                parts.push(format!("{what}{}{more}", names[..names.len().min(MAX_NAMES)].join(", ")));
            }
        }
        f.write_str(&parts.join("; "))
    }
}

/// The name that the current release of torchvision or timm gives a tensor; `None` for tensors that no network needs to
/// predict.
pub(super) fn canonical(name: &str) -> Option<Cow<'_, str>> {
    if name.ends_with("num_batches_tracked") || name == "mask_token" {
        return None;
    }
    // From a network within DataParallel.
    let name = name.strip_prefix("module.").unwrap_or(name);
    // Published weights of torchvision that are older than its module names.
    let old = [("norm.1.", "norm1."), ("norm.2.", "norm2."), ("conv.1.", "conv1."), ("conv.2.", "conv2.")];
    if name.contains(".denselayer") {
        let renamed = old.iter().find_map(|(from, to)| {
            let at = name.find(&format!(".{from}"))?;
            Some(format!("{}{to}{}", &name[..=at], &name[at + 1 + from.len()..]))
        });
        return Some(renamed.map_or(Cow::Borrowed(name), Cow::Owned));
    }
    for (from, to) in [(".mlp.linear_1.", ".mlp.0."), (".mlp.linear_2.", ".mlp.3.")] {
        if name.starts_with("encoder.layers.") && name.contains(from) {
            return Some(Cow::Owned(name.replace(from, to)));
        }
    }
    Some(Cow::Borrowed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_old_files_become_those_of_today() {
        for (old, new) in [
            ("features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.norm1.weight"),
            ("features.denseblock1.denselayer2.conv.2.weight", "features.denseblock1.denselayer2.conv2.weight"),
            ("features.denseblock1.denselayer2.conv2.weight", "features.denseblock1.denselayer2.conv2.weight"),
            ("features.transition1.norm.weight", "features.transition1.norm.weight"),
            ("encoder.layers.encoder_layer_3.mlp.linear_2.bias", "encoder.layers.encoder_layer_3.mlp.3.bias"),
            ("module.layer1.0.conv1.weight", "layer1.0.conv1.weight"),
        ] {
            assert_eq!(canonical(old).as_deref(), Some(new));
        }
        for counter in ["bn1.num_batches_tracked", "mask_token"] {
            assert_eq!(canonical(counter), None);
        }
    }

    #[test]
    fn differences_are_listed_shortly() {
        let needed: Vec<Tensor> = (0..6).map(|i| Tensor::new(format!("t{i}"), [i + 1])).collect();
        let given = [("t0".to_owned(), vec![7]), ("x".to_owned(), vec![1])].into_iter().collect();
        let differences = Differences::between(needed.iter(), &given);
        assert_eq!(differences.len(), 7);
        assert_eq!(
            differences.to_string(),
            "has no tensor t1, t2, t3, t4 and 1 more; has t0 of shape [7] instead of [1]; has unexpected tensors x"
        );
    }
}
