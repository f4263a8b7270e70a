//! Vision transformers: ViT (Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929), DeiT (Touvron et
//! al., arXiv:2012.12877) and DINOv2 (Oquab et al., arXiv:2304.07193), also with registers (Darcet et al.,
//! arXiv:2309.16588).

use super::Naming;
use super::blueprint::Blueprint;
use super::weights::{Tensor, Weights};
use crate::network::{Activation, Array, Axis, Binary, Network, NodeId, Op, Window};

/// Settings of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vit {
    /// Height and width of a patch.
    pub patch: usize,
    /// Values of a token.
    pub width: usize,
    /// Blocks of attention and dense layers.
    pub depth: usize,
    /// Heads of the attention, which divide the width.
    pub heads: usize,
    /// Tokens besides the class and the patches; then the class token has no position embedding.
    pub registers: usize,
    /// Whether the branches of a block end with a learned factor per channel.
    pub layer_scale: bool,
}

/// Added to the variance in layer normalizations.
const EPSILON: f32 = 1e-6;
/// Values between the dense layers of a block, per value of a token.
const EXPANSION: usize = 4;
/// The channel axis of tokens.
const CHANNELS: [usize; 2] = [1, 2];

/// Names outside of blocks.
struct Names {
    patches: &'static str,
    class: &'static str,
    positions: &'static str,
    /// The first tokens.
    tokens: &'static str,
    blocks: &'static str,
    norm: &'static str,
    head: &'static str,
}

/// Names of the parts of a block.
struct BlockNames {
    norms: [&'static str; 2],
    attention: &'static str,
    /// Layer, weights and bias of queries, keys and values.
    qkv: [&'static str; 3],
    projection: &'static str,
    dense: [&'static str; 2],
    activation: &'static str,
}

const TORCHVISION: Names = Names {
    patches: "conv_proj",
    class: "class_token",
    positions: "encoder.pos_embedding",
    tokens: "encoder.dropout",
    blocks: "encoder.layers.encoder_layer_",
    norm: "encoder.ln",
    head: "heads.head",
};
const TIMM: Names = Names {
    patches: "patch_embed.proj",
    class: "cls_token",
    positions: "pos_embed",
    tokens: "pos_drop",
    blocks: "blocks.",
    norm: "norm",
    head: "head",
};
const TORCHVISION_BLOCK: BlockNames = BlockNames {
    norms: ["ln_1", "ln_2"],
    attention: "self_attention",
    qkv: ["in_proj", "in_proj_weight", "in_proj_bias"],
    projection: "out_proj",
    dense: ["mlp.0", "mlp.3"],
    activation: "mlp.1",
};
const TIMM_BLOCK: BlockNames = BlockNames {
    norms: ["norm1", "norm2"],
    attention: "attn",
    qkv: ["qkv", "qkv.weight", "qkv.bias"],
    projection: "proj",
    dense: ["mlp.fc1", "mlp.fc2"],
    activation: "mlp.act",
};

impl Vit {
    /// The network without registers and layer scale.
    pub(super) const fn of(patch: usize, width: usize, depth: usize, heads: usize) -> Self {
        Self { patch, width, depth, heads, registers: 0, layer_scale: false }
    }

    /// The same as DINOv2 has it.
    pub(super) const fn dino(self, registers: usize) -> Self {
        Self { registers, layer_scale: true, ..self }
    }

    pub(super) fn draw(&self, naming: Naming, input: [usize; 3], blueprint: &mut Blueprint<'_>) {
        let names = match naming {
            Naming::Torchvision => TORCHVISION,
            Naming::Timm => TIMM,
        };
        let width = self.width;
        let window = Window { stride: [self.patch; 2], ..Window::new([self.patch; 2]) };
        let weights = Weights::new(names.patches, [width, input[0], self.patch, self.patch]);
        let mut x = blueprint.conv(names.patches, weights, window, 1, Network::INPUT);
        x = blueprint.push("patches.flat", Op::Reshape(vec![Axis::Copy(0), Axis::Infer]), &[x]);
        x = blueprint.push("patches", Op::Transpose(vec![1, 0]), &[x]);
        if naming == Naming::Timm {
            blueprint.module("patch_embed", x);
        }
        x = self.with_tokens(blueprint, &names, input, x);
        for block in 0..self.depth {
            x = self.block(blueprint, naming, &format!("{}{block}", names.blocks), x);
        }
        blueprint.module(names.blocks.trim_end_matches(".encoder_layer_").trim_end_matches('.'), x);
        x = blueprint.layer_norm(names.norm, width, CHANNELS, EPSILON, x);
        if naming == Naming::Torchvision {
            blueprint.module("encoder", x);
        }
        x = blueprint.push("class", Op::Slice { axis: 0, start: 0, end: 1, step: 1 }, &[x]);
        let vector = Op::Reshape(vec![Axis::Copy(1)]);
        // Weights without a last layer have no classes: the class token is the output.
        if blueprint.is_given(names.head) {
            x = blueprint.push("class.vector", vector, &[x]);
            blueprint.logits(names.head, width, x);
        } else {
            blueprint.output = blueprint.push("features", vector, &[x]);
        }
        if naming == Naming::Torchvision {
            let output = blueprint.output;
            blueprint.module("heads", output);
        }
    }

    /// The class token, registers and patches with their position embeddings.
    fn with_tokens(&self, blueprint: &mut Blueprint<'_>, names: &Names, input: [usize; 3], patches: NodeId) -> NodeId {
        let width = self.width;
        let count = input[1] / self.patch * (input[2] / self.patch);
        let class = blueprint.parameter(Tensor::new(names.class, [1, 1, width]), [1, width]);
        let positions = if self.registers > 0 { count } else { count + 1 };
        let positions = blueprint.parameter(Tensor::new(names.positions, [1, positions, width]), [positions, width]);
        if self.registers == 0 {
            let x = blueprint.push("tokens", Op::Concat { axis: 0 }, &[class, patches]);
            return blueprint.add(names.tokens, x, positions);
        }
        let x = blueprint.add("patches.positions", patches, positions);
        let registers = Tensor::new("reg_token", [1, self.registers, width]);
        let registers = blueprint.parameter(registers, [self.registers, width]);
        blueprint.push(names.tokens, Op::Concat { axis: 0 }, &[class, registers, x])
    }

    fn block(&self, blueprint: &mut Blueprint<'_>, naming: Naming, path: &str, input: NodeId) -> NodeId {
        let names = match naming {
            Naming::Torchvision => TORCHVISION_BLOCK,
            Naming::Timm => TIMM_BLOCK,
        };
        let (width, hidden) = (self.width, self.width * EXPANSION);
        let name = |part: &str| format!("{path}.{part}");
        let scaled = |weights: Weights, number: usize| match self.layer_scale {
            true => {
                let module = name(&format!("ls{number}"));
                weights.scaled(Tensor::new(format!("{module}.gamma"), [width]), Some(module))
            }
            false => weights,
        };
        let norm = blueprint.layer_norm(&name(names.norms[0]), width, CHANNELS, EPSILON, input);
        let attention = self.attention(blueprint, &name(names.attention), &names, norm);
        let projection = format!("{}.{}", name(names.attention), names.projection);
        let weights = scaled(Weights::new(&projection, [width, width]), 1);
        let mut x = blueprint.dense(projection, weights, attention);
        blueprint.module(name(names.attention), x);
        let middle = blueprint.add(name("add"), input, x);
        x = blueprint.layer_norm(&name(names.norms[1]), width, CHANNELS, EPSILON, middle);
        let [first, second] = names.dense.map(name);
        x = blueprint.dense(&first, Weights::new(&first, [hidden, width]), x);
        x = blueprint.push(name(names.activation), Op::Activation(Activation::Gelu { tanh: false }), &[x]);
        x = blueprint.dense(&second, scaled(Weights::new(&second, [width, hidden]), 2), x);
        blueprint.module(name("mlp"), x);
        blueprint.add(path, middle, x)
    }

    /// Attention before its projection: `softmax(Q Kᵀ / sqrt(d)) V` per head of `d` channels.
    fn attention(&self, blueprint: &mut Blueprint<'_>, path: &str, names: &BlockNames, input: NodeId) -> NodeId {
        let (width, depth) = (self.width, self.width / self.heads);
        let name = |part: &str| format!("{path}.{part}");
        let [qkv, weight, bias] = names.qkv.map(name);
        let qkv = blueprint.dense(qkv, Weights::of(Tensor::new(weight, [3 * width, width]), bias), input);
        let [queries, keys, values] =
            [("q", 0, [1, 0, 2]), ("k", 1, [1, 2, 0]), ("v", 2, [1, 0, 2])].map(|(part, index, order)| {
                let slice = Op::Slice { axis: 1, start: index * width, end: (index + 1) * width, step: 1 };
                let x = blueprint.push(name(part), slice, &[qkv]);
                let heads = Op::Reshape(vec![Axis::Copy(0), Axis::Exact(self.heads), Axis::Exact(depth)]);
                let x = blueprint.push(name(&format!("{part}.heads")), heads, &[x]);
                blueprint.push(name(&format!("{part}.by_head")), Op::Transpose(order.to_vec()), &[x])
            });
        let factor = Array::vector(vec![(1.0 / (depth as f64).sqrt()) as f32]);
        let factor = blueprint.push(name("scale"), Op::Constant(factor), &[]);
        let queries = blueprint.push(name("q.scaled"), Op::Binary(Binary::Mul), &[queries, factor]);
        let x = blueprint.push(name("scores"), Op::MatMul, &[queries, keys]);
        let x = blueprint.push(name("softmax"), Op::Softmax { axis: 2 }, &[x]);
        let x = blueprint.push(name("weighted"), Op::MatMul, &[x, values]);
        let x = blueprint.push(name("weighted.by_token"), Op::Transpose(vec![1, 0, 2]), &[x]);
        blueprint.push(name("joined"), Op::Reshape(vec![Axis::Copy(0), Axis::Exact(width)]), &[x])
    }
}
