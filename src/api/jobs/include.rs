//! `include=png`: answers that hold their images.

use super::document::JobDocument;
use crate::api::Api;
use crate::api::base_path::PublicBasePath;
use crate::api::parameters::QueryParams;
use crate::api::problem::Problem;
use crate::jobs::Job;

/// What an answer holds beside the job itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    /// Paths to the images.
    Paths,
    /// The images as `data:` URLs.
    Pngs,
}

impl Include {
    /// Takes `include` out of the query.
    pub fn take(query: &mut QueryParams) -> Result<Self, Problem> {
        Ok(query.take_choice("include", &[("png", Self::Pngs)])?.unwrap_or(Self::Paths))
    }

    /// The job, shown as asked for.
    pub async fn show(self, job: Job, api: &Api, base: &PublicBasePath) -> Result<JobDocument, Problem> {
        match self {
            Self::Paths => Ok(JobDocument::new(job, base)),
            Self::Pngs => JobDocument::with_pngs(job, api, base).await,
        }
    }
}
