//! Where things stand in DATA and STORE. docs/FORMAT.md, "Files".

use crate::types::{FileId, Seq};
use std::path::{Path, PathBuf};

/// Directory of Weft's own in DATA while it is not plain.
pub const OWN_DIR: &str = ".weft";
/// File in DATA that says what to do when someone finds it.
pub const NOTICE: &str = "WEFT-NOT-UNMOUNTED";
/// Extended attribute on DATA that keeps the store id.
pub const STORE_XATTR: &[u8] = b"user.weft.store";

/// Top entries without which no server takes a directory for its data: first in, last out, each side synced.
pub const KEYSTONES: [&[u8]; 3] = [b"global", b"ibdata1", b"PG_VERSION"];

/// Paths of one DATA and its STORE.
#[derive(Clone, Debug)]
pub struct Paths {
    pub data: PathBuf,
    pub store: PathBuf,
}

impl Paths {
    pub fn own(&self) -> PathBuf {
        self.data.join(OWN_DIR)
    }

    pub fn notice(&self) -> PathBuf {
        self.data.join(NOTICE)
    }

    /// Directory of the live files, each named by its FileId.
    pub fn live_dir(&self) -> PathBuf {
        self.own().join("live")
    }

    pub fn live(&self, file: FileId) -> PathBuf {
        self.live_dir().join(file.0.to_string())
    }

    /// Directory of whole files kept as bases, on DATA's filesystem.
    pub fn limbo_dir(&self) -> PathBuf {
        self.own().join("limbo")
    }

    /// The same in STORE, where a clean unmount moves them.
    pub fn store_limbo_dir(&self) -> PathBuf {
        self.store.join("limbo")
    }

    /// Answers given while the journal could not be written.
    pub fn kept_pins(&self) -> PathBuf {
        self.store.join("pins")
    }

    pub fn limbo_name(file: FileId, adopted: Seq) -> String {
        format!("{}.{}", file.0, adopted.0)
    }

    pub fn limbo(&self, file: FileId, adopted: Seq) -> PathBuf {
        self.limbo_dir().join(Paths::limbo_name(file, adopted))
    }

    pub fn store_limbo(&self, file: FileId, adopted: Seq) -> PathBuf {
        self.store_limbo_dir().join(Paths::limbo_name(file, adopted))
    }

    /// Where the tree is put together before its entries go back into DATA.
    pub fn tree_dir(&self) -> PathBuf {
        self.own().join("tree")
    }

    /// The copy of the newest checkpoint that stays with the data.
    pub fn data_checkpoint(&self) -> PathBuf {
        self.own().join("checkpoint")
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

    pub fn lock(&self) -> PathBuf {
        self.store.join("lock")
    }

    /// Stands where DATA's filesystem has no extended attributes, so that DATA cannot say whose it is.
    pub fn unmarked(&self) -> PathBuf {
        self.store.join("data-without-mark")
    }

    /// The first file of a STORE: its id and format.
    pub fn superblock(&self) -> PathBuf {
        self.store.join("store")
    }
}

/// A path's text as bytes joined below another.
pub fn join_bytes(base: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    base.join(std::ffi::OsStr::from_bytes(name))
}
