//! Trainings over HTTP, from request to the trained model.

use std::path::Path;

use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::network::onnx;
use proxygrad::train::data;
use proxygrad::train::{Training, TrainingRequest, csv};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http_bad_requests::expect;
use crate::http_events::watch_at;
use crate::http_program::Process;
use crate::http_service::{Answer, DEADLINE, Server, quick};

/// A folder of datasets: `bars`, 8x8 images with a bright bar, horizontal or vertical; and what nobody may read.
pub fn datasets() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..48u32 {
        let (class, place) = (["horizontal", "vertical"][(i % 2) as usize], i / 2 % 8);
        let pixel = |x, y| {
            let on_bar = if i % 2 == 0 { y == place } else { x == place };
            image::Luma([if on_bar { 200 } else { 0 } + ((i * 31 + y * 17 + x * 7) % 40) as u8])
        };
        let path = folder.path().join(format!("sets/bars/{class}/{i}.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_fn(8, 8, pixel).save(path).unwrap();
    }
    std::fs::create_dir_all(folder.path().join("secret/a")).unwrap();
    folder
}

pub fn sets(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("sets")
}

pub async fn server(datasets: &TempDir) -> Server {
    Server::with(|config| config.datasets = Some(sets(datasets))).await
}

/// Few steps that take little time.
pub fn small() -> Value {
    json!({
        "dataset": "bars", "grey": true, "architecture": "plain2", "width": 4, "epochs": 3, "batch": 10, "seed": 5,
        "crop": 1, "flip": true,
    })
}

/// More epochs than any test waits for, each of them soon done.
pub fn long() -> Value {
    let mut body = small();
    body["epochs"] = json!(100_000);
    body
}

pub async fn submit(server: &Server, body: &Value) -> String {
    let answer = server.post("/v1/trainings", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.headers["location"].clone()
}

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["type"].as_str().unwrap().to_owned())
}

/// What the library trains on the same request.
pub fn trained(request: &Value, folder: &Path) -> Training {
    let request: TrainingRequest = serde_json::from_value(request.clone()).unwrap();
    let splits = data::load(&folder.join(&request.dataset), &request.data_options(None).unwrap()).unwrap();
    let engine = Cpu::new(&CpuSettings::default()).unwrap();
    let mut training = Training::new(request.recipe(None).unwrap(), splits, &engine).unwrap();
    while training.epoch(&mut |_| false).unwrap().is_some() {}
    training
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_over_http_is_the_training_of_the_library_and_becomes_a_model() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let mut body = small();
    body["add"] = json!("my-bars");
    let request = server.request(Method::POST, "/v1/trainings").json(&body).header("Prefer", "wait=60");
    let answer = server.send(request).await;
    assert_eq!((answer.status, answer.headers["preference-applied"].as_str()), (200, "wait=50"), "{answer:?}");
    let (training, path) = (answer.json(), answer.headers["location"].clone());
    assert_eq!(training["state"], "succeeded", "{training}");
    assert_eq!(training["progress"], json!({"epochs_done": 3, "epochs": 3, "now": null}));
    assert_eq!((&training["links"]["self"], &training["dataset"]), (&json!(path), &json!("bars")));
    // Defaults are shown.
    assert_eq!(training["recipe"]["surrogate"], "decoupled:0.1@0.4");

    let library = tokio::task::spawn_blocking(move || trained(&body, &sets(&datasets)));
    let library = library.await.unwrap();
    let metrics = server.get(&format!("{path}/metrics.csv")).await;
    assert_eq!((metrics.media_type(), metrics.text()), (Some("text/csv"), csv(library.epochs()).as_str()));
    assert_eq!(training["last"], serde_json::to_value(library.epochs().last()).unwrap());
    assert_eq!(training["best"], serde_json::to_value(library.best()).unwrap());
    let model = server.get(&format!("{path}/model.onnx")).await;
    assert_eq!(model.body, onnx::export(&library.freeze_best().unwrap()).unwrap(), "the same weights, bit for bit");
    for name in ["metrics.csv", "model.onnx"] {
        let file = server.get(&format!("{path}/{name}")).await;
        assert!(file.headers["cache-control"].contains("immutable"));
        let tag = file.headers["etag"].clone();
        let again = server.request(Method::GET, &format!("{path}/{name}")).header("If-None-Match", tag);
        assert_eq!(server.send(again).await.status, 304);
    }

    let added = server.get("/v1/models/my-bars").await.json();
    assert_eq!(added["class_names"], json!(["horizontal", "vertical"]), "{added}");
    let job = json!({"model": "my-bars", "objective": "logits:vertical", "steps": 4});
    let job = server.send(server.request(Method::POST, "/v1/jobs").json(&job).header("Prefer", "wait=60")).await;
    assert_eq!(job.json()["state"], "succeeded", "{job:?}");

    // What is lost is gone, and the training is not.
    let folder = server.folder.as_ref().unwrap().path().join("trainings").join(training["id"].as_str().unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    for name in ["metrics.csv", "model.onnx"] {
        let gone = server.get(&format!("{path}/{name}")).await;
        assert_eq!(problem(&gone), (410, "/problems/file-gone".into()), "{name}");
    }
    assert_eq!(server.send(server.request(Method::DELETE, &path)).await.status, 204);
    for below in ["", "/metrics.csv", "/model.onnx", "/events"] {
        assert_eq!(problem(&server.get(&format!("{path}{below}")).await).1, "/problems/unknown-training");
    }
    assert_eq!(server.get("/v1/models/my-bars").await.status, 200, "the model stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_that_of_the_best_epoch_or_on_request_the_last() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let request = |seed: u64| {
        let mut body = small();
        // The accuracy goes up and down.
        (body["learning_rate"], body["epochs"], body["seed"]) = (json!(1), json!(5), json!(seed));
        body
    };
    let root = sets(&datasets);
    let search = move || {
        let candidates = (0..40).map(|seed| (request(seed), trained(&request(seed), &root)));
        let is_earlier = |training: &Training| training.best().unwrap().epoch < training.epochs().len();
        candidates
            .into_iter()
            .find(|(_, training)| is_earlier(training))
            .expect("a run whose last epoch is not its best")
    };
    let (mut body, library) = tokio::task::spawn_blocking(search).await.unwrap();
    body["add"] = json!("best-bars");
    let path = submit(&server, &body).await;
    let training = server.state_at(&path, "succeeded").await;
    assert_eq!(training["best"]["epoch"], library.best().unwrap().epoch);
    let [best, last] =
        [library.freeze_best(), library.freeze()].map(|network| onnx::export(&network.unwrap()).unwrap());
    assert_ne!(best, last);
    for (query, expected) in [("", &best), ("?epoch=best", &best), ("?epoch=last", &last)] {
        assert_eq!(&server.get(&format!("{path}/model.onnx{query}")).await.body, expected, "{query}");
    }
    let refused = server.get(&format!("{path}/model.onnx?epoch=3")).await;
    assert!(refused.status == 400 && refused.text().contains("best, last"), "{refused:?}");
    let models = server.folder.as_ref().unwrap().path().join("models/best-bars");
    let files =
        std::fs::read_dir(models).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap_or_default());
    assert!(files.into_iter().any(|file| file == best), "the model is that of the best epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fine_tuned_for_the_classes_of_a_dataset() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let body = json!({
        "dataset": "bars", "model": "fashion-resnet8", "freeze": ["layer1*", "layer2*"], "epochs": 1, "batch": 16,
        "add": "tuned",
    });
    let path = submit(&server, &body).await;
    let training = server.state_at(&path, "succeeded").await;
    assert_eq!(training["recipe"]["start"]["model"], "fashion-resnet8");
    assert_eq!((&training["size"], &training["grey"]), (&json!([28, 28]), &json!(true)), "those of the model");
    let tuned = onnx::import(&server.get(&format!("{path}/model.onnx")).await.body).unwrap().network;
    let models = proxygrad::network::catalog::Models::open(tempfile::tempdir().unwrap().path()).unwrap();
    let start = models.load("fashion-resnet8").unwrap();
    let weights = |network: &proxygrad::Network, layer: &str| match &network.node(network.find(layer).unwrap()).op {
        proxygrad::network::Op::Conv(conv) => Some(conv.weight.data().to_vec()),
        _ => None,
    };
    let convs = start.network.layers().map(|layer| layer.name.to_owned());
    let convs: Vec<String> = convs.filter(|name| weights(&start.network, name).is_some()).collect();
    let (frozen, moved): (Vec<&String>, Vec<&String>) =
        convs.iter().partition(|name| name.starts_with("layer1") || name.starts_with("layer2"));
    assert!(!frozen.is_empty() && !moved.is_empty(), "{convs:?}");
    for name in frozen {
        assert_eq!(weights(&tuned, name), weights(&start.network, name), "{name}");
    }
    for name in moved {
        assert_ne!(weights(&tuned, name), weights(&start.network, name), "{name}");
    }
    assert_eq!(server.get("/v1/models/tuned").await.json()["class_names"], json!(["horizontal", "vertical"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_datasets_trains_nothing_and_says_why() {
    let server = Server::start().await;
    let refused = server.post("/v1/trainings", &small()).await;
    assert_eq!(problem(&refused), (403, "/problems/trainings-disabled".into()));
    assert!(refused.text().contains("--datasets"), "{}", refused.text());
    assert_eq!(server.get("/v1/trainings").await.json(), json!({"trainings": [], "next": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_training_is_told_what_is_wrong() {
    let datasets = datasets();
    #[cfg(unix)]
    std::os::unix::fs::symlink(datasets.path().join("secret"), sets(&datasets).join("link")).unwrap();
    let server = Server::with(|config| {
        config.datasets = Some(sets(&datasets));
        config.max_training_steps = 1000;
    })
    .await;
    let with = |field: &str, value: Value| {
        let mut body = small();
        body[field] = value;
        body.to_string()
    };
    let absolute = datasets.path().join("secret").to_str().unwrap().to_owned();
    for (what, body, status, field) in [
        ("nothing", String::new(), 400, ""),
        ("broken JSON", r#"{"dataset": "#.into(), 400, ""),
        ("a list", "[]".into(), 422, "body"),
        ("no dataset", "{}".into(), 422, "dataset"),
        ("a dataset of the wrong type", with("dataset", json!(7)), 422, "dataset"),
        ("an unknown dataset", with("dataset", json!("bar")), 422, "dataset"),
        ("the way out", with("dataset", json!("../secret")), 422, "dataset"),
        ("the long way out", with("dataset", json!("bars/../../secret")), 422, "dataset"),
        ("an absolute path", with("dataset", json!(absolute)), 422, "dataset"),
        ("a link that leads out", with("dataset", json!("link")), 422, "dataset"),
        ("the folder itself", with("dataset", json!(".")), 422, "dataset"),
        ("an unknown field", with("epoch", json!(3)), 422, "epoch"),
        ("an unknown architecture", with("architecture", json!("resnet9")), 422, "architecture"),
        ("an unknown surrogate", with("surrogate", json!("relu")), 422, "surrogate"),
        ("a slope out of range", with("surrogate", json!("decoupled:7")), 422, "surrogate"),
        ("an unknown schedule", with("schedule", json!("linear")), 422, "schedule"),
        ("an unknown optimizer", with("optimizer", json!("adam")), 422, "optimizer"),
        ("an unknown initialization", with("initialization", json!("xavier")), 422, "initialization"),
        ("no epochs", with("epochs", json!(0)), 422, "epochs"),
        ("too many epochs", with("epochs", json!(1001)), 422, "epochs"),
        ("no images in a step", with("batch", json!(0)), 422, "batch"),
        ("too many images in a step", with("batch", json!(1_u64 << 40)), 422, "batch"),
        ("a wide network", with("width", json!(1_u64 << 40)), 422, "width"),
        ("a rate below 0", with("learning_rate", json!(-1)), 422, "learning_rate"),
        ("a rate as text", with("learning_rate", json!("fast")), 422, "learning_rate"),
        ("too much smoothing", with("label_smoothing", json!(1)), 422, "label_smoothing"),
        ("a large crop", with("crop", json!(5000)), 422, "crop"),
        ("a size of nothing", with("size", json!([0, 8])), 422, "size"),
        ("one side", with("size", json!([8])), 422, "size"),
        ("everything as a test", with("test_share", json!(1)), 422, "test_share"),
        ("frozen random weights", with("freeze", json!(["conv1"])), 422, "freeze"),
        ("an architecture and a model", with("model", json!("fashion-resnet8")), 422, "architecture"),
        ("an unknown model", with("model", json!("nowhere")), 422, "model"),
        ("a taken id", with("add", json!("fashion-resnet8")), 422, "add"),
        ("a path as an id", with("add", json!("../x")), 422, "add"),
    ] {
        let request =
            server.request(Method::POST, "/v1/trainings").header("Content-Type", "application/json").body(body);
        let answer = server.send(request).await;
        expect(what, &answer, status, field);
        assert!(!answer.text().contains(sets(&datasets).to_str().unwrap()), "{what}: no path of the server");
    }
    let id = "0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a";
    for (method, path, status, field) in [
        (Method::GET, "/v1/trainings/1".to_owned(), 400, "id"),
        (Method::GET, format!("/v1/trainings/{id}"), 404, ""),
        (Method::GET, format!("/v1/trainings/{id}/metrics.csv"), 404, ""),
        (Method::GET, format!("/v1/trainings/{id}/model.onnx"), 404, ""),
        (Method::GET, format!("/v1/trainings/{id}/last.safetensors"), 404, ""),
        (Method::GET, format!("/v1/trainings/{id}/events"), 404, ""),
        (Method::GET, "/v1/trainings?state=done".to_owned(), 400, "state"),
        (Method::GET, "/v1/trainings?limit=101".to_owned(), 400, "limit"),
        (Method::GET, "/v1/trainings?cursor=next".to_owned(), 400, "cursor"),
        (Method::GET, "/v1/trainings?model=x".to_owned(), 400, "model"),
        (Method::POST, format!("/v1/trainings/{id}/cancel"), 404, ""),
        (Method::DELETE, format!("/v1/trainings/{id}"), 404, ""),
        (Method::PUT, "/v1/trainings".to_owned(), 405, ""),
        (Method::POST, "/v1/trainings".to_owned(), 415, ""),
    ] {
        let answer = server.send(server.request(method.clone(), &path)).await;
        expect(&format!("{method} {path}"), &answer, status, field);
    }
    assert_eq!(server.get("/v1/trainings").await.json(), json!({"trainings": [], "next": null}), "none was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_its_dataset_does_not_fit_fails_and_says_so() {
    let datasets = datasets();
    std::fs::create_dir_all(sets(&datasets).join("broken/a")).unwrap();
    std::fs::create_dir_all(sets(&datasets).join("broken/b")).unwrap();
    std::fs::write(sets(&datasets).join("broken/a/x.png"), b"not an image").unwrap();
    #[cfg(unix)]
    {
        let leads_out = sets(&datasets).join("leads-out/a/link");
        std::fs::create_dir_all(leads_out.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(datasets.path().join("secret"), leads_out).unwrap();
    }
    let server = Server::with(|config| {
        config.datasets = Some(sets(&datasets));
        config.max_training_steps = 1000;
    })
    .await;
    for (field, value, code, says) in [
        ("dataset", json!("broken"), "dataset", "broken/a/x.png"),
        ("dataset", json!("leads-out"), "dataset", "leads-out/a/link"),
        ("limit", json!(1000), "dataset", "limit"),
        ("batch", json!(1000), "dataset", "batch"),
        ("epochs", json!(1000), "dataset", "4000 steps"),
        ("width", json!(4096), "dataset", "bytes of memory"),
        ("architecture", json!("vgg16"), "dataset", "pool4"),
        ("learning_rate", json!(1e30), "diverged", "diverged"),
    ] {
        let mut body = small();
        body[field] = value;
        if code == "diverged" {
            body["clip"] = json!(0);
            body["architecture"] = json!("plain8");
        }
        let path = submit(&server, &body).await;
        let failed = server.state_at(&path, "failed").await;
        assert_eq!(failed["problem"]["code"], code, "{failed}");
        let detail = failed["problem"]["detail"].as_str().unwrap();
        assert!(detail.contains(says) && !detail.contains(datasets.path().to_str().unwrap()), "{detail}");
        assert_eq!(problem(&server.get(&format!("{path}/model.onnx")).await), (409, "/problems/no-result-yet".into()));
    }
    assert_eq!(server.submit(quick()).await["state"], "queued", "the device lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_with_the_same_numbers() {
    let (datasets, folder) = (datasets(), tempfile::tempdir().unwrap());
    let sets_path = sets(&datasets);
    let arguments = ["--datasets", sets_path.to_str().unwrap()];
    let mut body = small();
    body["epochs"] = json!(200);
    let mut process = Process::start(folder.path(), &arguments);
    let server = Server::at(process.base.clone());
    let path = submit(&server, &body).await;
    let done = |training: &Value| training["progress"]["epochs_done"].as_u64().unwrap();
    for epochs in [3, 40, 90] {
        let server = Server::at(process.base.clone());
        let running = server.until_at(&path, |training| done(training) >= epochs).await;
        assert_eq!(running["state"], "running", "{running}");
        process.kill();
        process = Process::start(folder.path(), &arguments);
        let recovered = Server::at(process.base.clone()).get(&path).await.json();
        assert!(done(&recovered) + 1 >= epochs, "{recovered}");
    }
    let server = Server::at(process.base.clone());
    server.state_at(&path, "succeeded").await;
    let library = tokio::task::spawn_blocking(move || trained(&body, &sets_path)).await.unwrap();
    assert_eq!(server.get(&format!("{path}/metrics.csv")).await.text(), csv(library.epochs()));
    for (query, network) in [("", library.freeze_best()), ("?epoch=last", library.freeze())] {
        let model = server.get(&format!("{path}/model.onnx{query}")).await.body;
        assert_eq!(model, onnx::export(&network.unwrap()).unwrap(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_come_before_trainings() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let path = submit(&server, &long()).await;
    let done = |training: &Value| training["progress"]["epochs_done"].as_u64().unwrap();
    server.until_at(&path, |training| done(training) > 0).await;
    for _ in 0..3 {
        let request = server.request(Method::POST, "/v1/jobs").json(&quick()).header("Prefer", "wait=60");
        assert_eq!(server.send(request).await.json()["state"], "succeeded");
    }
    let training = server.get(&path).await.json();
    assert_eq!(training["state"], "running", "{training}");
    let before = done(&training);
    server.until_at(&path, |training| done(training) > before + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_can_be_looked_at_stopped_and_forgotten() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let path = submit(&server, &long()).await;
    let running = server.until_at(&path, |training| !training["last"].is_null()).await;
    assert_eq!((&running["state"], &running["progress"]["epochs"]), (&json!("running"), &json!(100_000)), "{running}");
    let metrics = server.get(&format!("{path}/metrics.csv")).await;
    assert_eq!((metrics.status, metrics.headers["cache-control"].as_str()), (200, "no-cache"));
    assert_eq!(problem(&server.get(&format!("{path}/model.onnx")).await), (409, "/problems/no-result-yet".into()));
    let refused = server.send(server.request(Method::DELETE, &path)).await;
    assert_eq!(problem(&refused), (409, "/problems/training-not-finished".into()));

    let stopped = server.post(&format!("{path}/cancel"), &Value::Null).await;
    assert!(matches!(stopped.status, 200 | 202), "{stopped:?}");
    let canceled = server.state_at(&path, "canceled").await;
    assert!(canceled["progress"]["epochs_done"].as_u64().unwrap() >= 1, "{canceled}");
    assert_eq!(server.get(&format!("{path}/metrics.csv")).await.status, 200, "what was done can still be looked at");
    assert_eq!(server.post(&format!("{path}/cancel"), &Value::Null).await.json()["state"], "canceled");
    let folder = server.folder.as_ref().unwrap().path().join("trainings").join(path.rsplit('/').next().unwrap());
    assert!(folder.exists());
    assert_eq!(server.send(server.request(Method::DELETE, &path)).await.status, 204);
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn trainings_are_listed_newest_first_page_by_page() {
    let datasets = datasets();
    let server = Server::with(|config| {
        config.datasets = Some(sets(&datasets));
        config.queue_limit = 3;
    })
    .await;
    let running = submit(&server, &long()).await;
    server.state_at(&running, "running").await;
    let mut paths = Vec::new();
    for _ in 0..3 {
        paths.push(submit(&server, &small()).await);
    }
    let full = server.post("/v1/trainings", &small()).await;
    assert_eq!(problem(&full), (503, "/problems/queue-full".into()));
    let listed = |page: &Value| -> Vec<String> {
        let trainings = page["trainings"].as_array().unwrap().iter();
        trainings.map(|training| training["links"]["self"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.get("/v1/trainings?limit=2&state=queued").await.json();
    assert_eq!(listed(&first), [paths[2].clone(), paths[1].clone()]);
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/v1/trainings?limit=2&state=queued&cursor={next}")).await.json();
    assert_eq!((listed(&second), &second["next"]), (vec![paths[0].clone()], &Value::Null));
    assert_eq!(listed(&server.get("/v1/trainings?dataset=bars").await.json()).len(), 4);
    assert_eq!(listed(&server.get("/v1/trainings?dataset=other").await.json()).len(), 0);
    assert_eq!(
        problem(&server.get(&format!("{}/metrics.csv", paths[0])).await),
        (409, "/problems/no-result-yet".into())
    );
    server.post(&format!("{running}/cancel"), &Value::Null).await;
    server.state_at(&paths[2], "succeeded").await;
    assert_eq!(server.get(&paths[1]).await.json()["state"], "succeeded", "the oldest one first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_its_key_makes_no_second_training() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let send = async |body: &Value| {
        server.send(server.request(Method::POST, "/v1/trainings").json(body).header("Idempotency-Key", "one")).await
    };
    let mut body = small();
    body["add"] = json!("once");
    let first = send(&body).await;
    // Another training may not become the same model.
    expect("a promised id", &server.post("/v1/trainings", &body).await, 422, "add");
    server.state_at(&first.headers["location"], "succeeded").await;
    // What is left out is the same as what is said, and the model that exists by now does not matter.
    body["momentum"] = json!(0.9);
    let second = send(&body).await;
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.json()["id"], first.json()["id"]);
    body["seed"] = json!(6);
    body["add"] = Value::Null;
    assert_eq!(problem(&send(&body).await), (422, "/problems/idempotency-key-reused".into()));
    assert_eq!(server.get("/v1/trainings").await.json()["trainings"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_can_be_watched() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let path = submit(&server, &small()).await;
    let events = watch_at(&server, &format!("{path}/events"), None).await.unwrap().all().await;
    assert_eq!((events[0].name.as_str(), &events[0].data["links"]["self"]), ("training", &json!(path)));
    let states: Vec<&str> = events.iter().filter_map(|event| event.data["state"].as_str()).collect();
    assert_eq!(states.last(), Some(&"succeeded"), "{states:?}");
    let epochs = events.iter().filter(|event| event.name == "epoch").map(|event| event.data["epoch"].as_u64());
    assert_eq!(epochs.collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let progress: Vec<&Value> =
        events.iter().filter(|event| event.name == "progress").map(|event| &event.data).collect();
    assert!(progress.iter().any(|progress| progress["now"]["steps"] == 4), "{progress:?}");
    assert_eq!(progress.last().unwrap()["epochs_done"], 3);
    let last = events.last().unwrap().id.unwrap().to_string();
    assert_eq!(watch_at(&server, &format!("{path}/events"), Some(&last)).await.err(), Some(204));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_requeues_a_training_and_nothing_is_repeated() {
    let datasets = datasets();
    let sets = sets(&datasets);
    let server = Server::with(|config| config.datasets = Some(sets.clone())).await;
    let path = submit(&server, &long()).await;
    let done = |training: &Value| training["progress"]["epochs_done"].as_u64().unwrap();
    server.until_at(&path, |training| done(training) >= 2).await;
    let folder = tokio::time::timeout(DEADLINE, server.shutdown()).await.unwrap();
    let stray = folder.path().join("trainings/0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a");
    std::fs::create_dir_all(&stray).unwrap();
    let kept = folder.path().join("trainings/0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0b");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("last.safetensors"), b"weights").unwrap();

    let server = Server::on(folder, |config| config.datasets = Some(sets)).await;
    let data_dir = server.folder.as_ref().unwrap().path();
    assert!(!stray.exists(), "a folder without results and without a training goes");
    assert!(data_dir.join("set-aside/trainings/0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0b/last.safetensors").exists());
    let before = done(&server.get(&path).await.json());
    assert!(before >= 2, "what was done stays done");
    server.until_at(&path, |training| done(training) > before + 1).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_training_whose_files_cannot_be_written_waits_and_goes_on() {
    let datasets = datasets();
    let server = server(&datasets).await;
    let path = submit(&server, &long()).await;
    let done = |training: &Value| training["progress"]["epochs_done"].as_u64().unwrap();
    server.until_at(&path, |training| done(training) >= 1).await;
    let folder = server.folder.as_ref().unwrap().path().join("trainings").join(path.rsplit('/').next().unwrap());
    // A folder in the place of the temporary file: no checkpoint can be written.
    let blocked = folder.join("last.safetensors.part");
    while std::fs::create_dir(&blocked).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let waits = server.get(&path).await.json();
    assert_eq!(waits["state"], "running", "{waits}");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(done(&server.get(&path).await.json()), done(&waits), "nothing more is computed meanwhile");
    std::fs::remove_dir(&blocked).unwrap();
    server.until_at(&path, |training| done(training) > done(&waits) + 1).await;
    let table = server.get(&format!("{path}/metrics.csv")).await;
    let epochs: Vec<usize> =
        table.text().lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(epochs.iter().copied().eq(1..=epochs.len()), "every epoch stands there once");
}
