//! Runs within a bound on memory: as many stimuli at a time as fit, and clear words where not even one does.

use std::ops::Range;

use super::estimate::{RunMemory, found_bytes};
use crate::Invalid;
use crate::engine::MemoryModel;
use crate::maximize::error::MaximizeError;
use crate::maximize::request::Resolved;
use crate::maximize::request::Settings;
use crate::maximize::task::Task;
use crate::network::Model;

/// The batches that tasks run in, in their order: each as large as fits into `allowed` bytes of memory beside what is kept
/// of all tasks' stimuli. Tasks of one group that follow each other stay together.
///
/// # Errors
/// As [`maximize_within`], but for what only running finds out.
pub fn parts(
    memory: &MemoryModel,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    allowed: u64,
) -> Result<Vec<Range<usize>>, MaximizeError> {
    let channels = model.network.input_shape()[0];
    let needs = |part: Range<usize>| -> Result<u64, MaximizeError> {
        let others = found_bytes(settings, channels, tasks.len() - part.len());
        Ok(RunMemory::new(memory, model, &tasks[part], settings)?.bytes().saturating_add(others))
    };
    // Where a batch may end.
    let ends: Vec<usize> = match &settings.diversity {
        None => (1..=tasks.len()).collect(),
        Some(_) => {
            let lengths = tasks.chunk_by(|a, b| a.group == b.group).map(<[Task]>::len);
            lengths.scan(0, |end, length| Some(std::mem::replace(end, *end + length) + length)).collect()
        }
    };
    let mut parts = Vec::new();
    let (mut start, mut next) = (0, 0);
    while next < ends.len() {
        // `fits` is the number of ends that surely fit, `too_many` one that does not.
        let (mut fits, mut too_many) = (0, ends.len() - next + 1);
        let mut tried = ends.len() - next;
        while fits + 1 < too_many {
            let needed = needs(start..ends[next + tried - 1])?;
            if needed <= allowed {
                fits = tried;
            } else if tried == 1 {
                return Err(MaximizeError::Memory { needed, allowed });
            } else {
                too_many = tried;
            }
            tried = usize::midpoint(fits, too_many);
        }
        next += fits;
        parts.push(start..ends[next - 1]);
        start = ends[next - 1];
    }
    Ok(parts)
}

/// A request that takes more memory than is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// Bytes that it takes, at most.
    pub needed: u64,
    /// Bytes that it may take.
    pub allowed: u64,
    /// The fields of the request that could be less, each with what it is now and what would help.
    pub fields: Vec<Invalid>,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields: Vec<&str> = self.fields.iter().map(|invalid| invalid.field.as_str()).collect();
        let Self { needed, allowed, .. } = self;
        write!(
            f,
            "the request would take up to {needed} bytes of memory, but no more than {allowed} are allowed; reduce {}",
            fields.join(" or ")
        )
    }
}

impl Resolved {
    /// Whether a run of this request can take place within `allowed` bytes of memory, in as many batches as need be.
    /// Nothing when it can, else what is too large.
    ///
    /// # Errors
    /// When the request cannot run at all.
    pub fn too_large(
        &self,
        memory: &MemoryModel,
        model: &Model,
        allowed: u64,
    ) -> Result<Option<TooLarge>, MaximizeError> {
        let tasks = self.tasks();
        match parts(memory, model, &tasks, &self.settings, allowed) {
            Ok(_) => Ok(None),
            Err(MaximizeError::Memory { .. }) => self.describe(memory, model, &tasks, allowed).map(Some),
            Err(error) => Err(error),
        }
    }

    fn describe(
        &self,
        memory: &MemoryModel,
        model: &Model,
        tasks: &[Task],
        allowed: u64,
    ) -> Result<TooLarge, MaximizeError> {
        let (settings, copies) = (&self.settings, self.settings.copies());
        let channels = model.network.input_shape()[0];
        let others = found_bytes(settings, channels, tasks.len() - copies.min(tasks.len()));
        let mut largest = (0, RunMemory::default(), &tasks[..0]);
        for group in tasks.chunks(copies) {
            let run = RunMemory::new(memory, model, group, settings)?;
            let needed = run.bytes().saturating_add(others);
            if needed > largest.0 {
                largest = (needed, run, group);
            }
        }
        let (needed, run, group) = largest;
        let mut fields = Vec::new();
        // What is at least this much is worth naming.
        let counts = |bytes: u64| bytes >= (needed - allowed.min(needed)) / 4;
        if copies > 1 {
            let fits = |copies: usize| {
                let run = RunMemory::new(memory, model, &group[..copies], settings);
                run.is_ok_and(|run| run.bytes().saturating_add(others) <= allowed)
            };
            let expected = match (2..copies).rev().find(|&fewer| fits(fewer)) {
                Some(most) => format!("at most {most} for so much memory"),
                None => "no diversity, or a smaller size as well".to_owned(),
            };
            fields.push(Invalid::new("diversity.copies", copies, expected));
        }
        if let Some(search) = settings.search.as_ref().filter(|_| counts(run.candidates)) {
            let found = format!("{} candidates", search.candidates());
            fields.push(Invalid::new("search", found, "fewer arms or restarts"));
        }
        if let Some(animation) = settings.animation.as_ref().filter(|_| counts(run.frames)) {
            fields.push(Invalid::new("animation.frames", animation.frames, "fewer frames"));
        }
        if counts(run.certificates) {
            fields.push(Invalid::new("certificates", "true", "false"));
        }
        let objectives = tasks.len() / copies;
        if objectives > 1 && counts(others) {
            fields.push(Invalid::new("objectives", format!("{objectives} objectives"), "fewer at a time"));
        }
        fields.push(Invalid::new("size", format!("{:?}", settings.size), "fewer pixels"));
        Ok(TooLarge { needed, allowed, fields })
    }
}
