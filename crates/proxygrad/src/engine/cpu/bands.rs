//! Steps walked band by band: a few rows of every map at a time, by one thread.
//!
//! A map between two steps that does not fit the cache is written to memory by one and read from there by the other. A
//! chain of steps that only read each other instead computes some rows of its last map, and of the maps before only the
//! rows that these are computed from: those stay in the cache. Rows that the next band reads again are kept; where another
//! thread has computed the band before, they are computed twice. Every sum is the same as without, so no bit changes.
#![expect(unsafe_code, reason = "maps of a thread's own memory")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::activation::is_zero;
use super::finish::Finish;
use super::map::Map;
use super::memory::LINE;
use super::{Banded, GROUP, Heading, Kernel, L2, Site};

/// What is walked band by band.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of a map between two steps from which on it does not pay to write it out.
    pub(super) large: usize,
    /// Bytes of a thread's cache that maps between steps may take.
    pub(super) cache: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { large: L2, cache: L2 / 4 }
    }
}

/// Some rows of one image.
pub(super) struct Band {
    pub(super) image: usize,
    pub(super) rows: Range<usize>,
}

/// Computes all rows of `finish.to`, each on one of the threads.
pub(super) fn row_by_row(
    pass: &dyn Banded,
    site: &Site<'_>,
    source: Map,
    memory: Option<*mut f32>,
    finish: &Finish<'_>,
) {
    let height = finish.to.height;
    site.member.each(finish.to.images * height, |piece| {
        let (image, row) = (piece / height, piece % height);
        pass.band(site, &Band { image, rows: row..row + 1 }, source, memory, finish);
    });
}

/// Steps, or tasks, that are walked together.
pub(super) struct Chain {
    /// Their numbers.
    pub(super) range: Range<usize>,
    /// How, when they are more than one.
    pub(super) bands: Option<Bands>,
}

/// The bands of a chain.
pub(super) struct Bands {
    /// Rows of the last map that are computed together.
    rows: usize,
    /// Values of a thread's memory for each of the maps between the steps.
    buffers: Vec<usize>,
    /// For each of these maps and each image of a group, whether anything but zero was found in it.
    alive: Vec<[AtomicBool; GROUP]>,
}

/// One link of a chain to be planned: a kernel, and height and values of a row of the map that it fills.
pub(super) struct Link {
    pub(super) kernel: Arc<dyn Kernel>,
    pub(super) height: usize,
    pub(super) row: usize,
}

/// One link of a chain at work.
pub(super) struct Stage<'a> {
    pub(super) pass: &'a dyn Banded,
    /// As for [`super::Ahead`].
    pub(super) memory: Option<*mut f32>,
    /// Only the shape of the destination counts, but for the last stage's.
    pub(super) finish: Finish<'a>,
}

/// The rows of each link's map that some rows of the last one are computed from.
fn needs(passes: &[(&dyn Banded, usize)], rows: Range<usize>) -> Vec<Range<usize>> {
    let mut needs = vec![rows.clone(); passes.len()];
    let is_end = passes.last().is_some_and(|&(_, height)| rows.end == height);
    for i in (0..passes.len().saturating_sub(1)).rev() {
        let (read, height) = (passes[i + 1].0.reach(&needs[i + 1]), passes[i].1);
        let clamp = |row: isize| row.clamp(0, height as isize).unsigned_abs();
        // Rows that nobody reads have sides too.
        let start = if rows.start == 0 { 0 } else { clamp(read.start) };
        let end = if is_end { height } else { clamp(read.end) };
        needs[i] = start..end.max(start);
    }
    needs
}

impl Bands {
    /// Bands whose maps fit the cache; none where even a single row does not, or windows leave rows out.
    pub(super) fn plan(links: &[Link], heading: Heading, limits: Limits) -> Option<Self> {
        let passes: Option<Vec<(&dyn Banded, usize)>> =
            links.iter().map(|link| Some((link.kernel.bands(heading)?, link.height))).collect();
        let (passes, last) = (passes?, links.last()?.height);
        let between = links.len() - 1;
        let of_row: Vec<Vec<Range<usize>>> = (0..last).map(|row| needs(&passes, row..row + 1)).collect();
        let in_order = |[a, b]: [&Range<usize>; 2]| a.start <= b.start && b.start <= a.end && a.end <= b.end;
        if !of_row.windows(2).all(|pair| (0..between).all(|i| in_order([&pair[0][i], &pair[1][i]]))) {
            return None;
        }
        let buffers = |rows: usize| -> Vec<usize> {
            let held = |first: usize, i: usize| of_row[(first + rows).min(last) - 1][i].end - of_row[first][i].start;
            let most = |i: usize| (0..last).map(|first| held(first, i)).max().unwrap_or(0);
            (0..between).map(|i| most(i) * links[i].row).collect()
        };
        let fits = |rows: usize, cache: usize| buffers(rows).iter().sum::<usize>() * size_of::<f32>() <= cache;
        if last == 0 || !fits(1, 2 * limits.cache) {
            return None;
        }
        let rows = (1..=last).take_while(|&rows| fits(rows, limits.cache)).last().unwrap_or(1);
        let alive = (0..between).map(|_| Default::default()).collect();
        Some(Self { rows, buffers: buffers(rows), alive })
    }

    /// Values that every thread needs for itself.
    pub(super) fn scratch(&self) -> usize {
        self.buffers.iter().map(|length| length.next_multiple_of(LINE)).sum()
    }

    /// Nothing was found in any map.
    pub(super) fn forget(&self) {
        self.alive.iter().flatten().for_each(|alive| alive.store(false, Ordering::Relaxed));
    }

    /// Whether anything but zero was found in every map of so many images.
    pub(super) fn were_alive(&self, images: usize) -> bool {
        self.alive.iter().all(|alive| alive[..images].iter().all(|alive| alive.load(Ordering::Relaxed)))
    }

    /// Walks all images from `source`; `buffers` is this thread's own. `looks` asks for [`Bands::alive`].
    pub(super) fn walk(&self, site: &Site<'_>, source: Map, stages: &[Stage<'_>], buffers: *mut f32, looks: bool) {
        let passes: Vec<(&dyn Banded, usize)> =
            stages.iter().map(|stage| (stage.pass, stage.finish.to.height)).collect();
        let Some(&(_, height)) = passes.last() else { return };
        let pieces = pieces_of_image(source.images, site.member.count()).min(height);
        site.member.each(source.images * pieces, |piece| {
            let (image, piece) = (piece / pieces, piece % pieces);
            let rows = height * piece / pieces..height * (piece + 1) / pieces;
            // Rows that the piece before this one computes.
            let before = match rows.start {
                0 => vec![0; stages.len()],
                start => needs(&passes, start - 1..start).into_iter().map(|rows| rows.end).collect(),
            };
            let mut held: Vec<Held> = Vec::with_capacity(self.buffers.len());
            let first = needs(&passes, rows.start..rows.start + 1);
            let mut offset = 0;
            for (length, need) in self.buffers.iter().zip(first) {
                // SAFETY: the memory has `self.scratch()` values.
                let data = unsafe { buffers.add(offset) };
                held.push(Held { data, rows: need.start..need.start });
                offset += length.next_multiple_of(LINE);
            }
            let mut top = rows.start;
            while top < rows.end {
                let bottom = (top + self.rows).min(rows.end);
                let mut source = source;
                for (i, (stage, need)) in stages.iter().zip(needs(&passes, top..bottom)).enumerate() {
                    let Some(held) = held.get_mut(i) else {
                        stage.pass.band(site, &Band { image, rows: need }, source, stage.memory, &stage.finish);
                        break;
                    };
                    // SAFETY: the buffer has room for all rows of a band.
                    let (to, fresh) = unsafe { held.advance(&stage.finish.to, image, &need) };
                    let again = fresh.start..fresh.end.min(before[i].max(fresh.start));
                    let once = again.end..fresh.end;
                    let finish = Finish { to, ..stage.finish };
                    if !again.is_empty() {
                        let finish = Finish { sides: None, record: None, ..finish };
                        stage.pass.band(site, &Band { image, rows: again }, source, stage.memory, &finish);
                    }
                    if !once.is_empty() {
                        stage.pass.band(site, &Band { image, rows: once }, source, stage.memory, &finish);
                    }
                    if looks && !self.alive[i][image].load(Ordering::Relaxed) {
                        let [first, last] = [fresh.start, fresh.end].map(|row| (image * to.height + row) * to.width);
                        // SAFETY: these rows were just computed, by this thread.
                        if !unsafe { is_zero(to, first..last) } {
                            self.alive[i][image].store(true, Ordering::Relaxed);
                        }
                    }
                    source = to;
                }
                top = bottom;
            }
        });
    }
}

/// Pieces of an image such that all threads get the same, or many.
fn pieces_of_image(images: usize, threads: usize) -> usize {
    (1..=threads).find(|pieces| (images * pieces).is_multiple_of(threads)).unwrap_or(threads)
}

/// The rows of a map that a thread holds.
struct Held {
    data: *mut f32,
    rows: Range<usize>,
}

impl Held {
    /// Drops the rows above `need`, and gives a map in which all rows of `need` have their places, and the rows that are
    /// still to be computed.
    ///
    /// # Safety
    /// The memory has room for the rows of `need`.
    unsafe fn advance(&mut self, like: &Map, image: usize, need: &Range<usize>) -> (Map, Range<usize>) {
        let row = like.width * like.channels;
        let kept = need.start.max(self.rows.start).min(self.rows.end)..self.rows.end;
        if kept.start > self.rows.start && !kept.is_empty() {
            // SAFETY: both lie in the memory.
            unsafe {
                std::ptr::copy(self.data.add((kept.start - self.rows.start) * row), self.data, kept.len() * row);
            }
        }
        self.rows = kept.start..need.end.max(kept.end);
        let data = self.data.wrapping_sub((image * like.height + kept.start) * row);
        (Map { data, pixel: like.channels, ..*like }, kept.end..self.rows.end)
    }
}
