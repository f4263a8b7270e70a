//! A file layer below SQLite (a VFS, <https://sqlite.org/vfs.html>) that is the system's own, until the files of a folder
//! are to fail: then every write to them, every truncation and every sync gives the result code that was asked for.
#![allow(unsafe_code, reason = "SQLite's file layer is a C interface")]

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use libsqlite3_sys::{
    SQLITE_OK, sqlite3_file, sqlite3_initialize, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};

/// Folders whose files fail, and how.
static FAULTS: Mutex<Vec<(PathBuf, c_int)>> = Mutex::new(Vec::new());
/// Open files, by address: the folder they lie in, and the system's own methods.
static FILES: Mutex<Option<HashMap<usize, (PathBuf, Methods)>>> = Mutex::new(None);
/// The system's own layer.
static SYSTEM: OnceLock<System> = OnceLock::new();

#[derive(Clone, Copy)]
struct Methods(*const sqlite3_io_methods);

struct System(sqlite3_vfs);

// SAFETY: both are tables of functions that never change.
unsafe impl Send for Methods {}
unsafe impl Send for System {}
unsafe impl Sync for System {}

/// Fails every write to the databases of a folder until it is dropped.
pub struct Faulty(PathBuf);

impl Faulty {
    /// From now on, writes below `folder` give this result code.
    pub fn writes(folder: &Path, code: c_int) -> Self {
        FAULTS.lock().unwrap().push((folder.to_owned(), code));
        Self(folder.to_owned())
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        FAULTS.lock().unwrap().retain(|(folder, _)| *folder != self.0);
    }
}

/// Puts this layer in the place of the system's own, for all databases that are opened from now on.
pub fn install() {
    SYSTEM.get_or_init(|| {
        // SAFETY: SQLite is initialized; the default layer exists for good, and so does the copy that is registered.
        unsafe {
            assert_eq!(sqlite3_initialize(), SQLITE_OK);
            let system = *sqlite3_vfs_find(std::ptr::null());
            let faulty =
                sqlite3_vfs { zName: c"faulty".as_ptr(), xOpen: Some(open), pNext: std::ptr::null_mut(), ..system };
            assert_eq!(sqlite3_vfs_register(Box::into_raw(Box::new(faulty)), 1), SQLITE_OK);
            System(system)
        }
    });
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let system = SYSTEM.wait();
    // SAFETY: SQLite gives a file of the size that the system's layer asks for; names end with a zero.
    unsafe {
        let code = system.0.xOpen.unwrap()(vfs, name, file, flags, out);
        if code == SQLITE_OK && !name.is_null() && !(*file).pMethods.is_null() {
            let path = Path::new(OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
            let folder = path.parent().unwrap_or(path).to_owned();
            let own = Methods((*file).pMethods);
            let faulty =
                sqlite3_io_methods { xWrite: Some(write), xTruncate: Some(truncate), xSync: Some(sync), ..*own.0 };
            (*file).pMethods = Box::leak(Box::new(faulty));
            FILES.lock().unwrap().get_or_insert_default().insert(file as usize, (folder, own));
        }
        code
    }
}

/// The system's methods of a file, or the code that it fails with.
fn own(file: *mut sqlite3_file) -> Result<*const sqlite3_io_methods, c_int> {
    let files = FILES.lock().unwrap();
    let (folder, own) = &files.as_ref().unwrap()[&(file as usize)];
    match FAULTS.lock().unwrap().iter().find(|(faulty, _)| faulty == folder) {
        Some((_, code)) => Err(*code),
        None => Ok(own.0),
    }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, bytes: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: the arguments are SQLite's, for the system's function.
    own(file).map_or_else(|code| code, |own| unsafe { (*own).xWrite.unwrap()(file, from, bytes, at) })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    // SAFETY: as above.
    own(file).map_or_else(|code| code, |own| unsafe { (*own).xTruncate.unwrap()(file, size) })
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as above.
    own(file).map_or_else(|code| code, |own| unsafe { (*own).xSync.unwrap()(file, flags) })
}
