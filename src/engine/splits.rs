//! Splits as an engine has them: declared, with shadows for the children; tied to the children's files when those are
//! there; and the child's past, found in its parent.

use super::Engine;
use crate::error::{Error, Result};
use crate::forecast::{Key, Signal};
use crate::lineage::find::{self, Part};
use crate::lineage::partition::{Fork, Layout, Partition};
use crate::lineage::splits::{self, Child, How, Origin, Split, Tie};
use crate::past::view::View;
use crate::shadow::{Reason, Subject, Wish};
use crate::types::{FileId, PageSet, Seq, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Ranges of bytes of a file: begin, and end behind it.
pub type Ranges = Vec<(u64, u64)>;

/// Partitions that a past is followed through.
const ANCESTORS: usize = 64;
/// Stretches of a partition that one by one are told to whoever restores it.
const STRETCHES_MAX: usize = 1 << 18;
/// The shadow of a split is worth so much, in seconds saved, that it goes before all others, for a while.
pub(super) const BENEFIT: f64 = 1e6;

/// A child's past in its parent.
#[derive(Clone, PartialEq, Debug)]
pub struct Ancestry {
    pub parent: Partition,
    pub origin: Origin,
    /// The files of the parent that hold it, and what of each: all of it without ranges.
    pub files: Vec<(Part, Option<Ranges>)>,
    /// It has pages of its own, too many and too scattered to be told.
    pub scattered: bool,
    /// Bytes of the parent's main files at that instant.
    pub parent_bytes: u64,
}

/// What was known of a child's files before somebody says whose they are.
enum Before {
    Nothing,
    /// The same; perhaps as a rewrite of earlier ones.
    Same {
        is_rewrite: bool,
    },
    Other,
    /// Others, which are gone: its rows have been written anew.
    Rewritten,
}

impl Engine {
    /// Notes that a partition splits, and wishes for a shadow of the child (all of the partition when no pages are
    /// given), before everything else. Of `looked` the first event counts: the second is the last one now. The forecast is
    /// told once, however many children and whoever else says it.
    ///
    /// # Errors
    /// `Invalid`: there is no such partition, or the pages are none of its.
    pub fn declare_split(&self, layout: Layout, parent: &Partition, how: How, child: Child) -> Result<Split> {
        let now = self.now();
        let (split, wish) = self.noted(layout, parent, (how, now, true), child)?;
        self.wish(wish);
        if splits::is_first(&self.meta, &split, now.0)? {
            let (children, point) = (Vec::new(), None);
            self.signal(Signal::Split {
                partition: Key::from(split.parent.as_str()),
                at: now,
                children,
                point,
            });
        }
        Ok(split)
    }

    /// Notes a split that ran long before anybody told of it: its children have their past, and nothing is made ready.
    ///
    /// # Errors
    /// As [`Engine::declare_split`].
    pub fn note_split(
        &self,
        layout: Layout,
        parent: &Partition,
        how: (How, Timestamp),
        child: Child,
    ) -> Result<Split> {
        self.noted(layout, parent, (how.0, how.1, false), child).map(|(split, _)| split)
    }

    /// A split as it was noted, and the wish that would make its child ready.
    fn noted(
        &self,
        layout: Layout,
        parent: &Partition,
        (how, at, is_news): (How, Timestamp, bool),
        mut child: Child,
    ) -> Result<(Split, Wish)> {
        let parts = self.partition_files(layout, parent)?;
        let first = self.first_of(parent, &parts)?;
        // Durable: after a crash a page set must not be of events that never were.
        let seq = self.live.journal.flush().unwrap_or_else(|_| self.live.journal.durable());
        let since = child.looked.map_or(seq.0, |(since, _)| since.min(seq.0));
        child.looked = child.pages.is_some().then_some((since, seq.0));
        // What is told long afterwards says nothing of where its rows were until now.
        child.told = if is_news { seq.0 } else { 0 };
        self.note_files_of_before(layout, parent, &mut child)?;
        let pages = child.page_set();
        if let Some(pages) = &pages {
            splits::check_pages(pages, main_bytes(&parts))?;
        }
        let subject = self.shadow_subject(&parent.root, &first.path);
        let split = splits::declare(&self.meta, (&parent.to_string(), how), (seq, at.0), child)?;
        Ok((split, wish_for(subject, pages)))
    }

    /// The child of a partition that was declared by a name that may be this one's, or with these files, and is not known yet,
    /// or is only guessed. That somebody else tells of it now (`is_news`) is noted: until then its
    /// rows were in its parent.
    pub fn declared_child(
        &self,
        parent: &Partition,
        name: Option<&str>,
        files: Option<&Partition>,
        is_news: bool,
    ) -> Result<Option<(u64, usize)>> {
        let files = files.map(Partition::to_string);
        let child = splits::declared(&self.meta, &parent.to_string(), |child| {
            let called = child.name.as_deref();
            let fits = called.zip(name).is_some_and(|(one, other)| splits::may_be_same(one, other));
            let is_open = child.tie.is_none_or(|tie| tie == Tie::Guess);
            is_open && !child.forgotten && (fits || files.is_some() && called == files.as_deref())
        })?;
        if let Some(child) = child.filter(|_| is_news) {
            let seq = self.live.journal.flush().unwrap_or_else(|_| self.live.journal.durable());
            splits::tell(&self.meta, child, seq)?;
        }
        Ok(child)
    }

    /// Of a child that has the name of what is divided: which files have it now.
    fn note_files_of_before(&self, layout: Layout, parent: &Partition, child: &mut Child) -> Result<()> {
        let Some(path) = child.name.as_deref().filter(|name| name.contains('/')) else { return Ok(()) };
        let partition = self.named(layout, path)?;
        child.anew |= partition == *parent;
        if child.anew && child.was.is_none() {
            child.was = self.partition_files(layout, &partition)?.first().map(|part| part.file.0);
        }
        Ok(())
    }

    /// Wishes for a shadow of a partition that may be about to split, before everything else.
    ///
    /// # Errors
    /// `Invalid`: there is no such partition.
    pub fn prepare_split(&self, layout: Layout, parent: &Partition) -> Result<()> {
        let parts = self.partition_files(layout, parent)?;
        let first = self.first_of(parent, &parts)?;
        self.wish(wish_for(self.shadow_subject(&parent.root, &first.path), None));
        Ok(())
    }

    fn first_of<'a>(&self, partition: &Partition, parts: &'a [Part]) -> Result<&'a Part> {
        parts.first().ok_or_else(|| {
            let message = format!("there is no partition {partition}: `weft partitions` lists them");
            Error::invalid("split", message)
        })
    }

    /// The splits, oldest first. Before, children whose files have appeared are tied to them.
    pub fn splits(&self, layout: Layout) -> Result<Vec<Split>> {
        for split in splits::all(&self.meta)? {
            self.tie_children(layout, &split)?;
        }
        splits::all(&self.meta)
    }

    /// Every tie of a child to its parent.
    pub fn lineage(&self) -> Result<Vec<(String, Origin)>> {
        splits::lineage(&self.meta)
    }

    /// A person says that a child, or all children, of a split did not come out of its parent.
    ///
    /// # Errors
    /// `Invalid`: there is no such split, or child.
    pub fn forget_split(&self, split: u64, child: Option<usize>) -> Result<Split> {
        splits::forget(&self.meta, split, child)
    }

    /// The last event before each child of a split had files, by its number, as far as it is tied to any.
    pub fn come(&self, split: &Split) -> Result<BTreeMap<u64, Seq>> {
        let mut come = BTreeMap::new();
        for (_, origin) in self.lineage()?.into_iter().filter(|(_, origin)| origin.split == split.id) {
            let born = Seq(origin.born);
            come.entry(origin.child).and_modify(|first: &mut Seq| *first = born.min(*first)).or_insert(born);
        }
        Ok(come)
    }

    /// Ties a child to the files of a partition. Those of before, of a child that has the name of what was divided, only a
    /// person ties.
    ///
    /// # Errors
    /// `Invalid`: there is no such split, child, or partition.
    pub fn confirm_child(
        &self,
        layout: Layout,
        child: (u64, usize),
        partition: &Partition,
        tie: Tie,
    ) -> Result<()> {
        let parts = self.partition_files(layout, partition)?;
        let file = self.first_of(partition, &parts)?.file;
        let split = splits::get(&self.meta, child.0)?;
        let is_before = split.is_some_and(|split| is_before(&split, child.1, file));
        if is_before && tie != Tie::Declared {
            return Ok(());
        }
        let born = self.born(file)?;
        let said = partition.to_string();
        match self.said_before(layout, child, (&said, born))? {
            Before::Rewritten => splits::rewrite(&self.meta, child, &said, born),
            Before::Same { is_rewrite } if is_rewrite || tie == Tie::Catalogue => Ok(()),
            // What a person said, the name alone does not take back: it may be another table's by now.
            Before::Other if tie == Tie::Catalogue => Ok(()),
            Before::Same { .. } | Before::Other | Before::Nothing => {
                splits::tie(&self.meta, child, &said, tie, born)
            }
        }
    }

    /// What was known of a child's files, now that they are said to be those of a partition that was born then.
    fn said_before(
        &self,
        layout: Layout,
        (split, child): (u64, usize),
        (said, born): (&str, Seq),
    ) -> Result<Before> {
        let row = splits::get(&self.meta, split)?;
        let known = row.and_then(|row| row.children.into_iter().nth(child)).filter(|known| !known.forgotten);
        let Some(Child { partition: Some(files), tie: Some(tie), presumed, .. }) = known else {
            return Ok(Before::Nothing);
        };
        if tie == Tie::Guess && !presumed {
            return Ok(Before::Nothing);
        }
        let mut origins = splits::origins(&self.meta, &files)?.into_iter();
        let origin = origins.find(|origin| (origin.split, origin.child) == (split, child as u64));
        if files == said {
            return Ok(Before::Same { is_rewrite: origin.is_some_and(|origin| origin.rewrite) });
        }
        // PostgreSQL keeps the first file of what it dropped for a while, without a byte.
        let parts = self.partition_files(layout, &self.named(layout, &files)?)?;
        if main_bytes(&parts) == 0 && origin.is_some_and(|origin| origin.born < born.0) {
            return Ok(Before::Rewritten);
        }
        Ok(if tie == Tie::Guess { Before::Nothing } else { Before::Other })
    }

    /// Looks for the files of a split's children that are not known yet.
    fn tie_children(&self, layout: Layout, split: &Split) -> Result<()> {
        let waiting: Vec<(usize, &Child)> =
            split.children.iter().enumerate().filter(|(_, child)| child.waits()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let parent = self.named(layout, &split.parent)?;
        let mut unnamed = Vec::new();
        // A log has a statement before it has run, if it ever does.
        let tie = if split.how == How::Declared { Tie::Declared } else { Tie::Catalogue };
        for (number, child) in waiting {
            // A name that is a path says which files they will be.
            let path = child.name.as_deref().filter(|name| name.contains('/'));
            let Some(path) = path else {
                unnamed.push(number);
                continue;
            };
            let partition = self.named(layout, path)?;
            if let Some(part) = self.partition_files(layout, &partition)?.first() {
                let came = self.came(layout, part)?;
                if came.is_in_time(split) && !is_before(split, number, part.file) {
                    let child = (split.id, number);
                    splits::tie(&self.meta, child, &partition.to_string(), tie, came.born)?;
                }
            }
        }
        let new = self.appeared(layout, &parent, split)?;
        for (number, (partition, born)) in unnamed.into_iter().zip(new) {
            splits::tie(&self.meta, (split.id, number), &partition.to_string(), Tie::Guess, born)?;
        }
        Ok(())
    }

    /// Tables beside a parent that came after its split was declared, and are tied to nothing, in the order they came. What a
    /// person says did not come out of it is not looked at again.
    fn appeared(&self, layout: Layout, parent: &Partition, split: &Split) -> Result<Vec<(Partition, Seq)>> {
        let all = splits::all(&self.meta)?.into_iter().filter(|other| other.parent == split.parent);
        let forgotten = all.flat_map(|other| other.children).filter(|child| child.forgotten);
        let forgotten = forgotten.filter_map(|child| child.partition);
        let known: Vec<String> =
            self.lineage()?.into_iter().map(|(child, _)| child).chain(forgotten).collect();
        let mut found = Vec::new();
        for (partition, parts) in find::beside(self, layout, parent)? {
            let Some(first) = parts.iter().find(|part| part.fork == Fork::Main && part.segment == 0) else {
                continue;
            };
            if partition == *parent || first.attr.size == 0 || known.contains(&partition.to_string()) {
                continue;
            }
            let came = self.came(layout, first)?;
            if came.born.0 < split.seq || !came.is_in_time(split) {
                continue;
            }
            let mut head = vec![0; splits::HEAD];
            let got = self.read_uncounted(first.file, 0, &mut head)?;
            if splits::may_be_table(layout, head.get(..got).unwrap_or(&[])) {
                found.push((partition, came.born));
            }
        }
        found.sort_by_key(|(_, born)| *born);
        Ok(found)
    }

    /// A partition as it was shown.
    pub(super) fn named(&self, layout: Layout, text: &str) -> Result<Partition> {
        let roots: Vec<Vec<u8>> = self.roots()?.into_iter().map(|root| root.name).collect();
        Ok(Partition::parse(layout, text, &roots))
    }

    /// Where a partition came from: of several parents where it was merged.
    pub fn origins_of(&self, layout: Layout, partition: &Partition) -> Result<Vec<Origin>> {
        let shown = partition.to_string();
        let known = splits::origins(&self.meta, &shown)?;
        if !known.is_empty() {
            return Ok(known);
        }
        // Its files may be there since nobody looked.
        self.splits(layout)?;
        splits::origins(&self.meta, &shown)
    }

    /// What a partition was before it was: its parents at the instant of a view, or theirs, and which of their pages; also
    /// while its files were there and its rows still in those of a parent that is known. None: nothing is known of a parent,
    /// that was not there either, or the partition had come by then, and may have gone.
    pub fn ancestry(&self, layout: Layout, partition: &Partition, view: &View) -> Result<Vec<Ancestry>> {
        let (mut found, mut waiting) = (Vec::new(), vec![partition.clone()]);
        let mut seen = BTreeSet::from([partition.clone()]);
        while let Some(here) = waiting.pop() {
            for origin in self.origins_of(layout, &here)? {
                if !self.is_in_parent((layout, &here), &origin, view)? {
                    continue;
                }
                let parent = self.named(layout, &origin.parent)?;
                let parts = find::files(view, layout, &parent)?;
                if !parts.is_empty() {
                    found.push(self.ancestor(parent.clone(), origin, parts, view.seq())?);
                }
                if seen.len() < ANCESTORS && seen.insert(parent.clone()) {
                    waiting.push(parent);
                }
            }
        }
        Ok(found)
    }

    fn ancestor(&self, parent: Partition, origin: Origin, parts: Vec<Part>, at: Seq) -> Result<Ancestry> {
        let child = self.child_of(&origin)?.filter(|_| !origin.rewrite);
        let parent_bytes = main_bytes(&parts);
        let pages = child.and_then(|child| child.page_set().zip(child.moved_between(at)));
        let has_pages = pages.is_some();
        let files: Vec<(Part, Option<Ranges>)> = match pages {
            None => parts.into_iter().map(|part| (part, None)).collect(),
            Some((pages, between)) => self.pages_of_child(parts, &pages, between)?,
        };
        let scattered = has_pages && files.iter().all(|(_, ranges)| ranges.is_none());
        Ok(Ancestry { parent, origin, files, scattered, parent_bytes })
    }

    /// The main files of a parent, with what of them can hold rows of a child: its pages as they were declared, and those
    /// that changed `between` that and the instant. The other forks are left out: a server makes them anew, and what they
    /// say of pages that are not there would be wrong.
    fn pages_of_child(
        &self,
        parts: Vec<Part>,
        pages: &PageSet,
        between: (Seq, Seq),
    ) -> Result<Vec<(Part, Option<Ranges>)>> {
        // An index that is made anew may know the instant and not yet what came after it.
        self.indexer.wait_for(between.1)?;
        let parts: Vec<Part> = parts.into_iter().filter(|part| splits::counts_pages(part.fork)).collect();
        let mut wanted = Vec::new();
        for part in &parts {
            let declared = splits::ranges_of(pages, part.segment, part.attr.size);
            let changed = self.index.changed_pages(part.file, between, PageSet::default(), u64::MAX)?;
            let all = changed.map(|(mut all, _)| {
                declared.iter().for_each(|(start, end)| all.write(*start, *end));
                all
            });
            wanted.push((all, part.attr.size));
        }
        Ok(parts.into_iter().zip(splits::in_stretches(&wanted, STRETCHES_MAX)).collect())
    }
}

/// Whether a file is not of a child, which has the name of what was divided, but of that. When it was born tells nothing: a
/// server may be at work on the new one before its statement is read.
fn is_before(split: &Split, child: usize, file: FileId) -> bool {
    split.children.get(child).is_some_and(|child| child.anew && child.was == Some(file.0))
}

/// The shadow of a child, or of all of a partition that splits.
pub(super) fn wish_for(subject: Subject, pages: Option<PageSet>) -> Wish {
    Wish { subject, pages, at: None, benefit: BENEFIT, reason: Reason::Split, urgent: true }
}

fn main_bytes(parts: &[Part]) -> u64 {
    parts.iter().filter(|part| splits::counts_pages(part.fork)).map(|part| part.attr.size).sum()
}
