//! Studies, as a library user and as a user of the command line sees them.

use std::sync::Arc;

use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::maximize::{Limits, NoCallback, Request, maximize};
use proxygrad::network::Model;
use proxygrad::network::catalog::{Models, ModelsConfig};
use proxygrad::study::{
    self, ComparisonOptions, Design, Folder, Plan, Row, RunOptions, StudyError, Toys, Variants, render_exhibits,
    report, summary,
};
use serde_json::{Value, json};

use crate::calibration_fixture::calibrated;

fn model() -> Arc<Model> {
    let data = tempfile::tempdir().unwrap();
    Models::new(ModelsConfig::new(data.path())).unwrap().load("fashion-resnet8").unwrap()
}

fn engine() -> Cpu {
    Cpu::new(&CpuSettings::default()).unwrap()
}

fn design(model: &Arc<Model>, arms: &[&str]) -> Design {
    let variants = Variants::default();
    Design {
        models: vec![(Arc::clone(model), vec!["layer2/Relu_1@center".into(), "layer3/Relu".into()])],
        units_per_layer: 3,
        logits: 2,
        reduce: "mean".into(),
        seed: 4,
        repeats: 2,
        steps: 12,
        base: variants.base.clone(),
        arms: arms.iter().map(|arm| variants.arm(arm).unwrap()).collect(),
        methods: ["pixel", "transforms"].iter().map(|method| variants.method(method).unwrap()).collect(),
        device: "cpu".into(),
        toys: None,
        judges: Vec::new(),
    }
}

const ARMS: [&str; 4] = ["plain", "slope:0.1", "true-proxy", "soft"];
const OPTIONS: RunOptions = RunOptions { batch: 2, images: Some(1), memory: u64::MAX };

fn run(folder: &Folder, plan: &Plan, model: &Arc<Model>) -> bool {
    study::run(folder, plan, &[Arc::clone(model)], &engine(), &OPTIONS, &mut |_| true).unwrap()
}

/// The table of runs without the one column that never repeats.
fn timeless(folder: &Folder) -> Vec<Row> {
    folder.rows().unwrap().into_iter().map(|row| Row { seconds: 0.0, ..row }).collect()
}

#[test]
fn a_stopped_study_goes_on_to_the_same_table() {
    let (model, data) = (model(), tempfile::tempdir().unwrap());
    let plan = Plan::new(&design(&model, &ARMS)).unwrap();
    assert_eq!(plan.runs(), (3 + 3 + 2) * 2 * 2 * 4);
    let whole = Folder::new(data.path().join("whole"));
    assert!(run(&whole, &plan, &model));
    assert_eq!(timeless(&whole).len(), plan.runs());

    let stopped = Folder::new(data.path().join("stopped"));
    let mut asked = 0;
    let mut until = |most: u32| {
        let mut watch = |_: proxygrad::study::Progress<'_>| {
            asked += 1;
            asked % most != 0
        };
        study::run(&stopped, &plan, &[Arc::clone(&model)], &engine(), &OPTIONS, &mut watch).unwrap()
    };
    assert!(!until(200));
    let some = timeless(&stopped).len();
    assert!(some > 0 && some < plan.runs(), "{some} of {}", plan.runs());
    // As if the power had gone while a line was being written.
    let table = stopped.file("runs.csv");
    let text = std::fs::read_to_string(&table).unwrap();
    std::fs::write(&table, &text[..text.len() - 30]).unwrap();
    assert_eq!(timeless(&stopped).len(), some - 1);
    assert!(run(&stopped, &plan, &model));
    let sorted = |mut rows: Vec<Row>| {
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        rows
    };
    assert_eq!(sorted(timeless(&stopped)), sorted(timeless(&whole)));
    // Nothing is left to do.
    let mut nothing = |_: proxygrad::study::Progress<'_>| panic!("something runs");
    assert!(study::run(&stopped, &plan, &[Arc::clone(&model)], &engine(), &OPTIONS, &mut nothing).unwrap());
}

#[test]
fn a_run_is_what_its_request_alone_gives() {
    let (model, data) = (model(), tempfile::tempdir().unwrap());
    let plan = Plan::new(&design(&model, &ARMS)).unwrap();
    let folder = Folder::new(data.path());
    assert!(run(&folder, &plan, &model));
    let rows = folder.rows().unwrap();
    for row in rows.iter().step_by(7) {
        let planned = plan.settings_of(&row.key.model, &row.key.method, &row.key.arm).unwrap();
        let mut request = planned.request.clone();
        request.extend([
            ("model".to_owned(), json!("fashion-resnet8")),
            ("objective".to_owned(), json!(row.key.unit)),
            ("seed".to_owned(), json!(row.seed)),
        ]);
        let request: Request = serde_json::from_value(Value::Object(request)).unwrap();
        let resolved = request.resolve(&model, &Limits::default()).unwrap();
        let outcome = maximize(&engine(), &model, &resolved.tasks(), &resolved.settings, &mut NoCallback).unwrap();
        let outcome = &outcome[0].as_ref().unwrap().findings;
        assert_eq!((outcome.score, outcome.passes), (row.score, row.passes), "{:?}", row.key);
    }
    // All arms of a method spend the same passes, as nearly as whole steps can.
    for method in ["pixel", "transforms"] {
        let passes = rows.iter().filter(|row| row.key.method == method).map(|row| row.passes);
        let (least, most) = (passes.clone().min().unwrap(), passes.max().unwrap());
        assert!(most - least <= 2, "{method}: {least} to {most}");
    }
}

#[test]
fn a_folder_keeps_to_its_plan() {
    let (model, data) = (model(), tempfile::tempdir().unwrap());
    let folder = Folder::new(data.path());
    let plan = |change: &dyn Fn(&mut Design)| {
        let mut design = Design { repeats: 1, ..design(&model, &["plain", "soft"]) };
        change(&mut design);
        Plan::new(&design).unwrap()
    };
    assert!(run(&folder, &plan(&|_| {}), &model));
    let refused = |change: &dyn Fn(&mut Design)| {
        let models = [Arc::clone(&model)];
        study::run(&folder, &plan(change), &models, &engine(), &OPTIONS, &mut |_| true).unwrap_err().to_string()
    };
    let error = refused(&|design| design.steps = 13);
    assert!(error.contains("steps is 12 there and 13 here"), "{error}");
    let error = refused(&|design| design.arms = design.arms[..1].to_vec());
    assert!(error.contains("arms is plain, soft there and plain here;"), "{error}");
    let error = refused(&|design| design.seed = 5);
    assert!(error.contains(" there and "), "{error}");

    // While another process works there.
    let lock = std::fs::File::create(folder.file("lock")).unwrap();
    lock.lock().unwrap();
    let models = [Arc::clone(&model)];
    let busy = study::run(&folder, &plan(&|_| {}), &models, &engine(), &OPTIONS, &mut |_| true).unwrap_err();
    assert!(matches!(busy, StudyError::Busy(_)), "{busy}");
    lock.unlock().unwrap();

    let table = folder.file("runs.csv");
    let mut text = std::fs::read_to_string(&table).unwrap();
    let last = text.lines().last().unwrap().to_owned();
    text.push_str(&last);
    text.push('\n');
    std::fs::write(&table, text).unwrap();
    assert!(folder.rows().unwrap_err().to_string().contains("twice"));
}

#[test]
fn what_does_not_exist_is_refused_before_anything_runs() {
    let model = model();
    let refused = |change: &dyn Fn(&mut Design)| {
        let mut design = design(&model, &["plain", "soft"]);
        change(&mut design);
        Plan::new(&design).unwrap_err().to_string()
    };
    let layer = |name: &'static str| move |design: &mut Design| design.models[0].1 = vec![name.to_owned()];
    assert!(refused(&layer("layer9")).starts_with("models[0].layers[0]: layer9"));
    assert!(refused(&layer("layer2/Relu@3,4")).contains("layers"));
    assert!(refused(&layer("layer2/Relu@middle")).contains("layers"));
    assert!(refused(&|design| design.models[0].1 = vec!["layer2/Relu".into(); 2]).contains("each layer once"));
    assert!(refused(&|design| design.repeats = 0).contains("seeds"));
    assert!(refused(&|design| design.arms.push(design.arms[0].clone())).contains("arms: plain"));
    assert!(refused(&|design| design.methods.clear()).contains("methods"));
    let bad_gate = |design: &mut Design| {
        design.arms[1].request = serde_json::from_value(json!({"gate": {"kind": "plain", "slope": 0.1}})).unwrap();
    };
    let error = refused(&bad_gate);
    assert!(error.starts_with("arms[1].request.gate.slope: 0.1"), "{error}");
    let seed = |design: &mut Design| {
        design.base.insert("seed".to_owned(), json!(3));
    };
    assert!(refused(&seed).starts_with("base.seed: 3"));
    assert!(refused(&|design| design.reduce = "median".into()).starts_with("reduce: median"));
}

#[test]
fn units_are_drawn_by_seed_and_stay_when_layers_are_added() {
    let model = model();
    let units = |change: &dyn Fn(&mut Design)| {
        let mut design = design(&model, &["plain"]);
        change(&mut design);
        Plan::new(&design).unwrap().models[0].layers.clone()
    };
    let first = units(&|_| {});
    assert_eq!(first.iter().map(|layer| layer.units.len()).collect::<Vec<_>>(), [3, 3, 2]);
    assert!(first[0].units.iter().all(|unit| unit.ends_with("@center")) && first[2].name == "logits");
    assert_eq!(first[2].classes.len(), 2);
    assert_eq!(units(&|_| {}), first);
    assert_ne!(units(&|design| design.seed = 5), first);
    let more = units(&|design| design.models[0].1.insert(0, "Relu".into()));
    assert_eq!(more[1..], first);
    let spread: Vec<String> = units(&|design| design.models[0].1.clear()).into_iter().map(|layer| layer.name).collect();
    assert_eq!(spread, ["Relu", "layer1/Relu_1", "layer2/Relu_1", "layer3/Relu_1", "logits"]);
    // No more than there are.
    assert_eq!(units(&|design| design.logits = 99)[2].units.len(), 10);
}

#[test]
fn plain_stalls_on_the_mean_of_relu_and_a_slope_reaches_the_top() {
    let data = tempfile::tempdir().unwrap();
    let variants = Variants::default();
    let arms = ["plain", "slope:0.1", "slope:0.3"].map(|arm| variants.arm(arm).unwrap()).to_vec();
    let toys = Toys { networks: 1, starts: 8, steps: 256, arms };
    let design = Design { models: Vec::new(), toys: Some(toys), ..design(&model(), &["plain"]) };
    let (plan, folder) = (Plan::new(&design).unwrap(), Folder::new(data.path()));
    assert!(study::run(&folder, &plan, &[], &engine(), &OPTIONS, &mut |_| true).unwrap());
    let found = summary(&folder, None).unwrap();
    let toy = |kind: &str, arm: &str| found.toys.iter().find(|toy| toy.toy == kind && toy.arm == arm).unwrap();
    let plain = toy("mean-relu", "plain");
    assert_eq!(plain.reached, 0.0);
    // Pixels that start above zero reach 1, all others stay: half on average.
    assert!((0.40..0.60).contains(&plain.mean_share), "{plain:?}");
    for arm in ["slope:0.1", "slope:0.3"] {
        assert_eq!(toy("mean-relu", arm).reached, 1.0, "{arm}");
    }
    assert!(found.toys.iter().all(|toy| toy.mean_share <= 1.0 + 1e-5), "nothing is above the best value: {found:?}");
    assert!(toy("plane-1", "plain").dead > toy("plane-1", "slope:0.1").dead);
    report(&folder, &found).unwrap();
    well_formed(&std::fs::read_to_string(folder.file("report.html")).unwrap());
}

#[test]
fn the_report_is_one_page_with_all_arms_and_the_failures() {
    let (model, data) = (model(), tempfile::tempdir().unwrap());
    let mut design = design(&model, &ARMS);
    design.arms[1].name = "<slope> & \"0.1\"".into();
    let (plan, folder) = (Plan::new(&design).unwrap(), Folder::new(data.path()));
    assert!(run(&folder, &plan, &model));
    let options = ComparisonOptions {
        focus: "true-proxy".into(),
        rivals: vec!["soft".into()],
        ..ComparisonOptions::for_arms(&plan.arms)
    };
    let found = summary(&folder, Some(&options)).unwrap();
    assert!(
        render_exhibits(&folder, &plan, &[Arc::clone(&model)], &engine(), OPTIONS.memory, &found, &mut |_| true)
            .unwrap()
    );
    report(&folder, &found).unwrap();
    let page = std::fs::read_to_string(folder.file("report.html")).unwrap();
    well_formed(&page);
    assert!(page.contains("&lt;slope&gt; &amp; &quot;0.1&quot;") && !page.contains("<slope>"));
    for arm in ["plain", "true-proxy", "soft"] {
        assert!(page.matches(arm).count() > 10, "{arm}");
    }
    assert!(page.contains("Largest losses of true-proxy"));
    for outside in ["<script", "<link", "src=\"http", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let losses = found.tables[0].losses(&plan.arms, &options);
    assert!(!losses.is_empty());
    let images = page.matches("<img src=\"data:image/png;base64,").count();
    let failures: usize = found.tables.iter().map(|table| table.losses(&plan.arms, &options).len()).sum();
    assert!(images >= (2 * 3 + failures) * ARMS.len(), "{images} images");

    let markdown = std::fs::read_to_string(folder.file("report.md")).unwrap();
    assert!(markdown.contains("Largest losses of `true-proxy`") && markdown.contains("| `<slope> & \"0.1\"` |"));
    let figures: Vec<&str> =
        markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(a, _)| a).collect();
    assert_eq!(figures.iter().filter(|path| path.ends_with(".svg")).count(), 2 * 2, "plots of both methods");
    let strips: Vec<&str> = figures.into_iter().filter(|path| path.ends_with(".png")).collect();
    assert!(strips.len() >= 2 * 3 + failures, "{} rows of images", strips.len());
    for path in strips {
        let strip = image::open(folder.file(&path.replace("%3D", "="))).unwrap();
        // Four images of 28 pixels, or four enlarged parts that units at the centre see, and a gap of 2 between them.
        let side = if path.contains("center") { 88 } else { 28 };
        assert_eq!((strip.width(), strip.height()), (4 * side + 3 * 2, side), "{path}");
    }

    let csv = std::fs::read_to_string(folder.file("summary.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2 * 4 * 4, "methods, sections, arms");
    let json: Value = serde_json::from_slice(&std::fs::read(folder.file("summary.json")).unwrap()).unwrap();
    assert_eq!(json["tables"][0]["sections"][0]["arms"][2]["arm"], "true-proxy");
    assert_eq!(json["made"], plan.runs());
}

/// Checks that every element is closed where it must be, and every image has a text.
fn well_formed(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>"));
    let mut open: Vec<&str> = Vec::new();
    let mut rest = &page["<!DOCTYPE html>".len()..];
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>') || open.contains(&"style"), "{}", &rest[..start]);
        let tag = &rest[start + 1..start + rest[start..].find('>').unwrap()];
        rest = &rest[start + tag.len() + 2..];
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "before {}", &rest[..rest.len().min(80)]),
            None if tag.ends_with('/') || ["meta", "img", "br"].contains(&name) => {}
            None => open.push(name),
        }
        assert!(name != "img" || tag.contains("alt=\""), "{tag}");
        assert!(tag.starts_with('/') || name != "svg" || tag.contains("aria-label=\""), "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The embedded model, calibrated, and a copy of it as somebody else's network, to judge it.
fn with_judge(data: &std::path::Path) -> (Arc<Model>, Arc<Model>) {
    let model = calibrated(data, &["layer2/Relu_1"], 2);
    let judge = Model { id: "twin".into(), digest: "of the twin".into(), ..(*model).clone() };
    (model, Arc::new(judge))
}

#[test]
fn judges_say_of_every_stimulus_whether_it_can_be_read() {
    let data = tempfile::tempdir().unwrap();
    let (model, judge) = with_judge(data.path());
    let judged = Design {
        repeats: 1,
        judges: vec![Arc::clone(&judge)],
        methods: vec![Variants::default().method("pixel").unwrap()],
        ..design(&model, &["plain", "soft"])
    };
    let plan = Plan::new(&judged).unwrap();
    let folder = Folder::new(data.path().join("study"));
    let models = [Arc::clone(&model), Arc::clone(&judge)];
    let options = RunOptions { images: None, ..OPTIONS };
    assert!(study::run(&folder, &plan, &models, &engine(), &options, &mut |_| true).unwrap());
    let rows = folder.rows().unwrap();
    assert_eq!(rows.len(), plan.runs());
    for row in &rows {
        let readability = row.readability.as_ref().unwrap();
        let [verdict] = readability.verdicts.as_slice() else { panic!("{readability:?}") };
        assert!(readability.spectral_excess.is_some() && verdict.judge == "twin");
        let is_class = row.key.layer == "logits";
        assert_eq!((verdict.rank.is_some(), verdict.probability.is_some()), (is_class, is_class), "{:?}", row.key);
        let calibrated = row.key.layer == "layer2/Relu_1";
        assert_eq!(verdict.affinity.is_some(), calibrated, "{:?}", row.key);
        assert!(calibrated || readability.percent_of_natural.is_none());
        assert_eq!(verdict.passes, u32::from(is_class) + u32::from(calibrated));
    }
    // The twin recognizes what its twin was made to recognize.
    let classes = |arm: &str| {
        let of = rows.iter().filter(|row| row.key.arm == arm && row.key.layer == "logits");
        of.filter(|row| row.readability.as_ref().unwrap().verdicts[0].rank == Some(1)).count()
    };
    let summary = summary(&folder, None).unwrap();
    let all = &summary.tables[0].sections[0];
    for arm in &all.arms {
        let judge = &arm.readability.as_ref().unwrap().judges[0];
        assert_eq!((judge.classes, judge.rated), (2, 3));
        assert_eq!(judge.top_1.share, Some(classes(&arm.arm) as f64 / 2.0));
    }
    report(&folder, &summary).unwrap();
    for file in ["report.html", "report.md", "gallery.md"] {
        let text = std::fs::read_to_string(folder.file(file)).unwrap();
        assert!(text.contains("twin: rank "), "{file}");
        assert!(text.contains("affinity"), "{file}");
    }
    let gallery = std::fs::read_to_string(folder.file("gallery.md")).unwrap();
    assert!(gallery.contains("8 units, drawn with seed 4"), "{gallery}");
    // Units at the centre of a layer are shown as what they see.
    let part = plan.models[0].layers[0].part.as_ref().unwrap();
    assert!(gallery.contains(&part.to_string()) && part.rows[1] - part.rows[0] < 28, "{part}");
    assert_eq!(plan.models[0].layers[1].part, None, "the mean of a layer sees all of the image");
    let json: Value = serde_json::from_str(&std::fs::read_to_string(folder.file("summary.json")).unwrap()).unwrap();
    let first = &json["tables"][0]["sections"][0]["arms"][0]["readability"]["judges"][0];
    assert_eq!((&first["judge"], &first["classes"]), (&json!("twin"), &json!(2)));

    // The twin is part of the plan.
    let without = Plan::new(&Design { judges: Vec::new(), ..judged }).unwrap();
    let error = study::run(&folder, &without, &models, &engine(), &options, &mut |_| true).unwrap_err();
    assert!(error.to_string().contains("judges"), "{error}");
}

#[test]
fn a_judge_without_anything_to_judge_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let (calibrated, judge) = with_judge(data.path());
    let model = Arc::new(Model { calibration: None, ..(*calibrated).clone() });
    let refused = |judges: Vec<Arc<Model>>, change: &dyn Fn(&mut Design)| {
        let mut design = Design { judges, ..design(&model, &["plain"]) };
        change(&mut design);
        Plan::new(&design).unwrap_err()
    };
    let strange = Model { classes: (0..10).map(|i| format!("class {i}")).collect(), ..(*judge).clone() };
    for (error, says) in [
        (refused(vec![Arc::new(strange)], &|_| {}), "a class called"),
        (refused(vec![Arc::clone(&model)], &|_| {}), "did not make"),
        (refused(vec![Arc::clone(&judge)], &|design| design.logits = 0), "calibrated"),
    ] {
        assert!(error.field == "judges[0]" && error.expected.contains(says), "{error}");
    }
    assert_eq!(refused(vec![Arc::clone(&judge), judge], &|_| {}).field, "judges[1]");
}
