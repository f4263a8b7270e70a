//! Integration tests of the server and the command line, in one binary so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
// Tables of cases are typed where they stand.
#![allow(clippy::type_complexity)]

mod backup;
mod calibrate_command;
mod docs;
mod http_bad_requests;
mod http_browsers;
mod http_connections;
mod http_documents;
mod http_events;
mod http_images;
mod http_jobs;
mod http_judges;
mod http_memory;
mod http_program;
mod http_proxies;
mod http_pulling;
mod http_service;
mod http_snapshots;
mod http_storage;
mod http_studies;
mod http_trainings;
mod http_units;
mod job_fixture;
mod jobs;
mod jobs_crash;
mod jobs_feed;
mod maximize_command;
mod models_command;
mod onnx_files;
mod sqlite_faults;
mod storage_faults;
mod study_command;
mod worker;
mod worker_studies;

// Fixtures that the tests of the library use as well.
#[path = "../../crates/proxygrad/tests/suite/calibration_fixture.rs"]
mod calibration_fixture;
#[allow(dead_code, reason = "some networks are for tests of the library")]
#[path = "../../crates/proxygrad/tests/suite/networks.rs"]
mod networks;
#[path = "../../crates/proxygrad/tests/suite/tensors.rs"]
mod tensors;
