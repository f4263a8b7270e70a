//! Views: nodes behind a layer that list its channels first.

use std::collections::HashMap;
use std::ops::Range;

use super::infer::{Layout, layouts};
use super::{AxisLayout, Digit, Role};
use crate::network::graph::{Network, NodeId, SizeBound};
use crate::network::op::{Axis, Op};
use crate::network::shape::Shape;

/// Maximum number of tokens of a layer, besides its patches, that have a view of their own.
const MAX_TOKENS: usize = 128;
/// Maximum number of nodes of all views together.
const MAX_NODES: usize = 1 << 16;

/// The views of a network's layers.
#[derive(Debug, Clone, Default)]
pub(in crate::network) struct Views {
    by_layer: HashMap<NodeId, View>,
    /// Indices of the nodes of views.
    nodes: Range<usize>,
}

/// A layer as users see it.
#[derive(Debug, Clone)]
struct View {
    /// The layer with its channels first; of tokens only the patches.
    main: NodeId,
    /// Names and vectors of the other tokens.
    tokens: Vec<NodeId>,
    names: Vec<String>,
}

impl Views {
    /// The node that shows a layer: the layer itself if it has no view.
    pub fn main(&self, layer: NodeId) -> NodeId {
        self.by_layer.get(&layer).map_or(layer, |view| view.main)
    }

    /// Names of a layer's tokens besides its patches: `class` for the first, if it comes before the patches, and
    /// `tokenI` for another with the index `I` among all tokens.
    pub fn tokens(&self, layer: NodeId) -> &[String] {
        self.by_layer.get(&layer).map_or(&[], |view| &view.names)
    }

    /// The node of a layer's token with this name.
    pub fn token(&self, layer: NodeId, name: &str) -> Option<NodeId> {
        let view = self.by_layer.get(&layer)?;
        let name = if name == "token0" { "class" } else { name };
        view.names.iter().position(|own| own == name).map(|i| view.tokens[i])
    }

    /// Whether a node belongs to a view.
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes.contains(&node.0)
    }
}

impl Network {
    /// Adds a view to every layer that is stored channels-last or as tokens, so that [`Network::find`] and
    /// [`Network::layers`] show it as `[C,H,W]`. Views are computed only where they are targets. To be called once,
    /// when all nodes have been added.
    pub fn add_views(&mut self) {
        let first = self.nodes().len();
        let mut by_layer = HashMap::new();
        for (id, layout) in layouts(self).into_iter().enumerate() {
            let node = self.node(NodeId(id));
            if matches!(node.op, Op::Input | Op::Constant(_)) || self.nodes().len() - first > MAX_NODES {
                continue;
            }
            let (name, shape) = (node.name.clone(), node.shape.clone());
            if let Some(view) = self.add_view(NodeId(id), &name, &layout, &shape) {
                by_layer.insert(NodeId(id), view);
            }
        }
        *self.views_mut() = Views { by_layer, nodes: first..self.nodes().len() };
    }

    fn add_view(&mut self, layer: NodeId, name: &str, layout: &Layout, shape: &Shape) -> Option<View> {
        let mut with_tokens = (0..layout.len()).filter(|&axis| layout[axis].has_tokens());
        let (axis, further) = (with_tokens.next(), with_tokens.next());
        let Some(axis) = axis else {
            let steps = channels_first(layout);
            let main = (!steps.is_empty()).then(|| self.push_view(layer, name, &steps))??;
            return Some(View { main, tokens: Vec::new(), names: Vec::new() });
        };
        if further.is_some() {
            return None;
        }
        let AxisLayout { before, digits, .. } = &layout[axis];
        let patches = *before..before + layout[axis].patches();
        let selected = |range: Range<usize>, digits: &[Digit]| {
            let slice = Op::Slice { axis, start: range.start, end: range.end, step: 1 };
            let mut layout = layout.clone();
            layout[axis] = AxisLayout::of(digits.iter().copied());
            [vec![(slice, Some(SizeBound::Exact))], channels_first(&layout)].concat()
        };
        let main = self.push_view(layer, name, &selected(patches.clone(), digits))?;
        let others = (0..patches.start).chain(patches.end..shape[axis]);
        let (mut tokens, mut names) = (Vec::new(), Vec::new());
        for token in others.take(MAX_TOKENS) {
            let own = if token == 0 { "class".to_owned() } else { format!("token{token}") };
            tokens.push(self.push_view(layer, &format!("{name}@{own}"), &selected(token..token + 1, &[]))?);
            names.push(own);
        }
        Some(View { main, tokens, names })
    }

    /// Adds the nodes of a view, which all carry its name.
    fn push_view(&mut self, layer: NodeId, name: &str, steps: &[Step]) -> Option<NodeId> {
        let mut at = layer;
        for (op, bound) in steps {
            at = self.push_unlisted(name, op.clone(), &[at]).ok()?;
            if let Some(bound) = bound {
                self.bind_size(at, *bound);
            }
        }
        Some(at)
    }
}

/// An operation of a view, and the input sizes it is valid for.
type Step = (Op, Option<SizeBound>);

/// The operations that bring a layer without tokens to `[C,H,W]`; to `[C,P]`, with positions `P` in the order in which
/// they are stored, if it has no rows and columns or counts something else too; to `[C]` if it has only channels. None
/// if it is a map already, perhaps with its channels in groups, or nothing is known about it.
fn channels_first(layout: &Layout) -> Vec<Step> {
    let is = |axis: usize, role: Role| layout[axis].is_only(role);
    let rank = layout.len();
    let is_map = rank >= 3 && (0..rank - 2).all(|i| is(i, Role::Channel)) && is(rank - 2, Role::Row);
    if rank <= 1 || !layout.iter().any(AxisLayout::is_known) || (is_map && is(rank - 1, Role::Column)) {
        return Vec::new();
    }
    if rank == 3 && is(0, Role::Row) && is(1, Role::Column) && is(2, Role::Channel) {
        return vec![(Op::Transpose(vec![2, 0, 1]), None)];
    }
    let digits: Vec<(usize, Digit)> =
        layout.iter().enumerate().flat_map(|(i, axis)| axis.digits.iter().map(move |&digit| (i, digit))).collect();
    let of = |role: Role| -> Vec<usize> { (0..digits.len()).filter(|&i| digits[i].1.role == role).collect() };
    let [mut channels, mut rows, mut columns, mut others] =
        [Role::Channel, Role::Row, Role::Column, Role::Other].map(of);
    if channels.is_empty() {
        std::mem::swap(&mut channels, &mut others);
    }
    for placed in [&mut rows, &mut columns] {
        placed.sort_by_key(|&i| std::cmp::Reverse(digits[i].1.stride));
        let overlap = |pair: &[usize]| {
            let [outer, inner] = [digits[pair[0]].1, digits[pair[1]].1];
            outer.stride < inner.stride.saturating_mul(inner.length)
        };
        // Rows that are counted twice, as by the queries and the keys of attention, are not those of a map.
        if placed.windows(2).any(overlap) {
            return Vec::new();
        }
    }
    let groups = match (rows.is_empty(), columns.is_empty(), others.is_empty()) {
        (true, true, true) => vec![channels],
        (false, false, true) => vec![channels, rows, columns],
        _ => {
            let positions = (0..digits.len()).filter(|i| !channels.contains(i)).collect();
            vec![channels, positions]
        }
    };
    regrouped(layout, &digits, &groups)
}

/// The operations that store the digits of a layer as these groups, one axis each.
fn regrouped(layout: &Layout, digits: &[(usize, Digit)], groups: &[Vec<usize>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let reshape = |target: Vec<Axis>| {
        let fixed = target.iter().any(|axis| matches!(axis, Axis::Exact(length) if *length > 1));
        (Op::Reshape(target), fixed.then_some(SizeBound::Exact))
    };
    if layout.iter().any(|axis| axis.digits.len() != 1) {
        let axis = |&(axis, digit): &(usize, Digit)| match layout[axis].digits.len() {
            1 => Axis::Copy(axis),
            _ => Axis::Exact(digit.length),
        };
        steps.push(reshape(digits.iter().map(axis).collect()));
    }
    let order = groups.concat();
    if !order.iter().copied().eq(0..digits.len()) {
        steps.push((Op::Transpose(order.clone()), None));
    }
    if groups.iter().any(|group| group.len() != 1) {
        let mut next = 0;
        let axis = |group: &Vec<usize>| {
            next += group.len();
            match group.len() {
                1 => Axis::Copy(next - 1),
                _ => Axis::Exact(group.iter().map(|&i| digits[i].1.length).product()),
            }
        };
        steps.push(reshape(groups.iter().map(axis).collect()));
    }
    steps
}
