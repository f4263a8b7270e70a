//! Explains convolutional networks by activation maximization with ProxyGrad.
//!
//! A client names a [model](network::Model) and a [unit](network::Unit) and gets back a PNG and a number; anybody who
//! decodes that PNG and runs it through the same model gets that number.
//!
//! The rooms, in the order data flows through them (each may use only the rooms below it):
//!
//! | room | what it holds |
//! |---|---|
//! | [`api`] | HTTP: routes, documents, problem details, OpenAPI |
//! | [`worker`] | the pool: devices, batching, progress, cancellation |
//! | [`jobs`] | what must not be lost: jobs and studies, their states, the store, stimuli |
//! | [`study`] | compares settings on the same units, starts and passes: plans, runs, statistics, reports |
//! | [`maximize`] | activation maximization: objective, transforms, optimizer, gate schedule, the loop |
//! | [`calibrate`] | what a folder of natural images does to the units of a model |
//! | [`engine`] | runs a network: forward to the target, gated backward to the input |
//! | [`network`] | what a network is: graph, layers, units, import, preprocessing, catalog |
//!
//! `network`, `engine`, `calibrate`, `maximize` and `study` are an ordinary library: they know nothing of HTTP, jobs or
//! tokio.
//!
//! The method: Linse, Barth, Martinetz, "Leaky ReLUs That Differ in Forward and Backward Pass Facilitate Activation
//! Maximization in Deep Neural Networks", IJCNN 2024, <https://arxiv.org/abs/2410.16958>.

pub mod api;
pub mod calibrate;
pub mod config;
pub mod engine;
pub mod jobs;
pub mod maximize;
pub mod network;
pub mod service;
pub mod study;
pub mod text;
pub mod worker;

mod free_memory;
mod image_file;
mod invalid;
pub use invalid::Invalid;
