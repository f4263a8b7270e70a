//! Durable state: jobs, studies, trainings and their results.
//!
//! A job is a row of a SQLite database from its submission to its deletion. Each state change is one commit; terminal
//! states never change. A running job is held under a lease: a process that dies leaves its jobs `running`, and the
//! next [`Store::open`] requeues them. PNGs are stored in an object store next to the database.
//!
//! Studies and trainings are also rows with the same states. Their results are stored in folders, where they resume after
//! an interruption.

mod backup;
mod cancel_delete;
mod claim;
mod disk_reserve;
mod error;
mod feed;
mod finish;
mod images;
mod job;
mod lease;
mod metrics;
mod migrations;
mod page;
mod quarantine;
mod recovery;
mod row;
mod run_state;
mod stimuli;
mod storage_fault;
mod storage_health;
mod store;
mod study;
mod study_store;
mod submit;
mod table;
mod training;
mod training_store;
mod writer;

pub use backup::{Backup, BackupError, back_up};
pub use claim::{Claim, ClaimedJobs};
pub use error::{StoreError, SubmitError};
pub use feed::{Event, Feed, Subscription, Update};
pub use finish::{MAX_INTERRUPTIONS, RunOutcome};
pub use job::{Idempotency, Job, NewJob, Progress, Stimulus, StoredAnimation};
pub use lease::Lease;
pub use metrics::describe_metrics;
pub use page::{Cursor, JobFilter, Page};
pub use run_state::{Failure, FailureCode, RunState};
pub use storage_fault::StorageFault;
pub use store::{Deleted, Store, StoreConfig};
pub use study::{NewStudy, Study, StudyProgress};
pub use study_store::StudyClaim;
pub use submit::Submitted;
pub use training::{EpochProgress, NewTraining, Training, TrainingOrder, TrainingProgress};
pub use training_store::TrainingClaim;
