//! Everything that is tested from outside, in one binary so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cpu_engine;
mod engine_gates;
mod engine_gradients;
mod job_fixture;
mod jobs;
mod jobs_crash;
mod jobs_feed;
mod maximize;
mod networks;
mod operations;
mod worker;
