//! How much memory a run may take, and how much there is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::quantity;

/// Bounds on memory.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MemoryOptions {
    /// Most memory of a run, in bytes such as 512MiB or 4GiB, at least 64MiB: requests whose estimate is above it are
    /// refused, and batches are made no larger than fit. `auto` is 2GiB, or half of the memory that the process may use,
    /// its control group's limit considered, where that is less. On a GPU it bounds the card's memory. Each device runs
    /// one batch at a time. Results do not depend on it.
    #[arg(long, env = "PROXYGRAD_MAX_RUN_MEMORY", value_name = "BYTES", default_value = "auto")]
    #[arg(value_parser = RunMemory::from_str, help_heading = "Memory")]
    pub max_run_memory: RunMemory,
}

impl MemoryOptions {
    /// The bound in bytes.
    pub fn run_bytes(&self) -> u64 {
        match self.max_run_memory {
            RunMemory::Auto => machine_memory().map_or(USUAL, |bytes| (bytes / 2).min(USUAL)),
            RunMemory::Bytes(bytes) => bytes,
        }
    }
}

/// A bound on the memory of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMemory {
    /// What suits the machine.
    Auto,
    /// So many bytes.
    Bytes(u64),
}

/// What `auto` is on a machine with plenty of memory.
const USUAL: u64 = 2 << 30;
/// Least bound that can be given.
const LEAST: usize = 64 << 20;

impl FromStr for RunMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "auto" {
            return Ok(Self::Auto);
        }
        let bytes = quantity::bytes(LEAST, usize::MAX)(text);
        bytes
            .map(|bytes| Self::Bytes(bytes as u64))
            .map_err(|_| format!("expected auto, or a size from {LEAST} bytes on, such as 512MiB or 4GiB"))
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

/// Bytes of memory that this process may use: the machine's, or the least limit of its control groups. Nothing where the
/// system does not tell.
fn machine_memory() -> Option<u64> {
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

/// The files with the memory limits of the control groups that `/proc/self/cgroup` names, and of all groups that these lie
/// in, of both versions. In a container its own group may appear as the root.
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
    fn a_bound_is_a_size_or_left_to_the_machine() {
        for (text, bytes) in [("64MiB", 64 << 20), ("4GiB", 4 << 30), ("100000000", 100_000_000)] {
            assert_eq!(text.parse(), Ok(RunMemory::Bytes(bytes)), "{text}");
        }
        assert_eq!("auto".parse(), Ok(RunMemory::Auto));
        for text in ["", "63MiB", "0", "2GB", "-1", "half", "99999999999GiB"] {
            assert!(text.parse::<RunMemory>().unwrap_err().contains("such as 512MiB"), "{text}");
        }
        let auto = MemoryOptions { max_run_memory: RunMemory::Auto }.run_bytes();
        assert!(auto > 0 && auto <= USUAL, "{auto}");
    }

    #[test]
    fn limits_of_all_groups_around_the_process_count() {
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
