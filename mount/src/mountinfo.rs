//! /proc/self/mountinfo (proc_pid_mountinfo(5)): which mounts there are, and which of them are Weft's.
//!
//! A Weft mount carries its STORE in its source: `weft:` and the path, with every byte but plain ones as `%XX`, so that
//! neither mount helpers nor this file's own escapes touch it.

use crate::Outcome;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The filesystem type of Weft's mounts.
pub const FSTYPE: &str = "fuse.weft";

/// One line of mountinfo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    pub id: u64,
    pub major: u32,
    pub minor: u32,
    pub point: PathBuf,
    pub fstype: String,
    pub source: Vec<u8>,
}

impl Mount {
    /// The STORE of a Weft mount.
    pub fn store(&self) -> Option<PathBuf> {
        if self.fstype != FSTYPE {
            return None;
        }
        unescape_path(self.source.strip_prefix(b"weft:")?)
    }
}

/// What a mount of `store` carries as its source.
pub fn source_of(store: &Path) -> String {
    format!("weft:{}", escape(store))
}

/// A path with every byte but plain ones as `%XX`.
pub fn escape(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                text.push(char::from(*byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// The inverse of [`escape`].
pub fn unescape_path(text: &[u8]) -> Option<PathBuf> {
    Some(PathBuf::from(OsString::from_vec(unescape(text, b'%', 16)?)))
}

/// All mounts that this process sees, in the order they were made.
pub fn read() -> Outcome<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|cause| format!("cannot read /proc/self/mountinfo ({cause}): is /proc mounted?"))?;
    Ok(parse(&text))
}

/// Lines that cannot be read are left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let device = fields.nth(1)?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    let (major, minor) = (device.get(..colon)?, device.get(colon + 1..)?);
    let point = unescape(fields.nth(1)?, b'\\', 8)?;
    fields.find(|field| *field == b"-")?;
    Some(Mount {
        id,
        major: number(major)?.try_into().ok()?,
        minor: number(minor)?.try_into().ok()?,
        point: PathBuf::from(OsString::from_vec(point)),
        fstype: String::from_utf8_lossy(fields.next()?).into_owned(),
        source: unescape(fields.next()?, b'\\', 8)?,
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes `\040` (radix 8, three digits) or `%20` (radix 16, two digits).
fn unescape(text: &[u8], mark: u8, radix: u32) -> Option<Vec<u8>> {
    let width = if radix == 8 { 3 } else { 2 };
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        if *first != mark {
            plain.push(*first);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(width)?;
        plain.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?);
        rest = tail;
    }
    Some(plain)
}

/// The topmost mount at exactly this path.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The Weft mount that a path lies in: the innermost mount around it, if that is Weft's.
pub fn around<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let innermost = path.ancestors().find_map(|above| at(mounts, above))?;
    Some(innermost).filter(|mount| mount.fstype == FSTYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        30 21 0:45 / /data/pg\\040main rw,nosuid,nodev shared:5 master:2 - fuse.weft weft:/data/pg%20main.weft rw\n\
        31 30 0:46 / /data/pg\\040main/sub rw - tmpfs tmpfs rw\n\
        garbage\n\n";

    #[test]
    fn lines_are_read_and_garbage_is_not() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[1].id, mounts[1].major, mounts[1].minor), (30, 0, 45));
        assert_eq!(mounts[1].point, Path::new("/data/pg main"));
        assert_eq!(mounts[1].store().unwrap(), Path::new("/data/pg main.weft"));
        assert_eq!(mounts[0].store(), None);
    }

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = parse(TEXT);
        assert_eq!(around(&mounts, Path::new("/data/pg main/base/1")).unwrap().id, 30);
        assert_eq!(around(&mounts, Path::new("/data/pg main")).unwrap().id, 30);
        assert!(around(&mounts, Path::new("/data/pg main/sub/x")).is_none());
        assert!(around(&mounts, Path::new("/data/pg mainx")).is_none());
    }

    #[test]
    fn sources_carry_any_path() {
        for path in [&b"/a/b.weft"[..], b"/with space/and,comma\\%", b"/\xff\n"] {
            let store = PathBuf::from(OsString::from_vec(path.to_vec()));
            let source = source_of(&store);
            assert!(source.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'\\'));
            let mount = Mount {
                id: 1,
                major: 0,
                minor: 1,
                point: PathBuf::from("/m"),
                fstype: FSTYPE.into(),
                source: source.into(),
            };
            assert_eq!(mount.store().unwrap(), store);
        }
    }
}
