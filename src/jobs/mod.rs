//! What must not be lost: jobs and studies, their states, and what they found.
//!
//! A job is a row of a SQLite database from its submission until somebody deletes it. Each change of its state is one
//! commit; a terminal state never changes again. Running is a lease: a process that dies leaves its jobs `running`, and
//! the next [`Store::open`] puts them back into the queue. PNGs lie in an object store beside the database.
//!
//! A study is a row, too, through the same states; its runs lie in a folder, and a study that was cut short goes on there.

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
