//! Requests that no server can carry out: each gets a problem document that names what is wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::http_service::{Server, quick};

/// Sent as `application/json` to `POST /v1/jobs`; status, and the field that the problem must name.
fn bodies() -> Vec<(&'static str, String, u16, &'static str)> {
    let with =
        |fields: &str| format!(r#"{{"model": "fashion-resnet8", "objective": "logits:1", "steps": 2, {fields}}}"#);
    let aims = |objective: &str| format!(r#"{{"model": "fashion-resnet8", "steps": 2, "objective": {objective}}}"#);
    let many = |n: usize| format!("[{}]", vec![r#""logits:1""#; n].join(","));
    let model = |model: &str| json!({"model": model, "objective": "logits:1"}).to_string();
    vec![
        // What is no JSON.
        ("nothing", String::new(), 400, ""),
        ("broken JSON", r#"{"model": "#.into(), 400, ""),
        ("two documents", format!("{} {}", with(r#""seed": 1"#), "{}"), 400, ""),
        ("NaN", with(r#""steps": NaN"#), 400, ""),
        ("a number too large for any number", with(r#""seed": 1e999"#), 400, ""),
        ("deep nesting", aims(&"[".repeat(100_000)), 400, ""),
        ("text behind a null byte", "\0{}".into(), 400, ""),
        // What is no request.
        ("a list", "[]".into(), 422, "body"),
        ("a string", r#""fashion-resnet8""#.into(), 422, "body"),
        ("no model", r#"{"objective": "logits:1"}"#.into(), 422, "model"),
        ("no objective", r#"{"model": "fashion-resnet8"}"#.into(), 422, "objective"),
        ("an unknown field", with(r#""colour": "red""#), 422, "colour"),
        ("a field twice", with(r#""steps": 3"#), 422, "steps"),
        ("steps as text", with(r#""seed": "7""#), 422, "seed"),
        ("both objective and objectives", with(r#""objectives": ["logits:1"]"#), 422, "objective"),
        // Models.
        ("an unknown model", model("resnet-of-nowhere"), 422, "model"),
        ("an empty model", model(""), 422, "model"),
        ("a path as a model", model("../../etc/passwd"), 422, "model"),
        ("an absolute path as a model", model("/etc/passwd"), 422, "model"),
        ("a null byte in a model", model("fashion\0resnet8"), 422, "model"),
        ("a number as a model", r#"{"model": 8, "objective": "logits:1"}"#.into(), 422, "model"),
        // Objectives.
        ("a unit without a channel", aims(r#""logits""#), 422, "objective"),
        ("a unit with a negative channel", aims(r#""logits:-1""#), 422, "objective"),
        ("a unit out of range", aims(r#""logits:10""#), 422, "objective.channel"),
        ("a huge channel", aims(r#""logits:18446744073709551615""#), 422, "objective.channel"),
        ("a channel beyond all numbers", aims(r#""logits:99999999999999999999999999""#), 422, "objective"),
        ("an unknown layer", aims(r#""logitz:1""#), 422, "objective.layer"),
        ("a very long layer", aims(&format!("\"{}:1\"", "x".repeat(100_000))), 422, "objective.layer"),
        ("a null byte in a layer", aims(r#""lo\u0000gits:1""#), 422, "objective.layer"),
        ("an unknown reduction", aims(r#""logits:1@median""#), 422, "objective"),
        ("a fraction out of range", aims(r#""layer1/Relu_1:1@top1.5""#), 422, "objective.fraction"),
        ("a position outside the layer", aims(r#""layer1/Relu_1:1@999,0""#), 422, "objective.position[0]"),
        ("a position in a layer without positions", aims(r#""logits:1@0,0""#), 422, "objective.position"),
        ("a unit with an unknown field", aims(r#"{"layer": "logits", "chanel": 1}"#), 422, "objective.chanel"),
        ("a unit with a fractional channel", aims(r#"{"layer": "logits", "channel": 1.5}"#), 422, "objective.channel"),
        (
            "a direction of the wrong length",
            aims(r#"{"layer": "logits", "direction": [1, 2]}"#),
            422,
            "objective.direction",
        ),
        ("an infinite direction", aims(r#"{"layer": "logits", "direction": [1e300]}"#), 422, "objective.direction[0]"),
        ("a class that is not there", aims(r#""logits:Sneeker""#), 422, "objective.class"),
        ("a class in a layer without classes", aims(r#""layer1/Relu_1:Sneaker""#), 422, "objective.class"),
        ("a class with a position", aims(r#""logits:Sneaker@0,0""#), 422, "objective"),
        (
            "a class beside a channel",
            aims(r#"{"layer": "logits", "channel": 1, "class": "Bag"}"#),
            422,
            "objective.channel",
        ),
        ("a very long class", aims(&format!("\"logits:{}\"", "x".repeat(100_000))), 422, "objective.class"),
        (
            "a cosine without a direction",
            aims(r#"{"layer": "logits", "channel": 1, "cosine_power": 2}"#),
            422,
            "objective.cosine_power",
        ),
        (
            "a cosine's power out of range",
            aims(r#"{"layer": "logits", "direction": [1,1,1,1,1,1,1,1,1,1], "cosine_power": -1}"#),
            422,
            "objective.cosine_power",
        ),
        (
            "an image that is no base64",
            aims(r#"{"layer": "logits", "inversion": {"image": "http://example.org/x.png"}}"#),
            422,
            "objective.inversion.image",
        ),
        (
            "an image that is no image",
            aims(r#"{"sum": ["logits:1", {"layer": "logits", "caricature": {"image": "aGVsbG8="}}]}"#),
            422,
            "objective.sum[1].caricature.image",
        ),
        (
            "an image as a digest",
            aims(r#"{"layer": "logits", "inversion": {"image": {"sha256": "00", "width": 1, "height": 1}}}"#),
            422,
            "objective.inversion.image",
        ),
        (
            "an image as a part of no form",
            aims(r#"{"layer": "logits", "inversion": {"image": "part:photo"}}"#),
            422,
            "objective.inversion.image",
        ),
        (
            "a caricature of nothing",
            aims(r#"{"layer": "logits", "caricature": {}}"#),
            422,
            "objective.caricature.image",
        ),
        (
            "a caricature at one place",
            aims(r#"{"layer": "logits", "caricature": {"image": "aGVsbG8="}, "reduce": "max"}"#),
            422,
            "objective.reduce",
        ),
        (
            "a caricature beside a direction",
            aims(r#"{"layer": "logits", "direction": [1], "caricature": {"image": "aGVsbG8="}}"#),
            422,
            "objective.direction",
        ),
        ("an empty sum", aims(r#"{"sum": []}"#), 422, "objective.sum"),
        ("an endless sum", aims(&format!(r#"{{"sum": {}}}"#, many(65))), 422, "objective.sum"),
        ("a sum in a sum", aims(r#"{"sum": [{"sum": ["logits:1"]}]}"#), 422, "objective.sum[0].sum"),
        ("a sum beside a channel", aims(r#"{"sum": ["logits:1"], "channel": 1}"#), 422, "objective.channel"),
        ("an infinite weight", aims(r#"{"layer": "logits", "channel": 1, "weight": 1e39}"#), 422, "objective.weight"),
        ("a number as an objective", aims("954"), 422, "objective"),
        ("no objectives", r#"{"model": "fashion-resnet8", "objectives": []}"#.into(), 422, "objectives"),
        (
            "too many objectives",
            format!(r#"{{"model": "fashion-resnet8", "objectives": {}}}"#, many(65)),
            422,
            "objectives",
        ),
        (
            "the second of two objectives",
            r#"{"model": "fashion-resnet8", "objectives": ["logits:1", "logits:99"]}"#.into(),
            422,
            "objectives[1].channel",
        ),
        // Settings.
        ("no steps", aims(r#""logits:1", "steps": 0"#).replace(r#""steps": 2, "#, ""), 422, "steps"),
        ("too many steps", aims(r#""logits:1", "steps": 4097"#).replace(r#""steps": 2, "#, ""), 422, "steps"),
        ("negative steps", aims(r#""logits:1", "steps": -1"#).replace(r#""steps": 2, "#, ""), 422, "steps"),
        ("an unknown gate", with(r#""gate": "fast""#), 422, "gate.kind"),
        ("an unknown gate in an object", with(r#""gate": {"kind": "fast"}"#), 422, "gate.kind"),
        ("a gate without a kind", with(r#""gate": {"slope": 0.1}"#), 422, "gate.kind"),
        ("a gate of the wrong type", with(r#""gate": 0.3"#), 422, "gate"),
        ("a slope out of range", with(r#""gate": {"kind": "decoupled", "slope": 1.5}"#), 422, "gate.slope"),
        ("a negative slope", with(r#""gate": {"kind": "decoupled", "slope": -0.1}"#), 422, "gate.slope"),
        ("a slope for a gate without one", with(r#""gate": {"kind": "plain", "slope": 0.1}"#), 422, "gate.slope"),
        ("a temperature of nothing", with(r#""gate": {"kind": "soft", "temperature": 0}"#), 422, "gate.temperature"),
        ("shares above one", with(r#""gate": {"kind": "soft", "anneal": 0.9, "polish": 0.9}"#), 422, "gate.polish"),
        ("an unknown preset", with(r#""preset": "slow""#), 422, "preset"),
        ("a preset of the wrong type", with(r#""preset": {"kind": "lucid"}"#), 422, "preset"),
        ("an unknown optimizer", with(r#""optimizer": "sgd""#), 422, "optimizer.kind"),
        ("a step size of nothing", with(r#""optimizer": {"kind": "adam", "lr": 0}"#), 422, "optimizer.lr"),
        ("a huge step size", with(r#""optimizer": {"kind": "adam", "lr": 1e30}"#), 422, "optimizer.lr"),
        ("an unknown decay", with(r#""optimizer": {"kind": "adam", "decay": "linear"}"#), 422, "optimizer.decay"),
        ("a decay of the wrong type", with(r#""optimizer": {"kind": "nadam", "decay": 0.9}"#), 422, "optimizer.decay"),
        ("a transform of no kind", with(r#""transforms": ["jitter:8", "spin:3"]"#), 422, "transforms[1]"),
        ("a transform out of range", with(r#""transforms": ["rotate:720"]"#), 422, "transforms[0]"),
        ("a transform that is not a number", with(r#""transforms": ["blur:nan"]"#), 422, "transforms[0]"),
        (
            "too many transforms",
            with(&format!(r#""transforms": [{}]"#, [r#""jitter:1""#; 17].join(","))),
            422,
            "transforms",
        ),
        ("a margin of nothing", with(r#""transforms": ["pad:0"]"#), 422, "transforms[0]"),
        ("a huge margin", with(r#""transforms": ["pad:65"]"#), 422, "transforms[0]"),
        ("a crop of more than the image", with(r#""transforms": ["crop:0.5,1.5"]"#), 422, "transforms[0]"),
        ("a crop of one number", with(r#""transforms": ["crop:0.5"]"#), 422, "transforms[0]"),
        ("noise of nothing", with(r#""transforms": ["noise:0"]"#), 422, "transforms[0]"),
        ("a flip with a value", with(r#""transforms": ["flip:1"]"#), 422, "transforms[0]"),
        ("a flip that never happens", with(r#""transforms": ["flip@0"]"#), 422, "transforms[0]"),
        ("a colour out of range", with(r#""transforms": ["colour:2"]"#), 422, "transforms[0]"),
        ("a regularizer of no kind", with(r#""regularizers": ["l2:0.1", "l3:0.1"]"#), 422, "regularizers[1]"),
        ("a weight of nothing", with(r#""regularizers": ["tv:0"]"#), 422, "regularizers[0]"),
        ("a negative weight", with(r#""regularizers": ["l1:-1"]"#), 422, "regularizers[0]"),
        ("a blur that is never due", with(r#""regularizers": ["blur:1,0"]"#), 422, "regularizers[0]"),
        ("a blur without steps", with(r#""regularizers": ["blur:1"]"#), 422, "regularizers[0]"),
        (
            "a blur of what is no pixel",
            with(r#""parameterization": "fourier", "regularizers": ["l1:1", "blur:1,4"]"#),
            422,
            "regularizers[1]",
        ),
        ("regularizers as text", with(r#""regularizers": "tv:1""#), 422, "regularizers"),
        (
            "too many regularizers",
            with(&format!(r#""regularizers": [{}]"#, [r#""l1:1""#; 9].join(","))),
            422,
            "regularizers",
        ),
        ("transforms as text", with(r#""transforms": "jitter:8""#), 422, "transforms"),
        ("a size of three", with(r#""size": [28, 28, 1]"#), 422, "size"),
        ("an empty size", with(r#""size": [0, 28]"#), 422, "size[0]"),
        ("a huge size", with(r#""size": [28, 4294967296]"#), 422, "size[1]"),
        ("a start of no kind", with(r#""start": {"kind": "black"}"#), 422, "start.kind"),
        ("noise out of range", with(r#""start": {"kind": "grey", "noise": 2}"#), 422, "start.noise"),
        ("a start with an unknown field", with(r#""start": {"kind": "uniform", "noise": 0.1}"#), 422, "start.noise"),
        ("a start from no image", with(r#""start": {"kind": "image"}"#), 422, "start.image"),
        ("a start from text", with(r#""start": {"kind": "image", "image": "aGVsbG8="}"#), 422, "start.image"),
        (
            "a distance out of range",
            with(r#""start": {"kind": "image", "image": "aGVsbG8=", "max_rms_distance": -0.1}"#),
            422,
            "start.max_rms_distance",
        ),
        (
            "a distance from noise",
            with(r#""start": {"kind": "uniform", "max_rms_distance": 0.1}"#),
            422,
            "start.max_rms_distance",
        ),
        ("diversity in no layer", with(r#""diversity": {"layer": "x", "copies": 2}"#), 422, "diversity.layer"),
        ("diversity of one", with(r#""diversity": {"layer": "logits", "copies": 1}"#), 422, "diversity.copies"),
        ("diversity of too many", with(r#""diversity": {"layer": "logits", "copies": 65}"#), 422, "diversity.copies"),
        ("diversity without a number", with(r#""diversity": {"layer": "logits"}"#), 422, "diversity.copies"),
        (
            "diversity that is sought",
            with(r#""diversity": {"layer": "logits", "copies": 2, "weight": -1}"#),
            422,
            "diversity.weight",
        ),
        (
            "diversity in a search",
            aims(r#""logits:1", "steps": 9, "search": {"restarts": 2}, "diversity": {"layer": "logits", "copies": 2}"#)
                .replace(r#""steps": 2, "#, ""),
            422,
            "diversity",
        ),
        ("a negative seed", with(r#""seed": -1"#), 422, "seed"),
        ("a seed that JSON cannot hold", with(r#""seed": 9007199254740992"#), 422, "seed"),
        ("a fractional seed", with(r#""seed": 0.5"#), 422, "seed"),
        ("an animation of one image", with(r#""animation": {"frames": 1}"#), 422, "animation.frames"),
        ("an endless animation", with(r#""animation": {"frames": 100000}"#), 422, "animation.frames"),
        ("an animation that is no object", with(r#""animation": true"#), 422, "animation"),
        ("an animation with an unknown field", with(r#""animation": {"fps": 5}"#), 422, "animation.fps"),
        (
            "a huge animation",
            aims(r#""logits:1", "size": [1024, 1024], "animation": {"frames": 128}"#)
                .replace(r#""steps": 2, "#, r#""steps": 200, "#),
            422,
            "animation.frames",
        ),
        ("no patience at all", with(r#""patience": 0"#), 422, "patience"),
        ("patience for half a step", with(r#""patience": 0.5"#), 422, "patience"),
        ("patience beyond the most steps", with(r#""patience": 4097"#), 422, "patience"),
        ("never scored", with(r#""score_every": 0"#), 422, "score_every"),
        ("diagnostics that are no truth value", with(r#""diagnostics": "all""#), 422, "diagnostics"),
        ("the old name of diagnostics", with(r#""certificates": true"#), 422, "certificates"),
        (
            "the old name of max_rms_distance",
            with(r#""start": {"kind": "image", "image": "aGVsbG8=", "leash": 0.1}"#),
            422,
            "start.leash",
        ),
    ]
}

/// Method, path with query, headers; status, and the field that the problem must name.
fn requests() -> Vec<(Method, String, Vec<(&'static str, String)>, u16, &'static str)> {
    let none = || Vec::new();
    let id = "0199b4f4-7a7c-7cc1-8a55-d3a1c1bb1f0a";
    let get = |path: &str, status, field| (Method::GET, path.to_owned(), none(), status, field);
    let key = |key: &str| vec![("Idempotency-Key", key.to_owned()), ("Content-Type", "application/json".into())];
    vec![
        get("/v2/jobs", 404, ""),
        get("/v1/jobs/", 404, ""),
        get(&format!("/{}", "x".repeat(5000)), 404, ""),
        get("/docs/../../etc/passwd", 404, ""),
        get("/docs/..%2f..%2fetc%2fpasswd", 404, ""),
        get("/v1/jobs/1", 400, "id"),
        get("/v1/jobs/%00", 400, "id"),
        get("/v1/jobs/%ff", 400, ""),
        get(&format!("/v1/jobs/{}", id.replace('-', "")), 400, "id"),
        get(&format!("/v1/jobs/{id}"), 404, ""),
        get(&format!("/v1/jobs/{id}?include=jpeg"), 400, "include"),
        get(&format!("/v1/jobs/{id}?includes=png"), 400, "includes"),
        get(&format!("/v1/jobs/{id}/stimuli/0"), 404, ""),
        get(&format!("/v1/jobs/{id}/stimuli/first"), 400, "n"),
        get(&format!("/v1/jobs/{id}/stimuli/-1"), 400, "n"),
        get(&format!("/v1/jobs/{id}/stimuli/99999999999999999999"), 400, "n"),
        get(&format!("/v1/jobs/{id}/stimuli/0?encoding=hex"), 400, "encoding"),
        get(&format!("/v1/jobs/{id}/events"), 404, ""),
        get("/v1/jobs?state=done", 400, "state"),
        get("/v1/jobs?state=", 400, "state"),
        get("/v1/jobs?limit=0", 400, "limit"),
        get("/v1/jobs?limit=101", 400, "limit"),
        get("/v1/jobs?limit=ten", 400, "limit"),
        get("/v1/jobs?limit=1&limit=2", 400, "limit"),
        get("/v1/jobs?cursor=next", 400, "cursor"),
        get("/v1/jobs?cursor=%00", 400, "cursor"),
        get("/v1/jobs?page=2", 400, "page"),
        get("/v1/models/nowhere", 404, "model"),
        get("/v1/models/..%2F..%2Fetc%2Fpasswd", 404, "model"),
        get("/v1/models/fashion%00resnet8", 404, "model"),
        get("/v1/models/nowhere/layers", 404, "model"),
        get("/v1/models/fashion-resnet8?verbose=1", 400, "verbose"),
        (Method::PUT, "/v1/jobs".into(), none(), 405, ""),
        (Method::PATCH, format!("/v1/jobs/{id}"), none(), 405, ""),
        (Method::DELETE, "/v1/models/fashion-resnet8".into(), none(), 405, ""),
        (Method::POST, "/livez".into(), none(), 405, ""),
        (Method::GET, format!("/v1/jobs/{id}/cancel"), none(), 405, ""),
        (Method::POST, format!("/v1/jobs/{id}/cancel"), none(), 404, ""),
        (Method::DELETE, format!("/v1/jobs/{id}"), none(), 404, ""),
        (Method::DELETE, "/v1/jobs/x".into(), none(), 400, "id"),
        (Method::POST, "/v1/jobs".into(), none(), 415, ""),
        (Method::POST, "/v1/jobs".into(), vec![("Content-Type", "text/plain".into())], 415, ""),
        (Method::POST, "/v1/jobs".into(), vec![("Content-Type", "multipart/form-data; boundary=x".into())], 400, ""),
        (Method::POST, "/v1/jobs".into(), key(&"k".repeat(256)), 400, "Idempotency-Key"),
        (Method::POST, "/v1/jobs".into(), key("ключ"), 400, "Idempotency-Key"),
        (Method::POST, "/v1/jobs?include=gif".into(), key("k"), 400, "include"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_request_is_told_what_is_wrong_and_the_server_goes_on() {
    let server = Server::start().await;
    let (bodies, requests) = (bodies(), requests());
    assert!(bodies.len() + requests.len() > 30);
    for (what, body, status, field) in bodies {
        let request = server.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json").body(body);
        expect(what, &server.send(request).await, status, field);
    }
    for (method, path, headers, status, field) in requests {
        let mut request = server.request(method.clone(), &path);
        for (name, value) in &headers {
            request = request.header(*name, value.as_bytes());
        }
        if method == Method::POST && path.starts_with("/v1/jobs") && !path.contains("cancel") {
            request = request.body(quick().to_string());
        }
        let answer = server.send(request).await;
        expect(&format!("{method} {}", &path[..path.len().min(80)]), &answer, status, field);
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{method} {path}");
    }
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"], json!([]), "none of them made a job");
    let job = server.submit(quick()).await;
    server.state(job["id"].as_str().unwrap(), "succeeded").await;
}

/// Checks that an answer is this problem.
pub fn expect(what: &str, answer: &crate::http_service::Answer, status: u16, field: &str) {
    let problem = answer.json();
    assert_eq!(answer.status, status, "{what}: {problem}");
    assert!(!problem["detail"].as_str().unwrap().is_empty(), "{what}: {problem}");
    assert!(answer.body.len() < 4096, "{what}: what was sent is not sent back at length");
    match field {
        "" => {}
        field => {
            assert_eq!(problem["errors"][0]["field"], field, "{what}: {problem}");
            assert!(!problem["errors"][0]["expected"].as_str().unwrap().is_empty(), "{what}: {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_answered_with_those_there_are() {
    let server = Server::start().await;
    let answer = server.post("/v1/jobs", &json!({"model": "resnet", "objective": "logits:1"})).await;
    let expected = answer.json()["errors"][0]["expected"].as_str().unwrap().to_owned();
    assert!(expected.contains("fashion-resnet8") && expected.contains("squeezenet1.1"), "{expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_as_large_as_configured_and_no_larger() {
    let server = Server::with(|config| config.body_limit = 2048).await;
    let body = |size: usize| {
        let text = quick().to_string();
        format!("{text}{}", " ".repeat(size - text.len()))
    };
    let send = |body: String| {
        server.send(server.request(Method::POST, "/v1/jobs").header("Content-Type", "application/json").body(body))
    };
    assert_eq!(send(body(2048)).await.status, 202);
    let refused = send(body(2049)).await;
    assert_eq!((refused.status, refused.json()["type"].as_str()), (413, Some("/problems/body-too-large")));
    assert_eq!(send(body(10_000)).await.status, 413);
}

/// Sends bytes and reads until the server closes the connection.
fn talk(base: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // A reset is an end too.
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server does not hang up");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_request_is_let_go() {
    let server = Server::with(|config| config.request_timeout = Duration::from_secs(1)).await;
    let base = server.base.clone();
    let body =
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let late = tokio::task::spawn_blocking(move || talk(&base, body.as_bytes())).await.unwrap();
    assert!(late.starts_with("HTTP/1.1 408 "), "{late}");
    assert!(late.contains("/problems/request-timeout"), "{late}");

    let base = server.base.clone();
    let nothing = tokio::task::spawn_blocking(move || talk(&base, b"")).await.unwrap();
    assert_eq!(nothing, "");
    let base = server.base.clone();
    let silent = tokio::task::spawn_blocking(move || talk(&base, b"GET /livez HTTP/1.1\r\nHost:")).await.unwrap();
    assert!(!silent.contains("200 OK"), "{silent}");
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_harms_nobody() {
    let server = Server::start().await;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"EHLO example.org\r\n", &[0; 4096]] {
        let (base, bytes) = (server.base.clone(), bytes.to_vec());
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
            // The server may hang up at any byte; only what it says until then counts.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        assert!(!answer.await.unwrap().starts_with(b"HTTP/1.1 2"));
    }
    assert_eq!(server.get("/livez").await.status, 200);
}
