//! `proxygrad maximize` with images and groups, as its users see it.

use std::path::Path;
use std::process::{Command, Output};

use image::{ImageBuffer, Luma};
use serde_json::{Value, json};

fn run(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYGRAD_")) {
        command.env_remove(name);
    }
    let fixed = ["maximize", "--json", "--model", "fashion-resnet8", "--steps", "3", "--data-dir"];
    command.args(fixed).arg(data).args(arguments).output().unwrap()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn images_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let (photo, other, output) =
        (path(folder.path(), "p.png"), path(folder.path(), "o.png"), path(folder.path(), "x.png"));
    let picture = |k: u32| ImageBuffer::from_fn(40, 28, |x, y| Luma([((x * k + y) % 256) as u8]));
    picture(5).save(&photo).unwrap();
    picture(3).save(&other).unwrap();
    let json =
        r#"{"sum": ["logits:Bag", {"layer": "layer1/Relu_1", "caricature": {"image": "part:b"}, "weight": 0.5}]}"#;
    let named = format!("b={other}");
    let arguments = [
        "--unit",
        "layer1/Relu_1@inversion",
        "--unit",
        json,
        "--image",
        &photo,
        "--image",
        &named,
        "--output",
        &output,
        "--start",
        "image",
        "--start-image",
        &photo,
        "--max-rms-distance",
        "0.1",
    ];
    let done = run(folder.path(), &arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    let inverted = &result["stimuli"][0]["objective"]["inversion"]["image"]["sha256"];
    assert_eq!(*inverted, result["settings"]["start"]["image"]["sha256"], "{result}");
    assert_eq!(result["stimuli"][1]["objective"]["sum"][0], "logits:8");
    assert_ne!(result["stimuli"][1]["objective"]["sum"][1]["caricature"]["image"]["sha256"], *inverted);
    assert_eq!(result["stimuli"][0]["score"], 0.0, "it starts from what it inverts");
    assert!(folder.path().join("x-1.png").exists());
}

#[test]
fn a_unit_may_have_several_stimuli() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "x.png");
    let arguments = [
        "--unit",
        "logits:Sneaker",
        "--output",
        &output,
        "--diversity-layer",
        "layer1/Relu_1",
        "--diversity-copies",
        "2",
    ];
    let done = run(folder.path(), &arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(result["settings"]["diversity"]["weight"], 1.0);
    assert_ne!(
        std::fs::read(path(folder.path(), "x-0.png")).unwrap(),
        std::fs::read(path(folder.path(), "x-1.png")).unwrap()
    );
}

#[test]
fn any_number_of_units_is_carried_out_in_parts_as_if_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "x.png");
    let units: Vec<String> = (0..70).map(|i| format!("logits:{}", i % 10)).collect();
    let arguments: Vec<&str> = units.iter().flat_map(|unit| ["--unit", unit]).chain(["--output", &output]).collect();
    let done = run(folder.path(), &arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let result: Value = serde_json::from_slice(&done.stdout).unwrap();
    let stimuli = result["stimuli"].as_array().unwrap();
    assert_eq!(stimuli.len(), 70);
    for (i, stimulus) in stimuli.iter().enumerate() {
        assert_eq!(stimulus["objective"], units[i]);
        let file = path(folder.path(), &format!("x-{i}.png"));
        assert_eq!(stimulus["file"], file);
        assert!(Path::new(&file).exists(), "{file}");
    }
    // Every stimulus has a start of its own, also across parts.
    let starts: std::collections::BTreeSet<String> =
        stimuli.iter().map(|stimulus| stimulus["initial_score"].to_string()).collect();
    assert_eq!(starts.len(), 70);

    let wrong: Vec<&str> = arguments.iter().copied().chain(["--unit", "logits:10"]).collect();
    let other = path(folder.path(), "y.png");
    let wrong: Vec<&str> = wrong.into_iter().map(|text| if text == output { &other } else { text }).collect();
    let refused = run(folder.path(), &wrong);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--unit: 10 is not valid"), "{told}");
    assert!(!folder.path().join("y-0.png").exists(), "nothing is written before all units are known to be right");
}

#[test]
fn what_is_wrong_is_told_by_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let text = path(folder.path(), "x.txt");
    std::fs::write(&text, "hello").unwrap();
    let output = path(folder.path(), "x.png");
    for (arguments, parts) in [
        (vec!["--unit", "logits:Sneeker"], vec!["--unit", "Sneeker", "Sneaker"]),
        (vec!["--unit", "logits@caricature"], vec!["--image", "part:image"]),
        (vec!["--unit", "logits@inversion", "--image", &text], vec!["--image", "5 bytes", "PNG or JPEG"]),
        (vec!["--unit", "logits:1", "--image", &text], vec!["--image", "part:image"]),
        (vec!["--unit", "logits:1", "--image", "/nowhere.png"], vec!["/nowhere.png"]),
        (vec!["--unit", "logits:1", "--start", "image"], vec!["--start-image"]),
        (vec!["--unit", "logits:1", "--max-rms-distance", "0.1"], vec!["--max-rms-distance", "--start"]),
        (vec!["--unit", "logits:1", "--patience", "0"], vec!["--patience: 0", "a whole number from 1 to"]),
        (vec!["--unit", "logits:1", "--leash", "0.1"], vec!["--leash is now called --max-rms-distance"]),
        (vec!["--unit", "logits:1", "--certificates"], vec!["--certificates is now called --diagnostics"]),
        (vec!["--unit", "{\"layer\": \"logits\", \"chanel\": 1}"], vec!["--unit", "chanel"]),
        (vec!["--unit", "logits:1", "--diversity-copies", "2"], vec!["--diversity-layer"]),
        (
            vec!["--unit", "logits:1", "--diversity-copies", "1", "--diversity-layer", "logits"],
            vec!["--diversity-copies"],
        ),
    ] {
        let refused = run(folder.path(), &[&arguments[..], &["--output", &output]].concat());
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(parts.iter().all(|part| told.contains(part)), "{arguments:?}: {told}");
    }
}

#[test]
fn a_score_that_never_changes_runs_out_of_patience() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "x.png");
    let nothing = r#"{"sum": ["logits:1", {"layer": "logits", "channel": 1, "weight": -1}]}"#;
    let fixed = ["--unit", nothing, "--unit", "layer1/Relu_1:3", "--preset", "maximum", "--gate", "plain"];
    let fixed = [&fixed[..], &["--optimizer", "l2-ascent", "--output", &output]].concat();
    let steps = |arguments: &[&str]| {
        let done = run(folder.path(), &[&fixed[..], arguments].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let result: Value = serde_json::from_slice(&done.stdout).unwrap();
        [0, 1].map(|n| result["stimuli"][n]["steps"].as_u64().unwrap())
    };
    assert_eq!(steps(&[]), [3, 3]);
    assert_eq!(steps(&["--patience", "1"]), [2, 3]);
}

#[test]
fn a_number_alone_changes_what_the_preset_says_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = path(folder.path(), "x.png");
    let settings = |arguments: &[&str]| {
        let fixed = ["--unit", "logits:1", "--output", &output];
        let done = run(folder.path(), &[&fixed[..], arguments].concat());
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()["settings"].clone()
    };
    let default = settings(&[]);
    assert_eq!((&default["preset"], &default["gate"]["kind"]), (&json!("readable"), &json!("auto")));
    let slope = settings(&["--slope", "0.25"]);
    assert_eq!((&slope["gate"]["kind"], &slope["gate"]["slope"]), (&json!("decoupled"), &json!(0.25)));
    let temperature = settings(&["--temperature", "0.5"]);
    assert_eq!((&temperature["gate"]["kind"], &temperature["gate"]["temperature"]), (&json!("soft"), &json!(0.5)));
    let paper = settings(&["--preset", "proxygrad-paper", "--polish", "0.5"]);
    let gate = json!({"kind": "decoupled", "slope": 0.3, "anneal": 0.0, "polish": 0.5});
    assert_eq!(paper["gate"], gate, "the rest is still the preset's");
    let lr = settings(&["--lr", "0.125"]);
    assert_eq!((&lr["optimizer"]["kind"], &lr["optimizer"]["lr"]), (&json!("adam"), &json!(0.125)));
    let pixels = settings(&["--parameterization", "pixel", "--decay", "cosine"]);
    assert_eq!((&pixels["optimizer"]["kind"], &pixels["optimizer"]["decay"]), (&json!("l2-ascent"), &json!("cosine")));
    let power = settings(&["--decay-power", "1.5"]);
    let kind = &power["parameterization"]["kind"];
    assert_eq!((kind, &power["parameterization"]["decay_power"]), (&json!("fourier"), &json!(1.5)));
    assert_eq!(power["optimizer"], default["optimizer"]);
    assert_eq!(settings(&["--no-transforms"])["transforms"], json!([]));
}

#[test]
fn each_of_several_presets_has_its_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let make = |output: &str, arguments: &[&str]| {
        let output = path(folder.path(), output);
        let done =
            run(folder.path(), &[&["--unit", "logits:Bag", "--seed", "3", "--output", &output], arguments].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let png = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let both = make("x.png", &["--preset", "readable,maximum", "--alpha"]);
    assert_eq!(
        (&both["settings"]["preset"], &both["other_settings"][0]["preset"]),
        (&json!("readable"), &json!("maximum"))
    );
    for (n, preset) in ["readable", "maximum"].into_iter().enumerate() {
        let alone = make("alone.png", &["--preset", preset, "--alpha"]);
        assert_eq!(alone.get("other_settings"), None);
        assert_eq!((&both["stimuli"][n]["preset"], &alone["stimuli"][0]["preset"]), (&json!(preset), &json!(preset)));
        assert_eq!(both["stimuli"][n]["trajectory"], alone["stimuli"][0]["trajectory"]);
        assert_eq!(png(&format!("x-{preset}.png")), png("alone.png"));
    }
    make("y.png", &["--unit", "logits:Coat", "--preset", "fast", "--preset", "maximum"]);
    for name in ["y-fast-0.png", "y-fast-1.png", "y-maximum-0.png", "y-maximum-1.png"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let output = path(folder.path(), "z.png");
    let refused = run(folder.path(), &["--unit", "logits:1", "--output", &output, "--preset", "fast,fast"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("--preset") && error.contains("each preset once"), "{error}");
}
