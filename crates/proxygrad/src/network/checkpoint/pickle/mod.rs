//! Restricted reader of Python pickles (protocols 2 to 5).
//!
//! A pickle is a program for a small stack machine. This machine supports the opcodes that build values; it returns
//! plain values and *named* constructors with their arguments, and executes nothing: `REDUCE` records a call instead of
//! making it. Names outside a short [allow-list](Global) are an error.
//!
//! All objects of a pickle are stored in one table and refer to each other by index. Shared and cyclic objects are
//! cheap, and deep nesting is harmless: neither reading nor dropping recurses.
//!
//! The opcodes are documented in CPython's `Lib/pickletools.py`.

mod global;
mod machine;

use std::borrow::Cow;

pub use global::{Global, Storage};

/// Why a pickle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pickle at byte {offset}: {why}")]
pub struct PickleError {
    /// Position of the opcode in the file.
    pub offset: usize,
    /// The reason.
    pub why: String,
}

/// An object of a pickle has another type or value than expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct UnexpectedObject {
    /// The expected type or value.
    pub expected: String,
    /// The type or value found.
    pub found: String,
}

impl UnexpectedObject {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

/// Readers of checkpoints collect their reasons as text.
impl From<UnexpectedObject> for String {
    fn from(error: UnexpectedObject) -> Self {
        error.to_string()
    }
}

/// Index of an object in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(u32);

/// The Python objects that occur in weight files.
#[derive(Debug, Clone, PartialEq)]
pub enum Object<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A longer integer in little-endian two's complement.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// A `str`.
    Text(&'a str),
    /// A `bytes`, or a `str` of Python 2.
    Bytes(&'a [u8]),
    /// A tuple.
    Tuple(Vec<ObjectId>),
    /// A list.
    List(Vec<ObjectId>),
    /// A dict or an `OrderedDict`; the last of equal keys counts.
    Dict(Vec<(ObjectId, ObjectId)>),
    /// The name of a function or class.
    Global(Global),
    /// A call that Python would have made.
    Call {
        /// The function or class.
        function: Global,
        /// A tuple.
        arguments: ObjectId,
        /// The argument of the new object's `__setstate__`.
        state: Option<ObjectId>,
    },
    /// An object stored outside the pickle, by its persistent id.
    Persistent(ObjectId),
}

/// The objects of one pickle.
#[derive(Debug, Clone)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: ObjectId,
}

impl<'a> Pickle<'a> {
    /// Maximum number of objects of one pickle; a network of a thousand layers has about ten thousand.
    pub const MOST_OBJECTS: usize = 1_000_000;

    /// Reads the pickle at `offset` of `file`. Also returns the offset after it.
    ///
    /// # Errors
    /// When the pickle is truncated, uses an opcode or a name outside the allow-lists, or has more than
    /// [`Pickle::MOST_OBJECTS`] objects.
    pub fn read(file: &'a [u8], offset: usize) -> Result<(Self, usize), PickleError> {
        machine::run(file, offset)
    }

    /// The object that `pickle.load` would return.
    pub fn root(&self) -> &Object<'a> {
        self.get(self.root)
    }

    /// The object with this id.
    pub fn get(&self, id: ObjectId) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    /// The elements of a tuple.
    ///
    /// # Errors
    /// When the object is not a tuple of `N` elements.
    pub fn tuple<const N: usize>(&self, id: ObjectId) -> Result<[ObjectId; N], UnexpectedObject> {
        let unexpected = |found: String| UnexpectedObject::new(format!("a tuple of {N}"), found);
        match self.get(id) {
            Object::Tuple(items) => <[ObjectId; N]>::try_from(items.as_slice())
                .map_err(|_| unexpected(format!("a tuple of {}", items.len()))),
            other => Err(unexpected(other.kind())),
        }
    }

    /// The contents of a `str`.
    ///
    /// # Errors
    /// When the object is not a `str`.
    pub fn text(&self, id: ObjectId) -> Result<&'a str, UnexpectedObject> {
        match self.get(id) {
            Object::Text(text) => Ok(text),
            Object::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| UnexpectedObject::new("text", "bytes")),
            other => Err(UnexpectedObject::new("text", other.kind())),
        }
    }

    /// The contents of a `bytes`, which Python 3 writes into protocol 2 as `_codecs.encode(text, "latin1")`.
    ///
    /// # Errors
    /// When the object is neither.
    pub fn bytes(&self, id: ObjectId) -> Result<Cow<'a, [u8]>, UnexpectedObject> {
        match self.get(id) {
            Object::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            &Object::Call { function: Global::CodecsEncode, arguments, .. } => {
                let [text, encoding] = self.tuple(arguments)?;
                let (text, encoding) = (self.text(text)?, self.text(encoding)?);
                if encoding != "latin1" {
                    return Err(UnexpectedObject::new("bytes encoded as latin1", format!("encoding {encoding:?}")));
                }
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
                let bytes = bytes.collect::<Result<Vec<_>, _>>();
                bytes.map(Cow::Owned).map_err(|_| UnexpectedObject::new("bytes encoded as latin1", "other text"))
            }
            other => Err(UnexpectedObject::new("bytes", other.kind())),
        }
    }

    /// A count, size or offset.
    ///
    /// # Errors
    /// When the object is not an integer, or a negative one.
    pub fn size(&self, id: ObjectId) -> Result<usize, UnexpectedObject> {
        match *self.get(id) {
            Object::Int(value) => {
                usize::try_from(value).map_err(|_| UnexpectedObject::new("a size", value.to_string()))
            }
            ref other => Err(UnexpectedObject::new("a size", other.kind())),
        }
    }

    /// A tuple of sizes, such as a shape.
    ///
    /// # Errors
    /// When the object is anything else.
    pub fn sizes(&self, id: ObjectId) -> Result<Vec<usize>, UnexpectedObject> {
        match self.get(id) {
            Object::Tuple(items) => items.iter().map(|&item| self.size(item)).collect(),
            other => Err(UnexpectedObject::new("a tuple of sizes", other.kind())),
        }
    }
}

impl Object<'_> {
    /// The kind of object, for messages.
    pub fn kind(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(_) => "a bool".into(),
            Self::Int(_) | Self::Long(_) => "an integer".into(),
            Self::Float(_) => "a float".into(),
            Self::Text(_) => "text".into(),
            Self::Bytes(_) => "bytes".into(),
            Self::Tuple(_) => "a tuple".into(),
            Self::List(_) => "a list".into(),
            Self::Dict(_) => "a dict".into(),
            Self::Global(global) => format!("the name {global}"),
            Self::Call { function, .. } => format!("a call of {function}"),
            Self::Persistent(_) => "a persistent id".into(),
        }
    }
}

#[cfg(test)]
mod tests;
