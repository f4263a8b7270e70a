//! `include=png`: job documents with embedded images.

use super::document::JobDocument;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::QueryParams;
use crate::api::problem::Problem;
use crate::jobs::Job;

/// Whether a job document links to the images or embeds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    /// Paths to the images.
    Paths,
    /// The images as `data:` URLs.
    Pngs,
}

impl Include {
    /// Removes and returns `include` of the query.
    pub fn take(query: &mut QueryParams) -> Result<Self, Problem> {
        Ok(query.take_choice("include", &[("png", Self::Pngs)])?.unwrap_or(Self::Paths))
    }

    /// The document of a job.
    pub async fn document(self, job: Job, api: &Api, base: &PublicBasePath) -> Result<JobDocument, Problem> {
        match self {
            Self::Paths => Ok(JobDocument::new(job, base)),
            Self::Pngs => JobDocument::with_pngs(job, api, base).await,
        }
    }
}
