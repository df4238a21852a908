//! A batch of pre-images in a base file: one header page that lists up to [`MAX_PAGES`] pages, then the pages.
//! docs/FORMAT.md, "Base files". A batch is durable before any of its pages is overwritten in the live file. One without
//! pages is a seal: the file ends there.

use super::codec::Reader;
use crate::types::{FileId, PAGE_LEN, PageNo, Seq, StoreId};

const MAGIC: u32 = u32::from_le_bytes(*b"WBAS");
const VERSION: u16 = 1;
const HEADER_LEN: usize = 32;
const ENTRY_LEN: usize = 28;
/// Pages in one batch at most.
pub const MAX_PAGES: usize = (PAGE_LEN - HEADER_LEN) / ENTRY_LEN;

/// One saved page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseEntry {
    pub file: FileId,
    /// The adoption whose base this is: valid from there until the page's first later version.
    pub adopted: Seq,
    pub page: PageNo,
    /// CRC-32 of the 4096 bytes.
    pub crc: u32,
}

/// A header page, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseHeader {
    /// Page of its file that it stands in; 0 in the first one, and in all of earlier builds.
    pub at: u32,
    /// None: a seal.
    pub entries: Vec<BaseEntry>,
}

impl BaseHeader {
    /// Whether it was written to this page of its file, as far as it says.
    pub fn is_at(&self, page: u64) -> bool {
        self.at == 0 || u64::from(self.at) == page
    }

    /// Whether it says that it was written to this page of its file.
    pub fn is_surely_at(&self, page: u64) -> bool {
        self.is_at(page) && (self.at != 0 || page == 0)
    }
}

/// The header page of a batch in page `at` of its file; `entries` are at most [`MAX_PAGES`].
pub fn encode_header(store: StoreId, at: u64, entries: &[BaseEntry]) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    let mut fields = Vec::with_capacity(PAGE_LEN);
    fields.extend_from_slice(&MAGIC.to_le_bytes());
    fields.extend_from_slice(&[0; 4]);
    fields.extend_from_slice(&VERSION.to_le_bytes());
    fields.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    // Not told where it does not fit, which is as good as what earlier builds wrote.
    fields.extend_from_slice(&u32::try_from(at).unwrap_or(0).to_le_bytes());
    fields.extend_from_slice(&store.0);
    for entry in entries {
        fields.extend_from_slice(&entry.file.0.to_le_bytes());
        fields.extend_from_slice(&entry.adopted.0.to_le_bytes());
        fields.extend_from_slice(&entry.page.0.to_le_bytes());
        fields.extend_from_slice(&entry.crc.to_le_bytes());
    }
    page[..fields.len()].copy_from_slice(&fields);
    let crc = crc32fast::hash(&page[8..]);
    page[4..8].copy_from_slice(&crc.to_le_bytes());
    page
}

/// Reads a header page; `None` when it is not one of this store, or torn.
pub fn decode_header(page: &[u8], store: StoreId) -> Option<BaseHeader> {
    let mut reader = Reader::new(page.get(..PAGE_LEN)?, "base batch");
    if reader.u32().ok()? != MAGIC || reader.u32().ok()? != crc32fast::hash(page.get(8..PAGE_LEN)?) {
        return None;
    }
    let version = u16::from_le_bytes(reader.array().ok()?);
    let count = usize::from(u16::from_le_bytes(reader.array().ok()?));
    let at = reader.u32().ok()?;
    let owner = StoreId(reader.array().ok()?);
    if version != VERSION || owner != store || count > MAX_PAGES {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(BaseEntry {
            file: FileId(reader.u64().ok()?),
            adopted: Seq(reader.u64().ok()?),
            page: PageNo(reader.u64().ok()?),
            crc: reader.u32().ok()?,
        });
    }
    Some(BaseHeader { at, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_header_comes_back() {
        let store = StoreId([1; 16]);
        let entries: Vec<_> = (0..MAX_PAGES as u64)
            .map(|n| BaseEntry { file: FileId(n + 1), adopted: Seq(2), page: PageNo(n << 20), crc: n as u32 })
            .collect();
        let mut page = encode_header(store, 146, &entries);
        let header = BaseHeader { at: 146, entries };
        assert!(header.is_at(146) && header.is_surely_at(146) && !header.is_at(147));
        assert_eq!(decode_header(&page, store), Some(header));
        assert_eq!(decode_header(&page, StoreId([2; 16])), None);
        page[4000] ^= 1;
        assert_eq!(decode_header(&page, store), None);
    }

    /// Earlier builds wrote zeros where now the place stands.
    #[test]
    fn a_header_that_does_not_say_where_it_is_may_be_anywhere() {
        let header = decode_header(&encode_header(StoreId([1; 16]), 0, &[]), StoreId([1; 16])).unwrap();
        assert!(header.is_at(7) && !header.is_surely_at(7) && header.is_surely_at(0));
    }
}
