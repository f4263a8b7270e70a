//! Summary as JSON and CSV.

use std::path::Path;

use super::types::Summary;
use crate::report::csv;
use crate::study::error::StudyError;
use crate::study::json::pretty;

impl Summary {
    /// The summary without single runs as JSON, the content of `summary.json`.
    ///
    /// # Errors
    /// If a number cannot be written.
    pub fn to_json(&self) -> Result<String, StudyError> {
        pretty(self, Path::new("summary.json"))
    }

    /// The arms of every section as CSV, the content of `summary.csv`.
    pub fn to_csv(&self) -> String {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.6}"));
        let head = [
            "model",
            "method",
            "layer",
            "arm",
            "units",
            "live_units",
            "mixed_units",
            "dead_units",
            "runs",
            "dead_runs",
            "needlessly_dead_runs",
            "rescued_runs",
            "of_runs_dead_under_reference",
            "wins",
            "ties",
            "losses",
            "rated_units",
            "median_ratio",
            "ratio_low_95",
            "ratio_high_95",
            "least_ratio",
            "p_live",
            "p_all",
            "median_score",
            "share_to_90",
            "share_to_99",
            "passes",
            "seconds",
        ];
        let mut text = csv::line(head);
        for table in &self.tables {
            for section in &table.sections {
                for arm in &section.arms {
                    let paired = &arm.versus_reference;
                    text += &csv::line([
                        table.model.clone(),
                        table.method.clone(),
                        section.layer.clone().unwrap_or_else(|| "all".into()),
                        arm.arm.clone(),
                        section.units.to_string(),
                        section.live.to_string(),
                        section.mixed.to_string(),
                        section.dead.to_string(),
                        arm.runs.to_string(),
                        arm.dead.to_string(),
                        arm.needlessly_dead.to_string(),
                        arm.rescued[0].to_string(),
                        arm.rescued[1].to_string(),
                        paired.wins.to_string(),
                        paired.ties.to_string(),
                        paired.losses.to_string(),
                        paired.rated.to_string(),
                        number(paired.median_ratio),
                        number(paired.interval.map(|interval| interval[0])),
                        number(paired.interval.map(|interval| interval[1])),
                        number(paired.low_ratios.map(|low| low[0])),
                        paired.p_live.map_or_else(String::new, |p| format!("{p:.3e}")),
                        paired.p_all.map_or_else(String::new, |p| format!("{p:.3e}")),
                        number(arm.median_score),
                        number(arm.share_to_90),
                        number(arm.share_to_99),
                        number(arm.passes),
                        number(arm.seconds),
                    ]);
                }
            }
        }
        text
    }
}
