//! Names that are near a mistyped one.

use crate::text::distance;

/// Names shown of those that are near.
const SHOWN: usize = 5;
/// Longest name that is compared letter by letter, in characters.
const LONGEST: usize = 64;

/// The names that contain `wanted` or are contained in it, then those that few changed letters make of it (a third of
/// them at most), nearest first; upper and lower case count alike.
pub(super) fn near<'n>(names: impl Iterator<Item = &'n str>, wanted: &str) -> Vec<&'n str> {
    let wanted = wanted.to_lowercase();
    let short = wanted.chars().nth(LONGEST).is_none();
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let lowered = name.to_lowercase();
            let part = !wanted.is_empty() && lowered.contains(&wanted);
            let whole = !lowered.is_empty() && wanted.contains(&lowered);
            let comparable = short && lowered.chars().nth(LONGEST).is_none();
            let distance = if comparable { distance(&wanted, &lowered) } else { usize::MAX };
            match (part || whole, distance <= wanted.chars().count() / 3) {
                (true, _) => Some((0, name)),
                (false, true) => Some((distance, name)),
                (false, false) => None,
            }
        })
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}
