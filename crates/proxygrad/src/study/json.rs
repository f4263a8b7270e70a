//! Documents of a study as indented JSON.

use std::path::Path;

use super::error::StudyError;

/// A document as indented JSON with a final line feed; `path` is the file that an error names.
pub(super) fn pretty(document: &impl serde::Serialize, path: &Path) -> Result<String, StudyError> {
    serde_json::to_string_pretty(document).map(|text| text + "\n").map_err(|error| StudyError::broken(path, error))
}
