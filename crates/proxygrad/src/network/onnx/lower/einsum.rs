//! `Einsum`, written as sums, transpositions, reshapes and matrix products.

use super::super::const_tensor::{row_major, strided};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand};
use super::broadcast::{is_same_for_all_images, without_axis};
use super::transpose::push_transpose;
use crate::network::{Array, Axis, Op, Reduce};

/// A tensor, with one letter per axis.
#[derive(Clone)]
struct Term {
    letters: Vec<char>,
    id: BuilderId,
}

impl Term {
    fn has(&self, letter: char) -> bool {
        self.letters.contains(&letter)
    }
}

/// <https://onnx.ai/onnx/operators/onnx__Einsum.html> of one or more tensors, without ellipses and diagonals. The
/// products are computed from left to right.
pub(super) fn einsum(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<ImageTensor, String> {
    let equation: String = ctx.text("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    if equation.contains("...") {
        return Err(format!("the equation {equation} has an ellipsis, which is not supported"));
    }
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let letters: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    let behind: Vec<char> = right.unwrap_or_default().chars().collect();
    for term in letters.iter().chain([&behind]) {
        if let Some(letter) = term.iter().find(|letter| !letter.is_ascii_alphabetic()) {
            return Err(format!("the equation {equation} contains {letter}; expected letters, commas and one arrow"));
        }
        if let Some(letter) = term.iter().enumerate().find_map(|(i, c)| term[..i].contains(c).then_some(c)) {
            return Err(format!("the equation {equation} repeats {letter} in a term, which is not supported"));
        }
    }
    if letters.len() != ctx.inputs.len() {
        return Err(format!("the equation {equation} has {} terms for {} inputs", letters.len(), ctx.inputs.len()));
    }
    let mut output: Vec<char> = right.map_or_else(|| implied_output(left), |right| right.chars().collect());
    if let Some(letter) = output.iter().find(|letter| !left.contains(**letter)) {
        return Err(format!("the equation {equation} has {letter} only behind the arrow"));
    }
    let batch = batch_letter(builder, ctx, &letters, &output)?;
    let mut terms = Vec::new();
    for (i, letters) in letters.into_iter().enumerate() {
        terms.push(term(builder, ctx, i, letters, batch)?);
    }
    let position = batch.and_then(|batch| output.iter().position(|&letter| letter == batch));
    output.retain(|&letter| Some(letter) != batch);
    let mut terms = terms.into_iter();
    let mut total = terms.next().ok_or("the node has no inputs")?;
    let rest: Vec<Term> = terms.collect();
    for (i, next) in rest.iter().enumerate() {
        let is_needed = |letter: char| output.contains(&letter) || rest[i + 1..].iter().any(|term| term.has(letter));
        total = multiply(builder, total, next.clone(), is_needed)?;
    }
    total = summed(builder, total, |letter| output.contains(&letter))?;
    let id = ordered(builder, &total, &output)?;
    Ok(ImageTensor { id, batch: position })
}

/// Without an arrow, the letters that occur once, in alphabetical order.
fn implied_output(left: &str) -> Vec<char> {
    let mut once: Vec<char> =
        left.chars().filter(|c| c.is_ascii_alphabetic() && left.matches(*c).count() == 1).collect();
    once.sort_unstable();
    once
}

/// The letter of the batch axis, if it is the same in all tensors that depend on the image, and kept.
fn batch_letter(
    builder: &GraphBuilder,
    ctx: &NodeContext,
    letters: &[Vec<char>],
    output: &[char],
) -> Result<Option<char>, String> {
    let mut found = None;
    for (i, letters) in letters.iter().enumerate() {
        let Some(Operand::Dynamic(tensor)) = ctx.input(i) else { continue };
        let own = tensor.batch.and_then(|batch| letters.get(batch).copied());
        if own.is_none() || found.is_some_and(|found| Some(found) != own) {
            return Ok(None);
        }
        found = own;
    }
    let Some(batch) = found.filter(|letter| output.contains(letter)) else { return Ok(None) };
    for (i, letters) in letters.iter().enumerate() {
        let Some(axis) = letters.iter().position(|&letter| letter == batch) else { continue };
        let is_single = match ctx.input(i) {
            Some(Operand::Dynamic(tensor)) => tensor.file_shape(builder).get(axis) == Some(&1),
            Some(Operand::Constant(value)) => is_same_for_all_images(value, axis, ctx.batch)?,
            _ => false,
        };
        if !is_single {
            return Ok(None);
        }
    }
    Ok(Some(batch))
}

/// Input `i` without the batch.
fn term(
    builder: &mut GraphBuilder,
    ctx: &NodeContext,
    i: usize,
    mut letters: Vec<char>,
    batch: Option<char>,
) -> Result<Term, String> {
    let axis = batch.and_then(|batch| letters.iter().position(|&letter| letter == batch));
    let rank = |found: usize| match found == letters.len() {
        true => Ok(()),
        false => Err(format!("input {i} has {found} axes for the {} letters of its term", letters.len())),
    };
    let id = match ctx.input(i) {
        Some(Operand::Dynamic(tensor)) => {
            rank(tensor.rank(builder))?;
            tensor.with_batch(builder, axis)?.id
        }
        Some(Operand::Constant(value)) => {
            rank(value.shape().len())?;
            let array = without_axis(value, axis)?;
            builder.push_constant(array)?
        }
        _ => return Err(format!("input number {i} is missing")),
    };
    if let Some(axis) = axis {
        letters.remove(axis);
    }
    Ok(Term { letters, id })
}

/// Sums over the letters that are not needed.
fn summed(builder: &mut GraphBuilder, term: Term, is_needed: impl Fn(char) -> bool) -> Result<Term, String> {
    let axes: Vec<usize> = (0..term.letters.len()).filter(|&axis| !is_needed(term.letters[axis])).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let letters = term.letters.iter().copied().filter(|&letter| is_needed(letter)).collect();
    let id = builder.push(Op::Reduce { kind: Reduce::Sum, axes, keep: false }, &[term.id])?;
    Ok(Term { letters, id })
}

/// The tensor with its axes in another order.
fn ordered(builder: &mut GraphBuilder, term: &Term, order: &[char]) -> Result<BuilderId, String> {
    let axes: Vec<usize> =
        order.iter().filter_map(|letter| term.letters.iter().position(|own| own == letter)).collect();
    if let Some(array) = constant(builder, term.id) {
        let (strides, own) = (row_major(array.shape()), array.shape());
        let shape: Vec<usize> = axes.iter().map(|&axis| own[axis]).collect();
        let strides: Vec<isize> = axes.iter().map(|&axis| strides[axis]).collect();
        let values: Vec<f32> = strided(&shape, &strides, 0).into_iter().map(|i| array.data()[i]).collect();
        return builder.push_constant(Array::new(shape, values)?);
    }
    push_transpose(builder, term.id, axes)
}

/// The product of two tensors, summed over the letters that are not needed any more.
fn multiply(
    builder: &mut GraphBuilder,
    first: Term,
    second: Term,
    is_needed: impl Fn(char) -> bool,
) -> Result<Term, String> {
    let first = summed(builder, first, |letter| second.has(letter) || is_needed(letter))?;
    let second = summed(builder, second, |letter| first.has(letter) || is_needed(letter))?;
    let pick = |term: &Term, keep: &dyn Fn(char) -> bool| -> Vec<char> {
        term.letters.iter().copied().filter(|&letter| keep(letter)).collect()
    };
    let shared = pick(&first, &|letter| second.has(letter) && is_needed(letter));
    let inner = pick(&first, &|letter| second.has(letter) && !is_needed(letter));
    let rows = pick(&first, &|letter| !second.has(letter));
    let columns = pick(&second, &|letter| !first.has(letter));
    for letter in shared.iter().chain(&inner) {
        let length = |term: &Term| {
            let axis = term.letters.iter().position(|own| own == letter).unwrap_or(0);
            builder.node(term.id).shape[axis]
        };
        let (a, b) = (length(&first), length(&second));
        if a != b {
            return Err(format!("{letter} is {a} in one term and {b} in another; broadcasting is not supported"));
        }
    }
    let mut axes: Vec<Axis> = (0..shared.len()).map(Axis::Copy).collect();
    let mut sized = false;
    for (i, (term, group)) in [(&first, &rows), (&second, &columns)].into_iter().enumerate() {
        let (own, is_sized) = separate(builder, term, group, shared.len() + i);
        axes.extend(own);
        sized |= is_sized;
    }
    let a = matrices(builder, &first, [&shared, &rows, &inner])?;
    let product = match constant(builder, second.id).filter(|_| shared.is_empty()) {
        Some(_) => {
            let turned = matrices(builder, &second, [&[], &columns, &inner])?;
            let weight = constant(builder, turned).ok_or("a constant factor was lost")?.clone();
            builder.push(Op::Dense { weight, bias: None }, &[a])?
        }
        None => {
            let b = matrices(builder, &second, [&shared, &inner, &columns])?;
            builder.push(Op::MatMul, &[a, b])?
        }
    };
    let id = builder.push_reshape(product, axes, sized)?;
    Ok(Term { letters: [shared, rows, columns].concat(), id })
}

/// A tensor as matrices: the axes of the first group are kept, those of the other two are joined to one axis each.
fn matrices(builder: &mut GraphBuilder, term: &Term, groups: [&[char]; 3]) -> Result<BuilderId, String> {
    let order = groups.concat();
    let id = ordered(builder, term, &order)?;
    let [outer, joined @ ..] = groups;
    let many = joined.iter().filter(|group| group.len() > 1).count();
    let (mut target, mut sized): (Vec<Axis>, bool) = ((0..outer.len()).map(Axis::Copy).collect(), false);
    let mut next = outer.len();
    for group in joined {
        let axes = next..next + group.len();
        next = axes.end;
        target.push(match group.len() {
            0 => Axis::Exact(1),
            1 => Axis::Copy(axes.start),
            _ if many == 1 => Axis::Infer,
            _ => {
                sized |= axes.clone().any(|axis| builder.depends_on_image_size(id, axis));
                Axis::Exact(builder.node(id).shape[axes].iter().product())
            }
        });
    }
    if let Some(array) = constant(builder, id) {
        let shape = Op::Reshape(target).infer(&[&array.shape().to_vec().into()])?;
        let array = array.reshape(shape.to_vec())?;
        return builder.push_constant(array);
    }
    builder.push_reshape(id, target, sized)
}

/// The axes of a group that was joined to the axis `joined`, and whether their lengths depend on the image size.
fn separate(builder: &GraphBuilder, term: &Term, group: &[char], joined: usize) -> (Vec<Axis>, bool) {
    if group.len() == 1 {
        return (vec![Axis::Copy(joined)], false);
    }
    let axes = group.iter().filter_map(|letter| term.letters.iter().position(|own| own == letter));
    let lengths = axes.clone().map(|axis| Axis::Exact(builder.node(term.id).shape[axis])).collect();
    (lengths, axes.into_iter().any(|axis| builder.depends_on_image_size(term.id, axis)))
}

/// The values of a constant.
fn constant(builder: &GraphBuilder, id: BuilderId) -> Option<&Array> {
    match &builder.node(id).op {
        Op::Constant(array) => Some(array),
        _ => None,
    }
}
