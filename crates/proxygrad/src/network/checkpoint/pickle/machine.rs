//! Stack machine that executes the opcodes of a pickle.

use std::collections::HashMap;

use super::{Global, Object, ObjectId, Pickle, PickleError};

/// Runs the pickle at `start`. Also returns the offset after it.
pub(super) fn run(file: &[u8], start: usize) -> Result<(Pickle<'_>, usize), PickleError> {
    let mut machine = Machine {
        code: file,
        next: start,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let offset = machine.next;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((Pickle { objects: machine.objects, root }, machine.next)),
            Err(why) => return Err(PickleError { offset, why }),
        }
    }
}

struct Machine<'a> {
    code: &'a [u8],
    next: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<ObjectId>,
    /// Heights of the stack at each `MARK`.
    marks: Vec<usize>,
    memo: HashMap<usize, ObjectId>,
}

impl<'a> Machine<'a> {
    /// Executes one opcode; returns the result if it was `STOP`.
    fn step(&mut self) -> Result<Option<ObjectId>, String> {
        match self.byte()? {
            // PROTO, FRAME. Protocol 5 adds out-of-band buffers, whose opcodes are rejected below.
            0x80 => match self.byte()? {
                2..=5 => {}
                protocol => return Err(format!("protocol {protocol} is not supported; expected 2 to 5")),
            },
            0x95 => self.array::<8>().map(drop)?,
            b'.' => return self.pop().map(Some),

            b'N' => self.push(Object::None)?,
            0x88 => self.push(Object::Bool(true))?,
            0x89 => self.push(Object::Bool(false))?,
            b'K' => {
                let value = self.byte()?;
                self.push(Object::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(value.into()))?;
            }
            // LONG1, LONG4
            0x8a => {
                let length = self.byte()?.into();
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Object::Float(value))?;
            }

            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => {
                let length = self.byte()?.into();
                self.text(length)?;
            }
            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // SHORT_BINBYTES and SHORT_BINSTRING; BINBYTES and BINSTRING; BINBYTES8 and BYTEARRAY8
            b'C' | b'U' => {
                let length = self.byte()?.into();
                self.bytes(length)?;
            }
            b'B' | b'T' => {
                let length = self.length4()?;
                self.bytes(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.bytes(length)?;
            }

            // EMPTY_TUPLE, TUPLE1..3, MARK, TUPLE
            b')' => self.push(Object::Tuple(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b'(' => {
                within_limit(self.marks.len())?;
                self.marks.push(self.stack.len());
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items))?;
            }
            // EMPTY_LIST, LIST, APPEND, APPENDS
            b']' => self.push(Object::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.push(Object::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict(Vec::new()))?;
                self.set(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }

            // POP, POP_MARK, DUP
            b'0' => self.pop().map(drop)?,
            b'1' => self.pop_to_mark().map(drop)?,
            b'2' => {
                let top = self.top()?;
                self.put(top)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' => {
                let key = self.byte()?.into();
                self.remember(key)?;
            }
            b'r' => {
                let key = self.length4()?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' => {
                let key = self.byte()?.into();
                self.recall(key)?;
            }
            b'j' => {
                let key = self.length4()?;
                self.recall(key)?;
            }

            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.object(module), self.object(name)) {
                    (&Object::Text(module), &Object::Text(name)) => self.global(module, name)?,
                    _ => return Err("a name is not text".into()),
                }
            }
            // REDUCE, NEWOBJ: the call is recorded, not made.
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.call(function, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            other => return Err(format!("opcode 0x{other:02x} is not allowed in a weight file")),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let left = self.code.get(self.next..).unwrap_or_default();
        let taken = left
            .get(..length)
            .ok_or_else(|| format!("the file is truncated: expected {length} more bytes, found {}", left.len()))?;
        self.next += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "the file is truncated".into())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn length4(&mut self) -> Result<usize, String> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|e| e.to_string())
    }

    fn length8(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let left = self.code.get(self.next..).unwrap_or_default();
        let length = left.iter().position(|&byte| byte == b'\n').ok_or("the file is truncated within a name")?;
        let line = &self.take(length + 1)?[..length];
        std::str::from_utf8(line).map_err(|_| "a name is not text".into())
    }

    fn long(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        let value = if length <= 8 {
            let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [sign; 8];
            wide[..length].copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(wide))
        } else {
            Object::Long(bytes)
        };
        self.push(value).map(drop)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|e| format!("a string is not UTF-8: {e}"))?;
        self.push(Object::Text(text)).map(drop)
    }

    fn bytes(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        self.push(Object::Bytes(bytes)).map(drop)
    }

    fn object(&self, id: ObjectId) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), String> {
        within_limit(self.objects.len())?;
        let id = ObjectId(u32::try_from(self.objects.len()).map_err(|e| e.to_string())?);
        self.objects.push(object);
        self.put(id)
    }

    fn put(&mut self, id: ObjectId) -> Result<(), String> {
        within_limit(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<ObjectId, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = (self.stack.len() > floor).then(|| self.stack.pop()).flatten();
        top.ok_or_else(|| "an opcode finds too few values on the stack".into())
    }

    fn top(&self) -> Result<ObjectId, String> {
        self.stack.last().copied().ok_or_else(|| "an opcode finds too few values on the stack".into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<ObjectId>, String> {
        let mark = self.marks.pop().ok_or("an opcode finds no mark on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, length: usize) -> Result<(), String> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Object::Tuple(items))
    }

    fn append(&mut self, items: &[ObjectId]) -> Result<(), String> {
        let list = self.top()?;
        match &mut self.objects[list.0 as usize] {
            Object::List(list) => list.extend_from_slice(items),
            other => return Err(format!("cannot append to {}", other.kind())),
        }
        Ok(())
    }

    fn set(&mut self, items: &[ObjectId]) -> Result<(), String> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a dict key has no value".into());
        };
        match &mut self.objects[dict.0 as usize] {
            Object::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            other => return Err(format!("cannot set items of {}", other.kind())),
        }
        Ok(())
    }

    fn remember(&mut self, key: usize) -> Result<(), String> {
        let top = self.top()?;
        within_limit(self.memo.len())?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or_else(|| format!("memo entry {key} does not exist"))?;
        self.put(id)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let not_allowed = || {
            let name: String = format!("{module}.{name}").chars().take(100).collect();
            format!("the name {name:?} is not allowed in a weight file")
        };
        let global = Global::find(module, name).ok_or_else(not_allowed)?;
        self.push(Object::Global(global))
    }

    fn call(&mut self, function: ObjectId, arguments: ObjectId) -> Result<(), String> {
        let &Object::Global(function) = self.object(function) else {
            return Err(format!("cannot call {}", self.object(function).kind()));
        };
        match (function, self.object(arguments)) {
            (Global::OrderedDict, Object::Tuple(items)) if items.is_empty() => self.push(Object::Dict(Vec::new())),
            (_, Object::Tuple(_)) => self.push(Object::Call { function, arguments, state: None }),
            (_, other) => Err(format!("cannot call {function} with {}", other.kind())),
        }
    }

    fn build(&mut self, new: ObjectId) -> Result<(), String> {
        let object = self.top()?;
        match &mut self.objects[object.0 as usize] {
            Object::Call { state: state @ None, .. } => *state = Some(new),
            // Attributes of an OrderedDict, such as the `_metadata` of a state dict, are not weights.
            Object::Dict(_) => {}
            other => return Err(format!("cannot set the state of {}", other.kind())),
        }
        Ok(())
    }
}

fn within_limit(count: usize) -> Result<(), String> {
    if count < Pickle::MOST_OBJECTS {
        Ok(())
    } else {
        Err(format!("the pickle has more than {} objects", Pickle::MOST_OBJECTS))
    }
}
