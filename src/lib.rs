//! HTTP service for activation maximization with [`proxygrad`]: a client names a model and a unit and receives a PNG and
//! its score.
//!
//! Modules in the order of data flow (each uses only the modules below it, and the library):
//!
//! | module | contents |
//! |---|---|
//! | [`service`] | the process: startup from the configuration, graceful shutdown |
//! | [`api`] | HTTP API: routes, documents, problem details, OpenAPI |
//! | [`worker`] | worker pool: devices, batching, progress, cancellation |
//! | [`jobs`] | durable state: jobs, studies and their results |
//! | [`config`] | settings from flags, environment and file |

pub mod api;
pub mod config;
pub mod jobs;
pub mod service;
pub mod worker;

mod free_memory;
