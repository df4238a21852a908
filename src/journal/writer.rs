//! The group-commit writer.
//!
//! - `append` puts an event into the group in memory and gives it its Seq and time: no I/O, unless memory is full.
//! - `commit` asks for durability. The first who asks drives: writes the group with everything that has gathered,
//!   and answers all that wait; nobody sleeps for a flusher to wake up. Who comes meanwhile is served by the next
//!   round of the same driver.
//! - Before an event is taken, the room for it on disk is there (this segment, or the next, allocated beforehand):
//!   a full disk is told to the writer, before anything is acknowledged (`reserve`).

use crate::clock::{Clock, Reading};
use crate::error::{Error, Result};
use crate::format::checkpoint::Place;
use crate::format::event::Event;
use crate::format::group::GroupHeader;
use crate::format::segment::SegmentHeader;
use crate::journal::epochs::{Epochs, is_doubtful};
use crate::journal::group::{Extent, Group};
use crate::journal::reserve::{Claim, left};
use crate::journal::resume::Resume;
use crate::journal::segment::Segments;
use crate::journal::spare::{cut, no_room, prepare, remove_unused, write_header};
use crate::journal::state::{State, fail, push, remember, stopped, take_ready};
use crate::sync::atomic::AtomicBool;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard};
use crate::types::{PAGE, SegmentNo, Seq, Timestamp};
use std::collections::VecDeque;

/// Called when a durability request is answered; may run on any thread, must not block long.
pub type Completion = Box<dyn FnOnce(Result<()>) + Send>;

/// Limits of the writer, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub segment_bytes: u64,
    /// Written groups kept in memory for the applier and the indexer.
    pub cache_bytes: u64,
    /// A step of the wall clock by more µs, either way, begins a clock epoch.
    pub clock_step_us: i64,
    /// Space kept for what the kernel may hold acknowledged (writeback capture); 0 where it holds nothing.
    pub reserve_bytes: u64,
    /// Space left to others on STORE's filesystem.
    pub keep_free_bytes: u64,
}

/// Whether the group in memory is to be streamed out.
fn large(state: &State) -> bool {
    state.group.as_ref().is_some_and(|group| group.len_bytes() >= STREAM_AT)
}

/// A size as it is, or the one under exploration: there a few pages fill a group, a few groups a segment.
pub(super) const fn sized(real: u64, explored: u64) -> u64 {
    if cfg!(shuttle) { explored } else { real }
}

/// A group this large is streamed out without waiting for a commit.
const STREAM_AT: u64 = sized(1 << 20, 12 << 10);
/// Unsynced bytes above which a streamed group is synced too, so that a commit never waits behind a bulk load.
const UNSYNCED_MAX: u64 = sized(4 << 20, 24 << 10);
/// Appends wait while the group in memory is this large.
pub(super) const GROUP_MAX: u64 = sized(4 << 20, 16 << 10);
/// Room kept for headers, padding and one largest event when space is checked.
pub(super) const SLACK: u64 = sized(2 << 20, 8 << 10);

/// A segment holds the largest group that can be: pages of payload, records, and one event more.
const SEGMENT_MIN: u64 = 4 * (GROUP_MAX + SLACK);

/// What `append` gives.
pub struct Appended {
    pub seq: Seq,
    pub ts: Timestamp,
    /// Where the bytes of a write are.
    pub extent: Option<Extent>,
}

/// The journal, open for writing.
pub struct Journal {
    pub(super) segments: Arc<Segments>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: Config,
    pub(super) state: Mutex<State>,
    pub(super) progress: Condvar,
    /// As the state has it, to be asked without the lock.
    pub(super) low: AtomicBool,
}

impl Journal {
    /// Begins a new segment after `resume`. What stood there before is durable already.
    pub fn begin(
        segments: Arc<Segments>,
        clock: Arc<dyn Clock>,
        config: Config,
        resume: Resume,
    ) -> Result<Journal> {
        let config = Config { segment_bytes: config.segment_bytes.max(SEGMENT_MIN), ..config };
        let (number, previous_end) = match resume.last_segment {
            Some((number, end)) => (SegmentNo(number.0 + 1), end),
            None => (SegmentNo(1), 0),
        };
        remove_unused(&segments, number)?;
        let mut segment = prepare(&segments, number, config.segment_bytes).map_err(no_room)?;
        let header = SegmentHeader {
            store: segments.store(),
            number,
            first_seq: resume.last_seq.next(),
            chain: resume.chain,
            previous_end,
        };
        write_header(&mut segment, &header)?;
        if let Some((last, end)) = resume.last_segment {
            cut(&segments, last, end);
        }
        let place = Place { segment: number, offset: PAGE, chain: resume.chain, seq: resume.last_seq.next() };
        let reading = Reading::take(&*clock);
        // A new journal begins with the clock.
        let last_ts = if resume.last_seq == Seq::ZERO { reading.wall } else { resume.last_ts };
        let state = State {
            next_seq: resume.last_seq.next(),
            last_ts,
            epochs: resume.epochs,
            doubtful: is_doubtful(resume.last_seq, last_ts, reading.wall),
            reading,
            sealing: false,
            floor: last_ts.max(resume.floor),
            group: None,
            group_first: Seq::ZERO,
            segment,
            spares: VecDeque::new(),
            low: None,
            preparing: false,
            next_number: SegmentNo(number.0 + 1),
            chain: resume.chain,
            driving: false,
            written: resume.last_seq,
            durable: resume.last_seq,
            durable_end: place,
            unsynced: 0,
            waiters: Vec::new(),
            failed: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            flushes: 0,
            written_bytes: 0,
        };
        Ok(Journal {
            segments,
            clock,
            config,
            state: Mutex::new(state),
            progress: Condvar::new(),
            low: AtomicBool::new(false),
        })
    }

    /// The segment files, for readers of extents.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Appends one event; `make` gets its time. For a write, `payload` are its bytes, and new ones.
    pub fn append(&self, payload: &[u8], make: impl FnOnce(Timestamp) -> Event) -> Result<Appended> {
        let claim = if payload.is_empty() { Claim::Upkeep } else { Claim::Growth };
        self.append_as(claim, payload, make)
    }

    /// [`Journal::append`] for one that may use more, or less, of the space that is left.
    pub fn append_as(
        &self,
        claim: Claim,
        payload: &[u8],
        make: impl FnOnce(Timestamp) -> Event,
    ) -> Result<Appended> {
        let crc = if payload.is_empty() { 0 } else { crc32fast::hash(payload) };
        let mut state = self.room(payload.len() as u64, claim)?;
        let wall = state.reading.wall;
        let ts = wall.max(state.last_ts).max(state.floor);
        let appended = push(&mut state, (ts, wall), make(ts), payload, crc)?;
        let stream = !state.driving && large(&state);
        if stream {
            state.driving = true;
            self.drive(state);
        }
        Ok(appended)
    }

    /// Waits until an event of `len` bytes may be appended, and sees to its space on disk. Reads the clock; when that was
    /// stepped, its epoch has begun.
    pub(super) fn room(&self, len: u64, claim: Claim) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(stopped(error));
            }
            let pending = state.group.as_ref().map_or(0, |group| group.len_bytes());
            let stepped = self.read_clock(&mut state);
            state.sealing = stepped && state.group.is_some();
            if pending < GROUP_MAX && !state.sealing {
                let (next, there) = self.space_for(state, pending + len + SLACK, claim)?;
                state = next;
                if !there {
                    continue;
                }
                if stepped {
                    self.begin_epoch(&mut state)?;
                }
                return Ok(state);
            }
            if state.driving {
                state = self.progress.wait(state);
            } else {
                state.driving = true;
                self.drive(state);
                state = self.state.lock();
            }
        }
    }

    /// Whether there is space for so many bytes, and what is kept besides; `false`: look again.
    fn space_for<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        len: u64,
        claim: Claim,
    ) -> Result<(MutexGuard<'a, State>, bool)> {
        let in_flight = if state.driving { GROUP_MAX + SLACK } else { 0 };
        let left = left(&state).checked_sub(in_flight + len);
        let enough = |claim: Claim| left.is_some_and(|left| left >= claim.keeps(self.config.reserve_bytes));
        if enough(Claim::Growth) {
            return Ok((state, true));
        }
        if state.driving {
            // The driver may be about to take the next segment; let it finish first.
            return Ok((self.progress.wait(state), false));
        }
        if state.low.is_none() {
            // What comes of it is seen at the next look.
            state = self.make_spare(state).0;
            return Ok((state, false));
        }
        if claim != Claim::Growth && enough(claim) {
            return Ok((state, true));
        }
        if self.room_for_segment().is_ok() {
            let (next, made) = self.make_spare(state);
            return made.map(|()| (next, false));
        }
        let full = state.low.clone();
        Err(full.unwrap_or_else(|| Error::errno("journal.append", libc::ENOSPC)))
    }

    /// Calls `done` once everything up to `upto` is durable (or can't become so).
    pub fn commit(&self, upto: Seq, done: Completion) {
        let mut state = self.state.lock();
        let upto = upto.min(Seq(state.next_seq.0 - 1));
        if state.durable >= upto {
            drop(state);
            return done(Ok(()));
        }
        if let Some(error) = &state.failed {
            let error = stopped(error);
            drop(state);
            return done(Err(error));
        }
        state.waiters.push((upto, done));
        if !state.driving {
            state.driving = true;
            self.drive(state);
        }
    }

    /// Blocks until everything up to `upto` is durable.
    pub fn commit_wait(&self, upto: Seq) -> Result<()> {
        let slot = Arc::new((Mutex::new(None), Condvar::new()));
        let answer = Arc::clone(&slot);
        self.commit(
            upto,
            Box::new(move |result| {
                *answer.0.lock() = Some(result);
                answer.1.notify_all();
            }),
        );
        let mut result = slot.0.lock();
        loop {
            match result.take() {
                Some(result) => return result,
                None => result = slot.1.wait(result),
            }
        }
    }

    /// Blocks until every event so far is durable; the last Seq.
    pub fn flush(&self) -> Result<Seq> {
        let last = self.last_seq();
        self.commit_wait(last)?;
        Ok(last)
    }

    /// Writes groups until nobody waits and none is large. The caller has set `driving`.
    fn drive<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        loop {
            let sync = !state.waiters.is_empty() || state.unsynced >= UNSYNCED_MAX;
            let asked = sync && state.durable < Seq(state.next_seq.0 - 1);
            let owed = state.failed.is_none() && (asked || large(&state) || state.sealing);
            if !owed {
                break;
            }
            state = self.round(state, sync);
            let ready = take_ready(&mut state);
            if !ready.is_empty() {
                drop(state);
                for (done, result) in ready {
                    done(result);
                }
                state = self.state.lock();
            }
        }
        state.driving = false;
        let ready = take_ready(&mut state);
        drop(state);
        self.progress.notify_all();
        for (done, result) in ready {
            done(result);
        }
    }

    /// Writes the group that has gathered; with `sync`, durably.
    fn round<'a>(&'a self, mut state: MutexGuard<'a, State>, sync: bool) -> MutexGuard<'a, State> {
        let Some(group) = state.group.take() else {
            let file = Arc::clone(&state.segment.file);
            let written = state.written;
            drop(state);
            let result = file.sync("journal.segment.sync");
            let mut state = self.state.lock();
            match result {
                Ok(()) => self.made_durable(&mut state, written),
                Err(error) => fail(&mut state, error),
            }
            return state;
        };
        state.sealing = false;
        let first = state.group_first;
        let last = Seq(state.next_seq.0 - 1);
        drop(state);
        let result = self.write_group(&group, first, last, sync);
        let mut state = self.state.lock();
        match result {
            Ok(len) => {
                state.written = last;
                state.unsynced += len;
                state.written_bytes += len;
                remember(&mut state, &group, len, self.config.cache_bytes);
                if sync {
                    self.made_durable(&mut state, last);
                }
            }
            Err(error) => fail(&mut state, error),
        }
        // Appenders that wait for memory go on.
        self.progress.notify_all();
        state
    }

    fn made_durable(&self, state: &mut State, upto: Seq) {
        state.durable = upto;
        state.unsynced = 0;
        state.flushes += 1;
        state.durable_end = Place {
            segment: state.segment.number,
            offset: state.segment.end,
            chain: state.chain,
            seq: upto.next(),
        };
    }

    /// Only the driver comes here, so segment, spare and chain stay as they are while the lock is free.
    fn write_group(&self, group: &Arc<Group>, first: Seq, last: Seq, sync: bool) -> Result<u64> {
        let len = group.len_bytes();
        self.roll_for(len, first)?;
        let (file, number, offset, chain, durable) = {
            let state = self.state.lock();
            let segment = &state.segment;
            (Arc::clone(&segment.file), segment.number, segment.end, state.chain, state.durable)
        };
        let header = GroupHeader {
            crc: 0,
            records_len: 0,
            payload_len: 0,
            first_seq: first,
            count: u32::try_from(last.0 - first.0 + 1).unwrap_or(u32::MAX),
            chain,
            base_ts: group.base(),
            durable,
        };
        let header = group.seal(header, self.segments.store(), number, offset)?;
        group
            .with_parts(|head, area| {
                let parts: &[&[u8]] = if area.is_empty() { &[head] } else { &[head, area] };
                file.write_parts("journal.group.write", parts, offset, sync)
            })
            .unwrap_or(Ok(()))?;
        let mut state = self.state.lock();
        state.segment.end = offset + header.len_bytes();
        state.chain = header.crc;
        Ok(header.len_bytes())
    }

    /// Last Seq given.
    pub fn last_seq(&self) -> Seq {
        Seq(self.state.lock().next_seq.0 - 1)
    }

    /// Last durable Seq.
    pub fn durable(&self) -> Seq {
        self.state.lock().durable
    }

    /// Place after the last durable group.
    pub fn durable_end(&self) -> Place {
        self.state.lock().durable_end
    }

    /// Whether anything is taken any more; the error that an append would get.
    pub fn accepts(&self) -> Result<()> {
        self.state.lock().failed.as_ref().map_or(Ok(()), |error| Err(stopped(error)))
    }

    /// Time of the last event.
    pub fn last_ts(&self) -> Timestamp {
        self.state.lock().last_ts
    }

    /// The clock epochs so far.
    pub fn epochs(&self) -> Epochs {
        self.state.lock().epochs.clone()
    }

    /// Why writing has stopped, if it has.
    pub fn failure(&self) -> Option<Error> {
        self.state.lock().failed.clone()
    }

    /// Flushes and bytes written since the start.
    pub fn counters(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.flushes, state.written_bytes)
    }

    /// Written groups still in memory, from the one that begins with `from` on, that are durable; at most `limit`.
    pub fn recent(&self, from: Seq, limit: usize) -> Vec<Arc<Group>> {
        let state = self.state.lock();
        let start =
            state.recent.partition_point(|(group, _)| group.first_seq().is_some_and(|first| first < from));
        let found = state.recent.get(start).and_then(|(group, _)| group.first_seq());
        if found != Some(from) {
            return Vec::new();
        }
        state
            .recent
            .iter()
            .skip(start)
            .take(limit)
            .filter(|(group, _)| group.header().is_some_and(|header| header.last_seq() <= state.durable))
            .map(|(group, _)| Arc::clone(group))
            .collect()
    }
}
