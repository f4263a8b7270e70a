//! Constants that operations of networks compute: positional encodings and weights that the network transforms itself.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::lower::LowerFn;
use super::super::node_context::{NodeContext, Operand};
use crate::network::{Shape, Values};

/// Computes a node whose inputs are all constant by lowering it as if its first input were a tensor of the image, and
/// evaluating the operations. `work_left` is the number of multiplications that may still be spent.
///
/// # Errors
/// Why the node cannot be lowered, or that it takes too long.
pub(in super::super) fn evaluate(
    ctx: &NodeContext,
    lower: LowerFn,
    work_left: &mut usize,
) -> Result<Vec<ConstTensor>, String> {
    let input = ctx.constant(0)?;
    let sized = ctx.constants_given().any(ConstTensor::depends_on_image_size);
    let outputs = match (lower, input.shape()) {
        (LowerFn::BatchFirst(_), &[maps, ref rest @ ..]) if maps > 1 => {
            let map = |i: usize| {
                let size = input.len() / maps;
                let part: Vec<usize> = (i * size..(i + 1) * size).collect();
                evaluate_tensor(ctx, lower, &input.pick([&[1], rest].concat(), &part)?, work_left)
            };
            joined((0..maps).map(map).collect::<Result<_, _>>()?)?
        }
        _ => evaluate_tensor(ctx, lower, input, work_left)?,
    };
    Ok(outputs.into_iter().map(|output| if sized { output.of_image_size() } else { output }).collect())
}

/// Computes a node with `input` as its first input.
fn evaluate_tensor(
    ctx: &NodeContext,
    lower: LowerFn,
    input: &ConstTensor,
    work_left: &mut usize,
) -> Result<Vec<ConstTensor>, String> {
    let mut builder = GraphBuilder::new([1, 1, 1]);
    let batch = (input.shape().first() == Some(&1)).then_some(0);
    let array = input.array()?.reshape(&input.shape()[batch.map_or(0, |_| 1)..])?;
    let id = builder.push_constant(array)?;
    let mut ctx = ctx.clone();
    ctx.inputs[0] = Some(Operand::Dynamic(ImageTensor { id, batch }));
    let operands = lower.outputs(&mut builder, &ctx)?;
    let roots: Vec<BuilderId> = operands.iter().filter_map(Operand::dynamic).map(|tensor| tensor.id).collect();
    let values = evaluate_nodes(&builder, &ctx, &roots, work_left)?;
    let output = |operand: Operand| match operand {
        Operand::Dynamic(tensor) => {
            let values = values[tensor.id].as_ref().ok_or("it depends on an image")?;
            let data = values.data().iter().map(|&value| value as f32).collect();
            ConstTensor::new(tensor.file_shape(&builder).to_vec(), ConstData::Float(data))
        }
        Operand::Constant(value) => Ok(value),
        Operand::Unavailable(_) => Err("an output cannot be computed".into()),
    };
    operands.into_iter().map(output).collect()
}

/// The values of the nodes that `roots` depend on.
fn evaluate_nodes(
    builder: &GraphBuilder,
    ctx: &NodeContext,
    roots: &[BuilderId],
    work_left: &mut usize,
) -> Result<Vec<Option<Values>>, String> {
    let mut values: Vec<Option<Values>> = vec![None; builder.nodes().len()];
    for id in builder.ancestors(roots) {
        let node = builder.node(id);
        ctx.checked_elements(&node.shape)?;
        let inputs: Option<Vec<&Values>> = node.inputs.iter().map(|&input| values[input].as_ref()).collect();
        let inputs = inputs.ok_or("it depends on an image")?;
        let shapes: Vec<&Shape> = inputs.iter().map(|input| input.shape()).collect();
        let work = node.op.work(&shapes, &node.shape);
        *work_left = work_left.checked_sub(work).ok_or("computing constants takes too long")?;
        values[id] = Some(node.op.evaluate(&inputs)?);
    }
    Ok(values)
}

/// Outputs of several maps as one, along their first axis.
fn joined(maps: Vec<Vec<ConstTensor>>) -> Result<Vec<ConstTensor>, String> {
    let count = maps.first().map_or(0, Vec::len);
    let join = |i: usize| {
        let parts: Vec<&ConstTensor> = maps.iter().filter_map(|outputs| outputs.get(i)).collect();
        let mut shape = parts.first().map_or_else(Vec::new, |part| part.shape().to_vec());
        if let Some(first) = shape.first_mut() {
            *first = parts.iter().map(|part| part.shape().first().copied().unwrap_or(1)).sum();
        }
        let data = parts.iter().map(|part| part.floats()).collect::<Result<Vec<_>, _>>()?;
        ConstTensor::new(shape, ConstData::Float(data.into_iter().flat_map(|data| data.iter().copied()).collect()))
    };
    (0..count).map(join).collect()
}
