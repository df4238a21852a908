//! Which pages of the live files hold data: as checkpoints keep it, and as it is found in files that are taken in.

use super::Live;
use super::node::{Node, NodeState};
use super::tree::Tree;
use crate::disk::{OpenHow, Stat};
use crate::error::{Error, Result};
use crate::format::sections::DataPages;
use crate::types::{FileId, FileKind, PageSet};
use std::path::Path;

/// What a checkpoint keeps of a file with holes.
pub(super) fn to_section(file: FileId, state: &NodeState) -> Option<DataPages> {
    let data = &state.content.data;
    let sparse = state.attr.kind == FileKind::Regular && !data.is_dense(state.attr.size);
    sparse.then(|| DataPages { file, pages: data.to_bytes() })
}

/// Puts what a checkpoint kept beside its nodes; those that it does not list have no holes.
pub(super) fn from_section(tree: &Tree, kept: &[DataPages]) -> Result<()> {
    for kept in kept {
        let Some(node) = tree.nodes.get(&kept.file) else { continue };
        let mut data = PageSet::from_bytes(&kept.pages).ok_or_else(|| {
            Error::corrupt("recover.names", format!("the data pages of {} are damaged", kept.file))
        })?;
        let mut state = node.lock();
        data.truncate(state.attr.size);
        state.content.data = data;
    }
    Ok(())
}

/// Looks for the holes of a plain file that was taken in just now. One with as much space as bytes has none.
pub(super) fn look(live: &Live, node: &Node, path: &Path, stat: &Stat) -> Result<()> {
    let size = stat.attr.size;
    if node.kind != FileKind::Regular || stat.allocated >= size {
        return Ok(());
    }
    let file = live.disk.open("stock.holes", path, OpenHow::default())?;
    let mut data = PageSet::default();
    let mut at = 0;
    while let Some((start, end)) = file.next_data("stock.holes", at)? {
        data.write(start, end.min(size));
        at = end;
    }
    node.lock().content.data = data;
    Ok(())
}
