//! A byte buffer for direct I/O.
//!
//! Invariants:
//! - The first byte stands at an address that is a multiple of [`PAGE_LEN`], also after the buffer has grown.
//! - Memory is whole pages, all of them initialised, so that every view of it is sound and padding costs no move.
//! - `len` never exceeds the bytes of `pages`; what lies beyond `len` is stale and is never shown.

use crate::types::PAGE_LEN;

/// The unit of allocation: its alignment is what makes the whole buffer aligned.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN]);

const _: () = assert!(size_of::<Page>() == PAGE_LEN && align_of::<Page>() == PAGE_LEN);

const ZERO: Page = Page([0; PAGE_LEN]);

/// A growable byte buffer whose memory is 4096-aligned, as `O_DIRECT` wants it. Clearing keeps the memory.
#[derive(Default)]
pub struct AlignedBuf {
    pages: Vec<Page>,
    len: usize,
}

impl AlignedBuf {
    /// An empty buffer without memory.
    pub fn new() -> AlignedBuf {
        AlignedBuf::default()
    }

    /// An empty buffer that takes `bytes` without growing.
    pub fn with_capacity(bytes: usize) -> AlignedBuf {
        AlignedBuf {
            pages: Vec::with_capacity(bytes.div_ceil(PAGE_LEN)),
            len: 0,
        }
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes the buffer takes without growing.
    pub fn capacity(&self) -> usize {
        self.pages.capacity() * PAGE_LEN
    }

    /// The bytes in use.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pages` owns at least `len` contiguous initialised bytes (each Page is exactly PAGE_LEN bytes
        // without padding); u8 has no alignment or validity demands; the borrow of self covers the slice's life.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast::<u8>(), self.len) }
    }

    /// The bytes in use, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the borrow is exclusive, and any byte pattern is a valid Page.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast::<u8>(), self.len) }
    }

    /// Appends.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let start = self.len;
        self.grow_to(start + bytes.len());
        self.as_mut_slice()[start..].copy_from_slice(bytes);
    }

    /// Cuts off, or appends zeros.
    pub fn resize(&mut self, len: usize) {
        let start = self.len;
        if len <= start {
            self.len = len;
            return;
        }
        self.grow_to(len);
        self.as_mut_slice()[start..].fill(0);
    }

    /// Appends zeros until the length is a multiple of `multiple` (nothing when that is 0).
    pub fn pad_to(&mut self, multiple: usize) {
        if multiple > 0 {
            self.resize(self.len.next_multiple_of(multiple));
        }
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Sets the length to `len >= self.len`; the new bytes are initialised but stale.
    fn grow_to(&mut self, len: usize) {
        let pages = len.div_ceil(PAGE_LEN);
        if pages > self.pages.len() {
            self.pages.resize(pages, ZERO);
        }
        self.len = len;
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice()
    }
}

impl std::fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} of {} bytes)", self.len, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_aligned(buf: &AlignedBuf) {
        assert_eq!(buf.as_slice().as_ptr() as usize % PAGE_LEN, 0);
    }

    #[test]
    fn stays_aligned_while_it_grows_and_keeps_its_bytes() {
        let mut buf = AlignedBuf::new();
        assert!(buf.is_empty());
        let mut expected = Vec::new();
        for round in 0..300_u32 {
            let piece = vec![round as u8; round as usize * 7 % 1000];
            buf.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            assert_aligned(&buf);
        }
        assert_eq!(buf.as_slice(), expected);
    }

    #[test]
    fn growing_shows_zeros_never_stale_bytes() {
        let mut buf = AlignedBuf::with_capacity(10_000);
        buf.extend_from_slice(&[0xff; 10_000]);
        buf.resize(100);
        assert_eq!(buf.len(), 100);
        buf.resize(9_000);
        assert!(buf[..100].iter().all(|&b| b == 0xff));
        assert!(buf[100..].iter().all(|&b| b == 0));
        buf.clear();
        buf.extend_from_slice(b"x");
        buf.pad_to(PAGE_LEN);
        assert_eq!(buf.len(), PAGE_LEN);
        assert_eq!(buf[0], b'x');
        assert!(buf[1..].iter().all(|&b| b == 0));
        buf.pad_to(PAGE_LEN);
        assert_eq!(buf.len(), PAGE_LEN, "padding a padded buffer adds nothing");
    }

    #[test]
    fn clear_keeps_the_memory() {
        let mut buf = AlignedBuf::with_capacity(3 * PAGE_LEN);
        let capacity = buf.capacity();
        buf.resize(3 * PAGE_LEN);
        let address = buf.as_slice().as_ptr();
        buf.clear();
        buf.extend_from_slice(&[1; 3 * PAGE_LEN]);
        assert_eq!(
            (buf.as_slice().as_ptr(), buf.capacity()),
            (address, capacity)
        );
    }

    #[test]
    fn may_cross_threads() {
        fn check<T: Send + Sync>() {}
        check::<AlignedBuf>();
    }
}
