//! One axis as a product of digits.

/// What an axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Channels.
    Channel,
    /// Rows of the image or of a map.
    Row,
    /// Columns of the image or of a map.
    Column,
    /// Anything else, such as the hidden units of a layer that mixes tokens.
    Other,
}

/// One digit of an index in mixed radix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digit {
    pub role: Role,
    /// How far the next index is in rows or columns, before any of them were left out. 1 for other roles, whose digits
    /// count in the order in which they are stored.
    pub stride: usize,
    /// At least 2.
    pub length: usize,
}

impl Digit {
    /// Whether its index belongs to a place in the image, wherever the digit is stored.
    pub fn is_placed(&self) -> bool {
        matches!(self.role, Role::Row | Role::Column)
    }

    /// The digit divided into an outer one of this length, which must divide its own, and an inner one.
    pub fn split(self, outer: usize) -> [Self; 2] {
        let inner = self.length / outer;
        let stride = if self.is_placed() { self.stride.saturating_mul(inner) } else { 1 };
        [Self { stride, length: outer, ..self }, Self { length: inner, ..self }]
    }
}

/// An axis of a tensor: an index is `before`, or else the number that the digits form, most significant first, or else
/// one of `after`. An axis of length 1 has none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct AxisLayout {
    /// Number of tokens, such as a class token, in front of the patches.
    pub before: usize,
    pub digits: Vec<Digit>,
    /// Number of tokens behind the patches.
    pub after: usize,
}

impl AxisLayout {
    /// An axis of this length that counts one thing.
    pub fn whole(role: Role, length: usize) -> Self {
        let digit = Digit { role, stride: 1, length };
        Self { digits: if length == 1 { Vec::new() } else { vec![digit] }, ..Self::default() }
    }

    /// An axis about which nothing is known.
    pub fn unknown(length: usize) -> Self {
        Self::whole(Role::Other, length)
    }

    /// An axis without tokens before or after it. Adjacent digits that follow each other become one.
    pub fn of(digits: impl IntoIterator<Item = Digit>) -> Self {
        let mut joined: Vec<Digit> = Vec::new();
        for digit in digits {
            let follows = |last: &Digit| {
                last.role == digit.role && (!digit.is_placed() || last.stride == digit.stride * digit.length)
            };
            match joined.last_mut().filter(|last| follows(last)) {
                Some(last) => *last = Digit { length: last.length * digit.length, ..digit },
                None => joined.push(digit),
            }
        }
        Self { digits: joined, ..Self::default() }
    }

    /// Number of patches: the product of the digits; 0 without digits.
    pub fn patches(&self) -> usize {
        if self.digits.is_empty() { 0 } else { self.digits.iter().map(|digit| digit.length).product() }
    }

    /// Whether the axis has tokens besides its patches.
    pub fn has_tokens(&self) -> bool {
        self.before + self.after > 0
    }

    /// Whether it is known what the axis counts.
    pub fn is_known(&self) -> bool {
        self.digits.iter().any(|digit| digit.role != Role::Other)
    }

    /// Whether a part of the index has this role.
    pub fn has(&self, role: Role) -> bool {
        self.digits.iter().any(|digit| digit.role == role)
    }

    /// Whether the axis has length 1 or counts only this.
    pub fn is_only(&self, role: Role) -> bool {
        !self.has_tokens() && self.digits.iter().all(|digit| digit.role == role)
    }

    /// The role of an axis that counts one thing; `None` if it has length 1 or several roles.
    pub fn role(&self) -> Option<Role> {
        self.digits.first().map(|digit| digit.role).filter(|&role| self.is_only(role))
    }

    /// The axis after a window, a border or a selection has changed its length.
    pub fn resized(&self, old: usize, length: usize) -> Self {
        match (old == length, self.digits.as_slice()) {
            (true, _) => self.clone(),
            (false, [digit]) if !self.has_tokens() && length > 1 => {
                Self { digits: vec![Digit { length, ..*digit }], ..Self::default() }
            }
            (false, _) => Self::unknown(length),
        }
    }
}
