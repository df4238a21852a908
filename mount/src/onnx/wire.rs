//! Frames between the daemon and the inference process: a kind, a length, a payload. Both ends are this very program,
//! but one of them may be dying: lengths are bounded, and a short frame is an error.

use std::io::{Error, ErrorKind, Read, Result, Write};

/// Largest payload: a model, or 10,000 rows of features many times over.
const PAYLOAD_MAX: u64 = 256 << 20;
/// Kind and length.
const HEAD: usize = 9;

/// What a frame is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Daemon: the library's path, as text.
    Library,
    /// Daemon: a model's bytes. Answered by `Done` with its signature in JSON.
    Model,
    /// Daemon: rows of features, see [`numbers`]. Answered by `Done` with one row of outputs for each.
    Rows,
    /// Worker: done, with what was asked for.
    Done,
    /// Worker: why not, as text.
    Failed,
}

const KINDS: [(Kind, u8); 5] = [
    (Kind::Library, b'l'),
    (Kind::Model, b'm'),
    (Kind::Rows, b'r'),
    (Kind::Done, b'd'),
    (Kind::Failed, b'f'),
];

/// Sends one frame.
pub fn send(to: &mut impl Write, kind: Kind, payload: &[u8]) -> Result<()> {
    let byte = KINDS.iter().find(|(known, _)| *known == kind).map_or(0, |(_, byte)| *byte);
    let mut head = [byte; HEAD];
    if let Some(rest) = head.get_mut(1..) {
        rest.copy_from_slice(&(payload.len() as u64).to_le_bytes());
    }
    to.write_all(&head)?;
    to.write_all(payload)?;
    to.flush()
}

/// Receives one frame.
pub fn receive(from: &mut impl Read) -> Result<(Kind, Vec<u8>)> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    let [byte, len @ ..] = head;
    let kind = KINDS.iter().find(|(_, known)| *known == byte).map(|(kind, _)| *kind);
    let kind = kind.ok_or_else(|| Error::new(ErrorKind::InvalidData, "not a frame"))?;
    let len = u64::from_le_bytes(len);
    if len > PAYLOAD_MAX {
        return Err(Error::new(ErrorKind::InvalidData, "a frame beyond all bounds"));
    }
    // What was announced is not believed before it comes.
    let mut payload = Vec::new();
    if from.take(len).read_to_end(&mut payload)? as u64 != len {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok((kind, payload))
}

/// Rows as bytes: the width of a row, then all numbers, little endian.
pub fn numbers(width: usize, values: &[f32]) -> Vec<u8> {
    let width = u32::try_from(width).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(4 + values.len() * 4);
    bytes.extend(width.to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The width of a row and all numbers; `None` for what is not whole rows.
pub fn parse_numbers(bytes: &[u8]) -> Option<(usize, Vec<f32>)> {
    let (width, values) = bytes.split_first_chunk::<4>()?;
    let width = usize::try_from(u32::from_le_bytes(*width)).ok()?;
    let (values, rest) = values.as_chunks::<4>();
    (rest.is_empty() && width > 0 && values.len().is_multiple_of(width))
        .then(|| (width, values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_rows_come_back() {
        let rows = numbers(2, &[1.0, -0.5, f32::MAX, 0.0]);
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::Rows, &rows).unwrap();
        let (kind, payload) = receive(&mut bytes.as_slice()).unwrap();
        assert_eq!(kind, Kind::Rows);
        assert_eq!(parse_numbers(&payload).unwrap(), (2, vec![1.0, -0.5, f32::MAX, 0.0]));
        for (kind, _) in KINDS {
            let mut bytes = Vec::new();
            send(&mut bytes, kind, b"").unwrap();
            assert_eq!(receive(&mut bytes.as_slice()).unwrap(), (kind, Vec::new()));
        }
    }

    #[test]
    fn what_is_short_or_absurd_is_an_error() {
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::Done, b"four").unwrap();
        for len in 0..bytes.len() {
            assert!(receive(&mut &bytes[..len]).is_err(), "{len}");
        }
        bytes[8] = 0xff;
        assert!(receive(&mut bytes.as_slice()).is_err());
        assert!(receive(&mut &b"x\0\0\0\0\0\0\0\0"[..]).is_err());
        for wrong in [&b""[..], b"\0\0\0\0", b"\x02\0\0\0\0\0\0\0", b"\x01\0\0\0\0\0"] {
            assert_eq!(parse_numbers(wrong), None, "{wrong:?}");
        }
    }
}
