//! Batching: which stimuli of the claimed jobs run together.

use std::collections::{BTreeMap, BTreeSet};

use proxygrad::maximize::Objective;

/// Stimuli that run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Index of the preset of their settings.
    pub(super) preset: usize,
    /// At least one.
    pub(super) items: Vec<BatchItem>,
}

impl Batch {
    /// The same stimuli in one batch for each job. They are in the order of jobs.
    pub(super) fn by_job(&self) -> impl Iterator<Item = Self> {
        let alone = |items: &[BatchItem]| Self { preset: self.preset, items: items.to_vec() };
        self.items.chunk_by(|a, b| a.job == b.job).map(alone)
    }
}

/// One stimulus of one of the jobs claimed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchItem {
    /// Index of the job in the claim.
    pub(super) job: usize,
    /// Index of the stimulus among those of a preset in its job.
    pub(super) stimulus: usize,
}

/// Splits the stimuli of jobs into batches of at most `max`. Each job is given by its objectives and by the size of its
/// diversity groups, which are consecutive. All stimuli of a batch read the same layers, so that none pays for a part
/// of the network that only another needs. A group is never split; one that is larger than `max` is a batch by itself.
/// The first stimulus of the oldest job comes first.
pub(super) fn batches(jobs: &[(Vec<Objective>, usize)], max: usize) -> Vec<Vec<BatchItem>> {
    let mut alike: BTreeMap<BTreeSet<&str>, Vec<Vec<BatchItem>>> = BTreeMap::new();
    for (job, (objectives, copies)) in jobs.iter().enumerate() {
        let items: Vec<usize> = (0..objectives.len()).collect();
        for group in items.chunks((*copies).max(1)) {
            let terms = group.iter().flat_map(|&stimulus| &objectives[stimulus].terms);
            let layers = terms.map(|term| term.unit.layer.as_str()).collect();
            let group = group.iter().map(|&stimulus| BatchItem { job, stimulus }).collect();
            alike.entry(layers).or_default().push(group);
        }
    }
    let mut batches: Vec<Vec<BatchItem>> = Vec::new();
    for groups in alike.into_values() {
        let mut batch = Vec::new();
        for group in groups {
            if !batch.is_empty() && batch.len() + group.len() > max {
                batches.push(std::mem::take(&mut batch));
            }
            batch.extend(group);
        }
        batches.push(batch);
    }
    batches.sort_by_key(|batch| batch.first().map(|item| (item.job, item.stimulus)));
    batches
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn objectives(texts: &[&str]) -> (Vec<Objective>, usize) {
        (texts.iter().map(|text| text.parse().unwrap()).collect(), 1)
    }

    fn named(batches: &[Vec<BatchItem>]) -> Vec<Vec<(usize, usize)>> {
        batches.iter().map(|batch| batch.iter().map(|item| (item.job, item.stimulus)).collect()).collect()
    }

    #[test]
    fn stimuli_on_one_layer_share_a_batch_across_jobs() {
        let (a, b) = (objectives(&["x:0", "x:1"]), objectives(&["x:7"]));
        assert_eq!(named(&batches(&[a, b], 8)), [[(0, 0), (0, 1), (1, 0)]]);
    }

    #[test]
    fn a_batch_looks_at_one_set_of_layers_and_the_oldest_stimulus_runs_first() {
        let (a, b) = (objectives(&["y:0", "x:1"]), objectives(&["y:7", "x:3"]));
        assert_eq!(named(&batches(&[a, b], 8)), [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]);
    }

    #[test]
    fn no_batch_is_larger_than_allowed_and_no_stimulus_is_lost() {
        let job = objectives(&["x:0"; 7]);
        let batches = batches(&[job], 3);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        let all: Vec<usize> = batches.concat().iter().map(|item| item.stimulus).collect();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_group_is_never_split() {
        let group = |texts: &[&str], copies: usize| (objectives(texts).0, copies);
        let sizes = |jobs: &[(Vec<Objective>, usize)], most: usize| -> Vec<usize> {
            batches(jobs, most).iter().map(Vec::len).collect()
        };
        let jobs = [group(&["x:0", "x:0", "x:1", "x:1"], 2), group(&["x:7"; 3], 3)];
        assert_eq!(sizes(&jobs, 3), [2, 2, 3]);
        assert_eq!(sizes(&jobs, 4), [4, 3]);
        assert_eq!(sizes(&jobs, 7), [7]);
        assert_eq!(sizes(&[group(&["x:0"; 5], 5), objectives(&["x:1"])], 2), [5, 1], "larger than a batch");
    }
}
