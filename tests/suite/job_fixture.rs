//! A small model, jobs for it, and an engine that can be held, slowed down and broken.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use proxygrad::engine::{Engine, EngineError, Forward, Gate, MemoryModel, Plan, Reference, Target};
use proxygrad::maximize::{Findings, Limits, Outcome, Point, Preset, Request};
use proxygrad::network::{
    Activation, Array, ImageStatistics, Model, Network, NodeId, Op, Preprocessing, Reduce, Shape,
};
use proxygrad_server::jobs::{
    Claim, Idempotency, Job, NewJob, RunState, Store, StoreConfig, SubmitError, Submitted, Subscription, Update,
};
use uuid::Uuid;

use crate::networks::{array, conv, rng, same};

pub const DIGEST: &str = "5ad1";

/// Grey 6x6 images; layers `relu` (4 channels) and `logits` (5 classes).
pub fn model() -> Arc<Model> {
    let mut rng = rng(77);
    let mut network = Network::new(1, 6, 6);
    let conv = conv(&mut rng, 1, 4, [3, 3], 1, same(3));
    let conv = network.push("conv", conv, &[Network::INPUT]).unwrap();
    let relu = network.push("relu", Op::Activation(Activation::Relu), &[conv]).unwrap();
    let mean = Op::Reduce { kind: Reduce::Mean, axes: vec![1, 2], keep: false };
    let pool = network.push("pool", mean, &[relu]).unwrap();
    let dense = Op::Dense { weight: array(&mut rng, &[5, 4]), bias: Some(Array::vector(vec![0.0; 5])) };
    let logits = network.push("logits", dense, &[pool]).unwrap();
    network.set_outputs(vec![logits]);
    Arc::new(Model {
        id: "tiny".into(),
        digest: DIGEST.into(),
        network: Arc::new(network),
        preprocessing: Preprocessing::unit_range(1).unwrap(),
        classes: Vec::new(),
        calibration: None,
        statistics: ImageStatistics::default(),
    })
}

/// A job from a request document without its model; for the maximum where it names no preset.
pub fn job(request: serde_json::Value) -> NewJob {
    let mut request = request;
    request["model"] = "tiny".into();
    let mut request: Request = serde_json::from_value(request).unwrap();
    request.preset.get_or_insert(Preset::Maximum);
    let resolved = request.resolve(&model(), &Limits { steps: 1_000_000, ..Limits::default() }).unwrap();
    NewJob { model: "tiny".into(), model_digest: DIGEST.into(), resolved, idempotency: None }
}

/// A job with one stimulus of a few steps for this class.
pub fn small(class: usize) -> NewJob {
    job(serde_json::json!({ "objective": format!("logits:{class}"), "steps": 4 }))
}

pub fn keyed(mut job: NewJob, key: &str, fingerprint: &str) -> NewJob {
    job.idempotency = Some(Idempotency { key: key.into(), fingerprint: fingerprint.into() });
    job
}

pub fn config(folder: &Path) -> StoreConfig {
    StoreConfig { busy_timeout: Duration::from_millis(300), ..StoreConfig::new(folder) }
}

pub async fn open(folder: &Path) -> Store {
    Store::open(&config(folder)).await.unwrap()
}

pub async fn submit(store: &Store, job: NewJob) -> Job {
    match store.submit(job).await {
        Ok(Submitted::Created(job)) => job,
        other => panic!("not accepted: {other:?}"),
    }
}

pub fn is_full(result: &Result<Submitted, SubmitError>) -> bool {
    matches!(result, Err(SubmitError::QueueFull { .. }))
}

pub async fn state(store: &Store, id: Uuid) -> RunState {
    store.get(id).await.unwrap().unwrap().state
}

/// Waits for the job to end; fails the test when it does not.
pub async fn ended(store: &Store, id: Uuid) -> Job {
    let job = store.wait(id, Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(job.state.is_terminal(), "still {} after a minute", job.state);
    job
}

/// Waits until something holds; fails the test when it does not within a minute.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..6000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within a minute");
}

/// The only job there is to claim.
pub async fn claim_one(store: &Store) -> Claim {
    let mut claims = store.claim(1).await.unwrap();
    assert_eq!(claims.len(), 1);
    claims.remove(0)
}

pub fn ids(claims: &[Claim]) -> Vec<Uuid> {
    claims.iter().map(|claim| claim.job.id).collect()
}

/// Something to have found: the PNG is these bytes.
pub fn outcome(png: &[u8]) -> Outcome {
    Outcome {
        png: png.to_vec(),
        animation: None,
        findings: Findings {
            score: 2.5,
            initial_score: 0.5,
            final_score: 2.0,
            steps: 4,
            best_step: 3,
            trajectory: vec![Point { step: 0, score: 0.5 }, Point { step: 3, score: 2.5 }],
            passes: 8,
            arms: Vec::new(),
            warnings: Vec::new(),
            diagnostics: None,
        },
    }
}

/// The next update of a subscription, which must come soon.
pub async fn next(events: &mut Subscription) -> Option<Update> {
    tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("no event within a minute")
}

/// What an engine does beside its work; shared by all engines and plans made for it.
#[derive(Default)]
pub struct Script {
    /// Number of images of every forward pass.
    pub batches: Mutex<Vec<usize>>,
    /// Wait in every forward pass.
    pub slow: Option<Duration>,
    /// Forward passes that may still start; all, unless given.
    pub gate: Option<(Mutex<usize>, Condvar)>,
    /// Backward passes that touch this class panic.
    pub panics_on: Option<usize>,
    /// Backward passes that touch this class fail.
    pub fails_on: Option<usize>,
    /// The engine cannot be opened this often, after it was opened once.
    pub opening_fails: AtomicUsize,
    pub opened: AtomicUsize,
}

impl Script {
    /// Every forward pass waits to be let through.
    pub fn held() -> Self {
        Self { gate: Some((Mutex::new(0), Condvar::new())), ..Self::default() }
    }

    /// Lets this many forward passes through.
    pub fn let_through(&self, passes: usize) {
        let (permits, changed) = self.gate.as_ref().unwrap();
        let mut permits = permits.lock().unwrap();
        *permits = permits.saturating_add(passes);
        changed.notify_all();
    }

    /// Number of forward passes so far, those that wait included.
    pub fn forwards(&self) -> usize {
        self.batches.lock().unwrap().len()
    }

    pub fn open(self: &Arc<Self>) -> Result<Box<dyn Engine>, EngineError> {
        if self.opened.fetch_add(1, Ordering::SeqCst) > 0
            && self.opening_fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Err(EngineError::Device { device: "test".into(), why: "unplugged".into() });
        }
        Ok(Box::new(Scripted { engine: Reference::new(Device::Cpu, DType::F32), script: Arc::clone(self) }))
    }

    fn forward(&self, images: usize) {
        self.batches.lock().unwrap().push(images);
        if let Some((permits, changed)) = &self.gate {
            let mut permits = changed.wait_while(permits.lock().unwrap(), |permits| *permits == 0).unwrap();
            *permits -= 1;
        }
        if let Some(slow) = self.slow {
            std::thread::sleep(slow);
        }
    }
}

struct Scripted {
    engine: Reference,
    script: Arc<Script>,
}

struct ScriptedPlan {
    plan: Box<dyn Plan>,
    script: Arc<Script>,
}

impl Engine for Scripted {
    fn device(&self) -> &Device {
        self.engine.device()
    }

    fn dtype(&self) -> DType {
        self.engine.dtype()
    }

    fn memory_model(&self) -> MemoryModel {
        self.engine.memory_model()
    }

    fn plan(&self, network: &Arc<Network>, targets: &[Target], input: &Shape) -> Result<Box<dyn Plan>, EngineError> {
        let plan = self.engine.plan(network, targets, input)?;
        Ok(Box::new(ScriptedPlan { plan, script: Arc::clone(&self.script) }))
    }
}

impl Plan for ScriptedPlan {
    fn forward(&mut self, images: &Tensor, forward: Forward) -> Result<Vec<Tensor>, EngineError> {
        self.script.forward(images.dim(0)?);
        self.plan.forward(images, forward)
    }

    fn backward(&mut self, seeds: &[Tensor], gate: Gate) -> Result<Tensor, EngineError> {
        let touches = |class: Option<usize>| match class {
            Some(class) => Ok(seeds[0].narrow(1, class, 1)?.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0),
            None => Ok::<bool, EngineError>(false),
        };
        if touches(self.script.panics_on)? {
            panic!("this class is cursed");
        }
        if touches(self.script.fails_on)? {
            return Err(EngineError::Mismatch("this class does not fit".into()));
        }
        self.plan.backward(seeds, gate)
    }

    fn set_scales(&mut self, scales: &BTreeMap<NodeId, f32>) {
        self.plan.set_scales(scales);
    }
}
