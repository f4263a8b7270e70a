//! `proxygrad study` as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYGRAD_")) {
        command.env_remove(name);
    }
    command.arg("study").args(arguments).output().unwrap()
}

#[test]
fn the_command_runs_a_study_and_makes_its_report_again() {
    let data = tempfile::tempdir().unwrap();
    let (out, plan) = (data.path().join("study"), data.path().join("plan.toml"));
    let own = "[[arms]]\nname = 'adam'\nrequest = { optimizer = 'adam', gate = 'plain' }\n";
    std::fs::write(&plan, own).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (data_dir, out_dir, plan) = (text(data.path()), text(&out), text(&plan));
    let common = ["--out", &out_dir, "--data-dir", &data_dir, "--plan", &plan];
    let asked = ["--models", "fashion-resnet8", "--layers", "layer2/Relu,layer3/Relu@center", "--units-per-layer", "2"];
    let small = ["--logits", "1", "--seeds", "1", "--steps", "5", "--arms", "plain,soft,adam"];
    let output = command(&[&common[..], &asked, &small].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("fashion-resnet8, pixel: 5 units") && printed.contains("adam against the best of soft"));
    let page = out.join("report.html");
    let first = std::fs::read(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    let output = command(&["--out", &out_dir, "--data-dir", &data_dir, "--report"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&page).unwrap() == first, "the same runs, the same page");

    let refusal = |arguments: &[&str]| {
        let output = command(&[&common[..], &asked, arguments].concat());
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refusal(&["--arms", "plane"]).contains("--arms: plane"));
    assert!(refusal(&["--methods", "pixels"]).contains("--methods: pixels"));
    assert!(refusal(&["--arms", "plain,soft", "--focus", "adam"]).contains("--focus: adam"));
    assert!(refusal(&["--steps", "5"]).contains("holds another study"));
    assert!(refusal(&["--layers", "a", "--layers", "b"]).contains("twice"));
    let nothing = command(&["--out", &text(&data.path().join("nothing")), "--data-dir", &data_dir, "--report"]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("--out"), "{nothing:?}");
}
