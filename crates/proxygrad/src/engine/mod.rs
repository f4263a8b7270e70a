//! Engines: forward passes to the target layers, and backward passes to the input with surrogate gradients.
//!
//! An engine plans a network once for its targets and input size, and then runs explicit forward and backward passes
//! over the subgraph below the targets. Weights get no gradient. Images, outputs and gradients are
//! [`candle_core::Tensor`]s, so that they stay on the engine's device.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//!
//! use candle_core::{Device, Tensor};
//! use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Target};
//! use proxygrad::network::{Activation, Network, Op};
//!
//! let mut network = Network::new(1, 1, 2);
//! let relu = network.push("relu", Op::Activation(Activation::Relu), &[Network::INPUT])?;
//! let network = Arc::new(network);
//!
//! let engine = Cpu::new(&CpuSettings::default())?;
//! let mut plan = engine.plan(&network, &[Target::from(relu)], network.input_shape())?;
//! let image = Tensor::new(&[[[[-2f32, 3.0]]]], &Device::Cpu)?;
//! let output = plan.forward(&image, Forward::Original)?.remove(0);
//! assert_eq!(output.flatten_all()?.to_vec1::<f32>()?, [0.0, 3.0]);
//!
//! // The backward rule decides what passes the ReLU where it is off.
//! let seed = [output.ones_like()?];
//! let gradient = |gradient: Tensor| gradient.flatten_all()?.to_vec1::<f32>();
//! assert_eq!(gradient(plan.backward(&seed, Gate::Plain)?)?, [0.0, 1.0]);
//! assert_eq!(gradient(plan.backward(&seed, Gate::Proxy { slope: 0.25 })?)?, [0.25, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cpu;
mod device;
mod error;
mod gate;
mod memory;
mod reference;
mod subgraph;
mod training;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};

pub use cpu::{Cpu, CpuSettings, Instructions};
pub use device::{device, open, open_training};
pub use error::EngineError;
pub use gate::{Forward, Gate};
pub use memory::{Footprint, MemoryModel};
pub use reference::{Precision, Reference};
pub use subgraph::Target;
pub use training::{Gradients, Mode, Surrogate, TrainingEngine, TrainingPlan};

use crate::network::{Network, NodeId, Shape};

/// Runs networks on one device.
pub trait Engine: Send + Sync {
    /// The device of images and layer outputs.
    fn device(&self) -> &Device;

    /// Element type of images and layer outputs.
    fn dtype(&self) -> DType;

    /// Predicts the memory of its plans.
    fn memory_model(&self) -> MemoryModel;

    /// The same device as an engine that trains; `None` if it cannot.
    fn training(&self) -> Option<&dyn TrainingEngine> {
        None
    }

    /// Drops cached data of networks that are no longer in use. Returns whether there was any.
    fn release_unused(&self) -> bool {
        false
    }

    /// Prepares the subgraph of `network` below `targets` for images `[N,C,H,W]` whose `[C,H,W]` is `input`.
    ///
    /// # Errors
    /// When an operation does not work at that input size, a target has no such channel, or the device runs out of
    /// memory.
    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError>;
}

/// A network prepared for one set of target layers and one input size. The batch size may differ between calls; the
/// result for one image never depends on the other images of the batch.
pub trait Plan: Send {
    /// Outputs of the target layers for `images` `[N,C,H,W]`, in the order of the targets. All channels are returned,
    /// but only those listed in the target are guaranteed to be computed; the rest may be zero.
    ///
    /// # Errors
    /// When `images` has the wrong shape or the device fails.
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError>;

    /// Gradient `[N,C,H,W]` with respect to the images of the last [`Plan::forward`], of the sum of
    /// `seeds[i] * output[i]` over all targets and values. Seeds must be 0 in channels that their target does not list.
    /// Activations use the backward rule of `gate`.
    ///
    /// # Errors
    /// When there was no forward pass, a seed has the wrong shape, or the device fails.
    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> Result<Tensor, EngineError>;

    /// Whether passes may be in the engine's reduced precision from now on, if it was opened with one ([`open`]).
    /// Initially they may not. Engines that always have the same precision ignore it.
    fn allow_reduced_precision(&mut self, allow: bool) {
        let _ = allow;
    }

    /// Sets the factor of the temperature of [`Gate::Soft`] at each activation, until it is set again. Missing factors,
    /// and those that are not finite and positive, are 1.
    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>);

    /// Bytes of memory held between passes, including packed weights; `None` if the engine does not know. At most what
    /// its [`Footprint`] predicts.
    fn held_bytes(&self) -> Option<u64> {
        None
    }

    /// Time of each step of all passes since the last call, if the engine measures it ([`CpuSettings::timed`]);
    /// otherwise empty.
    fn take_times(&mut self) -> Vec<StepTime> {
        Vec::new()
    }
}

/// Time of one step of a [`Plan`], summed over images and passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTime {
    /// The node that the step computes, possibly fused with its activation and residual sum; for fused steps, the last.
    /// The network's input represents copies of images to the engine, and of outputs and gradients from it.
    pub node: NodeId,
    /// Whether it is a step of the backward pass.
    pub backward: bool,
    /// Time until all threads finished.
    pub time: Duration,
}

/// The factor of an activation in [`Plan::set_scales`].
fn scale_of(scales: &BTreeMap<NodeId, f32>, activation: NodeId) -> f32 {
    scales.get(&activation).copied().filter(|scale| scale.is_finite() && *scale > 0.0).unwrap_or(1.0)
}
