//! A batch of pre-images in a base file: one header page that lists up to [`MAX_PAGES`] pages, then the pages.
//! docs/FORMAT.md, "Base files". A batch is durable before any of its pages is overwritten in the live file.

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

/// The header page of a batch; `entries` are at most [`MAX_PAGES`].
pub fn encode_header(store: StoreId, entries: &[BaseEntry]) -> [u8; PAGE_LEN] {
    let mut page = [0; PAGE_LEN];
    let mut fields = Vec::with_capacity(PAGE_LEN);
    fields.extend_from_slice(&MAGIC.to_le_bytes());
    fields.extend_from_slice(&[0; 4]);
    fields.extend_from_slice(&VERSION.to_le_bytes());
    fields.extend_from_slice(&u16::try_from(entries.len()).unwrap_or(0).to_le_bytes());
    fields.extend_from_slice(&[0; 4]);
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
pub fn decode_header(page: &[u8], store: StoreId) -> Option<Vec<BaseEntry>> {
    let mut reader = Reader::new(page.get(..PAGE_LEN)?, "base batch");
    if reader.u32().ok()? != MAGIC || reader.u32().ok()? != crc32fast::hash(page.get(8..PAGE_LEN)?) {
        return None;
    }
    let version = u16::from_le_bytes(reader.array().ok()?);
    let count = usize::from(u16::from_le_bytes(reader.array().ok()?));
    reader.take(4).ok()?;
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
    Some(entries)
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
        let mut page = encode_header(store, &entries);
        assert_eq!(decode_header(&page, store), Some(entries));
        assert_eq!(decode_header(&page, StoreId([2; 16])), None);
        page[4000] ^= 1;
        assert_eq!(decode_header(&page, store), None);
    }
}
