//! A restricted reader of Python pickles (protocols 2 to 5).
//!
//! A pickle is a program for a small stack machine. This machine knows the instructions that build values; it yields
//! plain values and *named* constructors with their arguments, and executes nothing: `REDUCE` records a call, it does
//! not make one. Names outside a short [allow-list](Global) are an error.
//!
//! All objects of a pickle live in one table and refer to each other by index. That keeps shared and even cyclic
//! objects cheap and makes nesting as deep as it likes harmless: neither reading nor dropping recurses.
//!
//! The instructions are those of CPython's `Lib/pickletools.py`.

mod global;
mod machine;

use std::borrow::Cow;

pub use global::{Global, Storage};

/// Why a pickle cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pickle, byte {offset}: {why}")]
pub struct PickleError {
    /// Position of the instruction in the file.
    pub offset: usize,
    /// What is wrong there.
    pub why: String,
}

/// Index of an object in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(u32);

/// A Python object, as far as weight files need them.
#[derive(Debug, Clone, PartialEq)]
pub enum Object<'a> {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A longer integer: its little-endian two's complement.
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
    /// A dict or an `OrderedDict`; of equal keys the last one counts.
    Dict(Vec<(ObjectId, ObjectId)>),
    /// The name of a function or class.
    Global(Global),
    /// A call that Python would have made.
    Call {
        /// What would have been called.
        function: Global,
        /// A tuple.
        arguments: ObjectId,
        /// What the new object's `__setstate__` would have got.
        state: Option<ObjectId>,
    },
    /// An object that lives outside the pickle, by whatever identifies it.
    Persistent(ObjectId),
}

/// The objects of one pickle.
#[derive(Debug, Clone)]
pub struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: ObjectId,
}

impl<'a> Pickle<'a> {
    /// Most objects of one pickle; a network of a thousand layers has some ten thousand.
    pub const MOST_OBJECTS: usize = 1_000_000;

    /// Reads the pickle that `file` holds at `offset`; also gives the offset behind it.
    ///
    /// # Errors
    /// When the pickle is truncated, uses an instruction or a name outside the allow-lists, or is larger than
    /// [`Pickle::MOST_OBJECTS`].
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
    /// When the object is no tuple of `N` elements.
    pub fn tuple<const N: usize>(&self, id: ObjectId) -> Result<[ObjectId; N], String> {
        match self.get(id) {
            Object::Tuple(items) => <[ObjectId; N]>::try_from(items.as_slice())
                .map_err(|_| format!("expected a tuple of {N}, found one of {}", items.len())),
            other => Err(format!("expected a tuple of {N}, found {}", other.kind())),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// When the object is no `str`.
    pub fn text(&self, id: ObjectId) -> Result<&'a str, String> {
        match self.get(id) {
            Object::Text(text) => Ok(text),
            Object::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| "expected text, found bytes".into()),
            other => Err(format!("expected text, found {}", other.kind())),
        }
    }

    /// The bytes; Python 3 writes them into protocol 2 as `_codecs.encode(text, "latin1")`.
    ///
    /// # Errors
    /// When the object is neither.
    pub fn bytes(&self, id: ObjectId) -> Result<Cow<'a, [u8]>, String> {
        match self.get(id) {
            Object::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            &Object::Call { function: Global::CodecsEncode, arguments, .. } => {
                let [text, encoding] = self.tuple(arguments)?;
                let (text, encoding) = (self.text(text)?, self.text(encoding)?);
                if encoding != "latin1" {
                    return Err(format!("expected bytes encoded as latin1, found {encoding:?}"));
                }
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c)));
                let bytes = bytes.collect::<Result<Vec<_>, _>>().map_err(|_| "the text is not latin1")?;
                Ok(Cow::Owned(bytes))
            }
            other => Err(format!("expected bytes, found {}", other.kind())),
        }
    }

    /// A count, size or offset.
    ///
    /// # Errors
    /// When the object is no integer, or a negative one.
    pub fn size(&self, id: ObjectId) -> Result<usize, String> {
        match *self.get(id) {
            Object::Int(value) => usize::try_from(value).map_err(|_| format!("expected a size, found {value}")),
            ref other => Err(format!("expected a size, found {}", other.kind())),
        }
    }

    /// A tuple of sizes, such as a shape.
    ///
    /// # Errors
    /// When the object is anything else.
    pub fn sizes(&self, id: ObjectId) -> Result<Vec<usize>, String> {
        match self.get(id) {
            Object::Tuple(items) => items.iter().map(|&item| self.size(item)).collect(),
            other => Err(format!("expected a tuple of sizes, found {}", other.kind())),
        }
    }
}

impl Object<'_> {
    /// What kind of object this is, for messages.
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
