//! Partitions as shadows name them, and their files at an instant.

use crate::engine::Engine;
use crate::error::Result;
use crate::lineage::find;
use crate::lineage::partition::{self, Fork, Layout, Partition};
use crate::past::view::View;
use crate::shadow::Subject;
use crate::sync::atomic::Ordering;
use crate::types::FileId;

/// A file of a partition, at an instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub file: FileId,
    pub size: u64,
    /// A segment of the main file, counted from 0; `None`: a fork.
    pub segment: Option<u64>,
}

impl From<Partition> for Subject {
    fn from(partition: Partition) -> Subject {
        Subject { root: partition.root, partition: partition.name }
    }
}

/// The layouts by number, to be kept in an atomic.
const LAYOUTS: [Layout; 4] = [Layout::Generic, Layout::Postgres, Layout::Mariadb, Layout::Sqlite];

impl Engine {
    /// Whose rules make partitions of paths; those of single files until this is told.
    pub fn set_layout(&self, layout: Layout) {
        let number = LAYOUTS.iter().position(|known| *known == layout).unwrap_or(0);
        self.shadowing.layout.store(number, Ordering::Relaxed);
    }

    pub(super) fn layout(&self) -> Layout {
        LAYOUTS.get(self.shadowing.layout.load(Ordering::Relaxed)).copied().unwrap_or(Layout::Generic)
    }

    /// The partition that a path below a root is of.
    pub fn shadow_subject(&self, root: &[u8], path: &[u8]) -> Subject {
        partition::of(self.layout(), root, path).into()
    }

    /// The files of a partition in a view, in order.
    pub(super) fn members(&self, view: &View, subject: &Subject) -> Result<Vec<Member>> {
        let partition = Partition { root: subject.root.clone(), name: subject.partition.clone() };
        let parts = find::files(view, self.layout(), &partition)?;
        let member = |part: find::Part| Member {
            file: part.file,
            size: part.attr.size,
            segment: (part.fork == Fork::Main).then_some(part.segment),
        };
        Ok(parts.into_iter().map(member).collect())
    }
}
