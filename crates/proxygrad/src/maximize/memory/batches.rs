//! Splits tasks into batches that fit into memory, and explains which fields of a request are too large.

use std::ops::Range;

use super::estimate::{MemoryEstimate, outcome_bytes};
use crate::Invalid;
use crate::engine::MemoryModel;
use crate::maximize::error::MaximizeError;
use crate::maximize::request::{Resolved, Settings};
use crate::maximize::task::Task;
use crate::network::Model;

/// Splits tasks, in their order, into the largest batches that fit into `allowed` bytes of memory next to the outcomes
/// of all other tasks. Adjacent tasks of one diversity group are not separated.
///
/// # Errors
/// When the tasks cannot run, and [`MaximizeError::Memory`] when a single stimulus or group does not fit.
pub fn plan_batches(
    memory: &MemoryModel,
    model: &Model,
    tasks: &[Task],
    settings: &Settings,
    allowed: u64,
) -> Result<Vec<Range<usize>>, MaximizeError> {
    let channels = model.network.input_shape()[0];
    let needs = |batch: Range<usize>| -> Result<u64, MaximizeError> {
        let others = outcome_bytes(settings, channels, tasks.len() - batch.len());
        Ok(MemoryEstimate::new(memory, model, &tasks[batch], settings)?.bytes().saturating_add(others))
    };
    // Where a batch may end.
    let ends: Vec<usize> = match &settings.diversity {
        None => (1..=tasks.len()).collect(),
        Some(_) => {
            let lengths = tasks.chunk_by(|a, b| a.group == b.group).map(<[Task]>::len);
            lengths.scan(0, |end, length| Some(std::mem::replace(end, *end + length) + length)).collect()
        }
    };
    let mut batches = Vec::new();
    let (mut start, mut next) = (0, 0);
    while next < ends.len() {
        // Binary search: `fits` ends are known to fit, `too_many` are known not to.
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
        batches.push(start..ends[next - 1]);
        start = ends[next - 1];
    }
    Ok(batches)
}

/// A request that needs more memory than allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// Upper bound on the bytes that it needs.
    pub needed: u64,
    /// Bytes that it may use.
    pub allowed: u64,
    /// The fields that could be reduced, each with its value and a smaller alternative.
    pub fields: Vec<Invalid>,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields: Vec<&str> = self.fields.iter().map(|invalid| invalid.field.as_str()).collect();
        let Self { needed, allowed, .. } = self;
        write!(
            f,
            "the request needs up to {needed} bytes of memory, but only {allowed} are allowed; reduce {}",
            fields.join(" or ")
        )
    }
}

impl Resolved {
    /// Checks that this request can run within `allowed` bytes of memory, in several batches if necessary. `None` if it
    /// can, else which fields are too large.
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
        let channels = model.network.input_shape()[0];
        // The stimuli of all presets are held until the last one is done.
        let bytes = |settings| outcome_bytes(settings, channels, tasks.len());
        let all = self.all_settings().map(bytes).fold(0, u64::saturating_add);
        for settings in self.all_settings() {
            let held = all - bytes(settings);
            match plan_batches(memory, model, &tasks, settings, allowed.saturating_sub(held)) {
                Ok(_) => {}
                Err(MaximizeError::Memory { .. }) => {
                    let found = Self::describe(memory, model, settings, &tasks, allowed.saturating_sub(held))?;
                    return Ok(Some(TooLarge { needed: found.needed.saturating_add(held), allowed, ..found }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn describe(
        memory: &MemoryModel,
        model: &Model,
        settings: &Settings,
        tasks: &[Task],
        allowed: u64,
    ) -> Result<TooLarge, MaximizeError> {
        let copies = settings.copies();
        let channels = model.network.input_shape()[0];
        let others = outcome_bytes(settings, channels, tasks.len() - copies.min(tasks.len()));
        let mut largest = (0, MemoryEstimate::default(), &tasks[..0]);
        for group in tasks.chunks(copies) {
            let run = MemoryEstimate::new(memory, model, group, settings)?;
            let needed = run.bytes().saturating_add(others);
            if needed > largest.0 {
                largest = (needed, run, group);
            }
        }
        let (needed, run, group) = largest;
        let mut fields = Vec::new();
        // Fields that contribute less would not help.
        let contributes = |bytes: u64| bytes >= (needed - allowed.min(needed)) / 4;
        if copies > 1 {
            let fits = |copies: usize| {
                let run = MemoryEstimate::new(memory, model, &group[..copies], settings);
                run.is_ok_and(|run| run.bytes().saturating_add(others) <= allowed)
            };
            let expected = match (2..copies).rev().find(|&fewer| fits(fewer)) {
                Some(most) => format!("at most {most} with this much memory"),
                None => "no diversity, or a smaller size as well".to_owned(),
            };
            fields.push(Invalid::new("diversity.copies", copies, expected));
        }
        if let Some(search) = settings.search.as_ref().filter(|_| contributes(run.candidates)) {
            let found = format!("{} candidates", search.candidates());
            fields.push(Invalid::new("search", found, "fewer arms or restarts"));
        }
        if let Some(animation) = settings.animation.as_ref().filter(|_| contributes(run.frames)) {
            fields.push(Invalid::new("animation.frames", animation.frames, "fewer frames"));
        }
        if contributes(run.diagnostics) {
            fields.push(Invalid::new("diagnostics", "true", "false"));
        }
        let objectives = tasks.len() / copies;
        if objectives > 1 && contributes(others) {
            fields.push(Invalid::new("objectives", format!("{objectives} objectives"), "fewer objectives per request"));
        }
        fields.push(Invalid::new("size", format!("{:?}", settings.size), "fewer pixels"));
        Ok(TooLarge { needed, allowed, fields })
    }
}
