//! Inode numbers as the kernel sees them.
//!
//! - Live files: the [`FileId`] as it is. The directory of the mount's root is 1 to the kernel, whatever its [`FileId`].
//! - Files of a view: the view's slot above bit 42, the `FileId` below. Slot 0 is the live tree.
//! - Alias symlinks (`@ts=` in another spelling): the highest slot, a running number below.

use fuser::INodeNo;
use weft::types::FileId;

const SHIFT: u32 = 42;
const _: () = assert!(FileId::LIMIT == 1 << SHIFT);

/// Number of an open view, 1 to [`Slot::LAST`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

impl Slot {
    const ALIASES: u64 = (1 << (u64::BITS - SHIFT)) - 1;
    /// The highest slot a view may have.
    pub const LAST: Slot = Slot((Slot::ALIASES - 1) as u32);
}

/// What an inode number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    Live(FileId),
    View(Slot, FileId),
    Alias(u64),
}

impl Node {
    /// In the mount of the root whose directory is `top`.
    pub fn of(ino: INodeNo, top: FileId) -> Node {
        let (slot, low) = (ino.0 >> SHIFT, ino.0 & (FileId::LIMIT - 1));
        match slot {
            0 if ino == INodeNo::ROOT => Node::Live(top),
            0 => Node::Live(FileId(low)),
            Slot::ALIASES => Node::Alias(low),
            slot => Node::View(Slot(u32::try_from(slot).unwrap_or(u32::MAX)), FileId(low)),
        }
    }

    /// In the mount of the root whose directory is `top`.
    pub fn ino(self, top: FileId) -> INodeNo {
        INodeNo(match self {
            Node::Live(file) if file == top => INodeNo::ROOT.0,
            Node::Live(file) => file.0,
            Node::View(slot, file) => u64::from(slot.0) << SHIFT | file.0,
            Node::Alias(number) => Slot::ALIASES << SHIFT | number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        let file = FileId(FileId::LIMIT - 1);
        for top in [FileId::ROOT, FileId(77)] {
            for node in [
                Node::Live(top),
                Node::Live(file),
                Node::View(Slot(1), top),
                Node::View(Slot::LAST, file),
                Node::Alias(0),
                Node::Alias(FileId::LIMIT - 1),
            ] {
                assert_eq!(Node::of(node.ino(top), top), node);
            }
            assert_eq!(Node::Live(top).ino(top), INodeNo::ROOT);
        }
    }
}
