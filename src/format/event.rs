//! What the journal says: one event per change, in one total order.
//!
//! Events carry the state *after* themselves (sizes, link counts, attributes), so that an indexer needs no memory of
//! its own: each entry of the index follows from one event alone.

use crate::types::{Attr, FileId, Name, RootId, Seq, Timestamp};

/// Extended attributes, each with its value.
pub type Xattrs = Vec<(Name, Vec<u8>)>;
/// Changes of extended attributes: new values, or `None` for one that goes.
pub type XattrChanges = Vec<(Name, Option<Vec<u8>>)>;

/// A directory entry's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    pub dir: FileId,
    pub name: Name,
}

/// Where a write's bytes stand: relative to the start of the group that holds the event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Byte offset from the start of the group.
    pub offset: u32,
    /// CRC-32 (IEEE) of the bytes.
    pub crc: u32,
}

/// A file appears: made by a user, or found beneath.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Birth {
    pub file: FileId,
    pub root: RootId,
    /// `None` only for the root directory itself.
    pub slot: Option<Slot>,
    pub attr: Attr,
    /// Target of a symlink; empty otherwise.
    pub target: Vec<u8>,
    /// Link count of the directory after (its subdirectories + 2); 0 for the root itself.
    pub dir_nlink: u32,
}

/// A change. `attr` is always the whole attribute of `file` after the change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A daemon took the store into use.
    Session {
        writeback: bool,
    },
    /// A new, empty file, directory, link or node, with the extended attributes (ACLs) that it inherits.
    Create(Birth, Xattrs),
    /// A file that was there before Weft (or appeared while unmounted): its bytes are its base.
    Adopt {
        birth: Birth,
        inode: u64,
    },
    /// The bytes of a known file were changed while unmounted: the present ones are its new base.
    Rebase {
        file: FileId,
        attr: Attr,
        inode: u64,
    },
    /// One more name for a file.
    Link {
        file: FileId,
        slot: Slot,
        attr: Attr,
    },
    /// A name goes; the file goes with the last one (`attr.nlink == 0`). Also rmdir.
    Unlink {
        file: FileId,
        slot: Slot,
        attr: Attr,
        dir_nlink: u32,
    },
    /// A name moves; what stood at `to` loses that name.
    Rename {
        file: FileId,
        from: Slot,
        to: Slot,
        attr: Attr,
        /// The file that stood at `to`, with its attributes after.
        replaced: Option<(FileId, Attr)>,
        from_nlink: u32,
        to_nlink: u32,
    },
    /// Two names swap what they stand for: after it `left` stands at `right_slot`'s place and vice versa.
    Exchange {
        left: FileId,
        left_slot: Slot,
        left_attr: Attr,
        right: FileId,
        right_slot: Slot,
        right_attr: Attr,
        /// Link count of `left_slot.dir` after.
        left_nlink: u32,
        /// Link count of `right_slot.dir` after.
        right_nlink: u32,
    },
    /// Bytes. At most 1 MiB each.
    Write {
        file: FileId,
        offset: u64,
        len: u32,
        size: u64,
        payload: Payload,
    },
    /// The size changes: bytes beyond `size` go, or a hole is added.
    Resize {
        file: FileId,
        old_size: u64,
        size: u64,
    },
    /// A range reads as zeros from now on.
    Zero {
        file: FileId,
        offset: u64,
        len: u64,
        size: u64,
    },
    /// Attributes were set. `explicit_mtime`: a program chose the modification time, it is not the kernel's batching.
    /// `xattrs`: what changes together with them (a mode and its ACL).
    SetAttr {
        file: FileId,
        attr: Attr,
        explicit_mtime: bool,
        xattrs: XattrChanges,
    },
    SetXattr {
        file: FileId,
        name: Name,
        value: Vec<u8>,
        ctime: Timestamp,
    },
    RemoveXattr {
        file: FileId,
        name: Name,
        ctime: Timestamp,
    },
    /// Everything before was asked to be durable (sync of the whole mount).
    Sync,
    /// A named instant; `remove` takes the name back.
    Tag {
        name: Name,
        at: Seq,
        remove: bool,
    },
    /// An instant is held for as long as from this event to `until`; not at all, and no longer, where that is past.
    Lease {
        id: u64,
        at: Seq,
        until: Timestamp,
        /// Who asked for it: text.
        by: Vec<u8>,
    },
    /// No later event has a timestamp at or below `at`. Written by early builds; a Pin says more.
    Close {
        at: Timestamp,
    },
    /// The wall clock stepped: `epoch` counts the steps, `wall` is its reading after it.
    Epoch {
        epoch: u32,
        wall: Timestamp,
    },
    /// A naming event of which one name or both are excluded from history: the present has them, no view does.
    Excluded {
        names: Excluded,
        event: Box<Event>,
    },
    /// The bytes of a file that bypassed the journal are history from here on: the present ones are its base.
    Capture {
        file: FileId,
        attr: Attr,
    },
    /// The bytes of a file are history no longer: they bypass the journal from here on.
    Release {
        file: FileId,
    },
    /// A name becomes excluded, or is so no longer, where it stands: the patterns were changed.
    Mark {
        file: FileId,
        slot: Slot,
        attr: Attr,
        dir_nlink: u32,
        excluded: bool,
    },
    /// One of several roots comes or goes. The first, DATA, has no such event.
    Root {
        root: RootId,
        /// Its directory; the Adopt of it follows the first of its events.
        file: FileId,
        /// As given with `--root NAME=DIR`.
        name: Name,
        stage: RootStage,
    },
    /// `at` was asked for and means the state after `seq`, for ever: of several for one time the first counts. No later
    /// event of the clock epoch of `seq` is at or before `at`.
    Pin {
        at: Timestamp,
        seq: Seq,
        /// It was answered while the journal could not be written, and stands before those that were not.
        kept: bool,
    },
    /// History is thinned: of the instants at or before `upto` only some remain. `kept`: those that remain of the ones
    /// that no earlier thinning covered, rising. `gone`: of those that earlier ones kept, these go too, rising.
    Thin {
        upto: Seq,
        kept: Vec<Seq>,
        gone: Vec<Seq>,
    },
}

/// Which names of a naming event are excluded from history. The first is the slot of a birth, link or unlink, the one
/// that a rename leaves, the left one of an exchange; the second the other of the last two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Excluded {
    pub first: bool,
    pub second: bool,
}

impl Excluded {
    /// Of an event with one name.
    pub fn one(first: bool) -> Excluded {
        Excluded { first, second: false }
    }

    /// The event as it is journaled.
    pub fn wrap(self, event: Event) -> Event {
        match self.first || self.second {
            true => Event::Excluded { names: self, event: Box::new(event) },
            false => event,
        }
    }
}

impl Event {
    /// Whether an instant after it may show something else than one before it.
    pub fn shows(&self) -> bool {
        !matches!(
            self,
            Event::Session { .. }
                | Event::Sync
                | Event::Tag { .. }
                | Event::Lease { .. }
                | Event::Close { .. }
                | Event::Epoch { .. }
                | Event::Pin { .. }
                | Event::Thin { .. }
        )
    }

    /// A naming event without its wrapping, and which of its names are excluded.
    pub fn unwrapped(&self) -> (&Event, Excluded) {
        match self {
            Event::Excluded { names, event } => (event, *names),
            event => (event, Excluded::default()),
        }
    }
}

/// Where a root is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootStage {
    /// What stands in it is being taken in: no instant shows it yet.
    Entering,
    /// From here on every instant has it.
    Present,
    /// It was taken out of the set; its entries were unlinked before.
    Left,
}

/// An event with its place in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub seq: Seq,
    /// Time of history: never falls within a clock epoch.
    pub ts: Timestamp,
    /// What the wall clock said.
    pub wall: Timestamp,
    pub event: Event,
}
