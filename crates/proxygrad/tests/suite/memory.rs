//! Memory: footprints are what plans hold, and runs are cut so that they fit.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Gate, Instructions, Target};
use proxygrad::maximize::{
    Callback, MaximizeError, MemoryEstimate, NoCallback, Outcome, Point, Resolved, maximize, maximize_within,
    outcome_bytes, plan_batches,
};
use proxygrad::network::catalog::{Models, ModelsConfig};
use proxygrad::network::{Activation, Model, Network, Shape};
use serde_json::{Value, json};

use crate::maximize::{colour_classifier, engine, resolve};
use crate::networks::classifier;
use crate::operations;

/// Engines for every instruction set of this processor, with one thread and with three.
fn engines() -> Vec<Cpu> {
    let sets = [Instructions::Avx512, Instructions::Avx2, Instructions::Portable];
    let sets = sets.into_iter().filter(|set| set.available());
    let with = |(set, threads)| {
        let instructions = Some(set);
        Cpu::new(&CpuSettings { instructions, threads: std::num::NonZeroUsize::new(threads), ..Default::default() })
    };
    sets.flat_map(|set| [(set, 1), (set, 3)]).map(|case| with(case).unwrap()).collect()
}

/// A model of the program, which has all that common networks have.
fn embedded() -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    Models::new(ModelsConfig::new(folder.path())).unwrap().load("fashion-resnet8").unwrap()
}

/// Compares what a plan holds with what its footprint said, for batches that grow and gates of every kind.
fn compare(cpu: &Cpu, name: &str, network: &Arc<Network>, targets: &[Target], input: &Shape, batches: &[usize]) {
    let footprint = cpu.memory_model().footprint(network, targets, input).unwrap();
    for &batch in batches {
        let mut plan = cpu.plan(network, targets, input).unwrap();
        let images = Tensor::zeros([&[batch], &input[..]].concat(), candle_core::DType::F32, &Device::Cpu).unwrap();
        let outputs = plan.forward(&images, Forward::Original).unwrap();
        let seeds: Vec<Tensor> = outputs.iter().map(|output| output.ones_like().unwrap()).collect();
        for gate in [Gate::Plain, Gate::Proxy { slope: 0.5 }, Gate::Redirect, Gate::Identity] {
            plan.backward(&seeds, gate).unwrap();
            assert_eq!(plan.held_bytes(), Some(footprint.bytes(batch, false)), "{cpu:?}, {name}, {batch}, {gate:?}");
        }
        plan.backward(&seeds, Gate::Soft { temperature: 0.5 }).unwrap();
        let (held, said) = (plan.held_bytes().unwrap(), footprint.bytes(batch, true));
        // Every buffer is a whole number of cache lines.
        let slack = 64 * 4 * batch as u64;
        assert!(held <= said + slack && said <= held + slack, "{cpu:?}, {name}, {batch}, soft: {held} and {said}");
    }
}

#[test]
fn footprints_are_what_plans_of_every_operation_hold() {
    for cpu in engines() {
        for case in operations::all() {
            let network = Arc::new(case.network);
            let targets = Target::whole(&[network.find("target").unwrap()]);
            compare(&cpu, &case.name, &network, &targets, network.input_shape(), &[1, 3, 6]);
        }
    }
}

#[test]
fn footprints_are_what_plans_of_networks_hold_at_every_size() {
    let model = embedded();
    let whole = |network: &Network, names: &[&str]| -> Vec<Target> {
        Target::whole(&names.iter().map(|name| network.find(name).unwrap()).collect::<Vec<_>>())
    };
    for cpu in engines() {
        for activation in [Activation::Relu, Activation::Sigmoid] {
            let network = Arc::new(classifier(3, &activation));
            for names in [&["logits"][..], &["relu1"], &["relu1", "logits"]] {
                compare(&cpu, "classifier", &network, &whole(&network, names), network.input_shape(), &[1, 2, 4, 5, 9]);
            }
        }
        let network = &model.network;
        // Large maps are walked in bands, which changes what is held.
        for (size, batches) in [([28, 28], &[1, 4, 7][..]), ([40, 33], &[2]), ([300, 260], &[1, 5])] {
            let input = Shape::from([1, size[0], size[1]]);
            let logits = network.find("logits").unwrap();
            compare(&cpu, "logits", network, &[Target::channels(logits, [3])], &input, batches);
            compare(&cpu, "relu", network, &whole(network, &["layer1/Relu_1", "layer2/Relu"]), &input, batches);
        }
    }
}

#[test]
fn measured_methods_take_no_more_than_their_footprint() {
    let (model, folder) = (embedded(), tempfile::tempdir().unwrap());
    let tuning = Some(folder.path().join("tuning.json"));
    let cpu = Cpu::new(&CpuSettings { tuning, ..CpuSettings::default() }).unwrap();
    let network = &model.network;
    let (targets, input) = (Target::whole(&[network.find("logits").unwrap()]), Shape::from([1, 96, 96]));
    let footprint = cpu.memory_model().footprint(network, &targets, &input).unwrap();
    let mut plan = cpu.plan(network, &targets, &input).unwrap();
    let images = Tensor::zeros((3, 1, 96, 96), candle_core::DType::F32, &Device::Cpu).unwrap();
    let seeds = plan.forward(&images, Forward::Original).unwrap();
    plan.backward(&seeds, Gate::Plain).unwrap();
    assert!(plan.held_bytes().unwrap() <= footprint.bytes(3, false));
}

/// Bytes of a run of some of the request's tasks in one batch.
fn bytes(model: &Model, resolved: &Resolved, count: usize) -> u64 {
    let tasks = &resolved.tasks()[..count];
    MemoryEstimate::new(&engine().memory_model(), model, tasks, &resolved.settings).unwrap().bytes()
}

#[test]
fn more_of_anything_takes_more_memory() {
    let model = colour_classifier();
    let of = |more: Value| {
        let mut request = json!({"model": "test", "objectives": ["logits:2", "relu:1"], "steps": 40});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let resolved = resolve(&model, &request.to_string());
        bytes(&model, &resolved, resolved.objectives.len())
    };
    let least = of(json!({}));
    for more in [
        json!({"size": [64, 64]}),
        json!({"objectives": ["logits:2", "relu:1", "relu:2"]}),
        json!({"objectives": ["logits:2", "relu@energy"]}),
        json!({"diversity": {"layer": "relu", "copies": 2}}),
        json!({"search": {"restarts": 3}}),
        json!({"gate": "auto"}),
        json!({"optimizer": "adam"}),
        json!({"parameterization": "fourier"}),
        json!({"transforms": ["pad:4"]}),
        json!({"transforms": ["rotate:4"]}),
        json!({"animation": {"frames": 20}}),
        json!({"diagnostics": true}),
        json!({"alpha": true}),
        json!({"steps": 4000}),
    ] {
        assert!(of(more.clone()) > least, "{more}");
    }
}

/// Records which stimuli were scored.
#[derive(Default)]
struct Told(std::collections::BTreeSet<usize>);

impl Callback for Told {
    fn on_score(&mut self, stimulus: usize, _: Point) {
        self.0.insert(stimulus);
    }
}

#[test]
fn tasks_that_do_not_fit_run_in_batches_with_the_same_outcomes() {
    let model = colour_classifier();
    let request = json!({"model": "test", "steps": 6, "size": [96, 80], "transforms": ["jitter:2"],
                         "objectives": ["logits:0", "logits:1", "relu:3", "logits:2", "logits:3", "relu:1", "logits:5"]});
    let resolved = resolve(&model, &request.to_string());
    let (tasks, settings, memory) = (resolved.tasks(), &resolved.settings, engine().memory_model());
    let whole: Vec<Option<Outcome>> = maximize(&engine(), &model, &tasks, settings, &mut NoCallback).unwrap();
    let all = bytes(&model, &resolved, 7);
    let (mut most, mut seen) = (all, Vec::new());
    loop {
        let batches = match plan_batches(&memory, &model, &tasks, settings, most) {
            Ok(batches) => batches,
            Err(MaximizeError::Memory { needed, allowed }) => {
                assert!(needed > allowed && allowed == most);
                break;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(batches.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        if seen.last() != Some(&batches.len()) {
            let mut told = Told::default();
            let found = maximize_within(&engine(), &model, &tasks, settings, most, &mut told).unwrap();
            assert_eq!(found, whole, "in {} batches", batches.len());
            assert_eq!(told.0, (0..7).collect());
            seen.push(batches.len());
        }
        most -= all / 200;
    }
    assert!(seen.first() == Some(&1) && seen.last() == Some(&7) && seen.is_sorted(), "{seen:?}");
}

#[test]
fn groups_that_differ_stay_together() {
    let model = colour_classifier();
    let request = json!({"model": "test", "steps": 3, "size": [96, 80], "objectives": ["logits:0", "logits:1", "logits:2"],
                         "diversity": {"layer": "relu", "copies": 4}});
    let resolved = resolve(&model, &request.to_string());
    let (tasks, memory) = (resolved.tasks(), engine().memory_model());
    // What is kept of the other groups counts, too.
    let found = |groups: usize| outcome_bytes(&resolved.settings, 3, 4 * groups);
    let two = bytes(&model, &resolved, 8) + found(1);
    assert_eq!(plan_batches(&memory, &model, &tasks, &resolved.settings, two).unwrap(), [0..8, 8..12]);
    let one = bytes(&model, &resolved, 4) + found(2);
    assert_eq!(plan_batches(&memory, &model, &tasks, &resolved.settings, one).unwrap(), [0..4, 4..8, 8..12]);
    let less = bytes(&model, &resolved, 3);
    assert!(matches!(
        plan_batches(&memory, &model, &tasks, &resolved.settings, less),
        Err(MaximizeError::Memory { .. })
    ));
    let too_large = resolved.too_large(&memory, &model, less).unwrap().unwrap();
    let fields: Vec<&str> = too_large.fields.iter().map(|invalid| invalid.field.as_str()).collect();
    assert!(fields.starts_with(&["diversity.copies"]) && fields.ends_with(&["size"]), "{fields:?}");
    assert!(too_large.fields[0].expected.starts_with("at most 2"), "{}", too_large.fields[0]);
    assert_eq!(resolved.too_large(&memory, &model, one).unwrap(), None);
}
