//! Studies over HTTP, from request to report.

use std::path::Path;
use std::sync::Arc;

use proxygrad::engine::{Cpu, CpuSettings};
use proxygrad::network::Model;
use proxygrad::network::catalog::{Models, ModelsConfig};
use proxygrad::study::{Design, Folder, Plan, Row, RunOptions, Variants, report, run, summary};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_bad_requests::expect;
use crate::http_events::watch_at;
use crate::http_program::Process;
use crate::http_service::{Answer, DEADLINE, Server, endless, patient, quick};

/// Few runs that take little time.
pub fn small() -> Value {
    json!({
        "models": [{"id": "fashion-resnet8", "layers": ["layer3/Relu@center"]}], "units_per_layer": 2, "logits": 1,
        "seed": 4, "seeds": 2, "steps": 4, "arms": ["plain", "slope:0.1", "true-proxy"], "methods": ["pixel", "transforms"],
        "images": 1,
    })
}

/// More runs than any test waits for, each batch of them soon done.
fn long() -> Value {
    json!({
        "models": [{"id": "fashion-resnet8", "layers": ["layer2/Relu"]}], "units_per_layer": 16, "logits": 0,
        "seeds": 50, "steps": 8, "arms": ["plain", "soft"],
    })
}

pub async fn submit(server: &Server, body: &Value) -> String {
    let answer = server.post("/v1/studies", body).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.headers["location"].clone()
}

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["type"].as_str().unwrap().to_owned())
}

fn model() -> Arc<Model> {
    let data = tempfile::tempdir().unwrap();
    Models::new(ModelsConfig::new(data.path())).unwrap().load("fashion-resnet8").unwrap()
}

/// The runs of a folder without the one column that never repeats, in one order.
fn timeless(folder: &Folder) -> Vec<Row> {
    let mut rows: Vec<Row> = folder.rows().unwrap().into_iter().map(|row| Row { seconds: 0.0, ..row }).collect();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}

/// The runs of a table as the service sends it.
fn sent(table: &[u8]) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("runs.csv"), table).unwrap();
    timeless(&Folder::new(folder.path()))
}

/// What the library makes of a plan, in batches of another size than the service's.
fn performed(plan: &Plan, folder: &Path) -> Vec<Row> {
    let folder = Folder::new(folder);
    let engine = Cpu::new(&CpuSettings::default()).unwrap();
    assert!(
        run(
            &folder,
            plan,
            &[model()],
            &engine,
            &RunOptions { batch: 3, images: Some(0), memory: u64::MAX },
            &mut |_| true
        )
        .unwrap()
    );
    timeless(&folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_over_http_is_the_study_of_the_library() {
    let server = Server::start().await;
    let request = server.request(Method::POST, "/v1/studies").json(&small()).header("Prefer", "wait=60");
    let answer = server.send(request).await;
    assert_eq!((answer.status, answer.headers["preference-applied"].as_str()), (200, "wait=50"), "{answer:?}");
    let (study, path) = (answer.json(), answer.headers["location"].clone());
    assert_eq!(study["state"], "succeeded", "{study}");
    assert_eq!(study["progress"], json!({"done": 36.0, "total": 36, "now": null}));
    assert_eq!(study["links"]["self"], path);
    assert_eq!(study["design"]["models"][0]["layers"][0]["units"].as_array().unwrap().len(), 2);
    assert_eq!(study["design"]["arms"][1]["request"]["gate"]["slope"], 0.1);
    let arms = study["summary"]["tables"][1]["arms"].as_array().unwrap();
    assert_eq!((arms.len(), &arms[0]["runs"], &arms[0]["ties"]), (3, &json!(6), &json!(3)), "{study}");

    let variants = Variants::default();
    let design = Design {
        models: vec![(model(), vec!["layer3/Relu@center".into()])],
        units_per_layer: 2,
        logits: 1,
        reduce: "mean".into(),
        seed: 4,
        repeats: 2,
        steps: 4,
        base: variants.base.clone(),
        arms: ["plain", "slope:0.1", "true-proxy"].map(|arm| variants.arm(arm).unwrap()).to_vec(),
        methods: ["pixel", "transforms"].map(|method| variants.method(method).unwrap()).to_vec(),
        device: "cpu".into(),
        toys: None,
        judges: Vec::new(),
    };
    let plan = server.get(&format!("{path}/plan.json")).await;
    assert_eq!(serde_json::from_slice::<Plan>(&plan.body).unwrap(), Plan::new(&design).unwrap());
    let runs = server.get(&format!("{path}/runs.csv")).await;
    assert_eq!(runs.media_type(), Some("text/csv"));
    let own = tempfile::tempdir().unwrap();
    let plan: Plan = plan_of(&plan.body);
    let performed = tokio::task::spawn_blocking({
        let path = own.path().to_owned();
        move || performed(&plan, &path)
    });
    assert_eq!(sent(&runs.body), performed.await.unwrap());

    for (name, media_type) in
        [("report", "text/html"), ("summary.csv", "text/csv"), ("summary.json", "application/json")]
    {
        let path = format!("{path}/{name}");
        let file = server.get(&path).await;
        assert_eq!((file.status, file.media_type()), (200, Some(media_type)));
        assert!(file.headers["cache-control"].contains("immutable"));
        let tag = file.headers["etag"].clone();
        assert_eq!(server.send(server.request(Method::GET, &path).header("If-None-Match", tag)).await.status, 304);
    }
    let page = server.get(&format!("{path}/report")).await;
    assert!(page.text().starts_with("<!DOCTYPE html>") && page.text().contains("36 of 36 runs are done"));
    assert!(page.text().contains("<img src=\"data:image/png;base64,"));
    assert!(!page.text().contains("src=\"http"));

    // A data directory that was restored in part: what is lost is gone, and the study is not.
    let folder = server.folder.as_ref().unwrap().path().join("studies").join(study["id"].as_str().unwrap());
    for (name, file) in [("report", "report.html"), ("summary.csv", "summary.csv"), ("runs.csv", "runs.csv")] {
        std::fs::remove_file(folder.join(file)).unwrap();
        let gone = server.get(&format!("{path}/{name}")).await;
        assert_eq!((gone.status, gone.json()["type"].as_str()), (410, Some("/problems/file-gone")), "{name}");
        assert!(gone.json()["detail"].as_str().unwrap().contains(file), "{}", gone.text());
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(server.get(&path).await.json()["summary"], Value::Null);
    assert_eq!(server.get(&format!("{path}/plan.json")).await.status, 200);
}

fn plan_of(json: &[u8]) -> Plan {
    serde_json::from_slice(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_study_is_told_what_is_wrong() {
    let server = Server::with(|config| (config.max_study_runs, config.max_steps) = (500, 100)).await;
    let with = |field: &str, value: Value| {
        let mut body = small();
        body[field] = value;
        body.to_string()
    };
    let own = |request: Value| json!(["plain", {"name": "own", "request": request}]);
    let layers = |layers: Value| json!([{"id": "fashion-resnet8", "layers": layers}]);
    for (what, body, status, field) in [
        ("nothing", String::new(), 400, ""),
        ("broken JSON", r#"{"models": ["#.into(), 400, ""),
        ("a list", "[]".into(), 422, "body"),
        ("no models", "{}".into(), 422, "models"),
        ("an empty list of models", with("models", json!([])), 422, "models"),
        ("an unknown field", with("model", json!("fashion-resnet8")), 422, "model"),
        ("an unknown model", with("models", json!(["fashion-resnet8", "nowhere"])), 422, "models[1]"),
        ("an unknown model with layers", with("models", json!([{"id": "x", "layers": ["a"]}])), 422, "models[0].id"),
        ("a model twice", with("models", json!(["fashion-resnet8", {"id": "fashion-resnet8"}])), 422, "models[1]"),
        ("a model of the wrong type", with("models", json!([7])), 422, "models[0]"),
        ("a model with an unknown field", with("models", json!([{"id": "x", "layer": "a"}])), 422, "models[0].layer"),
        ("a path as a model", with("models", json!(["../../etc/passwd"])), 422, "models[0]"),
        ("an unknown layer", with("models", layers(json!(["layer2/Relu", "layer9"]))), 422, "models[0].layers[1]"),
        ("a layer twice", with("models", layers(json!(["layer2/Relu", "layer2/Relu"]))), 422, "models[0].layers[1]"),
        ("a layer read oddly", with("models", layers(json!(["layer2/Relu@odd"]))), 422, "models[0].layers[0]"),
        ("no units", with("units_per_layer", json!(-1)), 422, "units_per_layer"),
        ("units without end", with("units_per_layer", json!(u64::MAX)), 422, "runs"),
        ("logits as text", with("logits", json!("many")), 422, "logits"),
        ("an unknown reduction", with("reduce", json!("median")), 422, "reduce"),
        ("a seed out of range", with("seed", json!(1_u64 << 52)), 422, "seed"),
        ("no starts", with("seeds", json!(0)), 422, "seeds"),
        ("too many starts", with("seeds", json!(1001)), 422, "seeds"),
        ("too many runs", with("seeds", json!(100)), 422, "runs"),
        (
            "too many arms",
            with("arms", (0..65).map(|i| json!({"name": format!("a{i}"), "request": {}})).collect()),
            422,
            "arms",
        ),
        ("a part too long", with("base", json!({"transforms": [format!("jitter:{:020000}", 1)]})), 422, "base"),
        ("diagnostics", with("base", json!({"diagnostics": true})), 422, "base.diagnostics"),
        ("several presets", with("base", json!({"presets": ["best", "maximum"]})), 422, "base.presets"),
        ("the old name of diagnostics", with("base", json!({"certificates": true})), 422, "base.certificates"),
        ("no steps", with("steps", json!(0)), 422, "steps"),
        ("too many steps", with("steps", json!(101)), 422, "steps"),
        ("no arms", with("arms", json!([])), 422, "arms"),
        ("an unknown arm", with("arms", json!(["plain", "plane"])), 422, "arms[1]"),
        ("an arm twice", with("arms", json!(["plain", "plain"])), 422, "arms"),
        ("an arm of the wrong type", with("arms", json!([1])), 422, "arms[0]"),
        ("an arm without a name", with("arms", json!([{"request": {}}])), 422, "arms[0].name"),
        (
            "an arm with a long name",
            with("arms", json!([{"name": "x".repeat(65), "request": {}}])),
            422,
            "arms[0].name",
        ),
        ("an arm with an unknown field", with("arms", own(json!({"gat": "plain"}))), 422, "arms[1].request.gat"),
        (
            "an arm with a wrong gate",
            with("arms", own(json!({"gate": {"kind": "plain", "slope": 0.1}}))),
            422,
            "arms[1].request.gate.slope",
        ),
        ("an arm with too many steps", with("arms", own(json!({"steps": 101}))), 422, "arms[1].request.steps"),
        ("an arm with a seed", with("arms", own(json!({"seed": 1}))), 422, "arms[1].request.seed"),
        ("an unknown preset", with("arms", json!(["preset:slow"])), 422, "arms[0].request.preset"),
        ("an unknown method", with("methods", json!(["pixels"])), 422, "methods[0]"),
        (
            "a method that does not fit",
            with("methods", json!([{"name": "big", "request": {"size": [4096, 4096]}}])),
            422,
            "methods[0].request.size[0]",
        ),
        ("a base of the wrong type", with("base", json!([])), 422, "base"),
        ("a base with an unknown field", with("base", json!({"colour": "red"})), 422, "base.colour"),
        ("a base with a model", with("base", json!({"model": "x"})), 422, "base.model"),
        ("a base that does not fit", with("base", json!({"size": [0, 28]})), 422, "base.size[0]"),
        ("an image", with("base", json!({"start": {"kind": "image", "image": "aGVsbG8="}})), 422, "base.start.kind"),
        ("diversity", with("base", json!({"diversity": {"layer": "logits", "copies": 2}})), 422, "base.diversity"),
        ("images as text", with("images", json!("all")), 422, "images"),
    ] {
        let request = server.request(Method::POST, "/v1/studies").header("Content-Type", "application/json").body(body);
        expect(what, &server.send(request).await, status, field);
    }
    let id = "0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a";
    for (method, path, status, field) in [
        (Method::GET, "/v1/studies/1".to_owned(), 400, "id"),
        (Method::GET, format!("/v1/studies/{id}"), 404, ""),
        (Method::GET, format!("/v1/studies/{id}?include=png"), 400, "include"),
        (Method::GET, format!("/v1/studies/{id}/report"), 404, ""),
        (Method::GET, format!("/v1/studies/{id}/plan.json"), 404, ""),
        (Method::GET, format!("/v1/studies/{id}/lock"), 404, ""),
        (Method::GET, format!("/v1/studies/{id}/..%2F..%2Fjobs.sqlite3"), 404, ""),
        (Method::GET, format!("/v1/studies/{id}/events"), 404, ""),
        (Method::GET, "/v1/studies?state=done".to_owned(), 400, "state"),
        (Method::GET, "/v1/studies?limit=101".to_owned(), 400, "limit"),
        (Method::GET, "/v1/studies?cursor=next".to_owned(), 400, "cursor"),
        (Method::GET, "/v1/studies?model=x".to_owned(), 400, "model"),
        (Method::POST, format!("/v1/studies/{id}/cancel"), 404, ""),
        (Method::DELETE, format!("/v1/studies/{id}"), 404, ""),
        (Method::PUT, "/v1/studies".to_owned(), 405, ""),
        (Method::POST, "/v1/studies".to_owned(), 415, ""),
    ] {
        let answer = server.send(server.request(method.clone(), &path)).await;
        expect(&format!("{method} {path}"), &answer, status, field);
    }
    let form = server.request(Method::POST, "/v1/studies").header("Content-Type", "multipart/form-data; boundary=x");
    expect("a form", &server.send(form.body("--x--")).await, 415, "");
    let large = server.request(Method::POST, "/v1/studies").header("Content-Type", "application/json");
    expect("a large body", &server.send(large.body(" ".repeat(9 << 20))).await, 413, "");
    assert_eq!(
        server.get("/v1/studies").await.json(),
        json!({"studies": [], "next": null}),
        "none of them made a study"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_with_its_study_where_it_was() {
    let body = json!({
        "models": [{"id": "fashion-resnet8", "layers": ["layer3/Relu"]}], "units_per_layer": 6, "logits": 0,
        "seeds": 4, "steps": 6, "arms": ["plain", "soft"],
    });
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &["--max-batch", "2"]);
    let server = Server::at(process.base.clone());
    let path = submit(&server, &body).await;
    let begun = server.until_at(&path, |study| study["progress"]["done"].as_f64().unwrap() >= 4.0).await;
    assert_eq!(begun["state"], "running", "{begun}");
    process.kill();
    let table = folder.path().join("studies").join(path.rsplit('/').next().unwrap()).join("runs.csv");
    let before = std::fs::read_to_string(&table).unwrap();
    assert!((5..48).contains(&before.lines().count()), "{before}");

    // In batches of another size; and what was done stays what it was, to the time it took.
    let process = Process::start(folder.path(), &["--max-batch", "4"]);
    let server = Server::at(process.base.clone());
    let study = server.state_at(&path, "succeeded").await;
    assert_eq!(study["progress"]["done"], 48.0);
    let after = server.get(&format!("{path}/runs.csv")).await;
    let whole = &before[..before.rfind('\n').unwrap() + 1];
    assert!(after.text().starts_with(whole), "runs that were done are not done again");
    let plan = plan_of(&server.get(&format!("{path}/plan.json")).await.body);
    let own = tempfile::tempdir().unwrap();
    let rows = sent(&after.body);
    let performed = tokio::task::spawn_blocking(move || performed(&plan, own.path()));
    assert_eq!(rows, performed.await.unwrap(), "every run stands there once, and is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_come_before_studies() {
    let server = Server::with(|config| config.max_batch = 2).await;
    let path = submit(&server, &long()).await;
    server.until_at(&path, |study| study["progress"]["done"].as_f64().unwrap() > 0.0).await;
    for _ in 0..3 {
        let request = server.request(Method::POST, "/v1/jobs").json(&quick()).header("Prefer", "wait=60");
        assert_eq!(server.send(request).await.json()["state"], "succeeded");
    }
    let study = server.get(&path).await.json();
    assert_eq!(study["state"], "running", "{study}");
    let done = study["progress"]["done"].as_f64().unwrap();
    server.until_at(&path, |study| study["progress"]["done"].as_f64().unwrap() > done + 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_can_be_looked_at_stopped_and_forgotten() {
    let server = Server::with(|config| config.max_batch = 2).await;
    let path = submit(&server, &long()).await;
    let running = server.until_at(&path, |study| !study["summary"].is_null()).await;
    assert_eq!((&running["state"], &running["progress"]["total"]), (&json!("running"), &json!(1600)), "{running}");
    for name in ["report", "runs.csv", "summary.csv", "summary.json"] {
        let file = server.get(&format!("{path}/{name}")).await;
        assert_eq!((file.status, file.headers["cache-control"].as_str()), (200, "no-cache"), "{name}");
    }
    assert!(server.get(&format!("{path}/report")).await.text().contains(" of 1600 runs are done"));
    assert_eq!(server.get(&format!("{path}/plan.json")).await.status, 200);
    let refused = server.send(server.request(Method::DELETE, &path)).await;
    assert_eq!(problem(&refused), (409, "/problems/study-not-finished".into()));

    let stopped = server.post(&format!("{path}/cancel"), &Value::Null).await;
    assert!(matches!(stopped.status, 200 | 202), "{stopped:?}");
    let canceled = server.state_at(&path, "canceled").await;
    assert!(canceled["progress"]["done"].as_f64().unwrap() < 1600.0 && !canceled["summary"].is_null(), "{canceled}");
    assert_eq!(server.get(&format!("{path}/report")).await.status, 200, "what was done can still be looked at");
    assert_eq!(server.post(&format!("{path}/cancel"), &Value::Null).await.json()["state"], "canceled");

    let folder = server.folder.as_ref().unwrap().path().join("studies").join(path.rsplit('/').next().unwrap());
    assert!(folder.exists());
    assert_eq!(server.send(server.request(Method::DELETE, &path)).await.status, 204);
    assert!(!folder.exists());
    for below in ["", "/report", "/runs.csv", "/plan.json", "/events"] {
        assert_eq!(problem(&server.get(&format!("{path}{below}")).await).1, "/problems/unknown-study");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn studies_that_wait_are_listed_newest_first_page_by_page() {
    let server = Server::with(|config| {
        patient(config);
        config.queue_limit = 3;
    })
    .await;
    let job = server.submit(endless()).await;
    let job = job["id"].as_str().unwrap();
    server.state(job, "running").await;
    let mut paths = Vec::new();
    for _ in 0..3 {
        paths.push(submit(&server, &small()).await);
    }
    let full = server.post("/v1/studies", &small()).await;
    assert_eq!(
        (problem(&full), full.headers.contains_key("retry-after")),
        ((503, "/problems/queue-full".into()), true)
    );
    let listed = |page: &Value| -> Vec<String> {
        let studies = page["studies"].as_array().unwrap().iter();
        studies.map(|study| study["links"]["self"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.get("/v1/studies?limit=2").await.json();
    assert_eq!(listed(&first), [paths[2].clone(), paths[1].clone()]);
    let study = &first["studies"][0];
    assert_eq!((&study["state"], &study["models"]), (&json!("queued"), &json!(["fashion-resnet8"])));
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/v1/studies?limit=2&cursor={next}")).await.json();
    assert_eq!((listed(&second), &second["next"]), (vec![paths[0].clone()], &Value::Null));
    assert_eq!(listed(&server.get("/v1/studies?state=running").await.json()), [""; 0]);

    for name in ["report", "runs.csv", "summary.csv", "summary.json"] {
        let answer = server.get(&format!("{}/{name}", paths[0])).await;
        assert_eq!(problem(&answer), (409, "/problems/no-runs-yet".into()), "{name}");
    }
    let canceled = server.post(&format!("{}/cancel", paths[0]), &Value::Null).await;
    assert_eq!((canceled.status, canceled.json()["state"].as_str()), (200, Some("canceled")));
    server.post(&format!("/v1/jobs/{job}/cancel"), &Value::Null).await;
    server.state_at(&paths[2], "succeeded").await;
    assert_eq!(server.get(&paths[1]).await.json()["state"], "succeeded", "the oldest one first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_with_its_key_makes_no_second_study() {
    let server = Server::start().await;
    let send = async |body: &Value| {
        server.send(server.request(Method::POST, "/v1/studies").json(body).header("Idempotency-Key", "study 1")).await
    };
    let first = send(&small()).await;
    // What is left out is the same as what is said.
    let mut same = small();
    same["reduce"] = json!("mean");
    let second = send(&same).await;
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(second.json()["id"], first.json()["id"]);
    let mut other = small();
    other["seed"] = json!(5);
    assert_eq!(problem(&send(&other).await), (422, "/problems/idempotency-key-reused".into()));
    assert_eq!(server.get("/v1/studies").await.json()["studies"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_can_be_watched() {
    let server = Server::start().await;
    let path = submit(&server, &small()).await;
    let events = watch_at(&server, &format!("{path}/events"), None).await.unwrap().all().await;
    assert_eq!((events[0].name.as_str(), &events[0].data["links"]["self"]), ("study", &json!(path)));
    let states: Vec<&str> = events.iter().filter_map(|event| event.data["state"].as_str()).collect();
    assert_eq!(states.last(), Some(&"succeeded"), "{states:?}");
    let progress: Vec<&Value> =
        events.iter().filter(|event| event.name == "progress").map(|event| &event.data).collect();
    assert!(progress.iter().any(|progress| progress["now"].as_str().is_some_and(|now| now.contains("slope:0.1"))));
    assert_eq!(progress.last().unwrap()["done"], 36.0);
    assert!(progress.iter().is_sorted_by_key(|progress| progress["done"].as_f64()), "{progress:?}");
    let last = events.last().unwrap().id.unwrap().to_string();
    assert_eq!(watch_at(&server, &format!("{path}/events"), Some(&last)).await.err(), Some(204));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_shutdown_requeues_a_study_and_a_start_cleans_up() {
    let server = Server::with(|config| config.max_batch = 2).await;
    let path = submit(&server, &long()).await;
    server.until_at(&path, |study| study["progress"]["done"].as_f64().unwrap() >= 2.0).await;
    let folder = tokio::time::timeout(DEADLINE, server.shutdown()).await.unwrap();
    let studies = folder.path().join("studies");
    let stray = studies.join("0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a");
    std::fs::create_dir_all(stray.join("images")).unwrap();
    std::fs::write(studies.join("notes.txt"), "somebody's own").unwrap();

    let server = Server::on(folder, |config| config.max_batch = 2).await;
    assert!(!stray.exists(), "a folder without results and without a study goes");
    assert!(studies.join("notes.txt").exists(), "what was not made here stays");
    let before = server.get(&path).await.json()["progress"]["done"].as_f64().unwrap();
    assert!(before >= 2.0, "what was done stays done");
    server.until_at(&path, |study| study["progress"]["done"].as_f64().unwrap() > before + 2.0).await;
}

#[test]
fn the_report_over_http_is_the_report_of_the_library() {
    // The page of a folder is one thing, whether it is written or sent.
    let folder = tempfile::tempdir().unwrap();
    let variants = Variants::default();
    let design = Design {
        models: vec![(model(), vec!["layer3/Relu".into()])],
        units_per_layer: 1,
        logits: 0,
        reduce: "mean".into(),
        seed: 1,
        repeats: 1,
        steps: 2,
        base: variants.base.clone(),
        arms: vec![variants.arm("plain").unwrap()],
        methods: vec![variants.method("pixel").unwrap()],
        device: "cpu".into(),
        toys: None,
        judges: Vec::new(),
    };
    performed(&Plan::new(&design).unwrap(), folder.path());
    let folder = Folder::new(folder.path());
    let found = summary(&folder, None).unwrap();
    report(&folder, &found).unwrap();
    let written = std::fs::read_to_string(folder.file("report.html")).unwrap();
    assert_eq!(proxygrad::study::page(&folder, &found).unwrap(), written);
}
