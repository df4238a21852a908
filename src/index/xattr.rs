//! Extended attributes at an instant.
//!
//! [`Space::Xattr`]: (file, name, NUL, descending Seq) -> value, or nothing.

use super::build::Build;
use super::codec::{Reader, corrupt, put_seq};
use super::kv::{Kv, Space};
use super::name::{name_prefix, newest_by_name};
use crate::error::Result;
use crate::types::{FileId, Name, Seq};
use std::ops::ControlFlow;

const GONE: u8 = 0;
const VALUE: u8 = 1;

/// Records a value, or with `None` that there is none from now on.
pub(super) fn record(
    build: &mut Build<'_>,
    file: FileId,
    name: &[u8],
    seq: Seq,
    content: Option<&[u8]>,
) {
    let mut key = name_prefix(file, name);
    put_seq(&mut key, seq);
    let value = match content {
        Some(content) => [&[VALUE], content].concat(),
        None => vec![GONE],
    };
    build.batch.put(Space::Xattr, key, value);
}

/// Every extended attribute of a file, in byte order of names.
pub(super) fn xattrs(kv: &dyn Kv, file: FileId, at: Seq) -> Result<Vec<(Name, Vec<u8>)>> {
    let mut found = Vec::new();
    newest_by_name(kv, Space::Xattr, file, None, at, |name, value| {
        let mut reader = Reader::new(value);
        match reader.byte()? {
            GONE => {}
            VALUE => found.push((name.to_vec(), reader.remainder().to_vec())),
            tag => return Err(corrupt(format!("tag {tag} of an extended attribute"))),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}
