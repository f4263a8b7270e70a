//! Lookup of classes by name.

use super::similar_names::similar_names;
use crate::Invalid;

/// Index of the class with this name; case-insensitive.
///
/// # Errors
/// An [`Invalid`] `class` with similar names, or with the indices if several classes have the name.
pub(super) fn find(classes: &[String], wanted: &str) -> Result<usize, Invalid> {
    let lowered = wanted.to_lowercase();
    let found: Vec<usize> =
        classes.iter().enumerate().filter(|(_, name)| name.to_lowercase() == lowered).map(|(i, _)| i).collect();
    match found.as_slice() {
        [index] => Ok(*index),
        [] => Err(Invalid::new("class", wanted, expected(classes, &lowered))),
        several => {
            let indices: Vec<String> = several.iter().map(usize::to_string).collect();
            Err(Invalid::new("class", wanted, format!("an index: classes {} have this name", indices.join(" and "))))
        }
    }
}

/// What was expected instead of an unknown class name, with suggestions.
fn expected(classes: &[String], wanted: &str) -> String {
    let shown = similar_names(classes.iter().map(String::as_str), wanted);
    match (shown.is_empty(), classes.first()) {
        (false, _) => format!("one of the model's {} classes, such as {}", classes.len(), shown.join(", ")),
        (true, Some(first)) => format!("one of the model's {} classes, such as {first}", classes.len()),
        (true, None) => "an index: this model's classes have no names".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn classes() -> Vec<String> {
        ["tench", "Great White Shark", "banana", "missile", "bandana", "Missile"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_class_is_found_in_upper_and_lower_case() {
        for (name, index) in [("banana", 2), ("BANANA", 2), ("great white shark", 1)] {
            assert_eq!(find(&classes(), name), Ok(index));
        }
    }

    #[test]
    fn a_name_that_several_classes_have_is_answered_with_their_indices() {
        let error = find(&classes(), "missile").unwrap_err();
        assert_eq!((error.field.as_str(), error.value.as_str()), ("class", "missile"));
        assert!(error.expected.contains("3 and 5"), "{error}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_similar_names() {
        for (name, near) in [("shark", "Great White Shark"), ("bananna", "banana, bandana"), ("xyz", "tench")] {
            let error = find(&classes(), name).unwrap_err();
            assert!(error.expected.ends_with(&format!("such as {near}")), "{error}");
        }
        let long = "x".repeat(100_000);
        assert!(find(&classes(), &long).unwrap_err().to_string().len() < 500);
        assert!(find(&[], "banana").unwrap_err().expected.contains("no names"));
    }
}
