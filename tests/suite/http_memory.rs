//! Memory limits over HTTP: requests beyond the limit are rejected before they run, and accepted ones stay within it.

use std::io::Cursor;
use std::time::Duration;

use base64::Engine;
use image::{ImageFormat, RgbImage};
use proxygrad_server::config::RunMemory;
use serde_json::{Value, json};

use crate::http_program::Process;
use crate::http_service::{Answer, Server, quick};

async fn bounded(bytes: u64) -> Server {
    Server::with(|config| config.memory.max_run_memory = RunMemory::Bytes(bytes)).await
}

fn problem(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json())
}

fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

/// A diversity group, which cannot be split into batches.
fn group(copies: usize, side: usize) -> Value {
    json!({"model": "fashion-resnet8", "objective": "layer3/Relu:1", "steps": 4, "size": [side, side],
           "diversity": {"layer": "layer1/Relu", "copies": copies}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_does_not_fit_is_rejected_with_both_numbers() {
    let server = Server::start().await;
    let (status, problem) = problem(&server.post("/v1/jobs", &group(64, 512)).await);
    assert_eq!((status, problem["type"].as_str()), (422, Some("/problems/too-much-memory")), "{problem}");
    assert_eq!(fields(&problem), ["diversity.copies", "size"], "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    let numbers: Vec<u64> = detail.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers[0] > numbers[1] && numbers[1] <= 2 << 30, "{detail}");
    assert!(problem["errors"][0]["expected"].as_str().unwrap().starts_with("at most "), "{problem}");
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"], json!([]));
    let explained = server.get("/problems/too-much-memory").await;
    assert!(explained.text().contains("422"), "{}", explained.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_that_make_a_run_large_are_named() {
    let server = bounded(64 << 20).await;
    let base = json!({"model": "fashion-resnet8", "objective": "layer1/Relu_1:3", "preset": "maximum", "steps": 64,
                      "size": [256, 256]});
    let cases = [
        (json!({"search": {"restarts": 16, "arms": ["plain", "redirect"], "rungs": [1]}}), "search"),
        (json!({"size": [1024, 1024]}), "size"),
        (json!({"size": [512, 512], "animation": {"frames": 30}}), "animation.frames"),
    ];
    for (more, field) in cases {
        let mut request = base.clone();
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, problem) = problem(&server.post("/v1/jobs", &request).await);
        assert_eq!((status, problem["type"].as_str()), (422, Some("/problems/too-much-memory")), "{more}: {problem}");
        assert!(fields(&problem).contains(&field), "{more}: {problem}");
    }
    let job = server.submit(quick()).await;
    server.state(job["id"].as_str().unwrap(), "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fits_only_in_parts_gives_the_same_stimuli() {
    let objectives: Vec<String> = (0..12).map(|unit| format!("layer1/Relu_1:{unit}")).collect();
    let request = json!({"model": "fashion-resnet8", "objectives": objectives, "steps": 3, "size": [160, 160]});
    let mut found = Vec::new();
    for server in [Server::start().await, bounded(80 << 20).await] {
        let job = server.submit(request.clone()).await;
        let job = server.state(job["id"].as_str().unwrap(), "succeeded").await;
        assert_eq!(job["progress"], json!({"step": 36, "steps": 36}));
        let stimuli = job["stimuli"].as_array().unwrap().iter();
        found.push(stimuli.map(|stimulus| stimulus["sha256"].clone()).collect::<Vec<Value>>());
    }
    assert_eq!(found[0], found[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_study_whose_runs_do_not_fit_is_rejected_with_the_field() {
    let server = bounded(64 << 20).await;
    let study = json!({"models": ["fashion-resnet8"], "units_per_layer": 1, "logits": 0, "steps": 4, "arms": ["plain"],
                       "base": {"size": [1024, 1024]}});
    let (status, problem) = problem(&server.post("/v1/studies", &study).await);
    assert_eq!((status, problem["type"].as_str()), (422, Some("/problems/too-much-memory")), "{problem}");
    assert_eq!(fields(&problem), ["base.size"], "{problem}");
}

fn base64(file: &[u8]) -> String {
    base64::prelude::BASE64_STANDARD.encode(file)
}

fn png(width: u32, height: u32, shade: u8) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, image::Rgb([shade; 3])).write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A PNG whose header claims this size, with data for a single pixel.
fn promise(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(1, 1, 0);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&file[12..29]);
    file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    file
}

fn inversions(images: &[Vec<u8>]) -> Value {
    let of = |image: &Vec<u8>| json!({"layer": "layer1/Relu_1", "inversion": {"image": base64(image)}});
    let objectives: Vec<Value> = images.iter().map(of).collect();
    json!({"model": "fashion-resnet8", "steps": 1, "objectives": objectives})
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_measured_by_their_headers_and_rejected_with_both_numbers() {
    let server = Server::with(|config| config.max_image_memory = 64 << 20).await;
    // Headers without image data are enough to reject.
    let many: Vec<Vec<u8>> = (0..3).map(|n| promise(7000 + n, 7000)).collect();
    let (status, refused) = problem(&server.post("/v1/jobs", &inversions(&many)).await);
    assert_eq!((status, refused["type"].as_str()), (422, Some("/problems/invalid-request")), "{refused}");
    assert_eq!(fields(&refused), ["objectives[2].inversion.image"], "{refused}");
    let error = &refused["errors"][0];
    assert_eq!(error["value"], "7002x7000 pixels");
    assert!(error["expected"].as_str().unwrap().contains("134217728 pixels in all images"), "{error}");

    let (status, refused) = problem(&server.post("/v1/jobs", &inversions(&[promise(5000, 5000)])).await);
    assert_eq!((status, refused["type"].as_str()), (422, Some("/problems/too-much-memory")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("50331648"), "{refused}");

    let same = vec![png(30, 30, 9); 8];
    assert_eq!(server.post("/v1/jobs", &inversions(&same)).await.status, 202, "one image, eight times");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_images_do_not_wait_for_large_ones() {
    let server = Server::with(|config| config.max_image_memory = 64 << 20).await;
    // Each takes the whole pool for large images, so they are decoded one after the other.
    let large = (0..3).map(|n| {
        let request = server.request(reqwest::Method::POST, "/v1/jobs").json(&inversions(&[png(4000, 3800, n)]));
        tokio::spawn(request.send())
    });
    let large: Vec<_> = large.collect();
    let small = server.post("/v1/jobs", &inversions(&[png(40, 40, 7)])).await;
    assert_eq!(small.status, 202, "{small:?}");
    assert!(large.iter().any(|large| !large.is_finished()), "the small one finished last");
    for large in large {
        assert_eq!(large.await.unwrap().unwrap().status(), 202);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_request_takes_more_than_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let bound = 520 << 20;
    let process = Process::start(folder.path(), &["--max-run-memory", &bound.to_string()]);
    let server = Server::at(process.base.clone());
    let before = process.peak_memory();
    // The largest number that fits.
    let refused = server.post("/v1/jobs", &group(64, 512)).await.json();
    let expected = refused["errors"][0]["expected"].as_str().unwrap();
    let most: usize = expected.split_whitespace().nth(2).unwrap().parse().unwrap();
    let job = server.submit(group(most, 512)).await;
    server.state(job["id"].as_str().unwrap(), "succeeded").await;
    let taken = process.peak_memory() - before;
    assert!(taken <= bound, "{most} copies took {taken} bytes");
    assert!(taken > bound / 3, "{most} copies took only {taken} bytes");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_model_is_released_and_loaded_again() {
    let folder = tempfile::tempdir().unwrap();
    let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/proxygrad/assets/fashion-resnet8");
    std::fs::copy(assets.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(assets.join("model.toml")).unwrap();
    let manifest = manifest.lines().filter(|line| !line.starts_with("digest")).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.path().join("model.toml"), manifest.replace("fashion-resnet8", "copy")).unwrap();
    let server = Server::with(|config| {
        config.model_idle_time = Duration::from_millis(500);
        config.storage.models_dirs = vec![folder.path().into()];
    })
    .await;
    // Without a digest in the manifest, only a model in memory has one in the list.
    let digest = async || {
        let models = server.get("/v1/models").await.json()["models"].clone();
        models.as_array().unwrap().iter().any(|model| model["id"] == "copy" && model["digest"].is_string())
    };
    let quick = || json!({"model": "copy", "objective": "layer1/Relu_1:3", "steps": 4});
    let first = server.submit(quick()).await;
    let first = server.state(first["id"].as_str().unwrap(), "succeeded").await;
    let start = std::time::Instant::now();
    while digest().await {
        assert!(start.elapsed() < crate::http_service::DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = server.submit(quick()).await;
    let again = server.state(again["id"].as_str().unwrap(), "succeeded").await;
    assert_eq!(first["stimuli"][0]["sha256"], again["stimuli"][0]["sha256"]);
}
