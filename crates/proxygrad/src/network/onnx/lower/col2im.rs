//! `Col2Im`: blocks that overlap are added up, which is a transposed convolution whose kernels hold a single 1.

use super::super::const_tensor::{ConstData, ConstTensor};
use super::super::graph_builder::{BuilderId, GraphBuilder};
use super::super::image_tensor::ImageTensor;
use super::super::node_context::{NodeContext, Operand, window_length};
use super::super::proto::{AttributeProto, NodeProto};
use super::conv_transpose::conv_transpose;
use crate::network::Axis;

/// <https://onnx.ai/onnx/operators/onnx__Col2Im.html> of blocks `[C*kh*kw,L]` of a map.
pub(super) fn col2im(builder: &mut GraphBuilder, ctx: &NodeContext) -> Result<BuilderId, String> {
    let pair = |i: usize, name: &str| match *ctx.constant(i)?.ints()? {
        [a, b] => Ok([window_length(a, name)?, window_length(b, name)?]),
        ref other => Err(format!("{name} is {other:?}; expected a height and a width")),
    };
    let (image, block) = (pair(1, "image_shape")?, pair(2, "block_shape")?);
    let values = |name: &str, default: i64, count: usize| -> Result<Vec<i64>, String> {
        let given = ctx.ints(name)?.filter(|given| !given.is_empty()).map_or(vec![default; count], <[i64]>::to_vec);
        match given.len() == count {
            true => Ok(given),
            false => Err(format!("{name} has {} values; expected {count}", given.len())),
        }
    };
    let (strides, dilations, pads) = (values("strides", 1, 2)?, values("dilations", 1, 2)?, values("pads", 0, 4)?);
    // Blocks along each axis, and the pixels after the last of them.
    let (mut steps, mut rest) = ([0; 2], [0; 2]);
    for i in 0..2 {
        let [stride, dilation] =
            [(&strides, "strides"), (&dilations, "dilations")].map(|(v, name)| window_length(v[i], name));
        let (stride, dilation) = (stride?, dilation?);
        let border = window_length(pads[i], "pads")? + window_length(pads[i + 2], "pads")?;
        let extent = dilation * block[i].saturating_sub(1) + 1;
        let room = (image[i] + border).checked_sub(extent).filter(|_| stride > 0 && dilation > 0 && block[i] > 0);
        let room = room.ok_or_else(|| format!("blocks of {block:?} do not fit an image of {image:?}"))?;
        (steps[i], rest[i]) = (room / stride + 1, room % stride);
    }
    let (input, shape) = ctx.dynamic_with_shape(builder, 0)?;
    let area = block[0] * block[1];
    let channels = match shape[..] {
        [inputs, blocks] if inputs.is_multiple_of(area) && blocks == steps[0] * steps[1] => inputs / area,
        _ => return Err(format!("the input {shape} does not hold {steps:?} blocks of {block:?}")),
    };
    let sized = builder.depends_on_image_size(input, 1) || ctx.constant(1)?.depends_on_image_size();
    let map = vec![Axis::Copy(0), Axis::Exact(steps[0]), Axis::Exact(steps[1])];
    let map = builder.push_reshape(input, map, sized)?;

    let lengths = [channels.saturating_mul(area), 1, block[0], block[1]];
    let mut weight = vec![0.0; ctx.checked_elements(&lengths)?];
    for (row, kernel) in weight.chunks_mut(area).enumerate() {
        kernel[row % area] = 1.0;
    }
    let ints = |name: &str, ints: Vec<i64>| {
        let name = name.to_owned();
        AttributeProto { name, r#type: AttributeProto::INTS, ints, ..AttributeProto::default() }
    };
    let group = AttributeProto {
        name: "group".into(),
        r#type: AttributeProto::INT,
        i: Some(channels as i64),
        ..AttributeProto::default()
    };
    let rest = rest.map(|rest| rest as i64).to_vec();
    let attribute = vec![
        ints("strides", strides),
        ints("dilations", dilations),
        ints("pads", pads),
        ints("output_padding", rest),
        group,
    ];
    let node = NodeProto { attribute, ..ctx.node.clone() };
    let weight = ConstTensor::new(lengths.to_vec(), ConstData::Float(weight.into()))?;
    let inputs = vec![Some(Operand::Dynamic(ImageTensor::batch_first(map))), Some(Operand::Constant(weight))];
    conv_transpose(builder, &NodeContext { node: &node, inputs, ..ctx.clone() })
}
