//! Where things stand in the roots and in STORE. docs/FORMAT.md, "Files".

use crate::error::{Error, Result};
use crate::types::{FileId, Name, RootId, Seq};
use std::path::{Path, PathBuf};

/// Directory of Weft's own in a root while it is not plain.
pub const OWN_DIR: &str = ".weft";
/// File in a root that says what to do when someone finds it.
pub const NOTICE: &str = "WEFT-NOT-UNMOUNTED";
/// Extended attribute on a root that keeps the store id.
pub const STORE_XATTR: &[u8] = b"user.weft.store";
/// Copies of a checkpoint in a root begin like this.
pub const COPY: &str = "checkpoint";

/// Top entries without which no server takes a directory for its data: first in, last out, each side synced.
pub const KEYSTONES: [&[u8]; 3] = [b"global", b"ibdata1", b"PG_VERSION"];

/// One root: DATA, or a further directory of the same journal. Each may be on a filesystem of its own.
#[derive(Clone, Debug)]
pub struct RootPaths {
    pub root: RootId,
    /// As given with `--root NAME=DIR`; empty for DATA.
    pub name: Name,
    pub dir: PathBuf,
}

impl RootPaths {
    pub fn own(&self) -> PathBuf {
        self.dir.join(OWN_DIR)
    }

    pub fn notice(&self) -> PathBuf {
        self.dir.join(NOTICE)
    }

    /// Directory of the live files, each named by its FileId.
    pub fn live_dir(&self) -> PathBuf {
        self.own().join("live")
    }

    pub fn live(&self, file: FileId) -> PathBuf {
        self.live_dir().join(file.0.to_string())
    }

    /// Directory of whole files kept as bases, on the root's own filesystem.
    pub fn limbo_dir(&self) -> PathBuf {
        self.own().join("limbo")
    }

    pub fn limbo(&self, file: FileId, adopted: Seq) -> PathBuf {
        self.limbo_dir().join(limbo_name(file, adopted))
    }

    /// Where the tree is put together before its entries go back.
    pub fn tree_dir(&self) -> PathBuf {
        self.own().join("tree")
    }

    /// The copy of the newest checkpoint that stays with the data: its name says whose it is.
    pub fn copy(&self) -> PathBuf {
        match self.root {
            RootId(0) => self.own().join(COPY),
            RootId(number) => self.own().join(format!("{COPY}.{number}")),
        }
    }

    /// The name for messages: `DATA`, or `root NAME`.
    pub fn shown(&self) -> String {
        match self.root {
            RootId(0) => "DATA".to_owned(),
            _ => format!("root {}", String::from_utf8_lossy(&self.name)),
        }
    }
}

/// Paths of the roots and their STORE.
#[derive(Clone, Debug)]
pub struct Paths {
    /// By number; DATA first.
    pub roots: Vec<RootPaths>,
    pub store: PathBuf,
}

impl Paths {
    /// DATA alone.
    pub fn new(data: &Path, store: &Path) -> Paths {
        let data = RootPaths { root: RootId(0), name: Name::new(), dir: data.to_path_buf() };
        Paths { roots: vec![data], store: store.to_path_buf() }
    }

    /// One root.
    pub fn root(&self, root: RootId) -> Result<&RootPaths> {
        let found = self.roots.iter().find(|paths| paths.root == root);
        found.ok_or_else(|| Error::corrupt("live.root", format!("there is no root {}", root.0)))
    }

    /// The live file of a file of a root.
    pub fn live(&self, root: RootId, file: FileId) -> Result<PathBuf> {
        Ok(self.root(root)?.live(file))
    }

    /// Where a clean unmount moves what is in limbo.
    pub fn store_limbo_dir(&self) -> PathBuf {
        self.store.join("limbo")
    }

    pub fn store_limbo(&self, file: FileId, adopted: Seq) -> PathBuf {
        self.store_limbo_dir().join(limbo_name(file, adopted))
    }

    pub fn checkpoint_dir(&self) -> PathBuf {
        self.store.join("checkpoint")
    }

    pub fn checkpoint(&self, id: u64) -> PathBuf {
        self.checkpoint_dir().join(format!("{id:010}.ckpt"))
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.store.join("journal")
    }

    pub fn base_dir(&self) -> PathBuf {
        self.store.join("base")
    }

    pub fn index_dir(&self) -> PathBuf {
        self.store.join("index")
    }

    /// Answers given while the journal could not be written.
    pub fn kept_pins(&self) -> PathBuf {
        self.store.join("pins")
    }

    pub fn lock(&self) -> PathBuf {
        self.store.join("lock")
    }

    /// Stands where a root's filesystem has no extended attributes, so that the root cannot say whose it is.
    pub fn unmarked(&self, root: RootId) -> PathBuf {
        match root {
            RootId(0) => self.store.join("data-without-mark"),
            RootId(number) => self.store.join(format!("root-{number}-without-mark")),
        }
    }

    /// The first file of a STORE: its id and format.
    pub fn superblock(&self) -> PathBuf {
        self.store.join("store")
    }
}

fn limbo_name(file: FileId, adopted: Seq) -> String {
    format!("{}.{}", file.0, adopted.0)
}

/// What a name in limbo is of.
pub(super) fn limbo_named(name: &[u8]) -> Option<(FileId, Seq)> {
    let (file, adopted) = std::str::from_utf8(name).ok()?.split_once('.')?;
    Some((FileId(file.parse().ok()?), Seq(adopted.parse().ok()?)))
}

/// A path's text as bytes joined below another.
pub fn join_bytes(base: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    base.join(std::ffi::OsStr::from_bytes(name))
}
