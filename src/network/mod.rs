//! What a network is: its graph, layers and units, its preprocessing, and how it is imported.

mod activation;
pub mod architecture;
mod array;
pub mod calibration;
pub mod catalog;
pub mod checkpoint;
mod class_names;
mod colour;
mod graph;
mod image_source;
mod model;
pub mod onnx;
mod op;
mod preprocessing;
mod receptive_field;
mod resize;
mod shape;
mod spectrum;
mod unit;
mod window;

pub use activation::Activation;
pub(crate) use activation::{SELU_ALPHA, SELU_LAMBDA};
pub use array::Array;
pub use colour::ColourMatrix;
pub use graph::{Layer, Network, Node, NodeId, SizeBound};
pub use image_source::{ImageSource, KnownImage};
pub use model::{Model, Statistics};
pub(crate) use op::broadcast;
pub use op::{Axis, Binary, Conv, Op, PadMode, Reduce};
pub use preprocessing::{ChannelOrder, Preprocessing};
pub use resize::{Coordinates, Interpolation, Resize, Rounding, Target};
pub use shape::Shape;
pub use spectrum::Spectrum;
pub use unit::{ImageDocument, ReduceDocument, Reduction, Selection, Unit, UnitDocument, UnitText};
pub use window::{Padding, Window};
