//! Layouts of reshaped tensors.

use std::collections::VecDeque;

use super::{AxisLayout, Digit};
use crate::network::shape::Shape;

/// A part of the input that no axis of the output has taken yet.
enum Part {
    Digit(Digit),
    /// An axis with tokens, which cannot be divided, and its length.
    Tokens(AxisLayout, usize),
}

/// The layout of a tensor of shape `from` after it is reshaped to `to`. Axes whose digits do not divide evenly become
/// unknown, except for trailing axes that keep their length.
pub(super) fn reshaped(layout: &[AxisLayout], from: &Shape, to: &Shape) -> Vec<AxisLayout> {
    let mut parts: VecDeque<Part> = VecDeque::new();
    for (axis, &length) in layout.iter().zip(from.iter()) {
        match axis.has_tokens() {
            true => parts.push_back(Part::Tokens(axis.clone(), length)),
            false => parts.extend(axis.digits.iter().copied().map(Part::Digit)),
        }
    }
    let mut found: Vec<AxisLayout> = Vec::with_capacity(to.len());
    for &length in to.iter() {
        match take(&mut parts, length) {
            Some(axis) => found.push(axis),
            None => break,
        }
    }
    let same = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    for i in found.len()..to.len() {
        let left = to.len() - i;
        found.push(if left <= same { layout[from.len() - left].clone() } else { AxisLayout::unknown(to[i]) });
    }
    found
}

/// Takes the next axis of this length; `None` if the parts do not divide evenly.
fn take(parts: &mut VecDeque<Part>, length: usize) -> Option<AxisLayout> {
    let mut digits = Vec::new();
    let mut needed = length;
    while needed > 1 {
        match parts.pop_front()? {
            Part::Tokens(axis, own) => return (digits.is_empty() && own == length).then_some(axis),
            Part::Digit(digit) if needed.is_multiple_of(digit.length) => {
                needed /= digit.length;
                digits.push(digit);
            }
            Part::Digit(digit) if digit.length.is_multiple_of(needed) => {
                let [outer, inner] = digit.split(needed);
                digits.push(outer);
                parts.push_front(Part::Digit(inner));
                needed = 1;
            }
            Part::Digit(_) => return None,
        }
    }
    Some(AxisLayout::of(digits))
}
