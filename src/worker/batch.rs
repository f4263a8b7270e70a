//! Which stimuli run together.

use std::collections::{BTreeMap, BTreeSet};

use crate::maximize::Objective;

/// One stimulus of one of the jobs that were claimed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Index of the job in the claim.
    pub(super) job: usize,
    /// Index of the stimulus in its job.
    pub(super) stimulus: usize,
}

/// Splits the stimuli of jobs, given by their objectives, into batches of at most `most`: all stimuli of a batch look at
/// the same layers, so that none pays for a part of the network that only another one needs. The oldest job's first
/// stimulus runs first.
pub(super) fn batches(jobs: &[&[Objective]], most: usize) -> Vec<Vec<Slot>> {
    let mut groups: BTreeMap<BTreeSet<&str>, Vec<Slot>> = BTreeMap::new();
    for (job, objectives) in jobs.iter().enumerate() {
        for (stimulus, objective) in objectives.iter().enumerate() {
            let layers = objective.terms.iter().map(|term| term.unit.layer.as_str()).collect();
            groups.entry(layers).or_default().push(Slot { job, stimulus });
        }
    }
    let mut batches: Vec<Vec<Slot>> =
        groups.values().flat_map(|group| group.chunks(most.max(1)).map(<[Slot]>::to_vec)).collect();
    batches.sort_by_key(|batch| batch.first().map(|slot| (slot.job, slot.stimulus)));
    batches
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn objectives(texts: &[&str]) -> Vec<Objective> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn named(batches: &[Vec<Slot>]) -> Vec<Vec<(usize, usize)>> {
        batches.iter().map(|batch| batch.iter().map(|slot| (slot.job, slot.stimulus)).collect()).collect()
    }

    #[test]
    fn stimuli_on_one_layer_share_a_batch_across_jobs() {
        let (a, b) = (objectives(&["x:0", "x:1"]), objectives(&["x:7"]));
        assert_eq!(named(&batches(&[&a, &b], 8)), [[(0, 0), (0, 1), (1, 0)]]);
    }

    #[test]
    fn a_batch_looks_at_one_set_of_layers_and_the_oldest_stimulus_runs_first() {
        let (a, b) = (objectives(&["y:0", "x:1"]), objectives(&["y:7", "x:3"]));
        assert_eq!(named(&batches(&[&a, &b], 8)), [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]);
    }

    #[test]
    fn no_batch_is_larger_than_allowed_and_no_stimulus_is_lost() {
        let job = objectives(&["x:0"; 7]);
        let batches = batches(&[&job], 3);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        let all: Vec<usize> = batches.concat().iter().map(|slot| slot.stimulus).collect();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
    }
}
