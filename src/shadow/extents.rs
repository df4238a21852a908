//! Lists of extents: in order, apart, no two that could be one.

use crate::format::shadow::Extent;
use std::ops::Range;

/// Adds an extent behind the others, as part of the last one where it goes on from it.
pub(super) fn push(list: &mut Vec<Extent>, extent: Extent) {
    if extent.count == 0 {
        return;
    }
    if let Some(last) = list.last_mut()
        && last.page + last.count == extent.page
        && last.snapshot == extent.snapshot
        && last.at + last.count == extent.at
    {
        last.count += extent.count;
        return;
    }
    list.push(extent);
}

/// The part of an extent within a range of image pages.
pub(super) fn clip(extent: Extent, range: &Range<u64>) -> Option<Extent> {
    let (start, end) = (extent.page.max(range.start), (extent.page + extent.count).min(range.end));
    (start < end).then(|| Extent {
        page: start,
        count: end - start,
        at: extent.at + (start - extent.page),
        ..extent
    })
}

/// The extents that meet a range of image pages, cut to it.
pub(super) fn within(list: &[Extent], range: Range<u64>) -> impl Iterator<Item = Extent> {
    let first = list.partition_point(|extent| extent.page + extent.count <= range.start);
    let rest = list.get(first..).unwrap_or(&[]).iter();
    let end = range.end;
    rest.take_while(move |extent| extent.page < end).filter_map(move |extent| clip(*extent, &range))
}

/// `old` with what `new` puts over it, up to `pages`. `new` in order; an extent of it with `count` pages at
/// [`NOWHERE`] takes away.
pub(super) fn overlay(old: &[Extent], new: &[Extent], pages: u64) -> Vec<Extent> {
    let mut list = Vec::with_capacity(old.len() + new.len());
    let mut at = 0;
    for extent in new {
        within(old, at..extent.page.min(pages)).for_each(|kept| push(&mut list, kept));
        at = at.max(extent.page + extent.count);
        if let Some(kept) = clip(*extent, &(0..pages)).filter(|extent| extent.snapshot != NOWHERE) {
            push(&mut list, kept);
        }
    }
    within(old, at..pages).for_each(|kept| push(&mut list, kept));
    list
}

/// No snapshot: pages of zeros.
pub(super) const NOWHERE: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: usize = 40;

    fn places(list: &[Extent]) -> Vec<Option<(u32, u64)>> {
        let mut places = vec![None; PAGES];
        for extent in list {
            for page in 0..extent.count {
                places[(extent.page + page) as usize] = Some((extent.snapshot, extent.at + page));
            }
        }
        places
    }

    proptest! {
        #[test]
        fn an_overlay_is_page_by_page(
            rounds in prop::collection::vec(
                (prop::collection::vec((0u64..6, 1u64..6, any::<bool>()), 0..6), 1u64..PAGES as u64), 1..6,
            ),
        ) {
            let (mut list, mut model) = (Vec::new(), vec![None; PAGES]);
            for (number, (pieces, pages)) in (1u32..).zip(rounds) {
                let (mut new, mut page, mut at) = (Vec::new(), 0, 0);
                for (skip, count, zero) in pieces {
                    page += skip;
                    if page + count > PAGES as u64 { break }
                    let snapshot = if zero { NOWHERE } else { number };
                    new.push(Extent { page, count, snapshot, at });
                    for ahead in 0..count {
                        model[(page + ahead) as usize] = (!zero).then_some((number, at + ahead));
                    }
                    (page, at) = (page + count, at + count);
                }
                model[pages as usize..].fill(None);
                list = overlay(&list, &new, pages);
                prop_assert_eq!(places(&list), model.clone());
                let parts: Vec<_> = (0..8).flat_map(|part| within(&list, part * 5..part * 5 + 5)).collect();
                prop_assert_eq!(places(&parts), model.clone());
            }
        }
    }
}
