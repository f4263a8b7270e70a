//! Folder of datasets: clients name a dataset relative to it, and no name leads out of it.

use std::path::{Component, Path, PathBuf};

use super::DataError;
use crate::Invalid;

/// A folder whose entries, folders and numpy archives, are datasets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetRoot {
    /// Without symbolic links.
    path: PathBuf,
}

/// Levels of folders below a dataset that are looked into.
const DEPTH: usize = 16;

impl DatasetRoot {
    /// The folder at `path`.
    ///
    /// # Errors
    /// When it is not a folder that can be read.
    pub fn new(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        std::fs::read_dir(&path)?;
        Ok(Self { path })
    }

    /// The dataset called `name`: a path of plain names below the folder, such as `fashion-mnist` or `colour/emoji`.
    ///
    /// # Errors
    /// When there is none, or the name leads out of the folder, be it by `..`, as an absolute path or through a symbolic
    /// link. The error's field is `dataset`, and does not tell what is outside.
    pub fn find(&self, name: &str) -> Result<PathBuf, Invalid> {
        let wrong = |expected: &str| Invalid::new("dataset", name, expected);
        if name.is_empty() {
            return Err(Invalid::missing("dataset", "fashion-mnist"));
        }
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        // A backslash separates on some systems only, and a name should mean the same everywhere.
        if name.contains(['\\', '\0']) || !Path::new(name).components().all(is_plain) {
            return Err(wrong("a path of plain names below the server's folder of datasets, such as fashion-mnist"));
        }
        match self.path.join(name).canonicalize() {
            Ok(path) if path != self.path && path.starts_with(&self.path) => Ok(path),
            _ => Err(wrong("a dataset in the server's folder of datasets")),
        }
    }

    /// A path as clients may see it: relative to the folder, if it is below it.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).unwrap_or(path)
    }

    /// Checks that no symbolic link below the dataset at `path` leads out of the folder or in a circle.
    ///
    /// # Errors
    /// When one does, or a folder cannot be read.
    pub fn check_links(&self, path: &Path) -> Result<(), DataError> {
        self.check_below(path, &mut Vec::new())
    }

    /// `above` are the folders, without symbolic links, through which `path` was reached.
    fn check_below(&self, path: &Path, above: &mut Vec<PathBuf>) -> Result<(), DataError> {
        let failed = |why: std::io::Error| DataError::new(path, why.to_string());
        let real = path.canonicalize().map_err(failed)?;
        if !real.is_dir() {
            return Ok(());
        }
        if above.contains(&real) || above.len() == DEPTH {
            return Err(DataError::new(path, format!("leads in a circle, or lies more than {DEPTH} folders deep")));
        }
        above.push(real);
        for entry in std::fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_symlink() && !entry.path().canonicalize().is_ok_and(|target| target.starts_with(&self.path)) {
                let why = "is a symbolic link that leads out of the folder of datasets, or nowhere";
                return Err(DataError::new(entry.path(), why));
            }
            if kind.is_dir() || kind.is_symlink() {
                self.check_below(&entry.path(), above)?;
            }
        }
        above.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_lead_to_datasets_and_never_out_of_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let (root, secret) = (outer.path().join("datasets"), outer.path().join("secret"));
        for folder in ["a/b", "a/images"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::create_dir_all(&secret).unwrap();
        std::fs::write(secret.join("x.png"), b"").unwrap();
        let datasets = DatasetRoot::new(&root).unwrap();
        for name in ["a", "a/b", "a//b", "a/./b"] {
            let found = datasets.find(name).unwrap();
            assert!(found.starts_with(root.canonicalize().unwrap()), "{name}");
            datasets.check_links(&found).unwrap();
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&secret, root.join("link")).unwrap();
            std::os::unix::fs::symlink(secret.join("x.png"), root.join("a/images/x.png")).unwrap();
            std::os::unix::fs::symlink(root.join("a/b"), root.join("inside")).unwrap();
            assert!(datasets.find("inside").is_ok(), "a link within the folder");
            let refused = datasets.check_links(&datasets.find("a").unwrap()).unwrap_err();
            assert!(refused.to_string().contains("x.png"), "{refused}");
        }
        let absolute = secret.to_str().unwrap().to_owned();
        for name in
            ["", ".", "..", "../secret", "a/../../secret", "/", &absolute, "link", "link/x.png", "none", "a\\b", "a\0b"]
        {
            assert_eq!(datasets.find(name).unwrap_err().field, "dataset", "{name:?}");
        }
        assert!(DatasetRoot::new(&root.join("none")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("a"), folder.path().join("a/again")).unwrap();
        let datasets = DatasetRoot::new(folder.path()).unwrap();
        assert!(datasets.check_links(&datasets.find("a").unwrap()).unwrap_err().why.contains("circle"));
    }
}
