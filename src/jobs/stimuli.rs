//! PNGs of stimuli and animations in an object store: `{job}/{sha256}.png`.
//!
//! Objects are content-addressed, so a repeated or late write stores the same bytes. They are written before the row of
//! their job becomes `succeeded`. Objects of an interrupted run are removed when the job is deleted; objects of jobs
//! that are not in the database are kept.

use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::StoreError;

/// The PNGs of all jobs.
#[derive(Debug, Clone)]
pub(super) struct Stimuli {
    objects: Arc<dyn ObjectStore>,
}

impl Stimuli {
    /// PNGs in an existing local folder. Writes are atomic, and flushed to the disk when they return.
    pub(super) fn in_folder(folder: &FilePath) -> Result<Self, StoreError> {
        let objects = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true).with_fsync(true);
        Ok(Self { objects: Arc::new(objects) })
    }

    /// Writes a PNG and returns its SHA-256 in lower-case hexadecimal.
    pub(super) async fn put(&self, job: Uuid, png: &[u8]) -> Result<String, StoreError> {
        let sha256 = digest(png);
        self.objects.put(&path(job, &sha256), Bytes::copy_from_slice(png).into()).await?;
        Ok(sha256)
    }

    /// Reads a PNG and verifies its digest.
    pub(super) async fn get(&self, job: Uuid, sha256: &str) -> Result<Bytes, StoreError> {
        let lost = |why| StoreError::Lost { id: job, file: format!("{sha256}.png"), why };
        let png = match self.objects.get(&path(job, sha256)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(lost("is missing")),
            Err(error) => return Err(error.into()),
        };
        match digest(&png) == sha256 {
            true => Ok(png),
            false => Err(lost("has changed")),
        }
    }

    /// Removes all objects of a job, if there are any.
    pub(super) async fn remove(&self, job: Uuid) -> Result<(), StoreError> {
        let folder = Path::from(job.to_string());
        let found: Vec<_> = self.objects.list(Some(&folder)).try_collect().await?;
        for object in found {
            match self.objects.delete(&object.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn path(job: Uuid, sha256: &str) -> Path {
    Path::from(format!("{job}/{sha256}.png"))
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
