//! Files that share their space, as far as a test can see: the bytes are those of the other, and pending until synced.
//! The space is counted twice; what sharing saves is measured on real filesystems.

use super::content::Content;
use super::world::{Body, Sys, World};
use crate::types::FileKind;
use std::path::Path;

impl World {
    /// `false` where the simulated filesystem has no reflinks, which is how it begins.
    pub(super) fn reflink(&mut self, existing: &Path, new: &Path) -> Sys<bool> {
        let source = self.find(existing)?;
        let content = match &self.node(source)?.body {
            Body::File(content) => content.clone(),
            _ => return Err(libc::EINVAL),
        };
        if !self.reflinks {
            return Ok(false);
        }
        if content.allocated_pages() > self.free_pages() {
            return Err(libc::ENOSPC);
        }
        let node = self.make(new, Body::File(Content::default()), FileKind::Regular, 0o600, 0)?;
        let (mut at, len) = (0, content.len());
        while let Some((start, end)) = content.next_data(at) {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
            content.read(&mut bytes, start);
            self.edit(node, |copy, rng| copy.write(&bytes, start, rng))?;
            at = end;
        }
        self.edit(node, |copy, _| copy.set_len(len))?;
        Ok(true)
    }
}
