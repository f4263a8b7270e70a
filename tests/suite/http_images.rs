//! Images of clients over HTTP: inside the JSON, and as parts of a form.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine;
use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http_service::{Answer, Server, endless, patient};

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A grey picture of the size of the model's input.
fn picture(seed: u32) -> Vec<u8> {
    let level = |x: u32, y: u32| Luma([((x * 7 + y * 3) * (seed + 1) % 251) as u8]);
    encoded(ImageBuffer::from_fn(28, 28, level), ImageFormat::Png)
}

/// A photo with many pixels.
fn photo() -> Vec<u8> {
    let colour = |x: u32, y: u32| Rgb([(x / 3) as u8, (y / 2) as u8, ((x ^ y) / 4) as u8]);
    encoded(ImageBuffer::from_fn(640, 480, colour), ImageFormat::Jpeg)
}

fn base64(file: &[u8]) -> String {
    base64::prelude::BASE64_STANDARD.encode(file)
}

/// A request that inverts an image and starts from another.
fn request(inverted: &str, start: &str) -> Value {
    json!({
        "model": "fashion-resnet8", "steps": 3,
        "objective": {"layer": "layer1/Relu_1", "inversion": {"image": inverted}},
        "start": {"kind": "image", "image": start, "max_rms_distance": 0.2},
    })
}

/// A form of these parts.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        body.extend_from_slice(b"--limit\r\nContent-Disposition: form-data; name=\"");
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\"; filename=\"file\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--limit--\r\n");
    body
}

async fn send_form(server: &Server, parts: &[(&str, &[u8])], headers: &[(&'static str, &str)]) -> Answer {
    let request =
        server.request(Method::POST, "/v1/jobs").header("Content-Type", "multipart/form-data; boundary=limit");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    server.send(request.body(form(parts))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_may_come_in_every_form_and_the_answer_tells_its_digest() {
    let server = Server::start().await;
    let (inverted, start) = (photo(), picture(1));
    let plain = server.submit(request(&base64(&inverted), &base64(&start))).await;
    let url = |file: &[u8]| format!("data:image/png;base64,{}", base64(file));
    let urls = server.submit(request(&url(&inverted), &url(&start))).await;
    let json = request("part:photo", "part:start").to_string();
    let parts: [(&str, &[u8]); 3] = [("photo", &inverted), ("request", json.as_bytes()), ("start", &start)];
    let formed = send_form(&server, &parts, &[]).await;
    assert_eq!(formed.status, 202, "{formed:?}");
    assert!(formed.body.len() < 4096, "an answer does not hold images");

    let mut digests = Vec::new();
    for job in [plain, urls, formed.json()] {
        let id = job["id"].as_str().unwrap();
        let job = server.state(id, "succeeded").await;
        let images = [&job["objectives"][0]["inversion"]["image"], &job["settings"]["start"]["image"]];
        for image in images {
            assert_eq!((&image["width"], &image["height"]), (&json!(28), &json!(28)), "{job}");
            let path = format!("/v1/jobs/{id}/images/{}", image["sha256"].as_str().unwrap());
            let png = server.get(&path).await;
            assert_eq!((png.status, png.media_type()), (200, Some("image/png")));
            assert_eq!(hex::encode(Sha256::digest(&png.body)), image["sha256"].as_str().unwrap());
            let known = server.request(Method::GET, &path).header("If-None-Match", &png.headers["etag"]);
            assert_eq!(server.send(known).await.status, 304);
        }
        assert_eq!(job["settings"]["start"]["max_rms_distance"], json!(0.2));
        assert_eq!(job["stimuli"][0]["objective"], job["objectives"][0]);
        digests.push((images[0]["sha256"].clone(), images[1]["sha256"].clone(), job["stimuli"][0]["sha256"].clone()));

        let missing = server.get(&format!("/v1/jobs/{id}/images/{}", "0".repeat(64))).await;
        assert_eq!((missing.status, missing.json()["type"].as_str()), (404, Some("/problems/unknown-image")));
        assert_eq!(server.get(&format!("/v1/jobs/{id}/images/x")).await.status, 400);
        assert_eq!(server.send(server.request(Method::DELETE, &format!("/v1/jobs/{id}"))).await.status, 204);
        let gone = server.get(&format!("/v1/jobs/{id}/images/{}", images[0]["sha256"].as_str().unwrap())).await;
        assert_eq!((gone.status, gone.json()["type"].as_str()), (404, Some("/problems/unknown-job")));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// Base64 in lines of 76 characters, as MIME encoders write it (RFC 2045).
fn in_lines(file: &[u8], end: &str) -> String {
    let text = base64(file);
    text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap().to_owned() + end).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_may_come_in_lines() {
    let server = Server::start().await;
    let (inverted, start) = (picture(4), picture(5));
    let mut found = Vec::new();
    for (inverted, start) in [
        (base64(&inverted), base64(&start)),
        (in_lines(&inverted, "\n"), in_lines(&start, "\r\n")),
        (format!("data:image/png;base64,{}", in_lines(&inverted, "\r\n")), format!(" {}\t", base64(&start))),
        (format!("data:image/png;base64,\n{}", in_lines(&inverted, "\n")), in_lines(&start, "\n")),
    ] {
        let job = server.submit(request(&inverted, &start)).await;
        let job = server.state(job["id"].as_str().unwrap(), "succeeded").await;
        let image = job["objectives"][0]["inversion"]["image"]["sha256"].clone();
        found.push((image, job["settings"]["start"]["image"]["sha256"].clone(), job["stimuli"][0]["score"].clone()));
    }
    assert!(found.iter().all(|one| *one == found[0]), "{found:?}");

    let text = in_lines(&inverted, "\n");
    let wrong = format!("{}*{}", &text[..100], &text[101..]);
    for (image, field) in [
        (request(&wrong, &base64(&start)), "objective.inversion.image"),
        (request(&base64(&inverted), &wrong), "start.image"),
    ] {
        let refused = server.post("/v1/jobs", &image).await;
        let error = &refused.json()["errors"][0];
        assert_eq!((refused.status, error["field"].as_str()), (422, Some(field)));
        assert!(error["expected"].as_str().unwrap().contains("'*' at offset 100"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_colour_image_becomes_grey_as_it_did_when_networks_were_trained() {
    let server = Server::start().await;
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxygrad/tests/data");
    // What Pillow's `convert("L")` makes of the other.
    let (colour, expected) =
        (std::fs::read(data.join("colour.png")).unwrap(), image::open(data.join("grey.png")).unwrap());
    let job = server.submit(request(&base64(&colour), &base64(&colour))).await;
    let job = server.state(job["id"].as_str().unwrap(), "succeeded").await;
    let sha256 = job["objectives"][0]["inversion"]["image"]["sha256"].as_str().unwrap();
    assert_eq!(job["settings"]["start"]["image"]["sha256"], sha256);
    let used = server.get(&format!("/v1/jobs/{}/images/{sha256}", job["id"].as_str().unwrap())).await;
    let used = image::load_from_memory(&used.body).unwrap().into_luma8();
    let furthest = used.iter().zip(expected.into_luma8().iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(1), "{furthest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_image_is_the_same_request_in_every_form() {
    let server = Server::start().await;
    let (a, b) = (picture(1), picture(2));
    let key = [("Idempotency-Key", "portrait")];
    let inside = request(&base64(&a), &base64(&b));
    let first = server.request(Method::POST, "/v1/jobs").json(&inside).header(key[0].0, key[0].1);
    let first = server.send(first).await.json();
    let json = request("part:a", "part:b").to_string();
    let again = send_form(&server, &[("request", json.as_bytes()), ("a", &a), ("b", &b)], &key).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.json()["id"], first["id"]);
    let other = send_form(&server, &[("request", json.as_bytes()), ("a", &b), ("b", &a)], &key).await;
    assert_eq!((other.status, other.json()["type"].as_str()), (422, Some("/problems/idempotency-key-reused")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_keeps_its_images_when_the_server_ends() {
    let server = Server::with(|config| {
        patient(config);
        config.shutdown_grace = Duration::ZERO;
    })
    .await;
    let running = server.submit(endless()).await["id"].as_str().unwrap().to_owned();
    server.state(&running, "running").await;
    let job = server.submit(request(&base64(&photo()), &base64(&picture(3)))).await;
    let folder = server.shutdown().await;
    let server = Server::on(folder, patient).await;
    server.send(server.request(Method::POST, &format!("/v1/jobs/{running}/cancel"))).await;
    let job = server.state(job["id"].as_str().unwrap(), "succeeded").await;
    assert!(job["stimuli"][0]["score"].as_f64() > Some(-2.0), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_may_be_named() {
    let server = Server::start().await;
    let job = server.submit(json!({"model": "fashion-resnet8", "objective": "logits:sneaker", "steps": 2})).await;
    let classes = server.get("/v1/models/fashion-resnet8").await.json()["class_names"].clone();
    let index = classes.as_array().unwrap().iter().position(|name| name == "Sneaker").unwrap();
    assert_eq!(job["objectives"], json!([format!("logits:{index}")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverse_group_is_the_same_however_large_a_batch_may_be() {
    let body = json!({"model": "fashion-resnet8", "objectives": ["logits:3", "logits:5"], "steps": 6,
                      "diversity": {"layer": "layer1/Relu_1", "copies": 3, "weight": 4.0}});
    let mut found = Vec::new();
    for max_batch in [1, 4, 16] {
        let server = Server::with(|config| config.max_batch = max_batch).await;
        let job = server.submit(body.clone()).await;
        assert_eq!(job["settings"]["diversity"], body["diversity"].clone());
        let job = server.state(job["id"].as_str().unwrap(), "succeeded").await;
        let stimuli = job["stimuli"].as_array().unwrap();
        assert_eq!(stimuli.len(), 6);
        assert_eq!(job["progress"], json!({"step": 36, "steps": 36}));
        let of = |n: usize| (stimuli[n]["objective"].clone(), stimuli[n]["sha256"].clone());
        let digests: Vec<(Value, Value)> = (0..6).map(of).collect();
        assert_eq!((digests[2].0.as_str(), digests[3].0.as_str()), (Some("logits:3"), Some("logits:5")));
        assert!(digests[0].1 != digests[1].1 && digests[1].1 != digests[2].1, "each is another");
        found.push(digests);
    }
    assert!(found.iter().all(|digests| *digests == found[0]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_forms_and_images_are_refused_by_name() {
    let server = Server::start().await;
    let good = picture(1);
    let json = request("part:a", "part:b").to_string();
    let json = json.as_bytes();
    let cases: [(&str, Vec<(&str, &[u8])>, u16, &str); 8] = [
        ("no request", vec![("a", &good), ("b", &good)], 422, "request"),
        ("a request that is no JSON", vec![("request", b"{")], 400, ""),
        ("a request of another kind", vec![("request", b"[]")], 422, "body"),
        ("a part too few", vec![("request", json), ("a", &good)], 422, "start.image"),
        ("a part too many", vec![("request", json), ("a", &good), ("b", &good), ("c", &good)], 422, "c"),
        ("a part twice", vec![("request", json), ("a", &good), ("a", &good)], 422, "a"),
        ("no image", vec![("request", json), ("a", b"GIF89a"), ("b", &good)], 422, "objective.inversion.image"),
        ("half an image", vec![("request", json), ("a", &good), ("b", &good[..90])], 422, "start.image"),
    ];
    for (what, parts, status, field) in cases {
        let answer = send_form(&server, &parts, &[]).await;
        let problem = answer.json();
        assert_eq!(answer.status, status, "{what}: {problem}");
        assert!(field.is_empty() || problem["errors"][0]["field"] == field, "{what}: {problem}");
    }
    let broken = server.request(Method::POST, "/v1/jobs").header("Content-Type", "multipart/form-data; boundary=limit");
    let broken = server.send(broken.body("--limit\r\nContent-Disposition: form-data")).await;
    assert_eq!((broken.status, broken.json()["type"].as_str()), (400, Some("/problems/malformed-form")));
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"], json!([]));
}
