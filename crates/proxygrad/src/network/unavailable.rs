//! Nodes of an imported file that are not available as layers.

use std::collections::BTreeMap;
use std::fmt;

/// A node of an imported file that is not available as a layer: it cannot be computed, or depends on one that cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Name of the node.
    pub name: String,
    /// Operation, as named in the file.
    pub op: String,
    /// Name of the node that cannot be computed, if it is another one.
    pub depends_on: Option<String>,
    /// Why that node cannot be computed.
    pub reason: String,
}

/// `label (ArgMax) cannot be computed: the operation is not supported`, or
/// `top (Gather) depends on label, which cannot be computed: the operation is not supported`
impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, op, depends_on, reason } = self;
        match depends_on {
            None => write!(f, "{name} ({op}) cannot be computed: {reason}"),
            Some(other) => write!(f, "{name} ({op}) depends on {other}, which cannot be computed: {reason}"),
        }
    }
}

impl Unavailable {
    /// Maximum number of names listed per operation and reason.
    const MAX_NAMES: usize = 3;

    /// A summary: one line per operation and reason, and one for the nodes that depend on these. Reasons that only
    /// differ in their numbers are one, of which the first is shown.
    pub fn summary(all: &[Self]) -> Vec<String> {
        let mut kinds: BTreeMap<(&str, String), (&str, Vec<&str>)> = BTreeMap::new();
        for Self { name, op, reason, .. } in all.iter().filter(|one| one.depends_on.is_none()) {
            kinds.entry((op, without_numbers(reason))).or_insert((reason, Vec::new())).1.push(name);
        }
        let line = |((op, _), (reason, names)): ((&str, String), (&str, Vec<&str>))| {
            format!("{op} ({}): {reason}", some(&names))
        };
        let mut lines: Vec<String> = kinds.into_iter().map(line).collect();
        let dependent: Vec<&str> =
            all.iter().filter(|one| one.depends_on.is_some()).map(|one| one.name.as_str()).collect();
        if !dependent.is_empty() {
            lines.push(format!("depends on these: {}", some(&dependent)));
        }
        lines
    }
}

/// A reason without its numbers, and without the lists and products of them that shapes are.
fn without_numbers(reason: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit();
    let mut kept = String::with_capacity(reason.len());
    for (i, part) in reason.split(is_number).enumerate() {
        let is_between = i > 0 && matches!(part.trim(), "" | "," | "." | "-" | "x");
        if !is_between {
            kept.push_str(part);
        }
    }
    kept
}

/// The first names, and the number of others.
fn some(names: &[&str]) -> String {
    let shown = names.len().min(Unavailable::MAX_NAMES);
    let first = names[..shown].join(", ");
    match names.len() - shown {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_every_operation_and_some_of_its_nodes() {
        let one = |name: &str, op: &str, depends_on: Option<&str>| Unavailable {
            name: name.into(),
            op: op.into(),
            depends_on: depends_on.map(str::to_owned),
            reason: "the operation is not supported".into(),
        };
        let mut all: Vec<_> = (0..5).map(|i| one(&format!("rnn{i}"), "LSTM", None)).collect();
        let rank = |name: &str, shape: &str| Unavailable {
            reason: format!("the input has the shape {shape}"),
            ..one(name, "Conv", None)
        };
        all.extend([rank("c1", "[1, 24, 7]"), rank("c2", "[512]")]);
        all.extend([one("label", "ArgMax", None), one("scores", "Gather", Some("label"))]);
        assert_eq!(
            Unavailable::summary(&all),
            [
                "ArgMax (label): the operation is not supported",
                "Conv (c1, c2): the input has the shape [1, 24, 7]",
                "LSTM (rnn0, rnn1, rnn2 and 2 more): the operation is not supported",
                "depends on these: scores",
            ]
        );
        assert!(Unavailable::summary(&[]).is_empty());
    }
}
