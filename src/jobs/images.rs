//! Client images of jobs: rows written in the same commit as the job, and deleted with it.

use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::error::StoreError;
use super::row;
use super::store::Store;
use proxygrad::maximize::{ReferenceImage, ReferenceImages};

/// Writes the images of a job whose row has been written.
pub(super) async fn insert(
    db: &mut SqliteConnection,
    job: Uuid,
    reference_images: &ReferenceImages,
) -> Result<(), StoreError> {
    for (sha256, reference_image) in reference_images.iter() {
        let insert = sqlx::query("INSERT INTO images (job, sha256, png) VALUES (?, ?, ?)");
        insert.bind(row::key(job)).bind(sha256).bind(reference_image.png()).execute(&mut *db).await?;
    }
    Ok(())
}

impl Store {
    /// The client images of a job; empty if it has none or does not exist.
    ///
    /// # Errors
    /// If the database fails or an image is damaged.
    pub async fn reference_images(&self, job: Uuid) -> Result<ReferenceImages, StoreError> {
        let select = sqlx::query("SELECT sha256, png FROM images WHERE job = ?");
        let mut reference_images = ReferenceImages::default();
        for row in select.bind(row::key(job)).fetch_all(self.readers()).await? {
            let (sha256, png) = (row.try_get::<&str, _>("sha256")?, row.try_get::<&[u8], _>("png")?);
            let damaged = |why: &str| StoreError::Damaged { id: job, why: format!("image {sha256} {why}") };
            let reference_image = ReferenceImage::from_png(png).map_err(|error| damaged(&error.to_string()))?;
            if reference_image.known().sha256 != sha256 {
                return Err(damaged("has changed"));
            }
            reference_images.add(reference_image);
        }
        Ok(reference_images)
    }

    /// The PNG of the client image of a job with this SHA-256.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn image(&self, job: Uuid, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let select = sqlx::query_scalar("SELECT png FROM images WHERE job = ? AND sha256 = ?");
        Ok(select.bind(row::key(job)).bind(sha256).fetch_optional(self.readers()).await?)
    }
}
