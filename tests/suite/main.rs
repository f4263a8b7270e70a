//! Everything that is tested from outside, in one binary so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// Tables of cases are typed where they stand.
#![allow(clippy::type_complexity)]

mod architectures;
mod backup;
mod calibration;
mod catalog;
mod certificates;
mod channels;
mod client_images;
mod cpu_engine;
mod engine_gates;
mod engine_gradients;
mod engine_precision;
mod http_bad_requests;
mod http_browsers;
mod http_connections;
mod http_documents;
mod http_events;
mod http_images;
mod http_jobs;
mod http_memory;
mod http_program;
mod http_proxies;
mod http_pulling;
mod http_service;
mod http_storage;
mod http_studies;
mod http_units;
mod job_fixture;
mod jobs;
mod jobs_crash;
mod jobs_feed;
mod maximize;
mod maximize_command;
mod memory;
mod models_command;
mod networks;
mod onnx_files;
mod onnx_hostile;
mod onnx_runtime;
mod operations;
mod parameterizations;
mod pulled_models;
mod receptive_field;
mod search;
mod selections;
mod sqlite_faults;
mod storage_faults;
mod study;
mod tensors;
mod worker;
mod worker_studies;
