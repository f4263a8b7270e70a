//! Time per step of the execution plan.

use std::collections::BTreeMap;

use proxygrad::engine::StepTime;
use proxygrad::network::{Network, Op};

/// Prints a line per step and direction to standard error: milliseconds of an iteration of the whole batch,
/// multiply-adds of the direct convolution, and the resulting GFLOP/s (Winograd's filtering can exceed the processor's
/// peak, since it needs fewer operations).
///
/// # Errors
/// When the network cannot run at the measured size.
pub fn print(network: &Network, times: &[StepTime], iterations: usize, batch: usize) -> anyhow::Result<()> {
    let last = times.iter().map(|step| step.node).max().unwrap_or(Network::INPUT);
    let shapes = network.shapes_at(&super::networks::input(), &network.below(&[last]))?;
    let mut kinds: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    let mut total = 0.0;
    eprintln!("{:>8} {:>9} {:>8}  step", "ms", "M mul-add", "GFLOP/s");
    for step in times {
        let node = network.node(step.node);
        let milliseconds = step.time.as_secs_f64() * 1e3 / iterations.max(1) as f64;
        let elements = shapes.get(&step.node).map_or(0, |shape| shape.elements());
        let (kind, products) = match &node.op {
            Op::Conv(conv) => {
                let [height, width] = conv.window.kernel;
                let depthwise = conv.groups == conv.out_channels() && conv.groups > 1;
                let kind = if depthwise { "depthwise" } else { "convolution" };
                let [stride, _] = conv.window.stride;
                let kind = format!("{height}x{width} {kind}, stride {stride}");
                (kind, elements * conv.in_channels() / conv.groups * height * width)
            }
            Op::Dense { weight, .. } => ("dense".into(), weight.len()),
            Op::Input => ("images in, gradients out".into(), 0),
            _ => ("other".into(), 0),
        };
        let direction = if step.backward { "backward" } else { "forward" };
        let millions = (products * batch) as f64 / 1e6;
        eprintln!(
            "{milliseconds:>8.3} {millions:>9.1} {:>8.1}  {direction} {}: {kind}{}",
            2.0 * millions / milliseconds,
            node.name,
            shapes.get(&step.node).map(|shape| format!(" to {shape}")).unwrap_or_default(),
        );
        let sums = kinds.entry(format!("{kind}, {direction}")).or_default();
        sums[0] += milliseconds;
        sums[1] += millions;
        total += milliseconds;
    }
    eprintln!();
    for (kind, [milliseconds, millions]) in kinds {
        eprintln!("{milliseconds:>8.3} {millions:>9.1} {:>8.1}  {kind}", 2.0 * millions / milliseconds);
    }
    eprintln!("{total:>8.3}                     all steps");
    Ok(())
}
