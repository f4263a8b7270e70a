//! Judges over HTTP: of a job and of a study.

use std::path::Path;

use serde_json::{Value, json};

use crate::http_service::Server;

/// The embedded model as somebody else's: the same network with other bytes, and so another digest.
fn twin(folder: &Path) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxygrad/assets/fashion-resnet8");
    let mut file = std::fs::read(assets.join("model.onnx")).unwrap();
    // Field 2 of an ONNX model, its producer, once more: the last one counts.
    file.extend([0x12, 4, b't', b'w', b'i', b'n']);
    std::fs::write(folder.join("model.onnx"), file).unwrap();
    let manifest = std::fs::read_to_string(assets.join("model.toml")).unwrap();
    let manifest = manifest.lines().filter(|line| !line.starts_with("digest")).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.join("model.toml"), manifest.replace("fashion-resnet8", "twin")).unwrap();
}

async fn server(folder: &Path) -> Server {
    twin(folder);
    Server::with(|config| config.storage.models_dirs = vec![folder.into()]).await
}

fn job(judges: &Value, objective: &str) -> Value {
    json!({"model": "fashion-resnet8", "objective": objective, "steps": 3, "diagnostics": {"judges": judges}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_the_verdicts_of_its_judges() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let submitted = server.submit(job(&json!(["twin"]), "logits:Bag")).await;
    let done = server.state(submitted["id"].as_str().unwrap(), "succeeded").await;
    let judge = &done["settings"]["judges"][0];
    assert_eq!((&judge["id"], judge["digest"].as_str().unwrap().len()), (&json!("twin"), 64), "{done}");
    let diagnostics = &done["stimuli"][0]["diagnostics"];
    let verdict = &diagnostics["judges"][0];
    assert_eq!(
        (&verdict["judge"], &verdict["passes"], &verdict["affinity"]),
        (&json!("twin"), &json!(1), &Value::Null)
    );
    assert!(verdict["rank"].as_u64().unwrap() >= 1 && verdict["probability"].as_f64().unwrap() > 0.0, "{verdict}");
    assert_eq!(diagnostics["passes"], 165);

    for (body, field, says) in [
        (job(&json!(["nobody"]), "logits:1"), "diagnostics.judges[0]", "twin"),
        (job(&json!(["twin", "twin"]), "logits:1"), "diagnostics.judges[1]", "once"),
        (job(&json!(["fashion-resnet8"]), "logits:1"), "diagnostics.judges[0]", "another model"),
        (job(&json!(["twin"]), "layer1/Relu:1"), "diagnostics.judges[0]", "calibrated"),
        (job(&json!("twin"), "logits:1"), "diagnostics.judges", "a list"),
    ] {
        let answer = server.post("/v1/jobs", &body).await;
        let problem = answer.json();
        let error = &problem["errors"][0];
        assert_eq!((answer.status, error["field"].as_str().unwrap_or_default()), (422, field), "{problem}");
        assert!(problem.to_string().contains(says), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_has_the_verdicts_of_its_judges() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path()).await;
    let study = json!({
        "models": [{"id": "fashion-resnet8", "layers": ["layer3/Relu@center"]}], "units_per_layer": 1, "logits": 2,
        "seeds": 1, "steps": 3, "arms": ["plain", "soft"], "judges": ["twin"],
    });
    let request = server.request(reqwest::Method::POST, "/v1/studies").json(&study).header("Prefer", "wait=50");
    let answer = server.send(request).await;
    let (study, path) = (answer.json(), answer.headers["location"].clone());
    assert_eq!((answer.status, &study["state"]), (200, &json!("succeeded")), "{study}");
    assert_eq!(study["design"]["judges"][0]["id"], "twin");
    let judge = &study["summary"]["tables"][0]["arms"][1]["judges"][0];
    assert_eq!(
        (&judge["judge"], &judge["classes"], &judge["median_affinity"]),
        (&json!("twin"), &json!(2), &Value::Null)
    );
    assert!(judge["top_1"].as_f64().unwrap() <= judge["top_5"].as_f64().unwrap());
    let runs = String::from_utf8(server.get(&format!("{path}/runs.csv")).await.body.to_vec()).unwrap();
    let head = runs.lines().next().unwrap();
    assert!(head.ends_with(",judging_seconds,rank:twin,probability:twin,affinity:twin,judge_passes:twin"), "{head}");
    let report = server.get(&format!("{path}/report")).await;
    assert!(String::from_utf8_lossy(&report.body).contains("twin: rank "));

    for (judges, field) in [(json!(["nobody"]), "judges[0]"), (json!(["twin", "fashion-resnet8"]), "judges[1]")] {
        let mut refused = json!({"models": ["fashion-resnet8"], "judges": judges});
        refused["units_per_layer"] = json!(1);
        let problem = server.post("/v1/studies", &refused).await.json();
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}
