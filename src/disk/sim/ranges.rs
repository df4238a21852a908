//! A set of page numbers as ranges: which pages of a file have space.

use std::collections::BTreeMap;

/// Disjoint, not touching, half-open ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    /// start -> end
    map: BTreeMap<u64, u64>,
    total: u64,
}

impl Ranges {
    /// How many numbers are in the set.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many numbers of `start..end` are in the set.
    pub(super) fn covered(&self, start: u64, end: u64) -> u64 {
        let before = self.map.range(..start).next_back();
        let within = self.map.range(start..end.max(start));
        before
            .into_iter()
            .chain(within)
            .map(|(&s, &e)| e.min(end).saturating_sub(s.max(start)))
            .sum()
    }

    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end || self.covered(start, end) == end - start {
            return;
        }
        let (mut from, mut to) = (start, end);
        if let Some((&s, &e)) = self.map.range(..start).next_back()
            && e >= start
        {
            from = s;
        }
        while let Some((&s, &e)) = self.map.range(from..=to).next() {
            self.map.remove(&s);
            self.total -= e - s;
            to = to.max(e);
        }
        self.map.insert(from, to);
        self.total += to - from;
    }

    pub(super) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let Some((&s, &e)) = self.map.range(..start).next_back()
            && e > start
        {
            self.map.insert(s, start);
            self.total -= e - start;
            if e > end {
                self.map.insert(end, e);
                self.total += e - end;
            }
        }
        while let Some((&s, &e)) = self.map.range(start..end).next() {
            self.map.remove(&s);
            self.total -= e - s;
            if e > end {
                self.map.insert(end, e);
                self.total += e - end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(steps in prop::collection::vec((any::<bool>(), 0..60_u64, 0..20_u64), 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (add, start, len) in steps {
                if add {
                    ranges.insert(start, start + len);
                    model.extend(start..start + len);
                } else {
                    ranges.remove(start, start + len);
                    model.retain(|n| !(start..start + len).contains(n));
                }
                prop_assert_eq!(ranges.total(), model.len() as u64);
                for n in 0..90 {
                    prop_assert_eq!(ranges.covered(n, n + 1) == 1, model.contains(&n));
                }
                prop_assert_eq!(ranges.covered(5, 40), model.range(5..40).count() as u64);
            }
        }
    }
}
