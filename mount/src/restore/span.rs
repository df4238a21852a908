//! Which stretches of a file are read at once.

use weft::lineage::splits::NEAR;

/// Bytes of one read: what the kernel asks a daemon for at once.
pub(super) const READ: usize = 1 << 20;

/// What is read at once, and the stretches of it that are wanted.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    end: u64,
    /// Ascending, from and to.
    pub(super) wanted: Vec<(u64, u64)>,
}

impl Span {
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.end - self.start).unwrap_or(READ)
    }
}

/// Ascending stretches as reads of at most [`READ`] bytes: scattered pages that stand near each other in one.
pub(super) fn spans(wanted: &[(u64, u64)]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (mut start, end) in wanted.iter().copied() {
        while start < end {
            let until = match spans.last_mut() {
                Some(last) if start - last.end <= NEAR && start < last.start + READ as u64 => {
                    last.end = end.min(last.start + READ as u64);
                    last.wanted.push((start, last.end));
                    last.end
                }
                _ => {
                    let until = end.min(start + READ as u64);
                    spans.push(Span { start, end: until, wanted: vec![(start, until)] });
                    until
                }
            };
            start = until;
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_near_is_read_at_once_and_no_read_is_too_long() {
        let page = 8192;
        let span = |start, end, wanted: &[(u64, u64)]| Span { start, end, wanted: wanted.to_vec() };
        let far = 5 * page + NEAR + 1;
        assert_eq!(
            spans(&[(0, page), (4 * page, 5 * page), (far, far + page)]),
            [
                span(0, 5 * page, &[(0, page), (4 * page, 5 * page)]),
                span(far, far + page, &[(far, far + page)])
            ]
        );
        let read = READ as u64;
        let long = spans(&[(0, 2 * read + 1), (2 * read + 1 + NEAR, 3 * read)]);
        assert_eq!(
            long,
            [
                span(0, read, &[(0, read)]),
                span(read, 2 * read, &[(read, 2 * read)]),
                span(2 * read, 3 * read, &[(2 * read, 2 * read + 1), (2 * read + 1 + NEAR, 3 * read)])
            ]
        );
        assert_eq!(spans(&[]), []);
    }
}
