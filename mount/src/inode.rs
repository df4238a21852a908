//! Inode numbers as the kernel sees them.
//!
//! - Live files: the [`FileId`] as it is; the root is 1 on both sides.
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
    pub fn of(ino: INodeNo) -> Node {
        let (slot, low) = (ino.0 >> SHIFT, ino.0 & (FileId::LIMIT - 1));
        match slot {
            0 => Node::Live(FileId(low)),
            Slot::ALIASES => Node::Alias(low),
            slot => Node::View(Slot(u32::try_from(slot).unwrap_or(u32::MAX)), FileId(low)),
        }
    }

    pub fn ino(self) -> INodeNo {
        INodeNo(match self {
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
        for node in [
            Node::Live(FileId::ROOT),
            Node::Live(file),
            Node::View(Slot(1), FileId::ROOT),
            Node::View(Slot::LAST, file),
            Node::Alias(0),
            Node::Alias(FileId::LIMIT - 1),
        ] {
            assert_eq!(Node::of(node.ino()), node);
        }
        assert_eq!(Node::Live(FileId::ROOT).ino(), INodeNo::ROOT);
    }
}
