//! Keeps the index up with the durable journal, behind the writers.
//!
//! Its position is the index's own watermark, committed with the entries it stands for: a crash takes both or
//! neither, and indexing goes on from there.

use super::pages::Pages;
use crate::error::{Error, Result};
use crate::format::checkpoint::Place;
use crate::index::{Compose, Index, IndexedGroup, Watermark};
use crate::journal::Journal;
use crate::journal::reader::{Check, Reader, Step};
use crate::journal::recovery::START;
use crate::sync::{Arc, Condvar, Mutex};
use crate::types::{Location, PAGE, Seq, Timestamp};
use std::time::Duration;

/// Groups put into one batch of the index at most.
const GROUPS: usize = 128;
/// A page file is closed when it is this long.
const PAGE_FILE_MAX: u64 = 1 << 30;

struct Position {
    place: Place,
    /// Where the next composed page goes.
    page_file: (u64, u64),
}

/// See the head of this file.
pub struct Indexer {
    index: Arc<Index>,
    journal: Arc<Journal>,
    pages: Arc<Pages>,
    position: Mutex<Position>,
    reached: Mutex<(Seq, Option<Error>)>,
    moved: Condvar,
    wanted: Condvar,
}

impl Indexer {
    /// `page_file`: number of a page file that is not in use.
    pub fn new(index: Arc<Index>, journal: Arc<Journal>, pages: Arc<Pages>, page_file: u64) -> Indexer {
        let mark = index.watermark();
        let place = if mark.seq == Seq::ZERO {
            START
        } else {
            Place { segment: mark.segment, offset: mark.offset, chain: mark.chain, seq: mark.seq.next() }
        };
        Indexer {
            index,
            journal,
            pages,
            position: Mutex::new(Position { place, page_file: (page_file, 0) }),
            reached: Mutex::new((mark.seq, None)),
            moved: Condvar::new(),
            wanted: Condvar::new(),
        }
    }

    /// Last event in the index.
    pub fn reached(&self) -> Seq {
        self.reached.lock().0
    }

    /// What keeps it from going on.
    pub fn trouble(&self) -> Option<Error> {
        self.reached.lock().1.clone()
    }

    /// Indexes some durable groups; `false` when there was none.
    pub fn step(&self) -> Result<bool> {
        let mut position = self.position.lock();
        let durable = self.journal.durable();
        if position.place.seq > durable {
            return Ok(false);
        }
        let result = self.batch(&mut position, durable);
        let mut reached = self.reached.lock();
        match &result {
            Ok(_) => *reached = (Seq(position.place.seq.0 - 1), None),
            Err(error) => reached.1 = Some(error.clone()),
        }
        self.moved.notify_all();
        result
    }

    fn batch(&self, position: &mut Position, durable: Seq) -> Result<bool> {
        let (groups, next, ts) = match self.from_memory(position.place)? {
            Some(found) => found,
            None => self.from_disk(position.place, durable)?,
        };
        if groups.is_empty() {
            return Ok(false);
        }
        let mark = Watermark {
            seq: Seq(next.seq.0 - 1),
            ts,
            segment: next.segment,
            offset: next.offset,
            chain: next.chain,
        };
        let composes = self.index.apply(&groups, mark)?;
        position.place = next;
        for compose in composes {
            self.compose(&mut position.page_file, compose)?;
        }
        Ok(true)
    }

    fn from_memory(&self, from: Place) -> Result<Option<(Vec<IndexedGroup>, Place, Timestamp)>> {
        let mut next = from;
        let mut ts = Timestamp::default();
        let mut groups = Vec::new();
        for group in self.journal.recent(from.seq, GROUPS) {
            let (Some(header), Some(place), Some(records)) = (group.header(), group.place(), group.records())
            else {
                break;
            };
            let records = records?;
            ts = records.last().map_or(ts, |record| record.ts);
            next = Place {
                segment: place.segment,
                offset: place.offset + header.len(),
                chain: header.crc,
                seq: header.last_seq().next(),
            };
            groups.push(IndexedGroup { segment: place.segment, offset: place.offset, records });
        }
        Ok((!groups.is_empty()).then_some((groups, next, ts)))
    }

    fn from_disk(&self, from: Place, durable: Seq) -> Result<(Vec<IndexedGroup>, Place, Timestamp)> {
        let mut reader = Reader::new(Arc::clone(self.journal.segments()), from, Check::Records);
        let mut groups = Vec::new();
        let mut ts = Timestamp::default();
        while groups.len() < GROUPS && reader.place().seq <= durable {
            match reader.step()? {
                Step::Group(group) => {
                    ts = group.records.last().map_or(ts, |record| record.ts);
                    groups.push(IndexedGroup {
                        segment: group.place.segment,
                        offset: group.place.offset,
                        records: group.records,
                    });
                }
                Step::End => {
                    let place = reader.place();
                    return Err(Error::corrupt(
                        "indexer.read",
                        format!("event {} is durable and cannot be read", place.seq),
                    )
                    .at(&self.journal.segments().path(place.segment))
                    .offset(place.offset));
                }
            }
        }
        Ok((groups, reader.place(), ts))
    }

    /// Writes a page whole, so that no later read has to put more than a few parts together.
    fn compose(&self, page_file: &mut (u64, u64), compose: Compose) -> Result<()> {
        let bytes = match self.pages.page(compose.file, compose.page, compose.seq) {
            Ok(bytes) => bytes,
            // Its base is gone: the parts stay what they are.
            Err(error) if error.kind == crate::error::Kind::Lost => return Ok(()),
            Err(error) => return Err(error),
        };
        if page_file.1 >= PAGE_FILE_MAX {
            *page_file = (page_file.0 + 1, 0);
        }
        let (number, offset) = *page_file;
        self.pages.page_files().file(number)?.write_at("pages.write", &bytes, offset)?;
        page_file.1 += PAGE;
        self.index.put_composed(&[(compose, Location::PageFile { number, offset })])
    }

    /// Blocks until the index holds everything up to `seq`, which is durable.
    pub fn wait_for(&self, seq: Seq) -> Result<()> {
        let mut reached = self.reached.lock();
        while reached.0 < seq {
            if let Some(error) = &reached.1 {
                return Err(error.clone());
            }
            self.wanted.notify_all();
            reached = self.moved.wait_for(reached, Duration::from_millis(5));
        }
        Ok(())
    }

    /// The indexing thread's rest: until someone waits, or for `timeout`.
    pub fn rest(&self, timeout: Duration) {
        let reached = self.reached.lock();
        drop(self.wanted.wait_for(reached, timeout));
    }
}
