//! Device thread: the OS thread of a device, which owns its engine and runs one batch after another.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use tokio::sync::oneshot;

use super::sources::OpenEngine;
use crate::free_memory;
use proxygrad::engine::{Engine, EngineError};
use proxygrad::maximize::{MaximizeError, Outcome};
use proxygrad::study::StudyError;
use proxygrad::train::TrainError;

/// Failure of a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Maximize(#[from] MaximizeError),
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("panicked: {0}")]
    Panic(String),
    #[error("the device thread ended")]
    ThreadGone,
}

impl BatchError {
    /// Whether it counts as a failure of the engine: all but what is wrong with a training.
    pub(super) fn is_of_the_engine(&self) -> bool {
        !matches!(self, Self::Train(error) if !matches!(error, TrainError::Engine(_)))
    }
}

/// One outcome per task; `None` for canceled ones.
pub(super) type BatchResult = Result<Vec<Option<Outcome>>, BatchError>;

enum Message {
    Open(oneshot::Sender<Result<(), EngineError>>),
    Run(Work),
}

/// Work for the thread, called with the engine or with the reason why it could not be opened.
type Work = Box<dyn FnOnce(Result<&dyn Engine, EngineError>) -> Completed + Send>;

/// Work that was run.
struct Completed {
    /// Whether the engine may be unusable now.
    engine_broken: bool,
    /// Sends the result to the caller.
    reply: Box<dyn FnOnce()>,
}

/// Handle of a device thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct DeviceThread {
    messages: mpsc::Sender<Message>,
}

impl DeviceThread {
    /// Starts the thread of the device with this name.
    pub(super) fn start(device: &str, open: OpenEngine) -> std::io::Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let name = device.to_owned();
        thread::Builder::new().name(format!("device-{device}")).spawn(move || serve(&name, &open, inbox))?;
        Ok(Self { messages })
    }

    /// Opens the engine if it is not open: at the start, and after it failed.
    pub(super) fn open(&self) -> oneshot::Receiver<Result<(), EngineError>> {
        let (reply, opened) = oneshot::channel();
        // If the thread has ended, the reply is dropped, and the receiver returns an error.
        let _ = self.messages.send(Message::Open(reply));
        opened
    }

    /// Whether the engine is open, or could be reopened.
    pub(super) async fn is_usable(&self) -> bool {
        matches!(self.open().await, Ok(Ok(())))
    }

    /// Drops cached data of models that are no longer loaded. With `trim`, or if there was any, returns free memory to
    /// the system.
    pub(super) async fn release_unused(&self, trim: bool) {
        let release = move |engine: &dyn Engine| {
            if engine.release_unused() || trim {
                free_memory::trim();
            }
            Ok(())
        };
        // An engine that fails here fails again when it is next used.
        let _ = self.run(release).await;
    }

    /// Runs work on the engine. A panic drops the work and the engine.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> Result<T, BatchError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, BatchError>> {
        let (reply, result) = oneshot::channel();
        let work = move |engine: Result<&dyn Engine, EngineError>| {
            let result = match engine {
                Ok(engine) => catch_unwind(AssertUnwindSafe(|| work(engine)))
                    .unwrap_or_else(|panic| Err(BatchError::Panic(message(&*panic)))),
                Err(error) => Err(MaximizeError::from(error).into()),
            };
            let engine_broken = result.as_ref().is_err_and(may_break_engine);
            // The caller may have stopped waiting.
            Completed { engine_broken, reply: Box::new(move || drop(reply.send(result))) }
        };
        let _ = self.messages.send(Message::Run(Box::new(work)));
        result
    }
}

fn serve(device: &str, open: &OpenEngine, inbox: mpsc::Receiver<Message>) {
    let mut engine: Option<Box<dyn Engine>> = None;
    for message in inbox {
        match message {
            Message::Open(reply) => {
                // The caller may have stopped waiting.
                let _ = reply.send(opened(&mut engine, device, open).map(drop));
            }
            Message::Run(work) => {
                let Completed { engine_broken, reply } = work(opened(&mut engine, device, open));
                if engine_broken {
                    // The next batch gets a new engine.
                    let broken = engine.take();
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                }
                reply();
            }
        }
    }
}

/// The engine, opened if necessary.
fn opened<'a>(
    engine: &'a mut Option<Box<dyn Engine>>,
    device: &str,
    open: &OpenEngine,
) -> Result<&'a dyn Engine, EngineError> {
    let opened = match engine.take() {
        Some(engine) => engine,
        None => catch_unwind(AssertUnwindSafe(|| open(device))).unwrap_or_else(|panic| {
            Err(EngineError::Device { device: device.to_owned(), why: format!("panicked: {}", message(&*panic)) })
        })?,
    };
    Ok(&**engine.insert(opened))
}

/// Whether the engine may be unusable after this error.
fn may_break_engine(error: &BatchError) -> bool {
    match error {
        BatchError::Maximize(error) | BatchError::Study(StudyError::Run { source: error, .. }) => {
            matches!(error, MaximizeError::Engine(error) if !matches!(error, EngineError::Size { .. }))
        }
        BatchError::Train(error) => matches!(error, TrainError::Engine(_)),
        BatchError::Study(_) => false,
        BatchError::Panic(_) | BatchError::ThreadGone => true,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_owned()
}
