//! Memory limit of a run, and the memory available to the process (cgroup limits included).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::quantity;

/// Memory limits.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MemoryOptions {
    /// Memory limit of a run, such as 512MiB or 4GiB (at least 64MiB). Requests with a higher estimate are rejected,
    /// and batches are reduced to fit. `auto` is 2GiB, or half of the memory available to the process (including cgroup
    /// limits) if that is less. On a GPU it limits device memory. Each device runs one batch at a time. Does not affect
    /// results.
    #[arg(long, env = "PROXYGRAD_MAX_RUN_MEMORY", value_name = "BYTES", default_value = "auto")]
    #[arg(value_parser = RunMemory::from_str, help_heading = "Memory")]
    pub max_run_memory: RunMemory,
}

impl MemoryOptions {
    /// The limit in bytes.
    pub fn run_bytes(&self) -> u64 {
        match self.max_run_memory {
            RunMemory::Auto => available_memory().map_or(DEFAULT_MAX, |bytes| (bytes / 2).min(DEFAULT_MAX)),
            RunMemory::Bytes(bytes) => bytes,
        }
    }
}

/// Memory limit of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMemory {
    /// Depends on the available memory.
    Auto,
    /// A number of bytes.
    Bytes(u64),
}

/// Upper bound of `auto`, in bytes.
const DEFAULT_MAX: u64 = 2 << 30;
/// Smallest allowed limit, in bytes.
const MIN: usize = 64 << 20;

impl FromStr for RunMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        let bytes = quantity::bytes(MIN, usize::MAX)(text);
        bytes
            .map(|bytes| Self::Bytes(bytes as u64))
            .map_err(|_| format!("expected auto, or a size of at least {MIN} bytes, such as 512MiB or 4GiB"))
    }
}

impl fmt::Display for RunMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Memory available to this process in bytes: the machine's total or the lowest limit of its control groups. `None` if
/// unknown.
fn available_memory() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let total = read(Path::new("/proc/meminfo")).as_deref().and_then(total_of);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| read(&file)?.trim().parse::<u64>().ok());
    total.into_iter().chain(limits).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory limit files of the control groups in `/proc/self/cgroup` and of their ancestors, for cgroup v1 and v2. In a
/// container, its own group may appear as the root.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut files = vec![root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let own = path.trim_start_matches('/');
        let above = Path::new(own).ancestors().filter(|group| !group.as_os_str().is_empty());
        files.extend(above.map(|group| root.join(group).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_limit_is_a_size_or_auto() {
        for (text, bytes) in [("64MiB", 64 << 20), ("4GiB", 4 << 30), ("100000000", 100_000_000)] {
            assert_eq!(text.parse(), Ok(RunMemory::Bytes(bytes)), "{text}");
        }
        assert_eq!("auto".parse(), Ok(RunMemory::Auto));
        for text in ["", "63MiB", "0", "2GB", "-1", "half", "99999999999GiB"] {
            assert!(text.parse::<RunMemory>().unwrap_err().contains("such as 512MiB"), "{text}");
        }
        let auto = MemoryOptions { max_run_memory: RunMemory::Auto }.run_bytes();
        assert!(auto > 0 && auto <= DEFAULT_MAX, "{auto}");
    }

    #[test]
    fn limits_of_all_ancestor_groups_count() {
        let paths = |groups: &str| -> Vec<String> {
            let files = limit_files(groups).into_iter().skip(2);
            files.map(|file| file.strip_prefix("/sys/fs/cgroup").unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            paths("0::/system.slice/p.service\n"),
            ["system.slice/p.service/memory.max", "system.slice/memory.max"]
        );
        assert_eq!(paths("0::/\n"), [""; 0]);
        let old = "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n";
        assert_eq!(paths(old), ["memory/docker/x/memory.limit_in_bytes", "memory/docker/memory.limit_in_bytes"]);
        assert_eq!(total_of("MemFree: 3 kB\nMemTotal:       16314000 kB\n"), Some(16_314_000 * 1024));
    }
}
