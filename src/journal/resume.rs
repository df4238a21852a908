//! What recovery hands to the writer.

use super::epochs::Epochs;
use crate::error::{Error, Result};
use crate::format::pins::KeptPin;
use crate::types::{SegmentNo, Seq, Timestamp};

/// How a journal goes on after recovery.
#[derive(Clone, Debug)]
pub struct Resume {
    pub last_seq: Seq,
    /// Time of that event.
    pub last_ts: Timestamp,
    /// An instant up to here was closed; later than the last event only after a session that could not write.
    pub floor: Timestamp,
    pub epochs: Epochs,
    pub chain: u32,
    /// Newest segment with a header, and where its valid groups end; `None` for a new journal.
    pub last_segment: Option<(SegmentNo, u64)>,
}

impl Resume {
    /// Takes an answer into account that was given after the last event.
    pub fn hold(&mut self, pin: &KeptPin) -> Result<()> {
        if pin.seq > self.last_seq {
            let message = format!(
                "event {} was shown and is not in the journal, which ends at {}: its end is damaged, or STORE was put \
                 together from two times; restore STORE from a copy",
                pin.seq, self.last_seq
            );
            return Err(Error::corrupt("journal.recover", message));
        }
        if self.epochs.of(pin.seq) == self.epochs.current() {
            self.floor = self.floor.max(pin.at.next());
        }
        Ok(())
    }
}
