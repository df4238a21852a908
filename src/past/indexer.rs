//! Keeps the index up with the durable journal, behind the writers.
//!
//! Its position is the index's own watermark, committed with the entries it stands for: a crash takes both or
//! neither, and indexing goes on from there.

use super::pages::Pages;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Place;
use crate::format::event::Event;
use crate::index::{Compose, Index, IndexedGroup, Watermark};
use crate::journal::Journal;
use crate::journal::reader::{Check, ReadGroup, Reader, Step};
use crate::journal::recovery::START;
use crate::journal::segment::Form;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{Location, PAGE, Seq, Timestamp};

/// Groups put into one batch of the index at most.
const GROUPS: usize = 128;
/// So many events are indexed within seconds: who waits for more waits long.
const FEW: u64 = 1 << 17;
/// A page file is closed when it is this long.
const PAGE_FILE_MAX: u64 = 64 << 20;

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
    /// The engine ends: nobody waits any more.
    ending: AtomicBool,
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
            ending: AtomicBool::new(false),
        }
    }

    /// Last event in the index.
    pub fn reached(&self) -> Seq {
        self.reached.lock().0
    }

    /// Whether it would take long to index everything up to `seq`: while the index is made anew.
    pub fn is_far_from(&self, seq: Seq) -> bool {
        seq.0.saturating_sub(self.reached().0) > FEW
    }

    /// The page file that is written; the index has all that is in earlier ones.
    pub fn page_file(&self) -> u64 {
        self.position.lock().page_file.0
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
        result
    }

    fn batch(&self, position: &mut Position, durable: Seq) -> Result<bool> {
        let (groups, next, ts) = match self.read_memory(position.place)? {
            Some(found) => found,
            None => self.read_disk(position.place, durable)?,
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
            ..Watermark::default()
        };
        let composes = self.index.apply(&groups, mark)?;
        position.place = next;
        self.compose(&mut position.page_file, composes)?;
        Ok(true)
    }

    fn read_memory(&self, from: Place) -> Result<Option<(Vec<IndexedGroup>, Place, Timestamp)>> {
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
                offset: place.offset + header.len_bytes(),
                chain: header.crc,
                seq: header.last_seq().next(),
            };
            groups.push(IndexedGroup {
                segment: place.segment,
                offset: place.offset,
                records,
                pruned: Vec::new(),
            });
        }
        Ok((!groups.is_empty()).then_some((groups, next, ts)))
    }

    fn read_disk(&self, from: Place, durable: Seq) -> Result<(Vec<IndexedGroup>, Place, Timestamp)> {
        let mut reader = Reader::new(Arc::clone(self.journal.segments()), from, Check::Records);
        let mut groups = Vec::new();
        let mut ts = Timestamp::default();
        while groups.len() < GROUPS && reader.place().seq <= durable {
            match reader.step()? {
                Step::Group(group) => {
                    ts = group.records.last().map_or(ts, |record| record.ts);
                    let pruned = self.pruned(&group)?;
                    groups.push(IndexedGroup {
                        segment: group.place.segment,
                        offset: group.place.offset,
                        records: group.records,
                        pruned,
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

    /// The writes of a group of which nothing is kept.
    fn pruned(&self, group: &ReadGroup) -> Result<Vec<Seq>> {
        let segments = self.journal.segments();
        let Form::Woven(file) = segments.form(group.place.segment)? else { return Ok(Vec::new()) };
        let mut pruned = Vec::new();
        for record in &group.records {
            if let Event::Write { offset, len, payload, .. } = record.event {
                let address = group.place.offset + u64::from(payload.offset);
                if !segments.woven().holds_any(&file, group.place.segment, (address, offset, len))? {
                    pruned.push(record.seq);
                }
            }
        }
        Ok(pruned)
    }

    /// Writes pages whole, so that no later read has to put more than a few parts together. The bytes are durable
    /// before the index names them: it may become durable at any moment.
    fn compose(&self, page_file: &mut (u64, u64), composes: Vec<Compose>) -> Result<()> {
        let mut composed = Vec::with_capacity(composes.len());
        for compose in composes {
            let bytes = match self.pages.page(compose.file, compose.page, compose.seq) {
                Ok(bytes) => bytes,
                // Its base is gone: the parts stay what they are.
                Err(error) if error.kind == Kind::Lost => continue,
                Err(error) => return Err(error),
            };
            if page_file.1 >= PAGE_FILE_MAX {
                self.pages.page_files().file(page_file.0)?.sync("pages.sync")?;
                *page_file = (page_file.0 + 1, 0);
            }
            let (number, offset) = *page_file;
            self.pages.page_files().file(number)?.write_at("pages.write", &bytes, offset)?;
            page_file.1 += PAGE;
            composed.push((compose, Location::PageFile { number, offset }));
        }
        if composed.is_empty() {
            return Ok(());
        }
        self.pages.page_files().sync(page_file.0)?;
        self.index.put_composed(&composed)
    }

    /// From now on whoever waits is told that the engine ends.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Returns when the index holds everything up to `seq`, which is durable: whoever waits lends a hand.
    pub fn wait_for(&self, seq: Seq) -> Result<()> {
        while self.reached() < seq {
            if self.ending.load(Ordering::Acquire) {
                return Err(Error::new(Kind::Busy, "indexer.wait", "the daemon is ending"));
            }
            if !self.step()? && self.reached() < seq {
                return Err(Error::invalid("indexer.wait", format!("event {seq} is not durable")));
            }
        }
        Ok(())
    }
}
