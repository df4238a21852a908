//! A whole tree as a value: names, bytes, modes, owners, links, xattrs, times.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Everything below a directory, by path relative to it; the directory itself is "".
pub type Tree = BTreeMap<PathBuf, Node>;

/// One name of a tree.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub kind: char,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub owner: (u32, u32),
    /// Names of the file; 0 for directories, whose count is the filesystem's own affair.
    pub nlink: u64,
    /// Bytes; 0 for directories.
    pub size: u64,
    pub content: u64,
    pub target: PathBuf,
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// The first name of this file in the tree: equal for hard links.
    pub first_name: PathBuf,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub rdev: u64,
}

/// What a comparison looks at beside everything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    All,
    /// All but the times, which two filesystems cannot have in common.
    ButTimes,
}

/// Reads the tree below `root`.
///
/// # Panics
/// On any I/O error: a tree that cannot be read is a failure of the test.
#[track_caller]
pub fn scan(root: &Path) -> Tree {
    let mut scan = Scan { root, tree: Tree::new(), seen: HashMap::new() };
    scan.add(Path::new(""));
    scan.tree
}

struct Scan<'a> {
    root: &'a Path,
    tree: Tree,
    /// First name of each inode with several names.
    seen: HashMap<(u64, u64), PathBuf>,
}

impl Scan<'_> {
    fn add(&mut self, path: &Path) {
        let full = if path.as_os_str().is_empty() { self.root.to_owned() } else { self.root.join(path) };
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("stat {}: {e}", full.display()));
        let node = self.node(path, &full, &meta);
        self.tree.insert(path.to_owned(), node);
        if meta.is_dir() {
            for name in names(&full) {
                self.add(&path.join(name));
            }
        }
    }

    fn node(&mut self, path: &Path, full: &Path, meta: &Metadata) -> Node {
        let is_dir = meta.is_dir();
        let first_name = if is_dir || meta.nlink() == 1 {
            path.to_owned()
        } else {
            self.seen.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_owned()).clone()
        };
        Node {
            kind: kind(meta),
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            nlink: if is_dir { 0 } else { meta.nlink() },
            size: if is_dir { 0 } else { meta.size() },
            content: if meta.is_file() { content(full, meta.size()) } else { 0 },
            target: if meta.is_symlink() { fs::read_link(full).expect("readlink") } else { PathBuf::new() },
            xattrs: xattrs(full),
            first_name,
            mtime: (meta.mtime(), meta.mtime_nsec()),
            rdev: meta.rdev(),
        }
    }
}

/// The names in a directory, sorted.
///
/// # Panics
/// When the listing names anything twice, or shows a name reserved for views.
#[track_caller]
pub fn names(dir: &Path) -> Vec<OsString> {
    let listing = fs::read_dir(dir).unwrap_or_else(|e| panic!("list {}: {e}", dir.display()));
    let mut names: Vec<OsString> = listing
        .map(|entry| entry.unwrap_or_else(|e| panic!("list {}: {e}", dir.display())).file_name())
        .collect();
    names.sort();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{} lists a name twice", dir.display());
    names
}

/// Compares, and shows the first differences.
///
/// # Panics
/// When the trees differ.
#[track_caller]
pub fn assert_same(label: &str, expected: &Tree, actual: &Tree, what: What) {
    let found = differences(expected, actual, what);
    assert!(
        found.is_empty(),
        "{label}: {} differences, the first:\n  {}",
        found.len(),
        found.iter().take(12).cloned().collect::<Vec<_>>().join("\n  ")
    );
}

/// One line for each name that is missing, new, or not as expected.
pub fn differences(expected: &Tree, actual: &Tree, what: What) -> Vec<String> {
    let mut found = Vec::new();
    for (path, want) in expected {
        match actual.get(path) {
            None => found.push(format!("{path:?}: missing")),
            Some(have) => found.extend(node_differences(path, want, have, what)),
        }
    }
    found.extend(
        actual
            .keys()
            .filter(|path| !expected.contains_key(*path))
            .map(|path| format!("{path:?}: unexpected")),
    );
    found
}

fn node_differences(path: &Path, want: &Node, have: &Node, what: What) -> Option<String> {
    let mut lines = Vec::new();
    let mut field = |name: &str, want: &dyn std::fmt::Debug, have: &dyn std::fmt::Debug, same: bool| {
        if !same {
            lines.push(format!("{name} expected {want:?}, is {have:?}"));
        }
    };
    field("kind", &want.kind, &have.kind, want.kind == have.kind);
    field("mode", &format!("{:o}", want.mode), &format!("{:o}", have.mode), want.mode == have.mode);
    field("owner", &want.owner, &have.owner, want.owner == have.owner);
    field("nlink", &want.nlink, &have.nlink, want.nlink == have.nlink);
    field("size", &want.size, &have.size, want.size == have.size);
    field("content", &want.content, &have.content, want.content == have.content);
    field("target", &want.target, &have.target, want.target == have.target);
    field("xattrs", &want.xattrs, &have.xattrs, want.xattrs == have.xattrs);
    field("first name", &want.first_name, &have.first_name, want.first_name == have.first_name);
    field("rdev", &want.rdev, &have.rdev, want.rdev == have.rdev);
    let times_matter = what == What::All;
    field("mtime", &want.mtime, &have.mtime, !times_matter || want.mtime == have.mtime);
    (!lines.is_empty()).then(|| format!("{path:?}: {}", lines.join("; ")))
}

fn kind(meta: &Metadata) -> char {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_file() => 'f',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () => '?',
    }
}

/// A hash of the bytes, which must be as many as stat says.
#[track_caller]
fn content(path: &Path, size: u64) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    assert_eq!(bytes.len() as u64, size, "{}: read gives another length than stat", path.display());
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    hasher.finish()
}

/// All extended attributes but Weft's own mark on DATA.
#[track_caller]
pub fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let list = grow(|buffer| {
        let path = c_path(path);
        // SAFETY: the buffer's length is passed with it.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    let list = list.unwrap_or_else(|e| panic!("list xattrs of {}: {e}", path.display()));
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .filter(|name| !name.windows(4).any(|part| part == b"weft"))
        .map(|name| (OsString::from_vec(name.to_vec()), xattr(path, name)))
        .collect()
}

fn xattr(path: &Path, name: &[u8]) -> Vec<u8> {
    let c_name = CString::new(name).expect("no NUL");
    let value = grow(|buffer| {
        let path = c_path(path);
        // SAFETY: the buffer's length is passed with it.
        unsafe { libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    });
    value.unwrap_or_else(|e| panic!("xattr {c_name:?} of {}: {e}", path.display()))
}

fn grow(call: impl Fn(&mut [u8]) -> isize) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    match call(&mut buffer) {
        -1 => Err(std::io::Error::last_os_error()),
        length => {
            buffer.truncate(length as usize);
            Ok(buffer)
        }
    }
}

/// A path for libc.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL")
}
