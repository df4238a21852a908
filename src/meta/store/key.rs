//! Keys of rows: bytes whose order is that of the values, so that ranges and prefixes can be asked for.

use crate::error::{Error, Result};
use crate::types::{FileId, PageNo, Seq, Timestamp};

/// A key, or a part of one. A tuple's first part is a prefix of the tuple.
pub trait Key: Sized {
    /// Appends the key's bytes. None is the beginning of another's.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes a key off the front.
    ///
    /// # Errors
    /// `Corrupt`: there is none.
    fn take(bytes: &mut &[u8]) -> Result<Self>;
}

/// The bytes of a key.
pub(super) fn bytes_of<K: Key>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.put(&mut out);
    out
}

/// The key that bytes are, all of them.
pub(super) fn key_of<K: Key>(mut bytes: &[u8]) -> Result<K> {
    let key = K::take(&mut bytes)?;
    if bytes.is_empty() { Ok(key) } else { Err(damaged()) }
}

fn damaged() -> Error {
    Error::corrupt("meta.key", "a key in the metadata store is none of its table")
}

fn split<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*head)
}

macro_rules! unsigned {
    ($($kind:ty),*) => {$(
        impl Key for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn take(bytes: &mut &[u8]) -> Result<Self> {
                Ok(<$kind>::from_be_bytes(split(bytes)?))
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64);

impl Key for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        // Negative ones first.
        ((*self as u64) ^ (1 << 63)).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<i64> {
        Ok((u64::take(bytes)? ^ (1 << 63)) as i64)
    }
}

macro_rules! wrapped {
    ($($kind:ident),*) => {$(
        impl Key for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }

            fn take(bytes: &mut &[u8]) -> Result<$kind> {
                Ok($kind(Key::take(bytes)?))
            }
        }
    )*};
}

wrapped!(Seq, FileId, PageNo, Timestamp);

impl Key for () {
    fn put(&self, _: &mut Vec<u8>) {}

    fn take(_: &mut &[u8]) -> Result<()> {
        Ok(())
    }
}

/// What ends a string, and what stands for a zero in it: the shorter of two strings comes first.
const END: [u8; 2] = [0, 1];
const ZERO: [u8; 2] = [0, 0xff];

impl Key for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        for byte in self {
            match byte {
                0 => out.extend_from_slice(&ZERO),
                other => out.push(*other),
            }
        }
        out.extend_from_slice(&END);
    }

    fn take(bytes: &mut &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let [byte] = split(bytes)?;
            match byte {
                0 => match split(bytes)? {
                    [1] => return Ok(out),
                    [0xff] => out.push(0),
                    _ => return Err(damaged()),
                },
                other => out.push(other),
            }
        }
    }
}

impl Key for String {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_bytes().to_vec().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<String> {
        String::from_utf8(Key::take(bytes)?).map_err(|_| damaged())
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<(A, B)> {
        Ok((A::take(bytes)?, B::take(bytes)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
        self.2.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<(A, B, C)> {
        Ok((A::take(bytes)?, B::take(bytes)?, C::take(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn orders<K: Key + Ord + std::fmt::Debug>(left: &K, right: &K) {
        assert_eq!(bytes_of(left).cmp(&bytes_of(right)), left.cmp(right), "{left:?} {right:?}");
        assert_eq!(&key_of::<K>(&bytes_of(left)).unwrap(), left);
    }

    proptest! {
        #[test]
        fn bytes_order_as_keys_do(
            one: (Vec<u8>, u64, i64), other: (Vec<u8>, u64, i64), text in "[a\\x00\\x01é]{0,4}", more in "[a\\x00\\x01é]{0,4}",
        ) {
            orders(&one, &other);
            orders(&(text.clone(), one.1), &(more.clone(), other.1));
            orders(&(one.1 as u8, text), &(other.1 as u8, more));
            orders(&Timestamp(one.2), &Timestamp(other.2));
        }

        #[test]
        fn any_bytes_are_a_key_or_refused(bytes: Vec<u8>) {
            let _ = key_of::<(String, u64)>(&bytes);
            let _ = key_of::<(u16, Vec<u8>, i64)>(&bytes);
        }
    }

    #[test]
    fn a_first_part_is_a_prefix() {
        let whole = bytes_of(&("base/5/1".to_owned(), Seq(7)));
        assert!(whole.starts_with(&bytes_of(&"base/5/1".to_owned())));
        assert!(!whole.starts_with(&bytes_of(&"base/5/".to_owned())));
    }
}
