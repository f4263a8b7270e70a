//! `proxygrad backup`

use std::path::PathBuf;

use anyhow::Context;
use proxygrad_server::config::StorageOptions;
use proxygrad_server::jobs::back_up;

/// `proxygrad backup`
#[derive(Debug, clap::Args)]
pub struct Backup {
    #[command(flatten)]
    storage: StorageOptions,

    /// Folder for the copy: one that does not exist yet, or is empty.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

impl Backup {
    /// Copies the data directory, and says what the copy holds.
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let data_dir = &self.storage.data_dir;
        let backup = runtime.block_on(back_up(data_dir, &self.output));
        let backup = backup.with_context(|| format!("{} was not backed up", data_dir.display()))?;
        for png in &backup.missing {
            eprintln!("warning: {} is missing in {}", png.display(), data_dir.display());
        }
        println!(
            "{}: jobs: {}, studies: {}, files beside the database: {} ({} bytes)",
            self.output.display(),
            backup.jobs,
            backup.studies,
            backup.files,
            backup.bytes
        );
        Ok(())
    }
}
