//! Report of a study: `summary.csv`, `summary.json`, the self-contained page `report.html`, `report.md` with its
//! `figures`, and `gallery.md` with all units whose images are kept.

mod contact_sheet;
mod exhibits;
mod gallery;
mod images;
mod markdown;
mod page;
mod plots;
mod readability;
mod sections;

use super::error::StudyError;
use super::folder::Folder;
use super::summary::{ComparisonOptions, Summary, summarize};
use super::toy;
use crate::Invalid;

/// Summarizes the runs in a folder.
///
/// # Errors
/// If the folder holds no study, or the options name an arm that the study does not have.
pub fn summary(folder: &Folder, options: Option<&ComparisonOptions>) -> Result<Summary, StudyError> {
    let plan = planned(folder)?;
    let defaults = ComparisonOptions::for_arms(&plan.arms);
    let toys = toy::rows(folder)?.unwrap_or_default();
    Ok(summarize(&plan, &folder.rows()?, &toys, options.unwrap_or(&defaults))?)
}

/// Writes the summary, the page, the Markdown report with its figures and the gallery into the folder.
///
/// # Errors
/// If the folder holds no study or cannot be written.
pub fn report(folder: &Folder, summary: &Summary) -> Result<(), StudyError> {
    let plan = planned(folder)?;
    folder.write("summary.csv", summary.to_csv().as_bytes())?;
    folder.write("summary.json", summary.to_json()?.as_bytes())?;
    markdown::write(folder, &plan, summary)?;
    contact_sheet::write(folder, &plan, summary)?;
    folder.write("report.html", page::page(folder, &plan, summary).as_bytes())
}

/// The report page, without writing it.
///
/// # Errors
/// If the folder holds no study.
pub fn page(folder: &Folder, summary: &Summary) -> Result<String, StudyError> {
    Ok(page::page(folder, &planned(folder)?, summary))
}

fn planned(folder: &Folder) -> Result<super::plan::types::Plan, StudyError> {
    let none = || Invalid::new("out", folder.file("").display(), "the folder of a study, with its plan.json");
    Ok(folder.plan()?.ok_or_else(none)?)
}
