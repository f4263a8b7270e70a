//! Jobs over HTTP, from request to PNG.

use std::time::Duration;

use base64::Engine;
use image::AnimationDecoder;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http_service::{Answer, DEADLINE, Server, endless, patient, quick};

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}

async fn prefer_wait(server: &Server, body: &Value, seconds: &str) -> Answer {
    let request = server.request(Method::POST, "/v1/jobs").json(body).header("Prefer", format!("wait={seconds}"));
    server.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_becomes_a_png_and_a_number() {
    let server = Server::start().await;
    let answer = server.post("/v1/jobs", &quick()).await;
    assert_eq!(answer.status, 202);
    let job = answer.json();
    assert_eq!(answer.headers["location"], format!("/v1/jobs/{}", id(&job)));
    assert_eq!(job["objectives"], json!(["layer1/Relu_1:3"]));
    let settings = &job["settings"];
    assert_eq!(settings["preset"], "readable", "defaults are filled in: {job}");
    assert_eq!((&settings["gate"]["kind"], &settings["parameterization"]["kind"]), (&json!("auto"), &json!("fourier")));
    assert_eq!(settings["transforms"], json!(["pad:2", "jitter:1", "scale:0.9,1.1", "rotate:10@0.8", "jitter:1"]));

    let job = server.state(id(&job), "succeeded").await;
    assert_eq!(job["progress"], json!({"step": 4, "steps": 4}));
    let stimulus = &job["stimuli"][0];
    assert!(stimulus["score"].as_f64() > stimulus["initial_score"].as_f64(), "{stimulus}");
    let trajectory = stimulus["trajectory"].as_array().unwrap();
    assert_eq!([&trajectory[0]["step"], &trajectory.last().unwrap()["step"]], [0, 4], "{trajectory:?}");
    assert!(trajectory.len() < 5, "with random views not every step is scored: {trajectory:?}");

    let png = server.get(stimulus["png"].as_str().unwrap()).await;
    assert_eq!((png.status, png.media_type()), (200, Some("image/png")));
    assert_eq!(hex::encode(Sha256::digest(&png.body)), stimulus["sha256"].as_str().unwrap());
    let image = image::load_from_memory(&png.body).unwrap();
    assert_eq!((image.width(), image.height()), (28, 28));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_objectives_give_a_stimulus_each_in_their_order() {
    let server = Server::start().await;
    let cats_not_dogs =
        json!({"sum": [{"layer": "logits", "channel": 0}, {"layer": "logits", "channel": 6, "weight": -1}]});
    let body = json!({
        "model": "fashion-resnet8", "objectives": ["layer1/Relu_1:3@center", cats_not_dogs], "steps": 3, "seed": 7,
        "gate": {"kind": "decoupled", "slope": 0.2, "anneal": 0.5, "polish": 0.1},
        "optimizer": {"kind": "adam", "lr": 0.05}, "transforms": ["jitter:1"], "start": {"kind": "uniform"}, "score_every": 1,
    });
    let job = prefer_wait(&server, &body, "60").await.json();
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["stimuli"][0]["objective"], "layer1/Relu_1:3@center");
    assert_eq!(job["stimuli"][1]["objective"]["sum"][1]["weight"], -1.0);
    assert_eq!(job["settings"]["seed"], 7);
    assert_eq!(job["settings"]["transforms"], json!(["jitter:1"]));

    let again = prefer_wait(&server, &body, "60").await.json();
    for n in 0..2 {
        assert_eq!(
            job["stimuli"][n]["sha256"], again["stimuli"][n]["sha256"],
            "the same request returns the same bytes"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_animation_ends_with_the_stimulus() {
    let server = Server::start().await;
    let body = json!({
        "model": "fashion-resnet8", "objective": "logits:1", "steps": 6, "animation": {"frames": 4},
        "preset": "lucid", "regularizers": ["tv:0.1"],
    });
    let job = prefer_wait(&server, &body, "60").await.json();
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["settings"]["animation"], json!({"frames": 4}));
    assert_eq!((&job["settings"]["preset"], &job["settings"]["steps"]), (&json!("lucid"), &json!(6)));
    let path = job["stimuli"][0]["animation"].as_str().unwrap();
    let animation = server.get(path).await;
    assert_eq!((animation.status, animation.headers["content-type"].as_str()), (200, "image/apng"));
    let decoder = image::codecs::png::PngDecoder::new(std::io::Cursor::new(&animation.body)).unwrap();
    let frames = decoder.apng().unwrap().into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 4);
    let png = server.get(job["stimuli"][0]["png"].as_str().unwrap()).await;
    let stimulus = image::load_from_memory(&png.body).unwrap().to_rgba8();
    assert_eq!(frames[3].buffer(), &stimulus);
    assert_ne!(frames[0].buffer(), &stimulus);

    let tag = animation.headers["etag"].clone();
    let again = server.send(server.request(Method::GET, path).header("If-None-Match", &tag)).await;
    assert_eq!(again.status, 304);

    let job = prefer_wait(&server, &quick(), "60").await.json();
    assert!(job["stimuli"][0].get("animation").is_none());
    let missing = server.get(&format!("/v1/jobs/{}/stimuli/0/animation", id(&job))).await;
    assert_eq!((missing.status, missing.json()["type"].as_str()), (404, Some("/problems/unknown-stimulus")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_wait_for_the_end() {
    let server = Server::with(patient).await;
    let answer = prefer_wait(&server, &quick(), "60").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["preference-applied"], "wait=50", "before proxies time out");
    assert_eq!(answer.json()["state"], "succeeded");

    let answer = prefer_wait(&server, &endless(), "1").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = answer.json();
    server.post(&format!("/v1/jobs/{}/cancel", id(&job)), &Value::Null).await;
    server.state(id(&job), "canceled").await;

    let answer = server.post("/v1/jobs", &quick()).await;
    assert!(!answer.headers.contains_key("preference-applied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_waits_longer_than_the_server_allows() {
    let server = Server::with(|config| {
        patient(config);
        config.max_wait = Duration::from_secs(1);
    })
    .await;
    let answer = prefer_wait(&server, &endless(), "99999999").await;
    assert_eq!((answer.status, answer.headers["preference-applied"].as_str()), (202, "wait=1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_stop_its_job() {
    let server = Server::start().await;
    let body = json!({"model": "fashion-resnet8", "objective": "logits:1", "steps": 64});
    let request = server.request(Method::POST, "/v1/jobs").json(&body).header("Prefer", "wait=60");
    let waiting = tokio::spawn(request.send());
    let job = loop {
        let jobs = server.get("/v1/jobs").await.json();
        if let Some(job) = jobs["jobs"].get(0) {
            break job.clone();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    waiting.abort();
    server.state(id(&job), "succeeded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_a_repeated_request_harmless() {
    let server = Server::start().await;
    let send = async |body: &Value, key: &str| {
        server.send(server.request(Method::POST, "/v1/jobs").json(body).header("Idempotency-Key", key)).await
    };
    let first = send(&quick(), "order 1").await;
    assert_eq!(first.status, 202);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let job = first.json();
    server.state(id(&job), "succeeded").await;

    let mut reordered = serde_json::Map::new();
    for (key, value) in quick().as_object().unwrap().iter().rev() {
        reordered.insert(key.clone(), value.clone());
    }
    let second = send(&reordered.into(), "order 1").await;
    assert_eq!((second.status, second.headers["idempotency-replayed"].as_str()), (200, "true"));
    assert_eq!(second.json()["id"], job["id"]);

    let other = json!({"model": "fashion-resnet8", "objective": "logits:1", "steps": 4});
    let reused = send(&other, "order 1").await;
    assert_eq!((reused.status, reused.json()["type"].as_str()), (422, Some("/problems/idempotency-key-reused")));
    assert_ne!(send(&other, "order 2").await.json()["id"], job["id"]);
    assert_eq!(server.get("/v1/jobs").await.json()["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_submissions_with_one_key_at_once_make_one_job() {
    let server = Server::start().await;
    let send = || server.send(server.request(Method::POST, "/v1/jobs").json(&quick()).header("Idempotency-Key", "k"));
    let answers = futures_util::future::join_all((0..8).map(|_| send())).await;
    let first = answers[0].json();
    assert!(answers.iter().all(|answer| answer.json()["id"] == first["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_every_job_once_newest_first() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(id(&server.submit(quick()).await).to_owned());
    }
    for id in &ids {
        server.state(id, "succeeded").await;
    }
    ids.reverse();

    let (mut seen, mut path) = (Vec::new(), "/v1/jobs?limit=2".to_owned());
    loop {
        let page = server.get(&path).await.json();
        let jobs = page["jobs"].as_array().unwrap();
        assert!(jobs.len() <= 2);
        seen.extend(jobs.iter().map(|job| id(job).to_owned()));
        match page["next"].as_str() {
            Some(cursor) => path = format!("/v1/jobs?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, ids);

    let all = server.get("/v1/jobs?state=succeeded&model=fashion-resnet8").await.json();
    assert_eq!(all["jobs"].as_array().unwrap().len(), 5);
    assert_eq!(all["jobs"][0]["objectives"], json!(["layer1/Relu_1:3"]));
    for none in ["state=failed", "model=efficientnet-lite0", "model=%00"] {
        assert_eq!(server.get(&format!("/v1/jobs?{none}")).await.json(), json!({"jobs": [], "next": null}), "{none}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_canceled_and_then_deleted() {
    let server = Server::with(patient).await;
    let job = server.submit(endless()).await;
    let path = format!("/v1/jobs/{}", id(&job));
    server.until(id(&job), |job| job["progress"]["step"].as_u64() > Some(0)).await;

    let refused = server.send(server.request(Method::DELETE, &path)).await;
    assert_eq!((refused.status, refused.json()["type"].as_str()), (409, Some("/problems/job-not-finished")));

    // Queued after the running one.
    let waiting = server.submit(quick()).await;
    let canceled = server.send(server.request(Method::POST, &format!("/v1/jobs/{}/cancel", id(&waiting)))).await;
    assert_eq!((canceled.status, canceled.json()["state"].as_str()), (200, Some("canceled")));

    let canceled = server.send(server.request(Method::POST, &format!("{path}/cancel"))).await;
    assert!(matches!(canceled.status, 200 | 202), "{canceled:?}");
    let job = server.state(id(&job), "canceled").await;
    assert_eq!(job["stimuli"], json!([]));
    let again = server.send(server.request(Method::POST, &format!("{path}/cancel"))).await;
    assert_eq!((again.status, again.json()["state"].as_str()), (200, Some("canceled")));

    assert_eq!(server.send(server.request(Method::DELETE, &path)).await.status, 204);
    assert_eq!(server.send(server.request(Method::DELETE, &path)).await.status, 404);
    for gone in ["", "/stimuli/0", "/events"] {
        let answer = server.get(&format!("{path}{gone}")).await;
        assert_eq!((answer.status, answer.json()["type"].as_str()), (404, Some("/problems/unknown-job")), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_png_is_not_sent_again() {
    let server = Server::start().await;
    let job = prefer_wait(&server, &quick(), "60").await.json();
    let path = job["stimuli"][0]["png"].as_str().unwrap();
    let png = server.get(path).await;
    let tag = png.headers["etag"].clone();
    assert_eq!(tag, format!("\"{}\"", job["stimuli"][0]["sha256"].as_str().unwrap()));
    assert!(png.headers["cache-control"].contains("immutable"));

    let known = |tag: &str| server.send(server.request(Method::GET, path).header("If-None-Match", tag.to_owned()));
    let unchanged = known(&tag).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.headers["etag"], tag);
    assert_eq!(known(&format!("\"other\", W/{tag}")).await.status, 304);
    assert_eq!(known("\"other\"").await.status, 200);

    let encoded = server.get(&format!("{path}?encoding=base64")).await;
    assert_eq!(encoded.media_type(), Some("application/json"));
    assert_ne!(encoded.headers["etag"], tag, "other bytes, other tag");
    let decode = |text: &Value| base64::prelude::BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
    assert_eq!(decode(&encoded.json()["base64"]), png.body);

    let inline = server.get(&format!("/v1/jobs/{}?include=png", id(&job))).await.json();
    let url = inline["stimuli"][0]["data_url"].as_str().unwrap();
    assert_eq!(decode(&json!(url.strip_prefix("data:image/png;base64,").unwrap())), png.body);
    let request = server.request(Method::POST, "/v1/jobs?include=png").json(&quick()).header("Prefer", "wait=60");
    assert_eq!(server.send(request).await.json()["stimuli"][0]["data_url"], json!(url));

    let missing = server.get(&format!("/v1/jobs/{}/stimuli/1", id(&job))).await;
    assert_eq!((missing.status, missing.json()["type"].as_str()), (404, Some("/problems/unknown-stimulus")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_png_is_reported_and_its_job_is_still_readable() {
    let server = Server::start().await;
    let mut request = quick();
    request.as_object_mut().unwrap().remove("objective");
    request["objectives"] = json!(["logits:1", "logits:2", "logits:3"]);
    request["animation"] = json!({"frames": 2});
    let job = prefer_wait(&server, &request, "60").await.json();
    let path = |n: usize| format!("/v1/jobs/{}/stimuli/{n}", id(&job));
    let folder = server.folder.as_ref().unwrap().path().join("stimuli").join(id(&job));
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if name == job["stimuli"][1]["sha256"].as_str().unwrap() {
            // Damaged, as after a partial restore.
            std::fs::write(&file, b"").unwrap();
        } else if name != job["stimuli"][2]["sha256"].as_str().unwrap() {
            std::fs::remove_file(&file).unwrap();
        }
    }
    for gone in [path(0), path(1), format!("{}?encoding=base64", path(0)), format!("{}/animation", path(2))] {
        let answer = server.get(&gone).await;
        assert_eq!((answer.status, answer.json()["type"].as_str()), (410, Some("/problems/file-gone")), "{gone}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(".png of job"), "{}", answer.text());
    }
    assert_eq!(server.get(&path(2)).await.status, 200);
    let whole = server.get(&format!("/v1/jobs/{}?include=png", id(&job))).await;
    assert_eq!(whole.status, 200, "{}", whole.text());
    let stimuli = &whole.json()["stimuli"];
    for n in [0, 1, 2] {
        assert_eq!(stimuli[n]["score"], job["stimuli"][n]["score"]);
        let url = stimuli[n].get("data_url").unwrap();
        assert_eq!(url.is_null(), n < 2, "{url}");
    }
    let plain = server.get(&format!("/v1/jobs/{}", id(&job))).await.json();
    assert!(plain["stimuli"][0].get("data_url").is_none(), "only if requested");

    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(server.get(&path(2)).await.status, 410);
    assert_eq!(server.get(&format!("/v1/jobs/{}?include=png", id(&job))).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_responds_with_retry_after() {
    let server = Server::with(|config| {
        patient(config);
        config.queue_limit = 1;
    })
    .await;
    let running = server.submit(endless()).await;
    server.state(id(&running), "running").await;
    let queued = server.submit(quick()).await;
    let refused = server.post("/v1/jobs", &quick()).await;
    assert_eq!((refused.status, refused.json()["type"].as_str()), (503, Some("/problems/queue-full")));
    assert!(refused.headers["retry-after"].parse::<u32>().unwrap() > 0);

    server.send(server.request(Method::POST, &format!("/v1/jobs/{}/cancel", id(&running)))).await;
    server.state(id(&queued), "succeeded").await;
    server.submit(quick()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_beyond_the_time_limit_fails_with_the_reason() {
    let server = Server::with(|config| {
        config.max_steps = 1_000_000;
        config.job_time_limit = Duration::from_secs(1);
    })
    .await;
    let job = server.submit(endless()).await;
    let job = server.state(id(&job), "failed").await;
    assert_eq!(job["problem"]["code"], "time-limit", "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_waiting_requests_and_jobs_resume_later() {
    let server = Server::with(|config| {
        patient(config);
        config.shutdown_grace = Duration::ZERO;
    })
    .await;
    let request = server.request(Method::POST, "/v1/jobs").json(&endless()).header("Prefer", "wait=60");
    let waiting = tokio::spawn(request.send());
    let job = tokio::time::timeout(DEADLINE, async {
        loop {
            let jobs = server.get("/v1/jobs?state=running").await.json();
            if let Some(job) = jobs["jobs"].get(0) {
                return job.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let job = job.await.unwrap();
    let folder = server.shutdown().await;
    let told = Answer::read(waiting.await.unwrap().unwrap()).await;
    assert_eq!((told.status, told.json()["id"].clone()), (202, job["id"].clone()));

    let server = Server::on(folder, patient).await;
    let job = server.state(id(&job), "running").await;
    assert_eq!(job["attempts"], 1, "a graceful shutdown does not count as an attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_presets_give_what_each_gives_alone() {
    let server = Server::start().await;
    let body = json!({"model": "fashion-resnet8", "objectives": ["logits:8", "layer1/Relu_1:3"], "seed": 5, "alpha": true,
        "score_every": 2});
    let with = |fields: Value| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let presets = ["maximum", "fast"];
    let steps = [256, 64];
    let both = prefer_wait(&server, &with(json!({"presets": presets})), "60").await.json();
    assert_eq!(both["state"], "succeeded", "{both}");
    let all = 2 * (256 + 64);
    assert_eq!(both["progress"], json!({"step": all, "steps": all}));
    assert_eq!(both["other_settings"].as_array().unwrap().len(), 1);
    assert_eq!(both["stimuli"].as_array().unwrap().len(), 4);
    for (p, preset) in presets.into_iter().enumerate() {
        let alone = prefer_wait(&server, &with(json!({"preset": preset})), "60").await.json();
        assert_eq!(alone["settings"]["steps"], steps[p]);
        let settings = if p == 0 { &both["settings"] } else { &both["other_settings"][0] };
        assert_eq!(settings, &alone["settings"], "{preset}");
        for n in 0..2 {
            let (mut found, expected) = (both["stimuli"][2 * p + n].clone(), &alone["stimuli"][n]);
            assert_eq!((&found["preset"], &found["objective"]), (&json!(preset), &both["objectives"][n]));
            let png = server.get(found["png"].as_str().unwrap()).await;
            assert_eq!(hex::encode(Sha256::digest(&png.body)), expected["sha256"].as_str().unwrap());
            found["png"] = expected["png"].clone();
            assert_eq!(&found, expected, "{preset} {n}");
        }
    }
    let list = server.get("/v1/jobs").await.json();
    let listed = list["jobs"].as_array().unwrap().iter().find(|job| job["id"] == both["id"]).unwrap();
    let names: Vec<&Value> = listed["stimuli"].as_array().unwrap().iter().map(|one| &one["preset"]).collect();
    assert_eq!(names, ["maximum", "maximum", "fast", "fast"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_are_two_to_four_different_ones() {
    let server = Server::with(|config| config.max_objectives = 4).await;
    let body = |fields: Value| {
        let mut body = json!({"model": "fashion-resnet8", "objective": "logits:8", "steps": 2});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    for (fields, field, says) in [
        (json!({"presets": []}), "presets", "2 to 4 different presets"),
        (json!({"presets": ["best"]}), "presets", "2 to 4 different presets"),
        (json!({"presets": ["best", "fast", "lucid", "maco", "maximum"]}), "presets", "5 presets"),
        (json!({"presets": ["best", "lucid", "best"]}), "presets[2]", "each preset once"),
        (json!({"presets": ["best", "prettiest"]}), "presets[1]", "prettiest"),
        (json!({"presets": ["best", "lucid"], "preset": "maco"}), "preset", "not both"),
        (json!({"presets": ["lucid", "maco"], "start": {"kind": "grey"}}), "start", "with preset maco"),
        (
            json!({"presets": ["lucid", "best"], "diversity": {"layer": "layer1/Relu_1", "copies": 3}}),
            "presets",
            "at most 4 stimuli in total",
        ),
    ] {
        let answer = server.post("/v1/jobs", &body(fields)).await;
        let problem = answer.json();
        let error = &problem["errors"][0];
        assert_eq!((answer.status, error["field"].as_str().unwrap_or_default()), (422, field), "{problem}");
        assert!(problem.to_string().contains(says), "{problem}");
    }
}
