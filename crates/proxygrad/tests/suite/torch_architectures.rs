//! Architectures of torchvision and timm against those libraries. The fixtures are made by
//! `tests/data/architectures/make.py`.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use proxygrad::engine::{Cpu, CpuSettings, Engine, Forward, Reference, Target};
use proxygrad::network::architecture::{Architecture, ConvNext, DenseNet, Family, ResNet, TensorShapes, Vgg, Vit};
use proxygrad::network::checkpoint::StateDict;
use proxygrad::network::{Array, Network, NodeId, Shape};

use crate::tensors::values;

/// Values of each module that are kept, evenly spread.
const KEPT: usize = 40;
/// Largest allowed difference, relative to the largest magnitude of a module.
const TOLERANCE: f64 = 1e-4;

fn file(name: &str) -> String {
    format!("{}/tests/data/architectures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Names and shapes of the published variants, with library and name.
fn published() -> Vec<(String, TensorShapes)> {
    let mut text = String::new();
    let packed = std::fs::File::open(file("torch.tensors.gz")).unwrap();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let variants = text.split("# ").skip(1).map(|variant| {
        let (name, tensors) = variant.split_once('\n').unwrap();
        (name.to_owned(), tensors.lines().map(tensor).collect())
    });
    variants.collect()
}

fn tensor(line: &str) -> (String, Vec<usize>) {
    let mut words = line.split(' ');
    (words.next().unwrap().to_owned(), words.map(|word| word.parse().unwrap()).collect())
}

fn named(name: &str) -> Architecture {
    name.parse().unwrap()
}

#[test]
fn published_weights_are_recognized_by_their_tensors() {
    let published = published();
    assert!(published.len() > 60, "{}", published.len());
    for (variant, shapes) in &published {
        let architecture = named(variant.split_once(' ').unwrap().1);
        architecture.check(shapes).unwrap_or_else(|why| panic!("{variant}: {why}"));
        assert_eq!(Architecture::of_tensors(shapes), Some(architecture), "{variant}");
    }
    let covered = |architecture: &Architecture| {
        published.iter().any(|(variant, _)| named(variant.split_once(' ').unwrap().1) == *architecture)
    };
    let others: Vec<_> = Architecture::all().filter(|architecture| !covered(architecture)).collect();
    assert_eq!(
        others.iter().map(|architecture| architecture.name).collect::<Vec<_>>(),
        ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "squeezenet1.1"],
        "which are tested elsewhere"
    );
}

#[test]
fn the_number_of_classes_does_not_matter_but_every_other_length_does() {
    let published = published();
    let shapes = |name: &str| published.iter().find(|(variant, _)| variant == name).unwrap().1.clone();
    let mut other = shapes("torchvision resnet18");
    other.insert("fc.weight".into(), vec![7, 512]);
    other.insert("fc.bias".into(), vec![7]);
    assert_eq!(Architecture::of_tensors(&other), Some(named("resnet18")));
    other.insert("fc.weight".into(), vec![8, 512]);
    assert_eq!(Architecture::of_tensors(&other), None);
    let why = named("resnet18").check(&other).unwrap_err().to_string();
    assert!(why.contains("has fc.weight of shape [8, 512] instead of [7, 512]"), "{why}");
}

#[test]
fn weights_of_another_architecture_are_named_together_with_what_they_are() {
    let published = published();
    let shapes = |name: &str| published.iter().find(|(variant, _)| variant == name).unwrap().1.clone();
    let why = named("resnet50").check(&shapes("torchvision resnet34")).unwrap_err().to_string();
    assert!(why.starts_with("resnet50: the weight file has no tensor layer1.0.conv3.weight, "), "{why}");
    assert!(why.ends_with("; these are the weights of resnet34"), "{why}");

    let mut lacking = shapes("torchvision resnet34");
    lacking.remove("layer2.1.bn2.bias");
    lacking.insert("fc2.weight".into(), vec![1]);
    let why = named("resnet34").check(&lacking).unwrap_err().to_string();
    assert!(why.contains("has no tensor layer2.1.bn2.bias; has unexpected tensors fc2.weight"), "{why}");
    assert!(!why.contains("these are the weights"), "{why}");
    let why = named("densenet121").check(&shapes("timm vit_base_patch16_224")).unwrap_err().to_string();
    assert!(why.contains(" more") && why.len() < 800, "{why}");
    assert!("resnet5".parse::<Architecture>().unwrap_err().to_string().contains("resnet50"));
}

#[test]
fn weights_of_no_architecture_are_answered_with_the_most_similar_one() {
    let mut state = StateDict::default();
    for (name, shape) in published().into_iter().find(|(name, _)| name == "torchvision resnet18").unwrap().1 {
        let count = shape.iter().product();
        state.insert(name, Array::new(shape, vec![0.0; count]).unwrap());
    }
    assert_eq!(Architecture::guess(&state).unwrap(), named("resnet18"));
    state.insert("attention.weight", Array::vector(vec![0.0]));
    let why = Architecture::guess(&state).unwrap_err().to_string();
    assert!(why.contains("resnet18, for which the file has unexpected tensors attention.weight"), "{why}");
    let mut strange = StateDict::default();
    strange.insert("a", Array::vector(vec![0.0]));
    let why = Architecture::guess(&strange).unwrap_err().to_string();
    assert!(why.contains("no known architecture has the tensors a"), "{why}");
}

/// The generator of `make.py`.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(self.0 >> 8) / f64::from(1 << 24)
    }

    fn values(&mut self, count: usize, value: impl Fn(f64) -> f64) -> Vec<f32> {
        (0..count).map(|_| value(self.next()) as f32).collect()
    }

    fn weights(&mut self, name: &str, shape: &[usize]) -> Array {
        let count = shape.iter().product();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let values = if shape.len() > 1 && name.ends_with("weight") {
            let spread = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
            self.values(count, |u| (2.0 * u - 1.0) * spread)
        } else if ends(&["weight", "running_var", "gamma", "layer_scale"]) {
            self.values(count, |u| 0.5 + u)
        } else {
            self.values(count, |u| 0.4 * u - 0.2)
        };
        Array::new(shape, values).unwrap()
    }
}

struct Case {
    network: Network,
    shapes: TensorShapes,
    image: Tensor,
    /// Values of modules; the output of the network below the empty name.
    expected: BTreeMap<String, Vec<f64>>,
}

fn case(name: &str, side: usize, family: Family) -> Case {
    let all = candle_core::safetensors::load(file("torch.safetensors"), &Device::Cpu).unwrap();
    let of_case: HashMap<&str, &Tensor> =
        all.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(name)?.strip_prefix(':')?, tensor))).collect();
    let text = String::from_utf8(of_case["tensors"].to_vec1().unwrap()).unwrap();
    let shapes: TensorShapes = text.lines().map(tensor).collect();
    let mut noise = Noise(1);
    let mut state = StateDict::default();
    for (name, shape) in &shapes {
        state.insert(name, noise.weights(name, shape));
    }
    let image = noise.values(3 * side * side, |u| u);
    let image = Tensor::from_vec(image, (1, 3, side, side), &Device::Cpu).unwrap();
    let architecture = Architecture { name: "small", input: [3, side, side], family };
    let network = architecture.build(&state).unwrap();
    let expected = of_case.into_iter().filter(|(module, _)| *module != "tensors");
    let expected = expected.map(|(module, tensor)| (module.to_owned(), values(tensor))).collect();
    Case { network, shapes, image, expected }
}

impl Case {
    /// Whether the output of a module is only a part of its layer, with a batch normalization or scale folded in.
    fn is_folded(&self, module: &str, node: NodeId) -> bool {
        let layer = self.network.node(node);
        let modules = self.network.layers().find(|own| own.name == layer.name).unwrap().modules;
        let is_norm = |path: &String| {
            let part = |part: &str| self.shapes.get(&format!("{path}.{part}")).is_some_and(|shape| shape.len() == 1);
            path != module && (part("weight") || part("gamma"))
        };
        let is_scaled = |path: &str| {
            let block = path.split(".mlp").next().unwrap().split(".block.").next().unwrap();
            let block = block.trim_end_matches(".block");
            block != path
                && [".gamma", ".layer_scale"].iter().any(|end| self.shapes.contains_key(&format!("{block}{end}")))
        };
        let is_own = self.shapes.get(&format!("{module}.weight")).is_some_and(|shape| shape.len() == 1);
        let ends_branch = layer.name.ends_with("fc2") || layer.name.ends_with("block.5");
        (modules.iter().any(is_norm) && !is_own && !module.contains(".ls") && !module.ends_with("downsample"))
            || (ends_branch && is_scaled(module))
    }

    /// Compares all modules that are layers. Returns the modules that are not.
    fn check(&self, compared: usize) -> Vec<&str> {
        let mut targets = Vec::new();
        let mut absent = Vec::new();
        for (module, expected) in &self.expected {
            let found = if module.is_empty() { Some(self.network.outputs()[0]) } else { self.network.stored(module) };
            match found {
                Some(node) if !self.is_folded(module, node) => targets.push((module, node, expected)),
                Some(_) => {}
                None => absent.push(module.as_str()),
            }
        }
        assert!(targets.len() >= compared, "only {} modules are compared", targets.len());
        let network = Arc::new(self.network.clone());
        let (_, channels, height, width) = self.image.dims4().unwrap();
        let engines: [Box<dyn Engine>; 2] = [
            Box::new(Reference::new(Device::Cpu, candle_core::DType::F32)),
            Box::new(Cpu::new(&CpuSettings::default()).unwrap()),
        ];
        for engine in engines {
            let mut nodes: Vec<NodeId> = targets.iter().map(|(_, node, _)| *node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            let shape = Shape::from([channels, height, width]);
            let mut plan = engine.plan(&network, &Target::whole(&nodes), &shape).unwrap();
            let outputs = plan.forward(&self.image, Forward::Original).unwrap();
            for (module, node, expected) in &targets {
                let all = values(&outputs[nodes.binary_search(node).unwrap()]);
                let step = if module.is_empty() { 1 } else { (all.len() / KEPT).max(1) };
                let found: Vec<f64> = all.into_iter().step_by(step).collect();
                assert_eq!(found.len(), expected.len(), "{module}");
                let scale = expected.iter().fold(1e-6f64, |most, value| most.max(value.abs()));
                let apart = found.iter().zip(*expected).fold(0f64, |most, (a, b)| most.max((a - b).abs())) / scale;
                assert!(apart < TOLERANCE, "{module}: {apart:.1e} apart; {:?} {:?}", &found[..4], &expected[..4]);
            }
        }
        absent
    }
}

fn check(name: &str, side: usize, compared: usize, family: Family) {
    let case = case(name, side, family);
    let absent = case.check(compared);
    assert!(absent.is_empty(), "{name}: no layer is named {absent:?}");
}

#[test]
fn residual_networks_compute_what_timm_computes() {
    let channels = [4, 6, 8, 10];
    let basic = ResNet { blocks: [1, 2, 1, 1], channels, bottleneck: false, groups: 1, group_width: 64 };
    check("resnet/basic", 32, 30, Family::ResNet(basic));
    let channels = [8, 16, 16, 32];
    let bottleneck = ResNet { channels, bottleneck: true, groups: 2, group_width: 32, ..basic };
    check("resnet/bottleneck", 32, 40, Family::ResNet(bottleneck));
}

#[test]
fn vgg_computes_what_torchvision_and_timm_compute() {
    let vgg = Vgg { convolutions: [1, 2, 1, 1, 1], channels: [2, 3, 4, 4, 5], hidden: 6, batch_norm: true };
    check("vgg/torchvision", 224, 24, Family::Vgg(vgg));
    check("vgg/timm", 224, 20, Family::Vgg(Vgg { batch_norm: false, ..vgg }));
}

#[test]
fn densenet_computes_what_torchvision_computes() {
    check("densenet", 32, 40, Family::DenseNet(DenseNet { blocks: [2, 1, 2, 1], growth: 3, stem: 6 }));
}

#[test]
fn convnext_computes_what_torchvision_and_timm_compute() {
    let convnext = Family::ConvNext(ConvNext { blocks: [1, 1, 2, 1], channels: [5, 6, 7, 10] });
    check("convnext/torchvision", 64, 40, convnext);
    check("convnext/timm", 64, 40, convnext);
}

#[test]
fn vision_transformers_compute_what_torchvision_and_timm_compute() {
    let vit = Vit { patch: 8, width: 12, depth: 2, heads: 3, registers: 0, layer_scale: false };
    check("vit/torchvision", 32, 23, Family::Vit(vit));
    check("vit/timm", 32, 23, Family::Vit(vit));
    let dino = Vit { layer_scale: true, ..vit };
    check("vit/dino", 32, 20, Family::Vit(dino));
    check("vit/registers", 32, 20, Family::Vit(Vit { registers: 4, ..dino }));
}
