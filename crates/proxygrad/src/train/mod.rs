//! Training of image classifiers with ProxyGrad: surrogate derivatives in the backward pass, the original network in the
//! forward pass.
//!
//! A [`Recipe`] says what is trained and how, with all defaults filled in; a [`Training`] runs it epoch by epoch on a
//! [`Dataset`]. The same recipe and data give the same weights, bit for bit, whatever the number of threads, and also
//! when a run is resumed from its last checkpoint.
//!
//! | module | content |
//! |---|---|
//! | [`data`] | IDX files, CIFAR's binary files, npz archives, folders of images |
//! | [`Recipe`] | architecture, surrogate, optimizer, schedules |
//! | [`Training`] | epochs, evaluation, checkpoints |
//!
//! # Examples
//! ```
//! use proxygrad::engine::{Cpu, CpuSettings};
//! use proxygrad::train::{Dataset, Recipe, Splits, Training};
//!
//! // Sixteen images of two classes: dark and light.
//! let images: Vec<u8> = (0..16u32).flat_map(|i| vec![if i % 2 == 0 { 30 } else { 220 }; 64]).collect();
//! let labels = (0..16).map(|i| i % 2).collect();
//! let data = Dataset::new([1, 8, 8], images, labels, vec!["dark".into(), "light".into()])?;
//! let splits = Splits { train: data.clone(), test: data };
//!
//! let recipe = Recipe { architecture: "plain2".parse()?, epochs: 20, batch: 8, ..Recipe::default() };
//! let mut training = Training::new(recipe, splits, &Cpu::new(&CpuSettings::default())?)?;
//! while let Some(epoch) = training.epoch(&mut |_| false)? {
//!     assert!(epoch.train_loss.is_finite());
//! }
//! assert_eq!(training.epochs().last().map(|epoch| epoch.test_accuracy), Some(1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augmentation;
mod checkpoint;
pub mod data;
mod error;
mod evaluation;
mod export;
mod loss;
mod metrics;
mod optimizer;
mod recipe;
mod report;
mod request;
mod run;
mod schedule;
mod starting;

pub use augmentation::Augmentation;
pub use data::{Dataset, Splits};
pub use error::TrainError;
pub use export::{CLASSES_FILE, LAST_MODEL_FILE, MODEL_FILE};
pub use metrics::{Epoch, Layer, csv};
pub use optimizer::{OptimizerKind, OptimizerSettings};
pub use recipe::{Recipe, Start, SurrogateSchedule};
pub use report::report;
pub use request::TrainingRequest;
pub use run::{METRICS_FILE, Step, Training, TrainingLimits};
pub use schedule::LearningRate;
pub(crate) use starting::starting_network;
