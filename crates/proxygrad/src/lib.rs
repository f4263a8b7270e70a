//! Explains convolutional networks by activation maximization with ProxyGrad.
//!
//! You name a [model](network::Model) and a [unit](network::Unit) and get back a PNG and a number; anybody who decodes
//! that PNG and runs it through the same model gets that number.
//!
//! The rooms, in the order data flows through them (each may use only the rooms below it):
//!
//! | room | what it holds |
//! |---|---|
//! | [`study`] | compares settings on the same units, starts and passes: plans, runs, statistics, reports |
//! | [`maximize`] | activation maximization: objective, transforms, optimizer, gate schedule, the loop |
//! | [`calibrate`] | what a folder of natural images does to the units of a model |
//! | [`engine`] | runs a network: forward to the target, gated backward to the input |
//! | [`network`] | what a network is: graph, layers, units, import, preprocessing, catalog |
//!
//! Without features this is a plain library: nothing of HTTP servers, databases or command lines.
//!
//! The method: Linse, Barth, Martinetz, "Leaky ReLUs That Differ in Forward and Backward Pass Facilitate Activation
//! Maximization in Deep Neural Networks", IJCNN 2024, <https://arxiv.org/abs/2410.16958>.

pub mod calibrate;
pub mod engine;
pub mod maximize;
pub mod network;
pub mod study;
pub mod text;

mod image_file;
mod invalid;
mod maximizer;

pub use engine::{Cpu, CpuSettings, Engine};
pub use invalid::Invalid;
pub use maximize::{Findings, GateKind, Objective, Outcome, Preset, Request};
pub use maximizer::{Error, Maximizer};
pub use network::catalog::Models;
pub use network::{Model, Network, Unit};
