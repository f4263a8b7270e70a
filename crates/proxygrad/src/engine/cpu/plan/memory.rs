//! Memory planner: tensors with disjoint lifetimes share one allocation.

use crate::engine::cpu::buffer::CACHE_LINE;

/// Size of a tensor, and when it is in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    pub(crate) length: usize,
    pub(crate) start: usize,
    /// Time of the last use.
    pub(crate) end: usize,
}

impl Lifetime {
    /// End of a tensor that is used after the last step.
    pub(crate) const FOREVER: usize = usize::MAX;
}

/// Offsets at which tensors that are in use at the same time do not overlap, each at the start of a cache line, and the
/// total length. First fit, the largest first.
pub(crate) fn assign_offsets(lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lifetimes[i].length));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let lifetime = &lifetimes[i];
        if lifetime.length == 0 {
            continue;
        }
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| lifetimes[other].start <= lifetime.end && lifetime.start <= lifetimes[other].end)
            .map(|&other| (offsets[other], offsets[other] + lifetimes[other].length))
            .collect();
        taken.sort_unstable();
        let mut offset = 0usize;
        for (start, end) in taken {
            if offset + lifetime.length <= start {
                break;
            }
            offset = offset.max(end.next_multiple_of(CACHE_LINE));
        }
        offsets[i] = offset;
        total = total.max(offset + lifetime.length);
        placed.push(i);
    }
    (offsets, total.next_multiple_of(CACHE_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_in_use_together_do_not_overlap_and_the_others_share_memory() {
        let lifetime = |length, start, end| Lifetime { length, start, end };
        let all = [
            lifetime(100, 0, 2),
            lifetime(50, 1, 3),
            lifetime(100, 3, Lifetime::FOREVER),
            lifetime(7, 0, 9),
            lifetime(50, 4, 5),
            lifetime(0, 0, 9),
        ];
        let (offsets, total) = assign_offsets(&all);
        for i in 0..all.len() {
            assert_eq!(offsets[i] % CACHE_LINE, 0);
            assert!(offsets[i] + all[i].length <= total);
            for j in 0..i {
                let at_once = all[i].start <= all[j].end && all[j].start <= all[i].end;
                let apart = offsets[i] + all[i].length <= offsets[j] || offsets[j] + all[j].length <= offsets[i];
                assert!(apart || !at_once || all[i].length * all[j].length == 0, "{i} and {j}: {offsets:?}");
            }
        }
        assert!(total < 100 + 50 + 100, "nothing is shared: {total}");
    }
}
