//! Copies of a data directory that is in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::http_service::{Server, endless, patient, quick};
use crate::http_studies::{self, small};
use crate::http_trainings;

/// `proxygrad backup`: whether it succeeded, and what it said.
fn back_up(data_dir: &Path, output: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxygrad"));
    let command = command.env_clear().arg("backup").arg("--data-dir").arg(data_dir).arg("--output").arg(output);
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), text)
}

fn id(job: &Value) -> &str {
    job["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_from_a_backup_that_was_made_while_it_ran() {
    let datasets = http_trainings::datasets();
    let server = Server::with(|config| {
        patient(config);
        config.datasets = Some(http_trainings::sets(&datasets));
    })
    .await;
    let training = http_trainings::submit(&server, &http_trainings::small()).await;
    server.state_at(&training, "succeeded").await;
    let network_before = server.get(&format!("{training}/model.onnx")).await.body;
    let done = server.submit(quick()).await;
    let png = server.state(id(&done), "succeeded").await["stimuli"][0]["png"].as_str().unwrap().to_owned();
    let png_before = server.get(&png).await.body;
    let study = http_studies::submit(&server, &small()).await;
    server.state_at(&study, "succeeded").await;
    let runs_before = server.get(&format!("{study}/runs.csv")).await.body;
    let deleted = server.submit(quick()).await;
    server.state(id(&deleted), "succeeded").await;
    assert_eq!(
        server.send(server.request(reqwest::Method::DELETE, &format!("/v1/jobs/{}", id(&deleted)))).await.status,
        204
    );
    let running = server.submit(endless()).await;
    server.state(id(&running), "running").await;
    let waits = server.submit(quick()).await;
    let data_dir = server.folder.as_ref().unwrap().path().to_owned();
    fs::create_dir_all(data_dir.join("models").join("mine")).unwrap();
    fs::write(data_dir.join("models").join("mine").join("notes"), "about my model").unwrap();

    let place = tempfile::tempdir().unwrap();
    let copy = place.path().join("backups").join("monday");
    let (fine, said) = back_up(&data_dir, &copy);
    assert!(fine && said.contains("jobs: 3, studies: 1, trainings: 1"), "{said}");
    let after = server.submit(quick()).await;
    drop(server);

    let names: Vec<PathBuf> =
        fs::read_dir(copy.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, std::slice::from_ref(&copy), "nothing unfinished stays");
    for absent in ["lock", "alive", "reserve", "jobs.sqlite3-wal"] {
        assert!(!copy.join(absent).exists(), "{absent}");
    }
    assert_eq!(fs::read_to_string(copy.join("models").join("mine").join("notes")).unwrap(), "about my model");

    let restored = tempfile::tempdir().unwrap();
    fs::remove_dir(restored.path()).unwrap();
    fs::rename(&copy, restored.path()).unwrap();
    let server = Server::on(restored, patient).await;
    assert_eq!(server.get(&png).await.body, png_before);
    assert_eq!(server.get(&format!("{study}/runs.csv")).await.body, runs_before);
    assert_eq!(server.get(&format!("{study}/report")).await.status, 200);
    assert_eq!(server.get(&format!("{training}/model.onnx")).await.body, network_before);
    let running = server.state(id(&running), "running").await;
    assert_eq!(running["attempts"], 1, "being backed up is no interruption");
    for gone in [&deleted, &after] {
        assert_eq!(server.get(&format!("/v1/jobs/{}", id(gone))).await.status, 404);
    }
    server.post(&format!("/v1/jobs/{}/cancel", id(&running)), &Value::Null).await;
    server.state(id(&waits), "succeeded").await;
}

#[test]
fn a_backup_is_refused_where_something_would_be_lost() {
    let place = tempfile::tempdir().unwrap();
    let (data, full) = (place.path().join("data"), place.path().join("full"));
    let (fine, said) = back_up(&data, &place.path().join("copy"));
    assert!(!fine && said.contains("is not a data directory"), "{said}");
    fs::create_dir(&data).unwrap();
    // An empty file is an empty database.
    fs::write(data.join("jobs.sqlite3"), "").unwrap();
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter"), "from grandmother").unwrap();
    let (fine, said) = back_up(&data, &full);
    assert!(!fine && said.contains("is not empty"), "{said}");
    assert_eq!(fs::read_to_string(full.join("letter")).unwrap(), "from grandmother");
    let (fine, said) = back_up(&data, &data.join("copy"));
    assert!(!fine && said.contains("inside the data directory"), "{said}");
    assert!(!data.join("copy.part").exists());
}
