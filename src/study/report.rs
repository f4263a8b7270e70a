//! The files that tell what a study found: `summary.csv`, `summary.json`.

use super::error::StudyError;
use super::folder::{Folder, pretty};
use super::summary::{Summary, View, summarize};
use super::toy;
use crate::Invalid;

/// Makes the summary of the runs that the folder has, and writes it there.
///
/// # Errors
/// When the folder holds no study, or the view names an arm that the study does not have.
pub fn report(folder: &Folder, view: Option<&View>) -> Result<Summary, StudyError> {
    let plan = folder
        .plan()?
        .ok_or_else(|| Invalid::new("out", folder.file("").display(), "the folder of a study, with its plan.json"))?;
    let usual = View::of(&plan.arms);
    let summary = summarize(&plan, &folder.rows()?, &toy::rows(folder)?.unwrap_or_default(), view.unwrap_or(&usual))?;
    folder.write("summary.csv", summary.to_csv().as_bytes())?;
    folder.write("summary.json", pretty(&summary, &folder.file("summary.json"))?.as_bytes())?;
    Ok(summary)
}
