//! Replaying the journal into names, overlays and tags.

use super::Live;
use super::content::{Base, Content, Shrink};
use super::excluded::{Unclaimed, captured_on_disk};
use super::node::Node;
use super::recover::{Setup, segments_of};
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::event::{Event, Record};
use crate::index::LostList;
use crate::journal::Resume;
use crate::journal::epochs::Epochs;
use crate::journal::group::GroupPlace;
use crate::journal::recovery::{Replayed, replay};
use crate::journal::{Extent, Group};
use crate::meta::leases::Leases;
use crate::meta::tags::Tags;
use crate::meta::thinned::Thinned;
use crate::sync::Arc;
use crate::types::{FileKind, Seq};

/// What a recovery finds besides names and overlays.
pub(super) struct Found {
    /// Saved pages of bases that the checkpoint does not know yet.
    pub unclaimed: Unclaimed,
    /// Lists of saved pages that cannot be read.
    pub lost: Vec<LostList>,
    /// Nodes that had a live file, and have none.
    pub missing: Vec<Arc<Node>>,
    pub tags: Tags,
    pub leases: Leases,
    pub thinned: Thinned,
}

impl Found {
    pub fn new(checkpoint: &Checkpoint, (unclaimed, lost): (Unclaimed, Vec<LostList>)) -> Found {
        let sections = &checkpoint.sections;
        let (tags, thinned) = (Tags::of(&sections.tags), Thinned::of(&sections.thinned));
        let leases = Leases::of(&sections.leases, checkpoint.last_ts);
        Found { unclaimed, lost, missing: Vec::new(), tags, leases, thinned }
    }
}

impl Live {
    /// Takes over what a recovery found of the small sets.
    pub(super) fn take_over(&self, found: Found) {
        let Found { tags, mut leases, thinned, .. } = found;
        leases.start(self.journal.monotonic_us());
        (*self.tags.lock(), *self.leases.lock(), *self.thinned.lock()) = (tags, leases, thinned);
    }
}

/// Replays the journal into names, overlays and tags.
pub(super) fn replay_into(
    setup: &Setup,
    checkpoint: &Checkpoint,
    tree: &mut Tree,
    served: bool,
    found: &mut Found,
) -> Result<(Resume, Replayed)> {
    let segments = segments_of(setup);
    let epochs = Epochs::new(&checkpoint.sections.epochs);
    let (resume, replayed) = replay(&segments, checkpoint.replay, checkpoint.last_ts, epochs, |read| {
        let group = Arc::new(Group::on_disk(GroupPlace { area_start: 0, ..read.place }));
        for record in &read.records {
            if record.seq > checkpoint.names_seq {
                for (file, update) in tree.apply(record.seq, &record.event)? {
                    if let Some(node) = tree.nodes.get(&file) {
                        update.apply(&mut node.lock(), record.seq, record.ts);
                    }
                }
            }
            if let (true, Event::Create(birth, _)) =
                (served && record.seq > checkpoint.names_seq, &record.event)
                && birth.attr.kind == FileKind::Regular
                && let Some(stat) =
                    setup.disk.stat("recover.live", &setup.paths.live(birth.root, birth.file)?)?
                && let Some(node) = tree.nodes.get(&birth.file)
            {
                node.lock().content = leftover(None, stat.attr.size, record.seq);
            }
            match &record.event {
                // The checkpoint has them, and what came of them.
                Event::Capture { .. } | Event::Release { .. } if record.seq <= checkpoint.names_seq => {}
                event => {
                    fold(tree, &group, record);
                    if let (true, Event::Capture { file, .. }) = (served, event)
                        && let Some(node) = tree.nodes.get(file)
                    {
                        let (disk, paths) = (&*setup.disk, &setup.paths);
                        if !captured_on_disk(disk, paths, node, record.seq, &mut found.unclaimed)? {
                            found.missing.push(Arc::clone(node));
                        }
                    }
                }
            }
            found.tags.fold(record);
            found.thinned.fold(record);
            // The checkpoint's leases are those of its moment: what was granted and ended before is not granted again.
            if record.seq > checkpoint.names_seq {
                found.leases.replay(record);
            }
        }
        Ok(())
    })?;
    if resume.last_seq < checkpoint.names_seq {
        return Err(Error::corrupt(
            "journal.recover",
            format!(
                "the journal ends at event {}, and the checkpoint was written when {} was durable: its end is \
                 damaged or STORE was put together from two times; restore STORE from a copy",
                resume.last_seq, checkpoint.names_seq
            ),
        )
        .at(&setup.paths.journal_dir()));
    }
    take_losses(setup, checkpoint, tree, &mut found.lost, resume.last_seq)?;
    Ok((resume, replayed))
}

/// Lists of saved pages are lost: the index is told, and what the checkpoint does not know yet of the pages in them is given
/// up. Before the next checkpoint, so that whoever comes after a cut finds the same.
fn take_losses(
    setup: &Setup,
    checkpoint: &Checkpoint,
    tree: &Tree,
    lost: &mut [LostList],
    last: Seq,
) -> Result<()> {
    lost.iter_mut().for_each(|lost| lost.upto = last);
    setup.index.put_lost_lists(lost)?;
    if lost.iter().any(|lost| (lost.number, lost.end) > checkpoint.base_scanned) {
        tree.nodes.values().for_each(|node| node.lock().content.give_up_base());
    }
    Ok(())
}

fn fold(tree: &Tree, group: &Arc<Group>, record: &Record) {
    let file = match &record.event {
        Event::Write { file, .. }
        | Event::Zero { file, .. }
        | Event::Resize { file, .. }
        | Event::SetAttr { file, .. }
        | Event::SetXattr { file, .. }
        | Event::RemoveXattr { file, .. }
        | Event::Rebase { file, .. }
        | Event::Capture { file, .. }
        | Event::Release { file } => *file,
        _ => return,
    };
    let extent = match &record.event {
        Event::Write { len, payload, .. } => Some(Extent::on_disk(group, payload.offset, *len)),
        _ => None,
    };
    if let Some(node) = tree.nodes.get(&file) {
        node.lock().apply(record.seq, record.ts, &record.event, extent);
    }
}

/// A live file that appeared after the checkpoint: all that it should hold is replayed, so what it holds is cut.
pub(super) fn leftover(base: Option<Base>, len: u64, seq: Seq) -> Content {
    Content {
        exists: true,
        disk_len: len,
        shrink: Some(Shrink { first: seq, newest: seq, to: 0 }),
        base,
        ..Content::default()
    }
}
