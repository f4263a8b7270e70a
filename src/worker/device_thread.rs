//! The OS thread of a device: holds its engine and runs one batch after another.

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

/// Why a batch gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Maximize(#[from] MaximizeError),
    #[error(transparent)]
    Study(#[from] StudyError),
    #[error("panicked: {0}")]
    Panic(String),
    #[error("the device's thread is gone")]
    Gone,
}

/// One outcome per task; nothing for those that were dropped.
pub(super) type BatchResult = Result<Vec<Option<Outcome>>, BatchError>;

enum Message {
    Open(oneshot::Sender<Result<(), EngineError>>),
    Run(Work),
}

/// What a device's thread is asked to run: with the engine, or with why there is none.
type Work = Box<dyn FnOnce(Result<&dyn Engine, EngineError>) -> Done + Send>;

/// Work that was done.
struct Done {
    /// Whether the engine may be unusable now.
    breaks: bool,
    /// Hands the result to whoever waits for it.
    reply: Box<dyn FnOnce()>,
}

/// Hands work to a device's thread, which ends when this is dropped.
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

    /// Opens the engine unless it is open: the first time, and after it failed.
    pub(super) fn open(&self) -> oneshot::Receiver<Result<(), EngineError>> {
        let (reply, opened) = oneshot::channel();
        // Should the thread be gone, the reply is dropped, and the receiver says so.
        let _ = self.messages.send(Message::Open(reply));
        opened
    }

    /// Whether the engine is open, or could be opened again.
    pub(super) async fn works(&self) -> bool {
        matches!(self.open().await, Ok(Ok(())))
    }

    /// Drops what the engine keeps of models that have left memory. With `trim`, or if there was any, free memory goes
    /// back to the system.
    pub(super) async fn tidy(&self, trim: bool) {
        let tidy = move |engine: &dyn Engine| {
            if engine.release_unused() || trim {
                free_memory::trim();
            }
            Ok(())
        };
        // An engine that fails here fails again where it matters.
        let _ = self.run(tidy).await;
    }

    /// Runs something on the engine. What panics there is dropped, and the engine with it.
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
            let breaks = result.as_ref().is_err_and(breaks_engine);
            // Nobody may wait for a reply any more; that is fine.
            Done { breaks, reply: Box::new(move || drop(reply.send(result))) }
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
                // Nobody may wait for a reply any more; that is fine.
                let _ = reply.send(ready(&mut engine, device, open).map(drop));
            }
            Message::Run(work) => {
                let Done { breaks, reply } = work(ready(&mut engine, device, open));
                if breaks {
                    // Whatever state it is in, the next batch gets a new one.
                    let broken = engine.take();
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                }
                reply();
            }
        }
    }
}

fn ready<'a>(
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
fn breaks_engine(error: &BatchError) -> bool {
    match error {
        BatchError::Maximize(error) | BatchError::Study(StudyError::Run { source: error, .. }) => {
            matches!(error, MaximizeError::Engine(error) if !matches!(error, EngineError::Size { .. }))
        }
        BatchError::Study(_) => false,
        BatchError::Panic(_) | BatchError::Gone => true,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_owned()
}
