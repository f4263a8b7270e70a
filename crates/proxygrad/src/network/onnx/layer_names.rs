//! Layer names: derived from names in the file, and made unique.

use std::collections::HashMap;

/// Longest layer name, in characters.
pub(super) const LONGEST_NAME: usize = 200;

/// Assigns every layer a unique name.
#[derive(Debug)]
pub(super) struct UniqueNames {
    /// How often each name was requested.
    taken: HashMap<String, usize>,
}

impl UniqueNames {
    /// Assigns names that differ from the `reserved` ones.
    pub fn new<'a>(reserved: impl IntoIterator<Item = &'a str>) -> Self {
        Self { taken: reserved.into_iter().map(|name| (name.to_owned(), 1)).collect() }
    }

    /// A free name: `wanted` itself, or `wanted` followed by `_2`, `_3` ...
    pub fn claim(&mut self, wanted: &str) -> String {
        let wanted = layer_name(wanted);
        let mut count = self.taken.get(&wanted).copied().unwrap_or(0) + 1;
        let mut name = wanted.clone();
        while count > 1 {
            name = format!("{wanted}_{count}");
            if !self.taken.contains_key(&name) {
                break;
            }
            count += 1;
        }
        self.taken.insert(name.clone(), 1);
        self.taken.insert(wanted, count);
        name
    }
}

/// A name as units can refer to it: without the leading slash, and without the characters that end a layer's name in
/// the string form of a unit.
pub(super) fn layer_name(name: &str) -> String {
    let clean = |c: char| if matches!(c, ':' | '@') || c.is_control() { '_' } else { c };
    let name: String = name.trim_start_matches('/').chars().take(LONGEST_NAME).map(clean).collect();
    if name.is_empty() { "layer".into() } else { name }
}
