//! Memory that is in use at different times is the same memory.

/// Values that are in use from one time to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) length: usize,
    pub(super) start: usize,
    /// The last time of use.
    pub(super) end: usize,
}

impl Interval {
    /// For what is still looked at when everything is over.
    pub(super) const FOREVER: usize = usize::MAX;
}

/// Values of a cache line: every place starts at one.
pub(super) const LINE: usize = 16;

/// Offsets such that intervals that overlap in time do not overlap in memory, and the length of it all.
pub(super) fn place(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(intervals[i].length));
    let mut offsets = vec![0; intervals.len()];
    // (start, end) in memory, by interval placed.
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let interval = &intervals[i];
        if interval.length == 0 {
            continue;
        }
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&other| intervals[other].start <= interval.end && interval.start <= intervals[other].end)
            .map(|&other| (offsets[other], offsets[other] + intervals[other].length))
            .collect();
        taken.sort_unstable();
        let mut offset = 0usize;
        for (start, end) in taken {
            if offset + interval.length <= start {
                break;
            }
            offset = offset.max(end.next_multiple_of(LINE));
        }
        offsets[i] = offset;
        total = total.max(offset + interval.length);
        placed.push(i);
    }
    (offsets, total.next_multiple_of(LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_together_lies_apart_and_the_rest_is_shared() {
        let interval = |length, start, end| Interval { length, start, end };
        let all = [
            interval(100, 0, 2),
            interval(50, 1, 3),
            interval(100, 3, Interval::FOREVER),
            interval(7, 0, 9),
            interval(50, 4, 5),
            interval(0, 0, 9),
        ];
        let (offsets, total) = place(&all);
        for i in 0..all.len() {
            assert_eq!(offsets[i] % LINE, 0);
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
