//! One file, directory, link or node of the present, and how an event changes it.
//!
//! The same function changes it when a user writes and when recovery replays: live = fold(journal).

use super::activity::Counters;
use super::content::{Base, Content};
use super::overlay::Source;
use crate::format::event::{Event, XattrChanges};
use crate::journal::Extent;
use crate::sync::{Mutex, MutexGuard};
use crate::types::{Attr, FileId, FileKind, Name, RootId, Seq, Timestamp};
use std::collections::BTreeMap;

/// What changes of a node.
pub struct NodeState {
    pub attr: Attr,
    /// Seq of the last event in here.
    pub seq: Seq,
    pub xattrs: BTreeMap<Name, Vec<u8>>,
    /// Open handles.
    pub open: u32,
    /// Of regular files.
    pub content: Content,
    /// Time of the newest event that changed bytes.
    pub data_ts: Timestamp,
    /// Work since the last sweep, if there was any.
    pub counters: Option<Box<Counters>>,
}

/// See the head of this file.
pub struct Node {
    pub file: FileId,
    pub root: RootId,
    pub kind: FileKind,
    /// Target of a symlink.
    pub target: Vec<u8>,
    state: Mutex<NodeState>,
}

impl Node {
    pub fn new(file: FileId, root: RootId, target: Vec<u8>, attr: Attr, seq: Seq) -> Node {
        let state = NodeState {
            attr,
            seq,
            xattrs: BTreeMap::new(),
            open: 0,
            content: Content::default(),
            data_ts: Timestamp::default(),
            counters: None,
        };
        Node { file, root, kind: attr.kind, target, state: Mutex::new(state) }
    }

    pub fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock()
    }
}

impl NodeState {
    /// Whether an event at `seq` is new to this node; if so it is noted as seen.
    fn advance(&mut self, seq: Seq) -> bool {
        let new = seq > self.seq;
        if new {
            self.seq = seq;
        }
        new
    }

    /// Takes the attributes that a naming event gives.
    pub fn set_attr(&mut self, seq: Seq, attr: Attr) {
        if self.advance(seq) {
            self.attr = attr;
        }
    }

    /// As a directory: an entry came or went.
    pub fn entries_changed(&mut self, seq: Seq, ts: Timestamp, nlink: u32) {
        if self.advance(seq) {
            self.attr.nlink = nlink;
            self.attr.mtime = ts.into();
            self.attr.ctime = ts.into();
        }
    }

    /// Applies an event on this node alone (bytes, size, attributes). Bytes are folded whatever `seq` is: a
    /// checkpoint's attributes may be newer than its bytes.
    pub fn apply(&mut self, seq: Seq, ts: Timestamp, event: &Event, extent: Option<Extent>) {
        match event {
            Event::Write { offset, len, size, .. } => {
                if let Some(extent) = extent {
                    self.content.put(*offset, u64::from(*len), seq, Source::Journal(extent));
                }
                self.bytes_changed(seq, ts, *size);
            }
            Event::Zero { offset, len, size, .. } => {
                self.content.zero(*offset, *len, *size, seq);
                self.bytes_changed(seq, ts, *size);
            }
            Event::Resize { old_size, size, .. } => {
                self.content.resize(*old_size, *size, seq);
                self.bytes_changed(seq, ts, *size);
            }
            Event::SetAttr { attr, xattrs, .. } => self.set_attrs(seq, *attr, xattrs),
            Event::Rebase { attr, .. } => {
                self.content = Content::adopted(Base::new(seq, attr.size));
                self.set_attr(seq, *attr);
            }
            Event::Capture { attr, .. } => {
                self.content.capture(seq, attr.size);
                self.set_attr(seq, *attr);
            }
            Event::Release { .. } => {
                self.content.direct = true;
                self.advance(seq);
            }
            Event::SetXattr { name, value, ctime, .. } => self.set_xattr(seq, name, Some(value), *ctime),
            Event::RemoveXattr { name, ctime, .. } => self.set_xattr(seq, name, None, *ctime),
            _ => {}
        }
    }

    fn set_attrs(&mut self, seq: Seq, attr: Attr, xattrs: &XattrChanges) {
        if !self.advance(seq) {
            return;
        }
        self.attr = attr;
        for (name, value) in xattrs {
            self.put_xattr(name, value.as_ref());
        }
    }

    fn set_xattr(&mut self, seq: Seq, name: &Name, value: Option<&Vec<u8>>, ctime: Timestamp) {
        if self.advance(seq) {
            self.put_xattr(name, value);
            self.attr.ctime = ctime.into();
        }
    }

    fn put_xattr(&mut self, name: &Name, value: Option<&Vec<u8>>) {
        match value {
            Some(value) => drop(self.xattrs.insert(name.clone(), value.clone())),
            None => drop(self.xattrs.remove(name)),
        }
    }

    fn bytes_changed(&mut self, seq: Seq, ts: Timestamp, size: u64) {
        self.data_ts = ts;
        if self.advance(seq) {
            self.attr.size = size;
            self.attr.mtime = ts.into();
            self.attr.ctime = ts.into();
        }
    }
}
