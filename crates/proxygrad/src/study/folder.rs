//! Study folder: the plan, the runs so far and their images.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::hash::Hash;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::StudyError;
use super::json::pretty;
use super::plan::types::Plan;
use super::row::{Row, RunKey};
use crate::file;

/// Folder of a study.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A run as a line of a table.
pub(super) trait Record: Clone {
    /// Name of the file of the plan.
    const PLAN: &str = "plan.json";
    /// Name of the file of the table.
    const TABLE: &str = "runs.csv";

    /// Plan of such runs.
    type Plan: Serialize + DeserializeOwned + PartialEq;
    /// What is unique in a study.
    type Key: Clone + Eq + Hash;
    /// What the header says about the other lines.
    type Columns;

    /// The header in the study of a plan, with a line feed.
    fn head(plan: &Self::Plan) -> String;

    /// Reads a header without its line feed; `None` if it is none.
    fn columns(head: &str) -> Option<Self::Columns>;

    fn key(&self) -> Self::Key;

    /// The line, with a line feed.
    fn to_line(&self) -> String;

    /// Reads a line without its line feed, or says what is wrong with it.
    fn from_line(line: &str, columns: &Self::Columns) -> Result<Self, String>;
}

/// A table of a study folder that is locked for writing.
#[derive(Debug)]
pub(super) struct OpenFolder<R> {
    pub(super) folder: Folder,
    pub(super) rows: Vec<R>,
    table: File,
    /// Length of the table in bytes.
    length: u64,
    /// The lock is held while this file is open.
    lock: Arc<File>,
}

impl Folder {
    /// The folder at `path`; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Its plan; `None` if the folder holds no study.
    ///
    /// # Errors
    /// If the plan cannot be read.
    pub fn plan(&self) -> Result<Option<Plan>, StudyError> {
        self.read_plan::<Row>()
    }

    /// The runs so far, in the order in which they finished. An incomplete last line is ignored.
    ///
    /// # Errors
    /// If a line is not a run, or a run appears twice.
    pub fn rows(&self) -> Result<Vec<Row>, StudyError> {
        self.read_rows()
    }

    pub(super) fn read_plan<R: Record>(&self) -> Result<Option<R::Plan>, StudyError> {
        let path = self.file(R::PLAN);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| StudyError::broken(&path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StudyError::file(&path)(error)),
        }
    }

    pub(super) fn read_rows<R: Record>(&self) -> Result<Vec<R>, StudyError> {
        let path = self.file(R::TABLE);
        let Some(text) = self.whole_lines(R::TABLE)? else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        let mut seen: HashSet<R::Key> = HashSet::new();
        let broken = |line: usize, why: String| StudyError::broken(&path, format!("line {line}: {why}"));
        let mut lines = (1..).zip(text.lines());
        let Some((_, head)) = lines.next() else { return Ok(rows) };
        let differs = || broken(1, "the header differs from that of a table of runs".into());
        let columns = R::columns(head).ok_or_else(differs)?;
        for (number, line) in lines {
            let row = R::from_line(line, &columns).map_err(|why| broken(number, why))?;
            if !seen.insert(row.key()) {
                return Err(broken(number, "this run appears twice".into()));
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// The text of `runs.csv` without an incomplete last line; `None` if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn table(&self) -> Result<Option<String>, StudyError> {
        self.whole_lines(Row::TABLE)
    }

    fn whole_lines(&self, name: &str) -> Result<Option<String>, StudyError> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(mut bytes) => {
                bytes.truncate(whole_lines(&bytes));
                String::from_utf8(bytes).map(Some).map_err(|error| StudyError::broken(&path, error))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StudyError::file(&path)(error)),
        }
    }

    /// Opens the folder to start or resume the study of `plan`.
    ///
    /// # Errors
    /// If the folder holds another plan, another process has locked it, or it cannot be written.
    pub(super) fn open<R: Record>(&self, plan: &R::Plan) -> Result<OpenFolder<R>, StudyError> {
        fs::create_dir_all(&self.path).map_err(StudyError::file(&self.path))?;
        let lock_path = self.file("lock");
        let lock = File::create(&lock_path).map_err(StudyError::file(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StudyError::Busy(self.path.clone()),
            fs::TryLockError::Error(error) => StudyError::file(&lock_path)(error),
        })?;
        self.open_table(plan, Arc::new(lock))
    }

    /// Opens a table of the folder to start or continue what `plan` asks for.
    fn open_table<R: Record>(&self, plan: &R::Plan, lock: Arc<File>) -> Result<OpenFolder<R>, StudyError> {
        match self.read_plan::<R>()? {
            Some(here) if here == *plan => {}
            Some(here) => return Err(self.differs(&here, plan)),
            None => self.write(R::PLAN, pretty(plan, &self.file(R::PLAN))?.as_bytes())?,
        }
        let rows = self.read_rows()?;
        let path = self.file(R::TABLE);
        let mut table = OpenOptions::new().create(true).append(true).open(&path).map_err(StudyError::file(&path))?;
        let whole = fs::read(&path).map(|text| whole_lines(&text)).map_err(StudyError::file(&path))?;
        table.set_len(whole as u64).map_err(StudyError::file(&path))?;
        let mut length = whole as u64;
        if whole == 0 {
            let head = R::head(plan);
            table.write_all(head.as_bytes()).map_err(StudyError::file(&path))?;
            length = head.len() as u64;
        }
        Ok(OpenFolder { folder: self.clone(), rows, table, length, lock })
    }

    /// Writes a file atomically.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> Result<(), StudyError> {
        let path = self.file(name);
        file::replace(&path, contents).map_err(StudyError::file(&path))
    }

    /// The error that names the first field in which two plans differ.
    fn differs<P: Serialize>(&self, here: &P, asked: &P) -> StudyError {
        // By way of the text, in which numbers of single precision are short.
        let text = |plan: &P| serde_json::to_string(plan).unwrap_or_default();
        let document = |plan: &P| serde_json::from_str(&text(plan)).unwrap_or_default();
        let (field, here, asked) = difference("", &document(here), &document(asked))
            .unwrap_or_else(|| ("plan".into(), "one thing".into(), "another".into()));
        StudyError::Differs { folder: self.path.clone(), field, here, asked }
    }
}

impl<R: Record> OpenFolder<R> {
    /// Another table of the same folder, under the same lock.
    ///
    /// # Errors
    /// If the folder holds another plan of such runs, or cannot be written.
    pub(super) fn open<S: Record>(&self, plan: &S::Plan) -> Result<OpenFolder<S>, StudyError> {
        self.folder.open_table(plan, Arc::clone(&self.lock))
    }

    /// Appends runs to the table. After an error none of them is added, and the call may be repeated.
    pub(super) fn add(&mut self, rows: &[R]) -> Result<(), StudyError> {
        let path = self.folder.file(R::TABLE);
        let lines: String = rows.iter().map(R::to_line).collect();
        // Removes what a failed call left, perhaps half a line.
        let written = self.table.set_len(self.length).and_then(|()| self.table.write_all(lines.as_bytes()));
        written.and_then(|()| self.table.sync_data()).map_err(StudyError::file(&path))?;
        self.length += lines.len() as u64;
        self.rows.extend_from_slice(rows);
        Ok(())
    }
}

/// Path of the image of a run, relative to the study's folder; unique for each run.
pub(super) fn image_path(key: &RunKey) -> String {
    let unit = key.unit.strip_prefix(&key.layer).unwrap_or(&key.unit).trim_start_matches(':');
    let [model, method, layer, unit, arm] = [&key.model, &key.method, &key.layer, unit, &key.arm].map(escape_name);
    format!("images/{model}/{method}/{layer}/{unit}-{}-{arm}.png", key.repeat)
}

/// Escapes a name for any file system: bytes other than letters, digits, `.`, `_` and `-` become `=` and two
/// hexadecimal digits.
pub(super) fn escape_name(name: &str) -> String {
    let mut escaped = String::new();
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if i == 0 => escaped.push_str("=2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => escaped.push(byte.into()),
            byte => escaped.push_str(&format!("={byte:02x}")),
        }
    }
    escaped
}

/// Length of a text up to and including its last line feed.
fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// The path of the first value that differs, and both values in short.
fn difference(path: &str, here: &Value, asked: &Value) -> Option<(String, String, String)> {
    if here == asked {
        return None;
    }
    let below = |name: String| if path.is_empty() { name } else { format!("{path}.{name}") };
    match (here, asked) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let null = Value::Null;
            let of = |map: &serde_json::Map<String, Value>, name: &str| map.get(name).unwrap_or(&null).clone();
            // Derived values come last.
            let (causes, effects): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| *name != "settings");
            let mut names = causes.into_iter().chain(effects);
            names.find_map(|name| difference(&below(name.clone()), &of(a, name), &of(b, name)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            (0..).zip(a.iter().zip(b)).find_map(|(i, (a, b)): (usize, _)| difference(&format!("{path}[{i}]"), a, b))
        }
        _ => Some((path.to_owned(), short(here), short(asked))),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(values) => match values.iter().map(|value| value["name"].as_str()).collect::<Option<Vec<_>>>() {
            Some(names) if !names.is_empty() => names.join(", "),
            _ => format!("{} values", values.len()),
        },
        value => crate::Invalid::new("", value, "").value,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_named_by_its_path() {
        let here = json!({"seed": 1, "arms": [{"name": "plain", "request": {"gate": "plain"}}]});
        let other_gate = json!({"seed": 1, "arms": [{"name": "plain", "request": {"gate": "soft"}}]});
        assert_eq!(
            difference("", &here, &other_gate).unwrap(),
            ("arms[0].request.gate".into(), "\"plain\"".into(), "\"soft\"".into())
        );
        let more = json!({"seed": 1, "arms": [{"name": "plain"}, {"name": "auto"}]});
        assert_eq!(difference("", &here, &more).unwrap(), ("arms".into(), "plain".into(), "plain, auto".into()));
        assert_eq!(difference("", &here, &here.clone()), None);
    }

    #[test]
    fn every_run_has_a_file_of_its_own() {
        let key = |layer: &str, arm: &str| RunKey {
            model: "m".into(),
            method: "fourier+transforms".into(),
            layer: layer.into(),
            unit: format!("{layer}:3@center"),
            repeat: 1,
            arm: arm.into(),
        };
        let paths = [key("a/b", "slope:0.1"), key("a_b", "slope:0.1"), key("a=2fb", "slope:0.1"), key("..", "plain")]
            .map(|key| image_path(&key));
        assert_eq!(paths[0], "images/m/fourier=2btransforms/a=2fb/3=40center-1-slope=3a0.1.png");
        assert_eq!(paths.iter().collect::<HashSet<_>>().len(), 4);
        assert!(!paths[3].contains(".."), "{}", paths[3]);
    }
}
