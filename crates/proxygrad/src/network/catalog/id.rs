//! Model ids: syntax, and suggestions from file names.

use crate::Invalid;

/// Longest id, in characters.
const MAX_LENGTH: usize = 64;

/// Checks a model id: `[a-z0-9][a-z0-9._-]{0,63}`. Such an id is safe as a folder name: it contains no separator, is
/// never `.` or `..`, and does not depend on case.
///
/// # Errors
/// When the id does not match.
pub fn check_id(id: &str) -> Result<(), Invalid> {
    let starts = id.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && id.len() <= MAX_LENGTH && id.chars().all(is_allowed) {
        Ok(())
    } else {
        Err(Invalid::new("id", id, "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"))
    }
}

/// Derives an id from a file name: `My Net (v2)` becomes `my-net-v2`.
pub(super) fn suggest_id(name: &str) -> String {
    let mut id = String::new();
    for c in name.to_lowercase().chars() {
        if is_allowed(c) && (!id.is_empty() || c.is_ascii_alphanumeric()) {
            id.push(c);
        } else if !id.is_empty() && !id.ends_with('-') {
            id.push('-');
        }
    }
    id.truncate(MAX_LENGTH);
    id.trim_end_matches(['-', '.', '_']).to_owned()
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_names_of_folders() {
        for good in ["efficientnet-lite0", "squeezenet1.1", "0", "a_b", &"x".repeat(64)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".locks", "-x", "a/b", "a\\b", "../etc", "Net", "a b", "a\0", "ä", &"x".repeat(65)]
        {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_files_suggest_ids() {
        for (name, id) in [("ResNet50", "resnet50"), ("My Net (v2)", "my-net-v2"), ("..x..", "x"), ("网络", "")] {
            assert_eq!(suggest_id(name), id);
        }
        assert!(check_id(&suggest_id(&"Long name ".repeat(20))).is_ok());
    }
}
