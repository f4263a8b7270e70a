//! Integration tests of the library, in one binary so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// Tables of cases have complex types.
#![allow(clippy::type_complexity)]

mod architectures;
mod calibration;
mod calibration_fixture;
mod catalog;
mod channels;
mod client_images;
mod coarse_stage;
mod cpu_engine;
mod diagnostics;
mod engine_gates;
mod engine_gradients;
mod engine_precision;
mod evaluation;
mod judge;
mod layouts;
mod maximize;
mod memory;
mod networks;
mod onnx_hostile;
mod onnx_runtime;
mod operations;
mod parameterizations;
mod patience;
mod pulled_models;
mod receptive_field;
mod search;
mod selections;
mod study;
mod tensors;
mod torch_architectures;
mod train;
mod train_study;
mod training;
