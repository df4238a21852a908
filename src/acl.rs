//! POSIX access control lists as arithmetic: reading and writing the form that extended attributes have, what a new
//! file inherits, what chmod(2) makes of a list, which mode stands for it. Rules: acl(5), POSIX 1003.1e draft 17 §23.
//!
//! - A list is in order: owner, named users, owning group, named groups, mask, others. One with named entries has a
//!   mask.
//! - Where there is a mask, the group bits of the mode are the mask; else they are the owning group's.
//! - A list that says no more than a mode (owner, group, others) is not kept: [`Acl::mode`] is it.

use crate::error::{Error, Result};

/// Extended attribute of the list that decides about a file.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Extended attribute of the list that a directory hands down.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Version of the extended attribute's form (linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// What stands for "no id" in an entry.
const NO_ID: u32 = u32::MAX;

/// Whom an entry is about; the order is that of a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Owner,
    User,
    Group,
    NamedGroup,
    Mask,
    Others,
}

impl Who {
    /// Number in the extended attribute (linux/posix_acl.h).
    fn tag(self) -> u16 {
        match self {
            Who::Owner => 0x01,
            Who::User => 0x02,
            Who::Group => 0x04,
            Who::NamedGroup => 0x08,
            Who::Mask => 0x10,
            Who::Others => 0x20,
        }
    }

    fn of(tag: u16) -> Option<Who> {
        [Who::Owner, Who::User, Who::Group, Who::NamedGroup, Who::Mask, Who::Others]
            .into_iter()
            .find(|who| who.tag() == tag)
    }

    fn is_named(self) -> bool {
        matches!(self, Who::User | Who::NamedGroup)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    who: Who,
    /// rwx as the lowest three bits.
    perm: u16,
    /// Of a named user or group.
    id: u32,
}

/// A valid list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// From an extended attribute's value; `None` for a list without entries, which is none.
    ///
    /// # Errors
    /// EINVAL for what the kernel would refuse (`posix_acl_valid` in fs/posix_acl.c); EOPNOTSUPP for another version.
    pub fn decode(value: &[u8]) -> Result<Option<Acl>> {
        let invalid = || Error::errno("acl.decode", libc::EINVAL);
        if value.is_empty() {
            return Ok(None);
        }
        let (header, rest) = value.split_first_chunk::<HEADER>().ok_or_else(invalid)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(Error::errno("acl.decode", libc::EOPNOTSUPP));
        }
        let (entries, left) = rest.as_chunks::<ENTRY>();
        if !left.is_empty() {
            return Err(invalid());
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entries: Option<Vec<Entry>> = entries.iter().map(entry_of).collect();
        let list = Acl(entries.ok_or_else(invalid)?);
        if list.is_valid() { Ok(Some(list)) } else { Err(invalid()) }
    }

    /// The extended attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER + self.0.len() * ENTRY);
        value.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            value.extend_from_slice(&entry.who.tag().to_le_bytes());
            value.extend_from_slice(&entry.perm.to_le_bytes());
            value.extend_from_slice(&if entry.who.is_named() { entry.id } else { NO_ID }.to_le_bytes());
        }
        value
    }

    fn is_valid(&self) -> bool {
        let ordered = self.0.windows(2).all(|pair| match pair {
            [left, right] => left.who < right.who || (left.who == right.who && left.who.is_named()),
            _ => true,
        });
        let has = |who| self.0.iter().any(|entry| entry.who == who);
        let named = self.0.iter().any(|entry| entry.who.is_named());
        ordered && has(Who::Owner) && has(Who::Group) && has(Who::Others) && (!named || has(Who::Mask))
    }

    /// Whether it says more than its mode does.
    pub fn is_extended(&self) -> bool {
        self.0.iter().any(|entry| entry.who.is_named() || entry.who == Who::Mask)
    }

    /// The permission bits that stand for it, `0o777` at most.
    pub fn mode(&self) -> u32 {
        self.0.iter().fold(0, |mode, entry| match self.shift(entry.who) {
            Some(shift) => mode | u32::from(entry.perm) << shift,
            None => mode,
        })
    }

    /// The list after chmod(2) to `mode`.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Acl {
        self.each_class(|bits, shift| *bits = class(mode, shift));
        self
    }

    /// What a file made with `mode` in a directory gets of that directory's default list: the mode that counts (the
    /// umask does not), and its own list if that is more than the mode.
    pub fn inherited(&self, mode: u32) -> (u32, Option<Acl>) {
        let mut list = self.clone();
        list.each_class(|bits, shift| *bits &= class(mode, shift));
        let mode = mode & !0o777 | list.mode();
        (mode, Some(list).filter(Acl::is_extended))
    }

    /// Where an entry stands in the mode; `None` for those that a mode does not show.
    fn shift(&self, who: Who) -> Option<u32> {
        match who {
            Who::Owner => Some(6),
            Who::Group if !self.is_extended() => Some(3),
            Who::Mask => Some(3),
            Who::Others => Some(0),
            Who::User | Who::Group | Who::NamedGroup => None,
        }
    }

    fn each_class(&mut self, mut change: impl FnMut(&mut u16, u32)) {
        let shifts: Vec<Option<u32>> = self.0.iter().map(|entry| self.shift(entry.who)).collect();
        for (entry, shift) in self.0.iter_mut().zip(shifts) {
            if let Some(shift) = shift {
                change(&mut entry.perm, shift);
            }
        }
    }
}

/// Three bits of a mode.
fn class(mode: u32, shift: u32) -> u16 {
    u16::try_from(mode >> shift & 0o7).unwrap_or(0)
}

fn entry_of(bytes: &[u8; ENTRY]) -> Option<Entry> {
    let [tag_low, tag_high, perm_low, perm_high, id @ ..] = *bytes;
    let who = Who::of(u16::from_le_bytes([tag_low, tag_high]))?;
    let perm = u16::from_le_bytes([perm_low, perm_high]);
    let id = if who.is_named() { u32::from_le_bytes(id) } else { NO_ID };
    let sound = perm <= 0o7 && (!who.is_named() || id != NO_ID);
    sound.then_some(Entry { who, perm, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A list from its short form: `u::rwx`, `u:7:r`, `m::rx`, ...
    fn list(text: &str) -> Acl {
        let entry = |part: &str| {
            let fields: Vec<&str> = part.split(':').collect();
            let id = fields[1].parse().ok();
            let who = match (fields[0], id) {
                ("u", None) => Who::Owner,
                ("u", _) => Who::User,
                ("g", None) => Who::Group,
                ("g", _) => Who::NamedGroup,
                ("m", _) => Who::Mask,
                _ => Who::Others,
            };
            let perm = fields[2].chars().map(|bit| match bit {
                'r' => 4,
                'w' => 2,
                _ => 1,
            });
            Entry { who, perm: perm.sum(), id: id.unwrap_or(NO_ID) }
        };
        Acl(text.split(',').map(entry).collect())
    }

    #[test]
    fn the_form_is_that_of_linux() {
        // What `setfacl -m u:1:r` leaves on a file of mode 0640 (read with getfattr on ext4).
        let value =
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x01\0\0\0\x04\0\x04\0\xff\xff\xff\xff\
                      \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        let read = Acl::decode(value).unwrap().unwrap();
        assert_eq!(read, list("u::rw,u:1:r,g::r,m::r,o::"));
        assert_eq!(read.encode(), value);
        assert_eq!(Acl::decode(&[2, 0, 0, 0]).unwrap(), None);
        assert_eq!(Acl::decode(&[]).unwrap(), None);
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for bad in [
            "u::r,g::r",            // no others
            "g::r,u::r,o::r",       // order
            "u::r,u::r,g::r,o::r",  // two owners
            "u::r,u:7:r,g::r,o::r", // named without mask
            "u::r,g::r,m::r,m::r,o::r",
        ] {
            let error = Acl::decode(&list(bad).encode()).unwrap_err();
            assert!(error.is(libc::EINVAL), "{bad}");
        }
        let mut value = list("u::r,g::r,o::r").encode();
        value.push(0);
        assert!(Acl::decode(&value).unwrap_err().is(libc::EINVAL));
        assert!(Acl::decode(&[1, 0, 0, 0]).unwrap_err().is(libc::EOPNOTSUPP));
        assert!(Acl::decode(&[2, 0, 0]).unwrap_err().is(libc::EINVAL));
    }

    #[test]
    fn the_mask_is_the_group_bits() {
        assert_eq!(list("u::rwx,u:7:rwx,g::r,m::rw,o::x").mode(), 0o761);
        assert_eq!(list("u::rw,g::r,o::").mode(), 0o640);
        assert!(!list("u::rw,g::r,o::").is_extended());
        assert!(list("u::rw,g::r,m::r,o::").is_extended());
    }

    #[test]
    fn chmod_changes_owner_mask_and_others() {
        let before = list("u::rwx,u:7:rwx,g::r,m::rwx,o::x");
        assert_eq!(before.with_mode(0o4750), list("u::rwx,u:7:rwx,g::r,m::rx,o::"));
        assert_eq!(list("u::r,g::r,o::r").with_mode(0o750), list("u::rwx,g::rx,o::"));
    }

    #[test]
    fn a_new_file_gets_the_default_list_below_its_mode() {
        let default = list("u::rwx,u:7:rwx,g::rx,m::rwx,o::");
        let (mode, own) = default.inherited(0o2666);
        assert_eq!((mode, own), (0o2660, Some(list("u::rw,u:7:rwx,g::rx,m::rw,o::"))));
        assert_eq!(list("u::rwx,g::rx,o::").inherited(0o666), (0o640, None));
    }

    fn any_list() -> impl Strategy<Value = Acl> {
        let named = |who| {
            proptest::collection::vec((0..8u16, 0..5u32), 0..3).prop_map(move |all| {
                all.into_iter().map(|(perm, id)| Entry { who, perm, id }).collect::<Vec<_>>()
            })
        };
        (named(Who::User), named(Who::NamedGroup), [0..8u16, 0..8, 0..8, 0..8], any::<bool>()).prop_map(
            |(users, groups, [owner, group, mask, others], masked)| {
                let own = |who, perm| Entry { who, perm, id: NO_ID };
                let masked = masked || !users.is_empty() || !groups.is_empty();
                let mut all = vec![own(Who::Owner, owner)];
                all.extend(users);
                all.push(own(Who::Group, group));
                all.extend(groups);
                all.extend(masked.then_some(own(Who::Mask, mask)));
                all.push(own(Who::Others, others));
                Acl(all)
            },
        )
    }

    proptest! {
        #[test]
        fn lists_come_back(list in any_list()) {
            prop_assert_eq!(Acl::decode(&list.encode()).unwrap(), Some(list));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Ok(Some(list)) = Acl::decode(&bytes) {
                prop_assert!(list.is_valid());
            }
        }

        #[test]
        fn chmod_makes_the_mode_what_was_asked(list in any_list(), mode in 0..0o10000u32) {
            prop_assert_eq!(list.with_mode(mode).mode(), mode & 0o777);
        }

        #[test]
        fn nothing_is_inherited_beyond_the_mode_or_the_list(list in any_list(), mode in 0..0o10000u32) {
            let (made, own) = list.inherited(mode);
            prop_assert_eq!(made & !0o777, mode & !0o777);
            prop_assert_eq!(made & 0o777, list.mode() & mode & 0o777);
            if let Some(own) = own {
                prop_assert_eq!(own.mode(), made & 0o777);
            }
        }
    }
}
