//! The documentation against the repository: links, named files, and the imports that docs/architecture.md shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms, each with the crate whose paths name it.
const ROOMS: [(&str, &str); 14] = [
    ("network", "proxygrad"),
    ("engine", "proxygrad"),
    ("calibrate", "proxygrad"),
    ("train", "proxygrad"),
    ("judge", "proxygrad"),
    ("maximize", "proxygrad"),
    ("study", "proxygrad"),
    ("maximizer", "proxygrad"),
    ("config", "proxygrad_server"),
    ("jobs", "proxygrad_server"),
    ("worker", "proxygrad_server"),
    ("api", "proxygrad_server"),
    ("service", "proxygrad_server"),
    ("cli", "main"),
];

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files with an extension in a folder and below it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with('.') && name != "target" && name != "verify-env" {
            found.extend(files(&entry, extension));
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The name that a page gives to a heading for links: lower case, words joined by `-`, without other signs.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A link without its `%XX`.
fn percent_decoded(link: &str) -> String {
    let mut parts = link.split('%');
    let mut decoded = parts.next().unwrap().to_owned();
    for part in parts {
        decoded.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        decoded.push_str(&part[2..]);
    }
    decoded
}

/// Lines outside fenced code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in files(repository(), "md") {
        let text = read(&page);
        for link in prose(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { page.clone() } else { page.parent().unwrap().join(percent_decoded(path)) };
            let there = target.exists()
                && (heading.is_empty()
                    || prose(&read(&target))
                        .any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == heading));
            if !there {
                broken.push(format!("{}: {link}", page.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_code_in_the_readme_is_the_code_of_the_example() {
    let example = read(&repository().join("crates/proxygrad/examples/banana.rs"));
    let readme = read(&repository().join("README.md"));
    let shown = readme.split("```rust\n").nth(1).unwrap().split("```").next().unwrap();
    for line in shown.lines() {
        assert!(example.lines().any(|written| written.trim() == line.trim()), "{line}");
    }
}

/// Whether code holds a word.
fn holds(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

#[test]
fn every_item_that_a_page_links_to_is_in_its_file() {
    let mut broken = Vec::new();
    for page in files(&repository().join("docs"), "md") {
        let text = read(&page);
        // Links such as [`Store::claim`](../src/jobs/claim.rs).
        for link in prose(&text).flat_map(|line| line.split("[`").skip(1)) {
            let Some((item, file)) = link.split_once("`](").map(|(item, rest)| (item, rest.split(')').next().unwrap()))
            else {
                continue;
            };
            let name = item.rsplit("::").next().unwrap();
            // A module is linked by the name of its file or folder.
            let is_module =
                Path::new(file).iter().any(|part| Path::new(part).file_stem().is_some_and(|stem| stem == name));
            let is_item = name.chars().all(|c| c.is_alphanumeric() || c == '_') && file.ends_with(".rs");
            if is_item && !is_module && !holds(&read(&page.parent().unwrap().join(file)), name) {
                broken.push(format!("{}: {item} is not in {file}", page.file_name().unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_file_that_a_guide_names_exists() {
    let mut broken = Vec::new();
    let guides = files(&repository().join("docs"), "md");
    let guides = guides.iter().filter(|page| page.file_name().unwrap().to_string_lossy().starts_with("adding-"));
    for guide in guides {
        let text = read(guide);
        // Every second piece between backticks is code.
        for code in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let path = code.split(':').next().unwrap();
            let file = path.contains('/') && (path.ends_with('/') || Path::new(path).extension().is_some());
            let placeholder = path.contains(['*', '<', '{', ' ', '(']) || path.chars().any(|c| c.is_ascii_uppercase());
            let below = ["", "crates/proxygrad", "crates/proxygrad/src", "src"]
                .map(|folder| repository().join(folder).join(path));
            if file && !placeholder && !below.iter().any(|path| path.exists()) {
                broken.push(format!("{}: {code}", guide.file_name().unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Rust code without comments and without the test module at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// First names after `prefix` (`crate::` or a crate's name) in code: one, or those of a use tree in braces.
fn names_after<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let whole_word =
        move |&(at, _): &(usize, &str)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    code.match_indices(prefix).filter(whole_word).flat_map(move |(at, _)| {
        let rest = &code[at + prefix.len()..];
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && !(c.is_alphanumeric() || c == '_' || c == '}')
        });
        let tree = &rest[..end.unwrap_or(rest.len())];
        top_level(tree).into_iter().map(|item| item.trim().split("::").next().unwrap().trim())
    })
}

/// The items of a use tree: those in its outer braces, or the tree itself.
fn top_level(tree: &str) -> Vec<&str> {
    let Some(inside) = tree.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return vec![tree] };
    let mut depth = 0;
    inside
        .split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        })
        .collect()
}

/// Rooms of what the library's root re-exports, by name.
fn reexports() -> BTreeMap<String, String> {
    let root = code(&read(&repository().join("crates/proxygrad/src/lib.rs")));
    let mut found = BTreeMap::new();
    for line in root.split(';').filter_map(|item| item.trim().strip_prefix("pub use ")) {
        let (room, names) = line.split_once("::").unwrap();
        found.extend(top_level(names.trim()).into_iter().map(|name| (name.trim().to_owned(), room.to_owned())));
    }
    found
}

/// The imports of every room in the sources.
fn arrows_of_the_code() -> Arrows {
    let reexports = reexports();
    let mut arrows = Arrows::new();
    for (room, owner) in ROOMS {
        let folder = repository().join(if owner == "proxygrad" { "crates/proxygrad/src" } else { "src" });
        let mut sources = vec![folder.join(format!("{room}.rs"))];
        sources.retain(|file| file.exists());
        if folder.join(room).exists() {
            sources.extend(files(&folder.join(room), "rs"));
        }
        sources.retain(|file| !file.components().any(|part| part.as_os_str().to_string_lossy().contains("tests")));
        let to = arrows.entry(room.to_owned()).or_default();
        for text in sources.iter().map(|file| code(&read(file))) {
            for prefix in ["crate", "proxygrad", "proxygrad_server"] {
                let of = if prefix == "crate" { owner } else { prefix };
                for name in names_after(&text, &format!("{prefix}::")) {
                    let reexported = reexports.get(name).filter(|_| of == "proxygrad").map(String::as_str);
                    let target = reexported.unwrap_or(name);
                    if target != room && ROOMS.iter().any(|(known, crate_of)| *known == target && *crate_of == of) {
                        to.insert(target.to_owned());
                    }
                }
            }
        }
    }
    arrows
}

#[test]
fn the_page_on_the_architecture_shows_the_imports_of_the_code() {
    let page = read(&repository().join("docs/architecture.md"));
    let cells = |line: &str| -> Vec<String> { line.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let table: Arrows = page
        .lines()
        .skip_while(|line| !line.starts_with("| room | imports |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut names = cells(line).into_iter();
            (names.next().unwrap(), names.collect())
        })
        .collect();
    assert_eq!(table, arrows_of_the_code(), "left: the table in docs/architecture.md, right: the code");

    // The diagram leaves out an arrow where a longer way leads to the same room.
    let mut drawn = Arrows::new();
    for line in page.lines().filter(|line| line.contains(" --> ")) {
        let names: Vec<&str> = line.split(" --> ").map(str::trim).collect();
        for pair in names.windows(2).filter(|pair| pair.iter().all(|name| table.contains_key(*name))) {
            assert!(table[pair[0]].contains(pair[1]), "the diagram draws {} --> {}", pair[0], pair[1]);
            drawn.entry(pair[0].to_owned()).or_default().insert(pair[1].to_owned());
        }
    }
    for (room, targets) in &table {
        let mut reached = BTreeSet::new();
        let mut open = vec![room.clone()];
        while let Some(next) = open.pop() {
            open.extend(drawn.get(&next).into_iter().flatten().filter(|to| reached.insert((*to).clone())).cloned());
        }
        assert!(targets.is_subset(&reached), "the diagram does not lead from {room} to all of {targets:?}");
    }
}
