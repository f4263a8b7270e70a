//! Runs a network: forward to the target layers, gated backward to the input.
//!
//! An engine plans a network once for its targets and input size, and then runs an explicit forward and an explicit
//! backward walk over the part of the network below the targets. Weights get no gradient. Tensors cross this border as
//! [`candle_core::Tensor`], so that images stay on the device that the engine runs on.

mod cpu;
mod device;
mod error;
mod gate;
mod memory;
mod reference;
mod subgraph;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};

pub use cpu::{Cpu, CpuSettings, Instructions};
pub use device::{device, open};
pub use error::EngineError;
pub use gate::{Forward, Gate};
pub use memory::{Footprint, MemoryModel};
pub use reference::{Precision, Reference};
pub use subgraph::Target;

use crate::network::{Network, NodeId, Shape};

/// A way to run networks on one device.
pub trait Engine: Send + Sync {
    /// The device that images and layer outputs live on.
    fn device(&self) -> &Device;

    /// Element type of images and layer outputs.
    fn dtype(&self) -> DType;

    /// What tells how much memory its plans take.
    fn memory_model(&self) -> MemoryModel;

    /// Drops what is kept only to make plans faster, of networks that nobody holds any more. Gives whether there was any.
    fn release_unused(&self) -> bool {
        false
    }

    /// Prepares the part of `network` below `targets` for images `[N, C, H, W]` whose `[C,H,W]` is `input`.
    ///
    /// # Errors
    /// When an operation cannot work at that input size, a target has no such channel, or the device runs out of memory.
    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError>;
}

/// A network prepared for one set of target layers and one input size. The batch may differ from call to call; the
/// result for one image never depends on its neighbours in the batch.
pub trait Plan: Send {
    /// Outputs of the target layers for `images` `[N,C,H,W]`, in the order of the targets and with all channels, of which
    /// only those that the target names are sure to be computed.
    ///
    /// # Errors
    /// When `images` has the wrong shape or the device fails.
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError>;

    /// Gradient `[N,C,H,W]` with respect to the images of the last [`Plan::forward`], of the sum of
    /// `seeds[i] * output[i]` over all targets and values. Seeds are 0 in channels that their target does not name. Activations use the backward rule of `gate`.
    ///
    /// # Errors
    /// When no forward came before, a seed has the wrong shape, or the device fails.
    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> Result<Tensor, EngineError>;

    /// Sets what the temperature of [`Gate::Soft`] is multiplied with at each activation; 1 where nothing, or no finite
    /// number greater than 0, is given. It holds until it is set again.
    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>);

    /// Bytes of memory that it holds from pass to pass, with the weights that its kernels laid out; nothing where the
    /// engine does not know. No more than its [`Footprint`] says.
    fn held_bytes(&self) -> Option<u64> {
        None
    }

    /// How long each step of the passes took since the last call, where the engine was asked to measure it
    /// ([`CpuSettings::timed`]); else nothing.
    fn take_times(&mut self) -> Vec<StepTime> {
        Vec::new()
    }
}

/// Time that one step of a [`Plan`]'s passes took, all images and all passes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTime {
    /// The node that the step computes; its activation and residual sum may be computed with it. Of steps that are walked
    /// together, the last. The network's input for all that belongs to no node: images in, outputs and gradients out.
    pub node: NodeId,
    /// Whether it was a step of the way back.
    pub backward: bool,
    /// From its start until all threads were done.
    pub time: Duration,
}

/// The scale of an activation for [`Plan::set_scales`].
fn scale_of(scales: &BTreeMap<NodeId, f32>, activation: NodeId) -> f32 {
    scales.get(&activation).copied().filter(|scale| scale.is_finite() && *scale > 0.0).unwrap_or(1.0)
}
