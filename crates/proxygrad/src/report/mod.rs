//! Building blocks of reports: HTML, Markdown, drawings, charts and CSV.

pub(crate) mod chart;
pub(crate) mod csv;
pub(crate) mod html;
pub(crate) mod markdown;
pub(crate) mod svg;
