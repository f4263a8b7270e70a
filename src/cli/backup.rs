//! `proxygrad backup`: copies a data directory.

use std::path::PathBuf;

use anyhow::Context;
use proxygrad_server::config::StorageOptions;
use proxygrad_server::jobs::back_up;

/// Arguments of `proxygrad backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    #[command(flatten)]
    storage: StorageOptions,

    /// Directory for the copy; must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Backup {
    /// Copies the data directory and prints a summary of the copy.
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let data_dir = &self.storage.data_dir;
        let backup = runtime.block_on(back_up(data_dir, &self.output));
        let backup = backup.with_context(|| format!("cannot back up {}", data_dir.display()))?;
        for png in &backup.missing {
            eprintln!("warning: {} is missing in {}", png.display(), data_dir.display());
        }
        println!(
            "{}: jobs: {}, studies: {}, trainings: {}, other files: {} ({} bytes)",
            self.output.display(),
            backup.jobs,
            backup.studies,
            backup.trainings,
            backup.files,
            backup.bytes
        );
        Ok(())
    }
}
