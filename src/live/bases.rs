//! Reading what files held before Weft, in runs: from the live file where it still stands there, from base files, from
//! limbo.

use super::Live;
use super::base::SavedPlaces;
use super::node::{Node, NodeState};
use crate::error::{Error, Kind, Result};
use crate::types::{FileId, PAGE, PageNo, Seq};

impl Live {
    /// Reads the base that a file had since `adopted` from the beginning of a page on, whatever has become of the file;
    /// `out` may span pages and end inside of one.
    pub fn read_base(&self, file: FileId, adopted: Seq, page: PageNo, out: &mut [u8]) -> Result<()> {
        let node = self.tree.read().nodes.get(&file).cloned();
        let mut page = page;
        let mut rest = out;
        let mut known = SavedPlaces::default();
        while !rest.is_empty() {
            let done = self.read_base_run(node.as_deref(), (file, adopted), page, rest, &mut known)?;
            page = PageNo(page.0 + (done as u64).div_ceil(PAGE));
            rest = rest.get_mut(done..).unwrap_or(&mut []);
        }
        Ok(())
    }

    /// Bytes read: whole pages, or all of `out`.
    fn read_base_run(
        &self,
        node: Option<&Node>,
        (file, adopted): (FileId, Seq),
        page: PageNo,
        out: &mut [u8],
        known: &mut SavedPlaces,
    ) -> Result<usize> {
        if let Some(node) = node
            && let Some(done) = self.read_own_base(node, adopted, page, out)?
        {
            return Ok(done);
        }
        let saved = self.base.read((file, adopted), page, out, known)?;
        if saved.read > 0 {
            return Ok(saved.read);
        }
        // The pages that were saved before the rest went to limbo are newer there.
        let len = saved.next.map_or(out.len(), |next| bytes_of(next.0 - page.0, out.len()));
        let sure = self.sure_in_limbo((file, adopted), page, len)?;
        let part = out.get_mut(..bytes_of(sure, len)).unwrap_or(&mut []);
        if !part.is_empty() && self.read_limbo(file, adopted, page, part)? {
            return Ok(part.len());
        }
        if let Some(lost) = self.base.lost_with(page, file) {
            return Err(lost);
        }
        Err(Error::new(
            Kind::Lost,
            "past.base.read",
            format!(
                "page {} of {file} was changed while DATA was not mounted; its bytes from before are gone",
                page.0
            ),
        ))
    }

    /// The base of a file that is there: what was read from the live file counts only if the pages were still
    /// untouched after the read. `None`: the first page has to be read elsewhere.
    fn read_own_base(
        &self,
        node: &Node,
        adopted: Seq,
        page: PageNo,
        out: &mut [u8],
    ) -> Result<Option<usize>> {
        let (handle, size, pages) = {
            let state = node.lock();
            let pages = untouched(&state, adopted, page, out.len());
            if pages == 0 {
                return Ok(None);
            }
            let size = state.content.base_since(adopted).map_or(0, |base| base.size);
            match self.pool.open("live.base.read", &self.paths.live(node.root, node.file)?, false) {
                Ok(handle) => (handle, size, pages),
                // The applier has just moved it to limbo, and is about to say so.
                Err(error) if error.is(libc::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let len = bytes_of(pages, out.len());
        let part = out.get_mut(..len).unwrap_or(&mut []);
        let got = handle.read_at("live.base.read", part, page.0 * PAGE)?;
        let kept = untouched(&node.lock(), adopted, page, len);
        if kept == 0 {
            return Ok(None);
        }
        let len = bytes_of(kept, len);
        let valid = size.saturating_sub(page.0 * PAGE).min(len as u64);
        let valid = usize::try_from(valid).unwrap_or(len);
        if got < valid {
            return Err(Error::corrupt("live.base.read", "the live file is shorter than its base")
                .at(&self.paths.live(node.root, node.file)?)
                .offset(page.0 * PAGE));
        }
        if let Some(rest) = out.get_mut(valid..len) {
            rest.fill(0);
        }
        Ok(Some(len))
    }

    /// Pages from `page` on, of those that `len` bytes span, that were not saved before the file went to limbo. Where lists
    /// of saved pages are lost that does not follow from none being known.
    fn sure_in_limbo(&self, (file, adopted): (FileId, Seq), page: PageNo, len: usize) -> Result<u64> {
        let pages = (len as u64).div_ceil(PAGE);
        if self.base.lost().is_empty() {
            return Ok(pages);
        }
        let Some(unsure) = self.base.unsure(file, adopted)? else { return Ok(0) };
        Ok((0..pages).take_while(|ahead| !unsure.contains(PageNo(page.0 + ahead))).count() as u64)
    }

    fn read_limbo(&self, file: FileId, adopted: Seq, page: PageNo, out: &mut [u8]) -> Result<bool> {
        let limbos = self.paths.roots.iter().map(|root| root.limbo(file, adopted));
        for path in limbos.chain([self.paths.store_limbo(file, adopted)]) {
            if self.disk.stat("live.limbo.find", &path)?.is_none() {
                continue;
            }
            let got = self.pool.open("live.limbo.read", &path, false)?.read_at(
                "live.limbo.read",
                out,
                page.0 * PAGE,
            )?;
            if let Some(rest) = out.get_mut(got..) {
                rest.fill(0);
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// Pages from `page` on, of those that `len` bytes span, whose base the live file still holds.
fn untouched(state: &NodeState, adopted: Seq, page: PageNo, len: usize) -> u64 {
    let Some(base) = state.content.base_since(adopted) else { return 0 };
    if base.in_limbo || !state.content.exists {
        return 0;
    }
    let spanned = (len as u64).div_ceil(PAGE);
    (0..spanned).take_while(|ahead| !base.is_saved(PageNo(page.0 + ahead))).count() as u64
}

/// The bytes of so many pages, within `len`.
fn bytes_of(pages: u64, len: usize) -> usize {
    usize::try_from(pages.saturating_mul(PAGE)).unwrap_or(len).min(len)
}
