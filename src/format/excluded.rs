//! Records about what is excluded from history (kinds 21 to 24). docs/FORMAT.md, "Records".

use super::codec::{Reader, put_varint};
use super::event::{Event, Excluded};
use super::fields::{get_attr, get_file, get_slot, put_attr, put_slot};
use super::record::{get_naming, put_name_or_attr};
use crate::error::{Error, Result};

const EXCLUDED: u8 = 21;
const CAPTURE: u8 = 22;
const RELEASE: u8 = 23;
const MARK: u8 = 24;

/// The kinds that are read here.
pub(super) const FIRST: u8 = EXCLUDED;
pub(super) const LAST: u8 = MARK;

/// Appends kind and fields; nothing for an event of another kind.
pub(super) fn put(out: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Excluded { names, event } => {
            out.extend_from_slice(&[EXCLUDED, u8::from(names.first) | u8::from(names.second) << 1]);
            put_name_or_attr(out, event);
        }
        Event::Capture { file, attr } => {
            out.push(CAPTURE);
            put_varint(out, file.0);
            put_attr(out, attr);
        }
        Event::Release { file } => {
            out.push(RELEASE);
            put_varint(out, file.0);
        }
        Event::Mark { file, slot, attr, dir_nlink, excluded } => {
            out.push(MARK);
            put_varint(out, file.0);
            put_slot(out, slot);
            put_attr(out, attr);
            put_varint(out, u64::from(*dir_nlink));
            out.push(u8::from(*excluded));
        }
        _ => {}
    }
}

/// Reads the fields of a kind.
pub(super) fn get(kind: u8, reader: &mut Reader<'_>) -> Result<Event> {
    Ok(match kind {
        EXCLUDED => {
            let flags = reader.byte()?;
            let names = Excluded { first: flags & 1 != 0, second: flags & 2 != 0 };
            if !(1..=3).contains(&flags) {
                return Err(Error::corrupt("format.decode", "an excluded event without an excluded name"));
            }
            let kind = reader.byte()?;
            Event::Excluded { names, event: Box::new(get_naming(kind, reader)?) }
        }
        CAPTURE => Event::Capture { file: get_file(reader)?, attr: get_attr(reader)? },
        RELEASE => Event::Release { file: get_file(reader)? },
        MARK => Event::Mark {
            file: get_file(reader)?,
            slot: get_slot(reader)?,
            attr: get_attr(reader)?,
            dir_nlink: reader.varint32()?,
            excluded: reader.byte()? != 0,
        },
        other => return Err(Error::corrupt("format.decode", format!("unknown event kind {other}"))),
    })
}
