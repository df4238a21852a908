//! Which page each write of a history hits, and what it holds: both follow from its number, so that any page at any
//! instant can be checked without keeping anything.

/// Pages of the one table.
pub const PAGES: u64 = 1 << 18;
pub const PAGE: u64 = 4096;

/// A number that looks random and follows from another (the finalizer of splitmix64).
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The page that the write hits. One in four goes to a hot hundredth of the table.
pub fn page_of(write: u64) -> u64 {
    let random = mixed(write);
    match random >> 62 {
        0 => random % (PAGES / 100),
        _ => random % PAGES,
    }
}

/// What the write brings: a page of a database, rows alike, some of them changed.
pub fn fill(write: u64, page: &mut [u8]) {
    for (at, row) in page.chunks_mut(128).enumerate() {
        row.fill(at as u8);
        row[..8].copy_from_slice(&(page_of(write) * 32 + at as u64).to_le_bytes());
    }
    page[..8].copy_from_slice(&write.to_le_bytes());
    let row = (mixed(write ^ 0x5555) % 31 + 1) as usize * 128;
    for (at, byte) in page[row + 8..row + 48].iter_mut().enumerate() {
        *byte = (mixed(write) >> (at % 8 * 8)) as u8 ^ at as u8;
    }
}

/// The newest write of a page at or before `upto`, of writes numbered from 1.
pub fn newest(page: u64, upto: u64) -> Option<u64> {
    (1..=upto).rev().find(|write| page_of(*write) == page)
}
