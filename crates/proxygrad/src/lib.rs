//! Activation maximization (feature visualization) of convolutional networks with ProxyGrad surrogate gradients.
//!
//! Given a [model](network::Model) and a [unit](network::Unit), a run returns a PNG and a score. Running that PNG
//! through the same model reproduces the score.
//!
//! The modules; each may use only those below it:
//!
//! | module | content |
//! |---|---|
//! | [`study`] | comparison of settings on the same units, starts and steps, and of trained networks: plans, runs, reports |
//! | [`maximize`] | activation maximization: objectives, parameterizations, transforms, optimizers, gates, the loop |
//! | [`judge`] | other networks' view of a stimulus: rank and probability of its class, likeness to natural images |
//! | [`train`] | training of classifiers with surrogate gradients: data, recipes, optimizers, checkpoints |
//! | [`calibrate`] | statistics of a model's units on a folder of natural images |
//! | [`engine`] | forward passes to the target layers, backward passes to the input with surrogate gradients |
//! | [`network`] | graph, layers, units, ONNX import, preprocessing, model catalog |
//!
//! # Features
//! Without features this is a plain library, without HTTP, databases or command line parsing.
//!
//! The method: Linse, Barth, Martinetz, "Leaky ReLUs That Differ in Forward and Backward Pass Facilitate Activation
//! Maximization in Deep Neural Networks", IJCNN 2024, <https://arxiv.org/abs/2410.16958>.

pub mod calibrate;
pub mod engine;
pub mod judge;
pub mod maximize;
pub mod network;
pub mod statistics;
pub mod study;
pub mod text;
pub mod train;

mod file;
mod image_file;
mod invalid;
mod maximizer;
mod random;
mod report;

pub use engine::{Cpu, CpuSettings, Engine};
pub use invalid::{Invalid, InvalidReason};
pub use maximize::{Findings, GateKind, Objective, Outcome, Preset, Request};
pub use maximizer::{Error, Maximizer};
pub use network::catalog::Models;
pub use network::{Model, Network, Unit};
