//! Search for image files in a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// File extensions of images, in lower case.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// The PNG and JPEG files in `root` and its subfolders, by extension: paths relative to `root`, sorted so that the
/// order is the same on every system.
///
/// # Errors
/// When a folder cannot be read.
pub fn images_in(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    // Symbolic links may form cycles.
    let mut seen = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let there = root.join(&folder);
        if !seen.insert(fs::canonicalize(&there)?) {
            continue;
        }
        for entry in fs::read_dir(&there)? {
            let name = folder.join(entry?.file_name());
            let path = root.join(&name);
            if path.is_dir() {
                waiting.push(name);
            } else if is_image(&path) {
                images.push(name);
            }
        }
    }
    images.sort();
    Ok(images)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn images_are_found_below_and_in_order() {
        let root = tempfile::tempdir().unwrap();
        for file in ["b.PNG", "a/z.jpeg", "a/deep/c.JPG", "notes.txt", "png", "d.gif"] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(root.path(), root.path().join("a/round")).unwrap();
        let found: Vec<String> =
            images_in(root.path()).unwrap().iter().map(|path| path.to_string_lossy().into_owned()).collect();
        assert_eq!(found, ["a/deep/c.JPG", "a/z.jpeg", "b.PNG"]);
        assert!(images_in(&root.path().join("nowhere")).is_err());
    }
}
