//! L0: the nouns every layer speaks. Bare integers for these never cross a function boundary.

mod page_set;

pub use page_set::PageSet;

use std::fmt;

/// Identity of a file, directory, link or node. Weft's own: never reused, unlike an inode number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

impl FileId {
    /// The root directory of the first (or only) root. Later roots get ids as they are added.
    pub const ROOT: FileId = FileId(1);
    /// Ids stay below 2^42 so that a mount can put a view's number beside one in a 64-bit inode number.
    pub const LIMIT: u64 = 1 << 42;
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

/// Position of an event in the one total order of a journal. The first event is 1; 0 is "before history".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Seq(pub u64);

impl Seq {
    /// Before any event.
    pub const ZERO: Seq = Seq(0);

    /// The next position.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Microseconds since the Unix epoch, UTC: the time axis of history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// 0000-01-01T00:00:00Z: earlier years have no four-digit spelling.
    pub const FIRST: Timestamp = Timestamp(-62_167_219_200_000_000);
    /// 9999-12-30T00:00:00Z: no clock is believed beyond it, so that a little later still has a name.
    pub const LAST: Timestamp = Timestamp(253_402_128_000_000_000);

    /// One microsecond later.
    #[must_use]
    pub fn next(self) -> Timestamp {
        Timestamp(self.0 + 1)
    }
}

impl fmt::Display for Timestamp {
    /// `2026-11-23T10:00:00.000000Z`; what has no four-digit year as the nearest that has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = jiff::Timestamp::MAX.as_microsecond();
        let utc = jiff::Timestamp::from_microsecond(self.0.clamp(Timestamp::FIRST.0, last))
            .map_or(jiff::civil::DateTime::MAX, |ts| jiff::tz::Offset::UTC.to_datetime(ts));
        let micros = utc.subsec_nanosecond() / 1_000;
        write!(f, "{:04}-{:02}-{:02}T", utc.year(), utc.month(), utc.day())?;
        write!(f, "{:02}:{:02}:{:02}.{micros:06}Z", utc.hour(), utc.minute(), utc.second())
    }
}

/// A file time with the kernel's resolution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileTime {
    /// Seconds since the Unix epoch.
    pub secs: i64,
    /// Nanoseconds within the second, below 1_000_000_000.
    pub nanos: u32,
}

impl From<Timestamp> for FileTime {
    fn from(ts: Timestamp) -> FileTime {
        let micros = u32::try_from(ts.0.rem_euclid(1_000_000)).unwrap_or(0);
        FileTime { secs: ts.0.div_euclid(1_000_000), nanos: micros * 1_000 }
    }
}

/// Index of a 4 KiB page in a file: the unit of the index and of base records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageNo(pub u64);

/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// [`PAGE`] for lengths in memory.
pub const PAGE_LEN: usize = 4096;

/// Number of a journal segment, and of its file's name. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNo(pub u64);

/// Which of several roots in one journal a file belongs to. The first is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RootId(pub u16);

/// Ties DATA and STORE together: random, made with the STORE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// Everything `stat` tells of a file but its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    pub kind: FileKind,
    /// Permission bits including setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Device number of a character or block device, as the kernel encodes it.
    pub rdev: u32,
    pub nlink: u32,
    /// Bytes. For a symlink the length of its target; 0 for other kinds without data.
    pub size: u64,
    pub atime: FileTime,
    pub mtime: FileTime,
    pub ctime: FileTime,
}

/// One name of a directory entry: any bytes but `/` and NUL, 1 to 255 of them.
pub type Name = Vec<u8>;

/// Longest name, in bytes.
pub const NAME_MAX: usize = 255;

/// Where durable bytes stand. The kinds are those of the format (docs/FORMAT.md, "Locations"); only some are
/// produced yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Location {
    /// Payload in a journal segment, at a byte offset of its file.
    Journal { segment: SegmentNo, offset: u64 },
    /// A saved pre-image in a base file of the STORE.
    Base { number: u64, offset: u64 },
    /// A page composed by the indexer in a page file of the STORE (rebuildable).
    PageFile { number: u64, offset: u64 },
    /// All zero; stored nowhere.
    Zero,
}
