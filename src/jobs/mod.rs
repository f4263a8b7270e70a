//! What must not be lost: jobs and studies, their states, and what they found.
//!
//! A job is a row of a SQLite database from its submission until somebody deletes it. Each change of its state is one
//! commit; a terminal state never changes again. Running is a lease: a process that dies leaves its jobs `running`, and
//! the next [`Store::open`] puts them back into the queue. PNGs lie in an object store beside the database.
//!
//! A study is a row, too, through the same states; its runs lie in a folder, and a study that was cut short goes on there.

mod aside;
mod backup;
mod claim;
mod error;
mod fault;
mod feed;
mod finish;
mod health;
mod images;
mod job;
mod metrics;
mod page;
mod recover;
mod reserve;
mod row;
mod stimuli;
mod store;
mod studies;
mod study;
mod submit;
mod table;
mod withdraw;
mod writer;

pub use backup::{Backup, BackupError, back_up};
pub use claim::{Claim, Claimed, Lease};
pub use error::{StoreError, SubmitError};
pub use fault::Fault;
pub use feed::{Event, Feed, Subscription, Update};
pub use finish::{MOST_INTERRUPTIONS, RunEnd};
pub use job::{Idempotency, Job, JobProblem, JobState, NewJob, ProblemCode, Progress, Stimulus, StoredAnimation};
pub use metrics::describe_metrics;
pub use page::{Cursor, JobFilter, Page};
pub use store::{Deleted, Store, StoreConfig};
pub use studies::StudyClaim;
pub use study::{NewStudy, Study, StudyProgress};
pub use submit::Submitted;
