//! The OS thread of a device: holds its engine and runs one batch after another.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::oneshot;

use super::observer::Watch;
use super::sources::OpenEngine;
use crate::engine::{Engine, EngineError};
use crate::maximize::{MaximizeError, Outcome, Settings, Task, maximize};
use crate::network::Model;

/// What a device's thread is asked to run.
pub(super) struct Order {
    pub(super) model: Arc<Model>,
    pub(super) tasks: Vec<Task>,
    pub(super) settings: Settings,
    pub(super) watch: Watch,
}

/// Why a batch gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Maximize(#[from] MaximizeError),
    #[error("panicked: {0}")]
    Panic(String),
    #[error("the device's thread is gone")]
    Gone,
}

/// One outcome per task; nothing for those that were dropped.
pub(super) type BatchResult = Result<Vec<Option<Outcome>>, BatchError>;

enum Message {
    Open(oneshot::Sender<Result<(), EngineError>>),
    Run(Box<Order>, oneshot::Sender<BatchResult>),
}

/// Hands work to a device's thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    messages: mpsc::Sender<Message>,
}

impl Lane {
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

    /// Runs a batch.
    pub(super) fn run(&self, order: Order) -> oneshot::Receiver<BatchResult> {
        let (reply, result) = oneshot::channel();
        let _ = self.messages.send(Message::Run(Box::new(order), reply));
        result
    }
}

fn serve(device: &str, open: &OpenEngine, inbox: mpsc::Receiver<Message>) {
    let mut engine: Option<Box<dyn Engine>> = None;
    for message in inbox {
        // Nobody may wait for a reply any more; that is fine.
        match message {
            Message::Open(reply) => {
                let _ = reply.send(ready(&mut engine, device, open).map(drop));
            }
            Message::Run(order, reply) => {
                let result = match ready(&mut engine, device, open) {
                    Ok(engine) => run(engine, *order),
                    Err(error) => Err(MaximizeError::from(error).into()),
                };
                if result.as_ref().is_err_and(breaks_engine) {
                    // Whatever state it is in, the next batch gets a new one.
                    let broken = engine.take();
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
                }
                let _ = reply.send(result);
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

fn run(engine: &dyn Engine, order: Order) -> BatchResult {
    let Order { model, tasks, settings, mut watch } = order;
    // What a panic leaves half done is dropped here, and the engine with it.
    let run = AssertUnwindSafe(|| maximize(engine, &model, &tasks, &settings, &mut watch));
    match catch_unwind(run) {
        Ok(result) => Ok(result?),
        Err(panic) => Err(BatchError::Panic(message(&*panic))),
    }
}

/// Whether the engine may be unusable after this error.
fn breaks_engine(error: &BatchError) -> bool {
    match error {
        BatchError::Maximize(MaximizeError::Engine(error)) => !matches!(error, EngineError::Size { .. }),
        BatchError::Maximize(_) => false,
        BatchError::Panic(_) | BatchError::Gone => true,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_owned()
}
