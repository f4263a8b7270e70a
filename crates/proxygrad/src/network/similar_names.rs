//! Suggestions for mistyped names.

use crate::text::distance;

/// Maximum number of suggestions.
const MAX_SUGGESTIONS: usize = 5;
/// Longest name that is compared by edit distance, in characters.
const MAX_LENGTH: usize = 64;

/// The names that contain `wanted` or are contained in it, then those within an edit distance of a third of its
/// letters, closest first; case-insensitive.
pub(super) fn similar_names<'n>(names: impl Iterator<Item = &'n str>, wanted: &str) -> Vec<&'n str> {
    let wanted = wanted.to_lowercase();
    let short = wanted.chars().nth(MAX_LENGTH).is_none();
    let mut similar: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lowered = name.to_lowercase();
            let part = !wanted.is_empty() && lowered.contains(&wanted);
            let whole = !lowered.is_empty() && wanted.contains(&lowered);
            let comparable = short && lowered.chars().nth(MAX_LENGTH).is_none();
            let distance = if comparable { distance(&wanted, &lowered) } else { usize::MAX };
            match (part || whole, distance <= wanted.chars().count() / 3) {
                (true, _) => Some((0, name)),
                (false, true) => Some((distance, name)),
                (false, false) => None,
            }
        })
        .collect();
    similar.sort_by_key(|(distance, _)| *distance);
    similar.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
}
