//! Units over HTTP, and what natural images do to them.

use std::path::Path;

use proxygrad::network::catalog::{AddOptions, Models, ModelsConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::calibration_fixture::calibrated;
use crate::http_service::Server;

const LAYER: &str = "/v1/models/fashion-resnet8/layers/layer1%2FRelu_1";

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_without_calibration_is_shown_as_far_as_it_is_known() {
    let server = Server::start().await;
    let unit = server.get(&format!("{LAYER}/units/3")).await;
    assert_eq!(unit.status, 200, "{unit:?}");
    let expected = json!({"model": "fashion-resnet8", "layer": "layer1/Relu_1", "channel": 3,
                          "objective": "layer1/Relu_1:3", "class": null, "calibration": null});
    assert_eq!(unit.json(), expected);
    let logit = server.get("/v1/models/fashion-resnet8/layers/logits/units/9").await.json();
    assert_eq!((&logit["class"], &logit["objective"]), (&json!("Ankle boot"), &json!("logits:9")));
    let patch = server.get(&format!("{LAYER}/units/3/patches/0")).await;
    assert_eq!((patch.status, &patch.json()["type"]), (404, &json!("/problems/unknown-patch")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calibrated_unit_has_statistics_and_patches() {
    let data = tempfile::tempdir().unwrap();
    let model = calibrated(data.path(), &["layer1/Relu_1", "logits"], 4);
    let server = Server::on(data, |_| {}).await;
    let unit = server.get(&format!("{LAYER}/units/3")).await.json();
    let calibration = &unit["calibration"];
    let record = &model.calibration.as_ref().unwrap().layers["layer1/Relu_1"].units[3];
    assert_eq!((&calibration["images"], &calibration["size"]), (&json!(7), &json!([28, 28])));
    for (name, statistics) in [("mean", record.mean), ("center", record.center), ("max", record.max)] {
        assert_eq!(calibration[name]["max"].as_f64().unwrap() as f32, statistics.max, "{name}");
        assert_eq!(calibration[name]["std"].as_f64().unwrap() as f32, statistics.std, "{name}");
    }
    let top = calibration["top"].as_array().unwrap();
    assert_eq!(top.len(), 4);
    for (n, top) in top.iter().enumerate() {
        assert_eq!(top["patch"], format!("{LAYER}/units/3/patches/{n}"));
        let side = |name: &str| top[name][1].as_u64().unwrap() - top[name][0].as_u64().unwrap();
        assert!(top["position"][0].is_u64() && side("rows") < 28 && side("columns") < 28, "{top}");
        let patch = server.get(top["patch"].as_str().unwrap()).await;
        assert_eq!((patch.status, patch.media_type()), (200, Some("image/png")));
        let image = image::load_from_memory(&patch.body).unwrap();
        assert_eq!((u64::from(image.height()), u64::from(image.width())), (side("rows"), side("columns")));
        // Who has it gets it once.
        let tag = &patch.headers["etag"];
        let again = server.request(Method::GET, top["patch"].as_str().unwrap()).header("If-None-Match", tag);
        let again = server.send(again).await;
        assert_eq!((again.status, again.body.len(), &again.headers["etag"]), (304, 0, tag));
    }
    assert!(top.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));

    let logit = server.get("/v1/models/fashion-resnet8/layers/logits/units/0").await.json();
    let best = &logit["calibration"]["top"][0];
    assert_eq!((&best["position"], &best["rows"], &best["columns"]), (&Value::Null, &json!([0, 28]), &json!([0, 28])));
    let left_out = server.get("/v1/models/fashion-resnet8/layers/layer2%2FRelu_1/units/0").await.json();
    assert_eq!(left_out["calibration"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let data = tempfile::tempdir().unwrap();
    calibrated(data.path(), &["logits"], 2);
    let server = Server::on(data, |_| {}).await;
    for (path, status, kind, detail) in [
        ("nothing/layers/logits/units/0", 404, "unknown-model", "nothing"),
        ("fashion-resnet8/layers/layer9/units/0", 404, "unknown-layer", "layer9"),
        ("fashion-resnet8/layers/input/units/0", 404, "unknown-layer", "input"),
        ("fashion-resnet8/layers/%20/units/0", 404, "unknown-layer", "one of the model's"),
        ("fashion-resnet8/layers/logits/units/10", 404, "unknown-unit", "a channel from 0 to 9"),
        ("fashion-resnet8/layers/logits/units/4294967295", 404, "unknown-unit", "4294967295"),
        ("fashion-resnet8/layers/logits/units/4294967296", 400, "invalid-parameter", "u: 4294967296"),
        ("fashion-resnet8/layers/logits/units/x", 400, "invalid-parameter", "u: x"),
        ("fashion-resnet8/layers/logits/units/-1", 400, "invalid-parameter", "u: -1"),
        ("fashion-resnet8/layers/logits/units/0?x=1", 400, "invalid-parameter", "x: 1"),
        ("fashion-resnet8/layers/%FF/units/0", 400, "invalid-parameter", "percent-encoded UTF-8"),
        ("fashion-resnet8/layers/layer1/Relu_1/units/0", 404, "not-found", ""),
        ("nothing/layers/logits/units/0/patches/0", 404, "unknown-model", "nothing"),
        ("fashion-resnet8/layers/layer9/units/0/patches/0", 404, "unknown-layer", "layer9"),
        ("fashion-resnet8/layers/logits/units/10/patches/0", 404, "unknown-unit", "from 0 to 9"),
        ("fashion-resnet8/layers/logits/units/0/patches/2", 404, "unknown-patch", "has 2 patches"),
        ("fashion-resnet8/layers/layer1%2FRelu_1/units/0/patches/0", 404, "unknown-patch", "not calibrated"),
        ("fashion-resnet8/layers/logits/units/0/patches/65536", 400, "invalid-parameter", "n: 65536"),
        ("fashion-resnet8/layers/logits/units/0/patches/first", 400, "invalid-parameter", "n: first"),
    ] {
        let answer = server.get(&format!("/v1/models/{path}")).await;
        let problem = answer.json();
        assert_eq!(
            (answer.status, &problem["type"]),
            (status, &json!(format!("/problems/{kind}"))),
            "{path}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_keeps_its_diagnostics() {
    let data = tempfile::tempdir().unwrap();
    calibrated(data.path(), &["logits"], 1);
    let server = Server::on(data, |_| {}).await;
    let request = json!({"model": "fashion-resnet8", "objective": "logits:8", "preset": "maximum", "steps": 4,
                         "diagnostics": true});
    let id = server.submit(request).await["id"].as_str().unwrap().to_owned();
    let job = server.state(&id, "succeeded").await;
    assert_eq!(job["settings"]["diagnostics"], true);
    let stimulus = &job["stimuli"][0];
    let diagnostics = &stimulus["diagnostics"];
    assert_eq!((&stimulus["passes"], &diagnostics["passes"]), (&json!(10), &json!(165)), "counted apart");
    assert_eq!(diagnostics["robust"]["views"], 64);
    assert!(diagnostics["natural_maximum"].is_f64() && diagnostics["natural_missing"].is_null(), "{diagnostics}");
    assert!(diagnostics["stationarity"]["free_share"].as_f64().unwrap() > 0.0);
    // What was stored comes back after a restart.
    let server = Server::on(server.shutdown().await, |_| {}).await;
    assert_eq!(&server.state(&id, "succeeded").await["stimuli"][0]["diagnostics"], diagnostics);
    let without = json!({"model": "fashion-resnet8", "objective": "logits:8", "steps": 4});
    let id = server.submit(without).await["id"].as_str().unwrap().to_owned();
    let job = server.state(&id, "succeeded").await;
    assert_eq!((&job["settings"]["diagnostics"], &job["stimuli"][0]["diagnostics"]), (&json!(false), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn units_of_tokens_are_listed_maximized_and_refused_with_the_layers_shape() {
    let data = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxygrad/tests/data/onnx/transformer.onnx");
    let models = Models::new(ModelsConfig::new(data.path())).unwrap();
    models.add(&file, AddOptions { id: Some("vit".into()), ..AddOptions::default() }).unwrap();
    let server = Server::on(data, |_| {}).await;
    let listed = server.get("/v1/models/vit/layers").await.json();
    let layers = listed["layers"].as_array().unwrap();
    let layer = |name: &str| layers.iter().find(|layer| layer["name"] == name).unwrap();
    let block = layer("blocks.0");
    assert_eq!(
        (&block["shape"], &block["units"], &block["tokens"]),
        (&json!([12, 4, 4]), &json!(12), &json!(["class"]))
    );
    assert_eq!(layer("patch_embed")["tokens"], Value::Null);
    let unit = server.get("/v1/models/vit/layers/blocks.0%40class/units/3").await;
    assert_eq!((unit.status, &unit.json()["objective"]), (200, &json!("blocks.0@class:3")));

    let objectives = json!(["blocks.0:3", "blocks.0:3@class", "blocks.0:3@1,2",
                            {"layer": "blocks.0@class", "channel": 3}, {"layer": "norm@class", "reduce": "energy"}]);
    let job = server.submit(json!({"model": "vit", "objectives": objectives, "steps": 2})).await;
    let done = server.state(job["id"].as_str().unwrap(), "succeeded").await;
    let written: Vec<&Value> = done["stimuli"].as_array().unwrap().iter().map(|each| &each["objective"]).collect();
    assert_eq!(written, ["blocks.0:3", "blocks.0@class:3", "blocks.0:3@1,2", "blocks.0@class:3", "norm@class@energy"]);

    for (objective, field, expected) in [
        (json!("blocks.0:3@4,0"), "objective.position[0]", "a row from 0 to 3"),
        (json!("blocks.0:12"), "objective.channel", "a channel from 0 to 11"),
        (json!("blocks.0:3@token9"), "objective.layer", "one of its tokens: @class"),
        (json!({"layer": "patch_embed@class", "channel": 1}), "objective.layer", "no tokens besides its positions"),
        (json!("blocks.0@class:3@0,1"), "objective.position", "blocks.0@class is [12]"),
        (json!("node_Softmax_61:1@center"), "objective.reduce", "node_Softmax_61 is [2,272]"),
        (json!("blocks.0:3@klass"), "objective", "@class"),
    ] {
        let answer = server.post("/v1/jobs", &json!({"model": "vit", "objective": objective, "steps": 2})).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["errors"][0]["field"]), (422, &json!(field)), "{objective}: {problem}");
        assert!(problem.to_string().contains(expected), "{objective}: {problem}");
    }
}
