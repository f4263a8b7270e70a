//! The HTTP service of [`proxygrad`]: a client names a model and a unit and gets back a PNG and a number.
//!
//! The rooms, in the order data flows through them (each may use only the rooms below it, and the library):
//!
//! | room | what it holds |
//! |---|---|
//! | [`service`] | the process: configuration to running server, orderly shutdown |
//! | [`api`] | HTTP: routes, documents, problem details, OpenAPI |
//! | [`worker`] | the worker pool: devices, batching, progress, cancellation |
//! | [`jobs`] | durable state: jobs, studies and their results |
//! | [`config`] | settings from flags, environment and file |

pub mod api;
pub mod config;
pub mod jobs;
pub mod service;
pub mod worker;

mod free_memory;
