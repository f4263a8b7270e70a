//! Studies of training: pairing, resuming, divergence, statistics and reports.

use std::num::NonZeroUsize;

use proxygrad::Maximizer;
use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::maximize::{GateRequest, Preset};
use proxygrad::network::{ChannelOrder, ImageStatistics, Model, Network, Op, Preprocessing, onnx};
use proxygrad::study::Folder;
use proxygrad::study::training::{
    MaximaPlan, StartModels, StudyData, TrainingDesign, TrainingOptions, TrainingPlan, TrainingSummary, train_study,
    training_report, training_summary,
};
use proxygrad::train::{Dataset, Recipe, Splits, Training};

const FILE: &str = "
    seeds = 3
    first_seed = 5
    test_limit = 12
    base = { epochs = 2, batch = 8, width = 3 }
    [[networks]]
    name = 'small'
    recipe = { architecture = 'plain2' }
    arms = ['plain', 'decoupled:0.3', 'leaky', 'diverging']
    [[arms]]
    name = 'leaky'
    recipe = { surrogate = 'plain', leaky = 0.2 }
    [[arms]]
    name = 'diverging'
    recipe = { surrogate = 'plain', learning_rate = 1e30, optimizer = { clip = 'none' } }
";

fn design(file: &str) -> TrainingDesign {
    TrainingDesign::parse(file).unwrap()
}

/// Dark images with noise, and light ones.
fn data() -> StudyData {
    let part = |count: usize| {
        let pixel = |i: usize, at: usize| ((i * 31 + at * 17) % 60 + 120 * (i % 2)) as u8;
        let images = (0..count).flat_map(|i| (0..64).map(move |at| pixel(i, at))).collect();
        let labels = (0..count).map(|i| (i % 2) as u32).collect();
        Dataset::new([1, 8, 8], images, labels, vec!["dark".into(), "light".into()]).unwrap()
    };
    StudyData { name: "shades".into(), splits: Splits { train: part(24), test: part(16) } }
}

fn cpu(threads: usize) -> Cpu {
    Cpu::new(&CpuSettings { threads: NonZeroUsize::new(threads), ..CpuSettings::default() }).unwrap()
}

fn timeless(folder: &Folder) -> TrainingSummary {
    let mut summary = training_summary(folder).unwrap();
    summary.tables.iter_mut().flat_map(|table| &mut table.arms).for_each(|arm| arm.seconds = None);
    summary
}

#[test]
fn an_interrupted_study_of_training_has_the_results_of_an_uninterrupted_one() {
    let (folder, data) = (tempfile::tempdir().unwrap(), data());
    let plan = TrainingPlan::new(&design(FILE), std::slice::from_ref(&data), &StartModels::new(), "cpu").unwrap();
    assert_eq!(plan.run_count(), 12);
    let run = |folder: &Folder, threads, most: usize, keep_networks| {
        let mut calls = 0;
        let mut progress = |_: proxygrad::study::Progress<'_>| {
            calls += 1;
            calls < most
        };
        let options = TrainingOptions { keep_networks, ..TrainingOptions::default() };
        train_study(
            folder,
            &plan,
            std::slice::from_ref(&data),
            &StartModels::new(),
            &cpu(threads),
            &options,
            &mut progress,
        )
        .unwrap()
    };
    let whole = Folder::new(folder.path().join("whole"));
    assert!(run(&whole, 1, usize::MAX, true));
    let stopped = Folder::new(folder.path().join("stopped"));
    // In the second epoch of the third run, and later in another.
    assert!(!run(&stopped, 2, 18, false));
    assert!(!run(&stopped, 1, 25, false));
    let halfway = training_summary(&stopped).unwrap();
    assert!(halfway.made < 12 && halfway.planned == 12);
    assert!(run(&stopped, 2, usize::MAX, false));
    assert_eq!(timeless(&whole), timeless(&stopped));
    assert!(!stopped.file("running").exists());
    assert!(whole.file("networks/shades/small/decoupled=3a0.3-5.onnx").is_file());

    let summary = training_summary(&whole).unwrap();
    let table = &summary.tables[0];
    assert_eq!((table.seeds.as_slice(), summary.comparisons, summary.left_out), (&[5, 6, 7][..], 3, 0));
    // Of the twelve test images drawn, seven are of one class.
    assert_eq!(table.chance, 7.0 / 12.0);
    let diverging = table.arms.iter().find(|arm| arm.arm == "diverging").unwrap();
    assert_eq!((diverging.diverged, diverging.learned, &*diverging.accuracies), (3, 0, &[table.chance; 3][..]));
    let plain = &table.arms[0];
    assert!(plain.versus.is_none() && plain.learned == 3, "{plain:?}");
    // Three of three seeds: the smallest exact p-value is 2 / 8, and Holm's correction multiplies by three.
    let versus = diverging.versus.as_ref().unwrap();
    assert_eq!((versus.outcomes, versus.learned_only), ([0, 0, 3], [0, 3]));
    let [single, corrected] = [versus.p_sign.single, versus.p_sign.corrected].map(Option::unwrap);
    assert!((single - 0.25).abs() < 1e-12 && (corrected - 0.75).abs() < 1e-12, "{versus:?}");

    training_report(&whole, &summary).unwrap();
    let text = |name: &str| std::fs::read_to_string(whole.file(name)).unwrap();
    assert_eq!(text("runs.csv").lines().count(), 13);
    assert_eq!(text("summary.csv").lines().count(), 5);
    let (page, markdown) = (text("report.html"), text("report.md"));
    for expected in ["small on shades", "diverging", "3 of 3", "0 / 0 / 3", "0.2500 / 0.7500"] {
        assert!(page.contains(expected) && markdown.contains(expected), "{expected}: {markdown}");
    }
    for figure in ["loss", "accuracy", "dead", "differences"] {
        assert!(markdown.contains(&format!("figures/shades/small/{figure}.svg")), "{markdown}");
        assert!(whole.file(&format!("figures/shades/small/{figure}.svg")).is_file());
    }
}

#[test]
fn arms_with_the_same_seed_start_from_the_same_weights_and_images() {
    // At a learning rate of almost 0, arms that differ in the surrogate alone have the same losses.
    let file = FILE.replace("epochs = 2", "epochs = 1, learning_rate = 1e-12");
    let (folder, data) = (tempfile::tempdir().unwrap(), data());
    let plan = TrainingPlan::new(&design(&file), std::slice::from_ref(&data), &StartModels::new(), "cpu").unwrap();
    let folder = Folder::new(folder.path());
    train_study(&folder, &plan, &[data], &StartModels::new(), &cpu(1), &TrainingOptions::default(), &mut |_| true)
        .unwrap();
    let losses = |arm: &str| {
        let table = std::fs::read_to_string(folder.file("runs.csv")).unwrap();
        let of_arm = table.lines().filter(|line| line.split(',').nth(2) == Some(arm));
        of_arm.map(|line| line.split(',').nth(9).unwrap().parse::<f64>().unwrap()).collect::<Vec<f64>>()
    };
    let (plain, decoupled) = (losses("plain"), losses("decoupled:0.3"));
    assert_eq!(plain.len(), 3);
    assert!(plain.iter().zip(&decoupled).all(|(a, b)| (a - b).abs() < 1e-6), "{plain:?} {decoupled:?}");
    assert!((plain[0] - plain[1]).abs() > 1e-6, "another seed, other weights");
}

#[test]
fn wrong_plans_and_folders_are_refused_by_name() {
    let (folder, data) = (tempfile::tempdir().unwrap(), data());
    let refused = |from: &str, to: &str| {
        TrainingPlan::new(&design(&FILE.replace(from, to)), std::slice::from_ref(&data), &StartModels::new(), "cpu")
            .unwrap_err()
            .to_string()
    };
    assert!(refused("test_limit = 12", "test_limit = 17").contains("test_limit: 17"));
    assert!(refused("seeds = 3", "seeds = 0").contains("seeds: 0"));
    assert!(refused("seeds = 3", "seeds = 3\n against = 'he'").contains("against: he"));
    assert!(refused("'plain', 'decoupled", "'plain', 'plain', 'decoupled").contains("each name once"));
    let twice = [data.clone(), data.clone()];
    assert!(
        TrainingPlan::new(&design(FILE), &twice, &StartModels::new(), "cpu")
            .unwrap_err()
            .to_string()
            .contains("data: shades")
    );

    let folder = Folder::new(folder.path());
    assert!(training_summary(&folder).unwrap_err().to_string().contains("plan.json"));
    let stop = &mut |_: proxygrad::study::Progress<'_>| false;
    let mut start = |file: &str| {
        let plan = TrainingPlan::new(&design(file), std::slice::from_ref(&data), &StartModels::new(), "cpu").unwrap();
        train_study(
            &folder,
            &plan,
            std::slice::from_ref(&data),
            &StartModels::new(),
            &cpu(1),
            &TrainingOptions::default(),
            stop,
        )
        .map_err(|error| error.to_string())
    };
    assert!(!start(FILE).unwrap());
    let error = start(&FILE.replace("leaky = 0.2", "leaky = 0.3")).unwrap_err();
    assert!(error.contains("recipe.leaky is 0.2 there and 0.3 here"), "{error}");
}

const MAXIMA: &str = "
    [maxima]
    units = 2
    steps = 9
    gates = ['plain', 'auto']
    reduce = 'max'
";

/// The study with its maxima; `most` is the number of calls of the callback after which it stops.
fn run_with_maxima(folder: &Folder, file: &str, threads: usize, most: usize) -> Result<bool, String> {
    let (design, data) = (design(file), data());
    let plan = TrainingPlan::new(&design, std::slice::from_ref(&data), &StartModels::new(), "cpu").unwrap();
    let maxima = design
        .maxima
        .as_ref()
        .map(|maxima| MaximaPlan::new(maxima, &plan, std::slice::from_ref(&data), &StartModels::new()));
    let maxima = maxima.transpose().map_err(|error| error.to_string())?;
    let options = TrainingOptions { keep_networks: file.contains("# keep"), maxima, ..TrainingOptions::default() };
    let mut calls = 0;
    let mut progress = |at: proxygrad::study::Progress<'_>| {
        assert!((0.0..=at.total as f64).contains(&at.done));
        calls += 1;
        calls < most
    };
    train_study(folder, &plan, &[data], &StartModels::new(), &cpu(threads), &options, &mut progress)
        .map_err(|error| error.to_string())
}

#[test]
fn maxima_can_be_added_to_a_finished_study_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let [at_once, later] = ["at-once", "later"].map(|name| Folder::new(folder.path().join(name)));
    let both = format!("{FILE}{MAXIMA}");
    assert!(run_with_maxima(&at_once, &both, 1, usize::MAX).unwrap());
    assert!(run_with_maxima(&later, &format!("# keep\n{FILE}"), 1, usize::MAX).unwrap());
    assert!(!later.file("maxima.csv").exists());
    // Stopped in the maxima of a run, and killed in the middle of writing those of another.
    assert!(!run_with_maxima(&later, &both, 2, 40).unwrap());
    let table = std::fs::read_to_string(later.file("maxima.csv")).unwrap();
    assert!(table.lines().count() > 2, "{table}");
    std::fs::write(later.file("maxima.csv"), &table[..table.len() - 30]).unwrap();
    assert!(run_with_maxima(&later, &both, 2, usize::MAX).unwrap());
    let rows = |folder: &Folder| {
        let table = std::fs::read_to_string(folder.file("maxima.csv")).unwrap();
        let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    // Nine networks that did not diverge, with two activations each, two units and two gates.
    assert_eq!(rows(&at_once).len(), 1 + 9 * 2 * 2 * 2);
    assert_eq!(rows(&at_once), rows(&later));

    let summary = training_summary(&later).unwrap();
    let gates = &summary.tables[0].maxima;
    assert_eq!((gates.len(), summary.maxima_comparisons), (2, 6));
    let (plain, auto) = (&gates[0], &gates[1]);
    assert_eq!((&*plain.gate, plain.arms.len(), &*auto.gate), ("plain", 4, "auto"));
    let diverging = &auto.arms[3];
    assert_eq!((diverging.networks, diverging.ratio.median), (0, None));
    let decoupled = &auto.arms[1];
    assert_eq!((decoupled.networks, decoupled.ratios.len()), (3, 3));
    let versus = decoupled.versus.as_ref().unwrap();
    assert_eq!(versus.outcomes.iter().sum::<usize>(), 3);
    assert!(auto.arms[0].versus.is_none());

    training_report(&later, &summary).unwrap();
    let text = |name: &str| std::fs::read_to_string(later.file(name)).unwrap();
    assert_eq!(text("maxima-summary.csv").lines().count(), 1 + 2 * 4);
    let (page, markdown) = (text("report.html"), text("report.md"));
    for expected in ["Maxima under auto in % of the natural maximum", "natural maximum, its largest value"] {
        assert!(page.contains(expected) && markdown.contains(expected), "{expected}: {markdown}");
    }
}

#[test]
fn a_maximum_is_that_of_the_same_request_alone() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::new(folder.path());
    let file = format!("{}{MAXIMA}", FILE.replace("seeds = 3", "seeds = 1"));
    assert!(run_with_maxima(&folder, &file, 1, usize::MAX).unwrap());
    let network = std::fs::read(folder.file("networks/shades/small/decoupled=3a0.3-5.onnx")).unwrap();
    let data = data();
    let (mean, std) = data.splits.train.statistics();
    let model = Model {
        id: "small".into(),
        digest: String::new(),
        network: onnx::import(&network).unwrap().network.into(),
        preprocessing: Preprocessing { channels: ChannelOrder::Grey, range: 1.0, mean, std },
        classes: Vec::new(),
        calibration: None,
        statistics: ImageStatistics::default(),
    };
    let table = std::fs::read_to_string(folder.file("maxima.csv")).unwrap();
    let of_arm = table.lines().filter(|line| line.contains(",decoupled:0.3,5,"));
    let lines: Vec<Vec<&str>> = of_arm.map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 8);
    let mut alive = 0;
    for (index, cells) in lines.iter().enumerate() {
        let [gate, unit] = [cells[4], cells[5]];
        let maximizer = Maximizer::new(&model).preset(Preset::Maximum).objective(unit).steps(9);
        let gated = maximizer.gate(gate.parse::<GateRequest>().unwrap());
        let outcome = gated.seed(5_000_000 + index as u64 % 4).run().unwrap();
        let [initial, maximum] = [cells[7], cells[8]].map(|cell| cell.parse::<f32>().unwrap());
        assert_eq!((outcome.findings.initial_score, outcome.findings.score), (initial, maximum), "{cells:?}");
        alive += usize::from(maximum > 0.0 && cells[6].parse::<f32>().unwrap() > 0.0);
    }
    assert!(alive > 0);
}

#[test]
fn maxima_that_cannot_be_found_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::new(folder.path());
    let refused = |from: &str, to: &str| {
        let file = format!("{FILE}{}", MAXIMA.replace(from, to));
        run_with_maxima(&folder, &file, 1, 1).unwrap_err()
    };
    for (from, to, parts) in [
        ("units = 2", "units = 0", &["maxima.units: 0", "1 to 1000"][..]),
        ("'max'", "'top0.5'", &["maxima.reduce: top0.5"]),
        ("steps = 9", "steps = 0", &["maxima.steps: 0"]),
        ("'auto']", "'automatic']", &["maxima.gates: automatic", "soft"]),
        ("'auto']", "'plain']", &["maxima.gates: plain", "once"]),
        ("units = 2", "layers = ['nowhere']", &["maxima.layers[0]: nowhere"]),
        ("units = 2", "request = { optimizer = 'sgdd' }", &["maxima.request.optimizer", "sgdd"]),
    ] {
        let error = refused(from, to);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    assert!(TrainingDesign::parse(&format!("{FILE}[maxima]\nunit = 3")).unwrap_err().contains("unit"));

    assert!(run_with_maxima(&folder, FILE, 1, usize::MAX).unwrap());
    let error = run_with_maxima(&folder, &format!("{FILE}{MAXIMA}"), 1, usize::MAX).unwrap_err();
    assert!(error.contains("plain-5.onnx is missing") && error.contains("--keep-networks"), "{error}");
    assert!(!folder.file("maxima.csv").exists());
}

#[test]
fn networks_of_a_study_can_start_from_a_model_with_frozen_layers() {
    let data = data();
    let engine = cpu(1);
    let recipe =
        Recipe { architecture: "plain3".parse().unwrap(), width: Some(3), epochs: 2, batch: 8, ..Recipe::default() };
    let mut before = Training::new(recipe, data.splits.clone(), &engine).unwrap();
    while before.epoch(&mut |_| false).unwrap().is_some() {}
    let network = onnx::import(&onnx::export(&before.freeze().unwrap()).unwrap()).unwrap().network;
    let weights = |network: &Network| {
        let layers = network.nodes().iter().filter_map(|node| match &node.op {
            Op::Conv(conv) => Some((node.name.clone(), conv.weight.data().to_vec())),
            _ => None,
        });
        layers.collect::<Vec<_>>()
    };
    let before_weights = weights(&network);
    let (mean, std) = data.splits.train.statistics();
    let model = Model {
        id: "pretrained".into(),
        digest: "0123".into(),
        network: network.into(),
        preprocessing: Preprocessing { channels: ChannelOrder::Grey, range: 1.0, mean, std },
        classes: data.splits.train.classes().to_vec(),
        calibration: None,
        statistics: ImageStatistics::default(),
    };
    let models = StartModels::from([("mine.onnx".to_owned(), model.into())]);
    let first = &before_weights[0].0;
    let file = format!(
        "seeds = 1
        base = {{ epochs = 1, batch = 8 }}
        [[networks]]
        name = 'tuned'
        recipe = {{ architecture = 'plain3', width = 3 }}
        arms = ['plain', 'from-model', 'frozen']
        [[arms]]
        name = 'from-model'
        recipe = {{ surrogate = 'plain', start = 'mine.onnx' }}
        [[arms]]
        name = 'frozen'
        recipe = {{ surrogate = 'plain', start = 'mine.onnx', freeze = ['{first}'] }}
        {MAXIMA}"
    );
    let design = design(&file);
    assert_eq!(design.starts().into_iter().collect::<Vec<_>>(), ["mine.onnx"]);
    let plan = TrainingPlan::new(&design, std::slice::from_ref(&data), &models, "cpu").unwrap();
    let planned = |arm: &str| {
        let planned = plan.recipes.iter().find(|planned| planned.arm == arm).unwrap();
        (planned.recipe.learning_rate, planned.recipe.start.as_ref().map(|start| start.digest.clone()))
    };
    assert_eq!(planned("plain"), (0.1, None));
    assert_eq!(planned("frozen"), (0.01, Some("0123".into())), "a tenth of the rate");
    let data = std::slice::from_ref(&data);
    let maxima = MaximaPlan::new(design.maxima.as_ref().unwrap(), &plan, data, &models).unwrap();
    let options = TrainingOptions { maxima: Some(maxima), ..TrainingOptions::default() };
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::new(folder.path());
    assert!(train_study(&folder, &plan, data, &models, &engine, &options, &mut |_| true).unwrap());
    let after = |arm: &str| {
        let file = std::fs::read(folder.file(&format!("networks/shades/tuned/{arm}-0.onnx"))).unwrap();
        weights(&onnx::import(&file).unwrap().network)
    };
    assert_eq!(after("frozen")[0], before_weights[0]);
    assert_ne!(after("frozen")[1], before_weights[1]);
    assert_ne!(after("from-model")[0], before_weights[0]);
    assert!(std::fs::read_to_string(folder.file("maxima.csv")).unwrap().contains("tuned,frozen,0,auto"));

    let tuned = "start = 'mine.onnx', freeze";
    for (from, to, parts) in [
        (&*format!("freeze = ['{first}']"), "freeze = ['nowhere*']", &["tuned, frozen", "freeze: nowhere*"][..]),
        (tuned, "start = 'yours.onnx', freeze", &["tuned, frozen: start: yours.onnx", "mine.onnx"]),
        (tuned, "start = 'mine.onnx', leaky = 0.1, freeze", &["tuned, frozen: leaky", "not with start"]),
        ("architecture = 'plain3', width", "start = 'mine.onnx', width", &["tuned, plain: width", "not with start"]),
        ("architecture = 'plain3'", "architecture = 'resnet8', freeze = ['x']", &["tuned, plain: freeze", "model"]),
    ] {
        assert!(file.contains(from), "{from}");
        let design = TrainingDesign::parse(&file.replace(from, to)).unwrap();
        let error = TrainingPlan::new(&design, data, &models, "cpu").unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
