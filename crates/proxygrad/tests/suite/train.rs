//! Training runs: learning, resuming bit for bit, data in every format, and what broken data is answered with.

use std::num::NonZeroUsize;
use std::path::Path;

use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::network::onnx;
use proxygrad::train::data::{self, DataOptions};
use proxygrad::train::{Dataset, Recipe, Splits, Start, Step, TrainError, Training, TrainingLimits};

fn cpu(threads: usize) -> Cpu {
    Cpu::new(&CpuSettings { threads: NonZeroUsize::new(threads), ..CpuSettings::default() }).unwrap()
}

/// Images of 8x8 with a bright bar, horizontal or vertical, at a place that varies.
fn bars(count: usize) -> Dataset {
    let mut images = Vec::new();
    for i in 0..count {
        let place = i / 2 % 8;
        for y in 0..8 {
            for x in 0..8 {
                let on_bar = if i % 2 == 0 { y == place } else { x == place };
                let noise = (i * 31 + y * 17 + x * 7) % 40;
                images.push(if on_bar { 200 + noise as u8 } else { noise as u8 });
            }
        }
    }
    let labels = (0..count).map(|i| (i % 2) as u32).collect();
    Dataset::new([1, 8, 8], images, labels, vec!["horizontal".into(), "vertical".into()]).unwrap()
}

fn splits() -> Splits {
    Splits { train: bars(48), test: bars(16) }
}

fn recipe(architecture: &str, surrogate: &str) -> Recipe {
    Recipe {
        architecture: architecture.parse().unwrap(),
        surrogate: surrogate.parse().unwrap(),
        width: Some(4),
        epochs: 4,
        batch: 12,
        ..Recipe::default()
    }
}

fn finish(mut training: Training) -> Training {
    while training.epoch(&mut |_| false).unwrap().is_some() {}
    training
}

#[test]
fn every_surrogate_learns_to_tell_bars_apart() {
    for surrogate in ["plain", "decoupled:0.3", "decoupled:1@0.4", "true-proxy:0.2", "bsilu", "silu", "elu", "selu"] {
        let recipe = Recipe { epochs: 12, ..recipe("resnet8", surrogate) };
        let training = finish(Training::new(recipe, splits(), &cpu(2)).unwrap());
        let last = training.epochs().last().unwrap();
        assert!(last.test_accuracy > 0.9, "{surrogate}: {last:?}");
        assert!(last.train_loss < training.epochs()[0].train_loss, "{surrogate}");
    }
}

#[test]
fn a_resumed_run_has_the_weights_of_an_uninterrupted_one_for_any_number_of_threads() {
    let recipe = Recipe {
        augmentation: proxygrad::train::Augmentation { crop: 1, flip: true },
        label_smoothing: 0.1,
        limit: Some(40),
        ..recipe("resnet8", "decoupled:0.5@0.5")
    };
    for (kind, rate) in [(proxygrad::train::OptimizerKind::Sgd, 0.1), (proxygrad::train::OptimizerKind::Adamw, 1e-3)] {
        let optimizer = proxygrad::train::OptimizerSettings { kind, ..recipe.optimizer.clone() };
        let recipe = Recipe { optimizer, learning_rate: rate, ..recipe.clone() };
        let whole = finish(Training::new(recipe.clone(), splits(), &cpu(1)).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let open =
            |threads| Training::new(recipe.clone(), splits(), &cpu(threads)).unwrap().in_folder(folder.path()).unwrap();
        let mut first = open(2);
        first.epoch(&mut |_| false).unwrap().unwrap();
        // Killed in the middle of the second epoch.
        assert!(first.epoch(&mut |step| step.step == 2).unwrap().is_none());
        drop(first);
        let mut second = open(3);
        assert_eq!(second.epochs().len(), 1);
        second.epoch(&mut |_| false).unwrap().unwrap();
        drop(second);
        let resumed = finish(open(1));
        assert_eq!(resumed.parameters(), whole.parameters());
        assert_eq!(resumed.epochs(), whole.epochs());
        let table = std::fs::read_to_string(folder.path().join("epochs.csv")).unwrap();
        assert_eq!(table.lines().count(), 1 + 4);
        assert_eq!(table, proxygrad::train::csv(resumed.epochs()));
        assert!(folder.path().join("best.safetensors").is_file());
    }
}

#[test]
fn a_paused_run_goes_on_where_it_was_also_from_a_checkpoint_within_an_epoch() {
    let recipe = recipe("resnet8", "decoupled:0.5@0.5");
    let whole = finish(Training::new(recipe.clone(), splits(), &cpu(1)).unwrap());
    // Paused after every step and every batch of test images.
    let mut paused = Training::new(recipe.clone(), splits(), &cpu(2)).unwrap();
    let mut pauses = 0;
    while !paused.is_finished() {
        pauses += usize::from(paused.epoch(&mut |_| true).unwrap().is_none());
    }
    assert_eq!((paused.parameters(), paused.epochs()), (whole.parameters(), whole.epochs()));
    assert_eq!(pauses, 4 * (4 + 1), "four steps and one batch of test images in each of four epochs");

    let folder = tempfile::tempdir().unwrap();
    let open = || Training::new(recipe.clone(), splits(), &cpu(1)).unwrap().in_folder(folder.path()).unwrap();
    for (epochs, stop) in [(0, 3), (1, 4), (1, 4), (2, 1)] {
        let mut run = open();
        while run.epochs().len() < epochs {
            run.epoch(&mut |_| false).unwrap();
        }
        let from = std::cell::Cell::new(None);
        assert!(
            run.epoch(&mut |step| {
                from.set(from.get().or(Some(step.step)));
                step.step == stop
            })
            .unwrap()
            .is_none()
        );
        run.checkpoint().unwrap();
        // The third time, the fourth step was done before.
        assert!(from.get() <= Some(stop));
    }
    let resumed = finish(open());
    assert_eq!((resumed.parameters(), resumed.epochs()), (whole.parameters(), whole.epochs()));
}

#[test]
fn the_best_network_is_that_of_the_best_epoch_also_of_a_resumed_run() {
    // At this rate the accuracy goes up and down.
    let recipe = |seed| Recipe { seed, learning_rate: 1.0, epochs: 6, ..recipe("plain2", "plain") };
    let file = |network: Result<proxygrad::Network, TrainError>| onnx::export(&network.unwrap()).unwrap();
    let (seed, best, expected) = (0..100)
        .find_map(|seed| {
            let mut run = Training::new(recipe(seed), splits(), &cpu(1)).unwrap();
            let mut networks = Vec::new();
            while run.epoch(&mut |_| false).ok()?.is_some() {
                networks.push(file(run.freeze()));
            }
            let best = run.best()?.epoch;
            (1..networks.len()).contains(&best).then(|| {
                assert_eq!(file(run.freeze_best()), networks[best - 1]);
                assert_ne!(file(run.freeze_best()), file(run.freeze()));
                (seed, best, networks.swap_remove(best - 1))
            })
        })
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = || Training::new(recipe(seed), splits(), &cpu(1)).unwrap().in_folder(folder.path());
    let mut run = open().unwrap();
    while run.epochs().len() < best {
        run.epoch(&mut |_| false).unwrap();
    }
    // In the middle of the epoch after the best.
    assert!(run.epoch(&mut |step| step.step == 2).unwrap().is_none());
    run.checkpoint().unwrap();
    drop(run);
    let run = finish(open().unwrap());
    assert_eq!(file(run.freeze_best()), expected);
    run.export(folder.path()).unwrap();
    let written = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!((written("model.onnx"), written("last.onnx")), (expected, file(run.freeze())));
    drop(run);
    std::fs::remove_file(folder.path().join("best.safetensors")).unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("best.safetensors") && error.contains("missing"), "{error}");
}

#[test]
fn an_epoch_that_could_not_be_written_is_written_by_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let run = Training::new(recipe("plain2", "plain"), splits(), &cpu(1)).unwrap();
    let mut run = run.in_folder(folder.path()).unwrap();
    let blocked = folder.path().join("last.safetensors.part");
    std::fs::create_dir(&blocked).unwrap();
    assert!(matches!(run.epoch(&mut |_| false), Err(TrainError::Write { .. })));
    let mut no_step = |_: Step| -> bool { panic!("no step is repeated") };
    assert!(matches!(run.epoch(&mut no_step), Err(TrainError::Write { .. })));
    std::fs::remove_dir(&blocked).unwrap();
    assert_eq!(run.epoch(&mut no_step).unwrap().unwrap().epoch, 1);
    assert!(folder.path().join("last.safetensors").is_file());
}

#[test]
fn a_run_beyond_a_limit_is_refused_before_it_needs_anything() {
    let engine = cpu(1);
    let open = |recipe: Recipe, limits| Training::within(recipe, splits(), None, &engine, &limits).err().unwrap();
    let steps = open(recipe("plain2", "plain"), TrainingLimits { steps: 15, ..TrainingLimits::NONE });
    assert!(matches!(steps, TrainError::TooLarge { needed: 16, limit: 15, .. }), "{steps}");
    // 64 GB of weights.
    let wide = Recipe { width: Some(4096), ..recipe("resnet34", "plain") };
    let memory = open(wide, TrainingLimits { memory: 1 << 30, ..TrainingLimits::NONE });
    assert!(memory.to_string().contains("bytes of memory") && memory.to_string().contains("width"), "{memory}");
}

fn model_of(training: &Training) -> proxygrad::Model {
    proxygrad::Model {
        id: "start".into(),
        digest: "d1".into(),
        network: std::sync::Arc::new(training.freeze().unwrap()),
        preprocessing: training.preprocessing().clone(),
        classes: training.classes().to_vec(),
        calibration: None,
        statistics: Default::default(),
    }
}

fn tuning(freeze: &[&str]) -> Recipe {
    let start = Some(Start { model: "start".into(), digest: "d1".into() });
    Recipe { start, freeze: freeze.iter().map(|&name| name.into()).collect(), epochs: 1, ..recipe("plain2", "plain") }
}

#[test]
fn fine_tuning_starts_from_the_weights_of_a_model_and_keeps_frozen_layers() {
    let engine = cpu(1);
    let first = finish(Training::new(recipe("resnet8", "plain"), splits(), &engine).unwrap());
    let model = model_of(&first);
    let none = TrainingLimits::NONE;
    // The same classes: it goes on with the accuracy that it has.
    let recipe = Recipe { learning_rate: 1e-12, ..tuning(&[]) };
    let same = finish(Training::within(recipe, splits(), Some(&model), &engine, &none).unwrap());
    let accuracy = |training: &Training| training.epochs().last().unwrap().test_accuracy;
    assert_eq!(accuracy(&same), accuracy(&first));

    // Other classes: a new last layer; and only what is not frozen changes.
    let renamed = |data: Dataset| {
        let images = (0..data.len()).flat_map(|i| data.image(i).to_vec()).collect();
        let labels = (0..data.len()).map(|i| (i % 3) as u32).collect();
        Dataset::new(data.size(), images, labels, vec!["a".into(), "b".into(), "c".into()]).unwrap()
    };
    let three = || Splits { train: renamed(bars(48)), test: renamed(bars(16)) };
    let open = |freeze: &[&str]| Training::within(tuning(freeze), three(), Some(&model), &engine, &none);
    let before = open(&["layer*", "conv1"]).unwrap();
    let (weights, names) = (before.parameters().clone(), before.network().tensors().to_vec());
    let after = finish(open(&["layer*", "conv1"]).unwrap());
    assert_eq!(after.network().classes(), 3);
    for (id, spec) in names.iter().enumerate() {
        let same = after.parameters().get(id) == weights.get(id);
        assert_eq!(same, !spec.name.starts_with("logits"), "{}", spec.name);
    }
    assert_eq!(after.preprocessing(), &model.preprocessing);

    for (recipe, data, says) in [
        (tuning(&["none*"]), three(), "a pattern for layers with weights: conv1"),
        (tuning(&["*"]), three(), "leave a layer"),
        (Recipe { start: None, ..tuning(&[]) }, three(), "model"),
        (tuning(&[]), Splits { train: colour(), test: colour() }, "[1, 8, 8]"),
    ] {
        let refused = Training::within(recipe, data, Some(&model), &engine, &none).err().unwrap();
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

/// Two images of three channels.
fn colour() -> Dataset {
    Dataset::new([3, 8, 8], vec![7; 24 * 192], (0..24).map(|i| i % 2).collect(), vec!["a".into(), "b".into()]).unwrap()
}

#[test]
fn a_folder_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |recipe, splits| Training::new(recipe, splits, &cpu(1)).unwrap().in_folder(folder.path());
    finish(open(Recipe { epochs: 1, ..recipe("plain2", "plain") }, splits()).unwrap());
    let other = open(Recipe { epochs: 2, ..recipe("plain2", "plain") }, splits()).err().unwrap();
    assert!(other.to_string().contains("other settings"), "{other}");
    let data = Splits { train: bars(46), ..splits() };
    let other = open(Recipe { epochs: 1, ..recipe("plain2", "plain") }, data).err().unwrap();
    assert!(other.to_string().contains("other data"), "{other}");
    std::fs::write(folder.path().join("last.safetensors"), b"not a checkpoint").unwrap();
    let broken = open(Recipe { epochs: 1, ..recipe("plain2", "plain") }, splits()).err().unwrap();
    assert!(broken.to_string().contains("last.safetensors"), "{broken}");
}

#[test]
fn early_stopping_ends_a_run_without_progress() {
    let recipe = Recipe { epochs: 50, patience: Some(2), learning_rate: 1e-9, ..recipe("plain2", "plain") };
    let training = finish(Training::new(recipe, splits(), &cpu(1)).unwrap());
    assert_eq!(training.epochs().len(), 3);
    assert_eq!(training.best().unwrap().epoch, 1);
}

#[test]
fn a_diverging_run_is_an_error_that_says_so() {
    let mut recipe = Recipe { learning_rate: 1e30, ..recipe("plain8", "plain") };
    recipe.optimizer.clip = None;
    let mut training = Training::new(recipe, splits(), &cpu(1)).unwrap();
    let error = loop {
        match training.epoch(&mut |_| false) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the run ended"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
}

/// The exported file computes what the network computes, through the product's own importer.
#[test]
fn an_exported_network_gives_the_same_logits_when_imported() {
    use candle_core::{DType, Device, Tensor};
    use proxygrad::engine::{Engine, Forward, Reference, Target};
    use std::sync::Arc;
    for architecture in ["resnet8", "resnet8-nobn", "vgg8", "vgg8-bn", "plain3"] {
        let recipe = Recipe { epochs: 1, leaky: 0.1, ..recipe(architecture, "plain") };
        let training = finish(Training::new(recipe, splits(), &cpu(1)).unwrap());
        let frozen = training.freeze().unwrap();
        let imported = onnx::import(&onnx::export(&frozen).unwrap()).unwrap();
        assert!(imported.unsupported.is_empty(), "{architecture}");
        let images: Vec<f64> = (0..64).map(|i| f64::from(i % 7) / 3.0 - 1.0).collect();
        let images = Tensor::from_vec(images, (1, 1, 8, 8), &Device::Cpu).unwrap();
        let engine = Reference::new(Device::Cpu, DType::F64);
        let logits = |network: proxygrad::network::Network| -> Vec<f64> {
            let network = Arc::new(network);
            let target = Target::from(network.outputs()[0]);
            let mut plan = engine.plan(&network, &[target], network.input_shape()).unwrap();
            plan.forward(&images, Forward::Original).unwrap().remove(0).flatten_all().unwrap().to_vec1().unwrap()
        };
        for layer in frozen.layers() {
            assert!(imported.network.find(layer.name).is_some(), "{architecture}: {}", layer.name);
        }
        assert_eq!(logits(frozen), logits(imported.network), "{architecture}");
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn idx(axes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, axes.len() as u8];
    axes.iter().for_each(|axis| file.extend(axis.to_be_bytes()));
    [file.as_slice(), values].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Twenty training images of 2x3, the labels 0 to 9 twice; ten test images.
fn write_idx(folder: &Path) {
    let images: Vec<u8> = (0..120).collect();
    let labels: Vec<u8> = (0..20).map(|i| i % 10).collect();
    write(folder, "train-images-idx3-ubyte.gz", &gzip(&idx(&[20, 2, 3], &images)));
    write(folder, "train-labels-idx1-ubyte", &idx(&[20], &labels));
    write(folder, "t10k-images-idx3-ubyte", &idx(&[10, 2, 3], &images[..60]));
    write(folder, "t10k-labels-idx1-ubyte.gz", &gzip(&idx(&[10], &labels[..10])));
}

fn load(path: &Path) -> Result<Splits, data::DataError> {
    data::load(path, &DataOptions::default())
}

fn error(path: &Path) -> String {
    load(path).unwrap_err().to_string()
}

#[test]
fn idx_files_are_read_plain_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path());
    let Splits { train, test } = load(folder.path()).unwrap();
    assert_eq!((train.size(), train.len(), test.len()), ([1, 2, 3], 20, 10));
    assert_eq!((train.image(1), train.label(1), train.label(13)), (&[6, 7, 8, 9, 10, 11][..], 1, 3));
    assert_eq!(train.classes()[9], "9");
    let (mean, std) = train.statistics();
    // 0 to 119: mean 59.5, variance (120^2 - 1) / 12.
    assert!((mean[0] - 59.5 / 255.0).abs() < 1e-6 && (std[0] - (14_399.0f32 / 12.0).sqrt() / 255.0).abs() < 1e-6);
    // The names of Fashion-MNIST go with its folder.
    let fashion = folder.path().join("fashion-mnist");
    write_idx(&fashion);
    assert_eq!(load(&fashion).unwrap().train.classes()[9], "Ankle boot");
}

#[test]
fn broken_idx_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let break_file = |name: &str, bytes: &[u8]| {
        let _ = std::fs::remove_dir_all(path);
        write_idx(path);
        let _ = std::fs::remove_file(path.join(format!("{name}.gz")));
        write(path, name, bytes);
        error(path)
    };
    let (images, labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    for (name, bytes, expected) in [
        (images, idx(&[20, 2, 3], &[0; 119]), "has 119 bytes of values"),
        (images, idx(&[u32::MAX, u32::MAX, u32::MAX], &[0; 9]), "describes another number"),
        (images, idx(&[120], &[0; 120]), "has 1 axes; expected 3"),
        (images, vec![0, 0, 13, 3, 0], "type 13"),
        (images, b"GIF89a".to_vec(), "not an IDX file"),
        (images, gzip(&[0; 40])[..20].to_vec(), "damaged gzip file"),
        (labels, idx(&[19], &[0; 19]), "has 19 labels for 20 images"),
        (labels, idx(&[20], &[7; 20]), "the class 0 has no images"),
    ] {
        let found = break_file(name, &bytes);
        assert!(found.contains(expected), "{found}");
        assert!(expected.contains("class") || found.contains(name), "{found}");
    }
    std::fs::remove_file(path.join(labels)).unwrap();
    assert!(error(path).contains("train-labels-idx1-ubyte: the file is missing"), "{}", error(path));
}

#[test]
fn cifars_binary_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let record = |label: u8, red: u8| [&[label][..], &[red; 1024], &[1; 1024], &[2; 1024]].concat();
    for batch in 1..=5u8 {
        let records = [record(2 * batch - 2, 10 * batch), record(2 * batch - 1, 20 * batch)].concat();
        write(folder.path(), &format!("data_batch_{batch}.bin"), &records);
    }
    write(folder.path(), "test_batch.bin", &record(3, 99));
    write(
        folder.path(),
        "batches.meta.txt",
        b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
    );
    let Splits { train, test } = load(folder.path()).unwrap();
    assert_eq!((train.size(), train.len(), test.len()), ([3, 32, 32], 10, 1));
    assert_eq!((train.image(3)[0], train.image(3)[1024], train.label(3)), (40, 1, 3));
    assert_eq!((test.classes()[test.label(0) as usize].as_str(), test.image(0)[0]), ("cat", 99));
    write(folder.path(), "data_batch_2.bin", &[0; 3000]);
    assert!(error(folder.path()).contains("data_batch_2.bin: has 3000 bytes"), "{}", error(folder.path()));
    write(folder.path(), "data_batch_2.bin", &record(10, 0));
    assert!(error(folder.path()).contains("record 0 has the label 10"), "{}", error(folder.path()));

    let hundred = tempfile::tempdir().unwrap();
    let records: Vec<u8> = (0..100u8).flat_map(|fine| [&[fine / 5, fine][..], &[fine; 3072]].concat()).collect();
    write(hundred.path(), "train.bin", &records);
    write(hundred.path(), "test.bin", &records[..3074]);
    let Splits { train, .. } = load(hundred.path()).unwrap();
    assert_eq!((train.classes().len(), train.label(77), train.image(77)[0]), (100, 77, 77));
}

fn npy(element: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn npz(path: &Path, arrays: &[(&str, Vec<u8>)]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in arrays {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut archive, bytes).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn numpy_archives_are_read_and_broken_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.npz");
    let pixels: Vec<u8> = (0..48).collect();
    let labels: Vec<u8> = [0i64, 1].iter().flat_map(|label| label.to_le_bytes()).collect();
    let x = npy("|u1", "(2, 2, 4, 3)", &pixels);
    let y = npy("<i8", "(2, 1)", &labels);
    npz(&path, &[("x_train", x.clone()), ("y_train", y.clone()), ("x_test", x.clone()), ("y_test", y.clone())]);
    let Splits { train, test } = load(&path).unwrap();
    assert_eq!((train.size(), train.label(1), test.len()), ([3, 2, 4], 1, 2));
    assert_eq!(train.image(0)[..9], [0, 3, 6, 9, 12, 15, 18, 21, 1]);
    let negative: Vec<u8> = [0i64, -1].iter().flat_map(|label| label.to_le_bytes()).collect();
    for (arrays, expected) in [
        (vec![("x_train", x.clone())], "expected arrays x_train and y_train"),
        (vec![("x_train", npy("<f4", "(2, 2, 4, 3)", &pixels)), ("y_train", y.clone())], "elements of type <f4"),
        (
            vec![("x_train", npy("|u1", "(2, 2, 4)", &pixels)), ("y_train", y.clone())],
            "has 48 bytes for the shape [2, 2, 4]",
        ),
        (vec![("x_train", x.clone()), ("y_train", npy("<i8", "(2,)", &negative))], "is not from 0 to 65535"),
        (vec![("x_train", x.clone()), ("y_train", npy("<i8", "(3,)", &labels))], "has 16 bytes for the shape [3]"),
        (vec![("x_train", b"nothing".to_vec()), ("y_train", y.clone())], "x_train: is not an array file"),
    ] {
        npz(&path, &arrays);
        assert!(error(&path).contains(expected), "{}", error(&path));
    }
    std::fs::write(&path, b"PK").unwrap();
    assert!(error(&path).contains("is not an npz archive"), "{}", error(&path));
}

fn png(path: &Path, size: [u32; 2], colour: [u8; 3]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(size[1], size[0], image::Rgb(colour)).save(path).unwrap();
}

#[test]
fn folders_of_images_are_read_with_their_split_or_split_by_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    for (class, colour) in [("cats", [200, 10, 20]), ("dogs", [1, 2, 3])] {
        for i in 0..10 {
            png(&folder.path().join(format!("{class}/{i}.png")), [4, 5], colour);
        }
    }
    let Splits { train, test } = load(folder.path()).unwrap();
    assert_eq!((train.size(), train.len(), test.len()), ([3, 4, 5], 18, 2));
    assert_eq!((train.classes(), test.label(0), test.label(1)), (&["cats".to_owned(), "dogs".to_owned()][..], 0, 1));
    assert_eq!((train.image(0)[0], train.image(0)[20], train.image(0)[40]), (200, 10, 20));
    assert_eq!(load(folder.path()).unwrap(), Splits { train, test });

    // Another size needs a size that all are scaled to.
    png(&folder.path().join("dogs/large.png"), [9, 9], [0; 3]);
    let found = error(folder.path());
    assert!(found.contains("large.png: the image is 9x9, others are 5x4"), "{found}");
    let options = DataOptions { size: Some([6, 6]), grey: true, ..DataOptions::default() };
    assert_eq!(data::load(folder.path(), &options).unwrap().train.size(), [1, 6, 6]);
    std::fs::write(folder.path().join("dogs/large.png"), b"not an image").unwrap();
    let found = error(folder.path());
    assert!(found.contains("large.png: expected a PNG or JPEG file"), "{found}");

    let split = tempfile::tempdir().unwrap();
    for class in ["a", "b"] {
        png(&split.path().join(format!("train/{class}/0.png")), [2, 2], [9; 3]);
        png(&split.path().join(format!("val/{class}/0.png")), [2, 2], [9; 3]);
    }
    assert_eq!(load(split.path()).unwrap().test.len(), 2);
    png(&split.path().join("val/c/0.png"), [2, 2], [9; 3]);
    assert!(error(split.path()).contains("val/c: the training images have no such class"), "{}", error(split.path()));
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("no dataset was recognized"), "{}", error(empty.path()));
    assert!(error(&empty.path().join("none")).contains("no such file or folder"));
}
