//! Readability of a stimulus: what judges and natural images say about it, as columns of `runs.csv`.

use std::str::FromStr;

use crate::judge::Verdict;

/// Readability of a run's stimulus.
#[derive(Debug, Clone, PartialEq)]
pub struct Readability {
    /// The score in percent of the natural maximum, if the unit is calibrated and the maximum is positive.
    pub percent_of_natural: Option<f32>,
    /// Share of spectral energy at higher frequencies than in natural images.
    pub spectral_excess: Option<f32>,
    /// Its share of the duration of judging its batch, in seconds, natural images included.
    pub seconds: f32,
    /// One verdict per judge, in the order of the plan.
    pub verdicts: Vec<Verdict>,
}

/// Columns besides those of the judges.
const OWN: [&str; 3] = ["percent_of_natural", "spectral_excess", "judging_seconds"];
/// Columns of a judge, each followed by `:ID`.
const OF_JUDGE: [&str; 4] = ["rank", "probability", "affinity", "judge_passes"];

/// Names of the columns for these judges; none without judges.
pub(super) fn head<'a>(judges: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let of_judges: Vec<String> =
        judges.into_iter().flat_map(|judge| OF_JUDGE.map(|column| format!("{column}:{judge}"))).collect();
    let own = OWN.iter().filter(|_| !of_judges.is_empty()).map(|&column| column.to_owned());
    own.chain(of_judges.iter().cloned()).collect()
}

/// The judges whose columns these are; `None` if they are not columns of [`head`].
pub(super) fn judges(columns: &[String]) -> Option<Vec<String>> {
    let first = format!("{}:", OF_JUDGE[0]);
    let judges: Vec<String> =
        columns.iter().filter_map(|column| column.strip_prefix(&first)).map(str::to_owned).collect();
    (head(judges.iter().map(String::as_str)) == columns).then_some(judges)
}

impl Readability {
    /// The cells of its columns.
    pub(super) fn cells(&self) -> Vec<String> {
        fn optional<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let own = [optional(self.percent_of_natural), optional(self.spectral_excess), format!("{:.4}", self.seconds)];
        let of_judge = |verdict: &Verdict| {
            let Verdict { rank, probability, affinity, passes, .. } = verdict;
            [optional(*rank), optional(*probability), optional(*affinity), passes.to_string()]
        };
        own.into_iter().chain(self.verdicts.iter().flat_map(of_judge)).collect()
    }

    /// Reads the cells of the columns for these judges.
    ///
    /// # Errors
    /// Names the invalid cell.
    pub(super) fn read(judges: &[String], cells: &[String]) -> Result<Self, String> {
        let columns = head(judges.iter().map(String::as_str));
        if columns.len() != cells.len() {
            return Err(format!("{} cells of readability, not {}", cells.len(), columns.len()));
        }
        fn value<T: FromStr>(column: &str, cell: &str) -> Result<T, String> {
            cell.parse().map_err(|_| format!("{column}: {cell} is not valid"))
        }
        fn optional<T: FromStr>(column: &str, cell: &str) -> Result<Option<T>, String> {
            if cell.is_empty() { Ok(None) } else { value(column, cell).map(Some) }
        }
        let at = |i: usize| (columns[i].as_str(), cells[i].as_str());
        let of_judge = |(n, judge): (usize, &String)| {
            let [rank, probability, affinity, passes] = [0, 1, 2, 3].map(|i| at(OWN.len() + n * OF_JUDGE.len() + i));
            Ok::<_, String>(Verdict {
                judge: judge.clone(),
                rank: optional(rank.0, rank.1)?,
                probability: optional(probability.0, probability.1)?,
                affinity: optional(affinity.0, affinity.1)?,
                passes: value(passes.0, passes.1)?,
            })
        };
        Ok(Self {
            percent_of_natural: optional(at(0).0, at(0).1)?,
            spectral_excess: optional(at(1).0, at(1).1)?,
            seconds: value(at(2).0, at(2).1)?,
            verdicts: judges.iter().enumerate().map(of_judge).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn columns_keep_what_judges_said() {
        let verdict = |judge: &str, rank: Option<u32>| Verdict {
            judge: judge.into(),
            rank,
            probability: rank.map(|_| 0.25),
            affinity: Some(0.875),
            passes: 2,
        };
        let readability = Readability {
            percent_of_natural: None,
            spectral_excess: Some(0.125),
            seconds: 1.5,
            verdicts: vec![verdict("a", Some(3)), verdict("b-1.1", None)],
        };
        let names = ["a".to_owned(), "b-1.1".to_owned()];
        let columns = head(names.iter().map(String::as_str));
        assert_eq!(columns[3], "rank:a");
        assert_eq!(judges(&columns).unwrap(), names);
        let cells = readability.cells();
        assert_eq!((cells.len(), columns.len()), (11, 11));
        assert_eq!(Readability::read(&names, &cells).unwrap(), readability);
        let mut broken = cells.clone();
        broken[3] = "first".into();
        assert!(Readability::read(&names, &broken).unwrap_err().starts_with("rank:a: first"));
        assert!(Readability::read(&names, &cells[1..]).is_err());
        assert_eq!(judges(&columns[1..]), None);
        assert_eq!(judges(&[]), Some(Vec::new()), "a study without judges has none of these columns");
    }
}
