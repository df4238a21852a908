//! Names for instants: a fold of the Tag events.
//!
//! - Of the events on one name the last one decides, so replaying any suffix that reaches the end onto a newer set
//!   gives the same set. A checkpoint may therefore be newer than the place it replays from.
//! - A name is given once: who wants it elsewhere takes it back first.

use crate::error::{Error, Result};
use crate::format::event::{Event, Record};
use crate::format::sections::TagState;
use crate::types::{NAME_MAX, Name, Seq};
use std::collections::BTreeMap;

/// What stands before a tag in the name of its view.
const PREFIX: &str = "@tag=";
/// Longest tag, in bytes: the name of its view is a file name.
pub const TAG_MAX: usize = NAME_MAX - PREFIX.len();
/// Names offered when one is not there.
const OFFERED: usize = 3;
const OP: &str = "tag";

/// All tags, by name.
#[derive(Clone, Debug, Default)]
pub struct Tags(BTreeMap<Name, TagState>);

impl Tags {
    /// As a checkpoint has them.
    pub fn of(states: &[TagState]) -> Tags {
        Tags(states.iter().map(|tag| (tag.name.clone(), tag.clone())).collect())
    }

    /// All, in byte order of names: as a checkpoint keeps them.
    pub fn states(&self) -> Vec<TagState> {
        self.0.values().cloned().collect()
    }

    /// Takes an event in; others than tags change nothing.
    pub fn fold(&mut self, record: &Record) {
        let Event::Tag { name, at, remove } = &record.event else { return };
        if *remove {
            self.0.remove(name);
        } else {
            let tag = TagState { name: name.clone(), at: *at, made: record.ts };
            self.0.insert(name.clone(), tag);
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<&TagState> {
        self.0.get(name)
    }

    /// Whether a name may be given now.
    ///
    /// # Errors
    /// `Invalid`: it is not one, or it is taken; the message says what to do.
    pub fn check_free(&self, name: &str) -> Result<()> {
        check_name(name)?;
        match self.get(name.as_bytes()) {
            None => Ok(()),
            Some(tag) => Err(Error::invalid(
                OP,
                format!(
                    "the tag {name:?} exists already, at seq {}; `weft tag rm` it first, or take another name",
                    tag.at
                ),
            )),
        }
    }

    /// The tag of a name.
    ///
    /// # Errors
    /// `Invalid`: there is none; the message offers the nearest names.
    pub fn find(&self, name: &str) -> Result<&TagState> {
        self.get(name.as_bytes()).ok_or_else(|| {
            let near = self.nearest(name);
            let offer = match (self.0.is_empty(), near.is_empty()) {
                (true, _) => "there are no tags yet".to_owned(),
                (_, true) => "`weft tags` lists those that are".to_owned(),
                _ => format!("the nearest names are {}", near.join(", ")),
            };
            Error::invalid(OP, format!("there is no tag {name:?}; {offer}"))
        })
    }

    /// Names that are near to one, the nearest first.
    fn nearest(&self, name: &str) -> Vec<String> {
        let mut near: Vec<(usize, String)> = self
            .0
            .keys()
            .map(|tag| String::from_utf8_lossy(tag).into_owned())
            .map(|tag| (distance(name, &tag), tag))
            .filter(|(distance, tag)| *distance <= 3.max(name.chars().count() / 3) || tag.contains(name))
            .collect();
        near.sort();
        near.into_iter().take(OFFERED).map(|(_, tag)| format!("{tag:?}")).collect()
    }
}

/// Whether a text may be the name of a tag: it has to work as a file name and on a terminal.
///
/// # Errors
/// `Invalid`, with the reason.
pub fn check_name(name: &str) -> Result<()> {
    let refused = |why: String| Err(Error::invalid(OP, why));
    match name {
        "" => refused("a tag needs a name".into()),
        "rm" => refused("\"rm\" cannot be the name of a tag: it is a word of the command".into()),
        _ if name.len() > TAG_MAX => {
            refused(format!("a tag has at most {TAG_MAX} bytes, this name has {}", name.len()))
        }
        _ if name.contains('/') => refused(format!("a tag cannot hold a '/': {name:?}")),
        _ if name.chars().any(char::is_control) => {
            refused(format!("a tag cannot hold control characters: {name:?}"))
        }
        _ if name.trim() != name => refused(format!("a tag cannot begin or end with a blank: {name:?}")),
        _ => Ok(()),
    }
}

/// Insertions, removals and replacements between two texts (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, here) in left.chars().enumerate() {
        let mut before = row;
        let mut last = row + 1;
        for (other, cell) in right.iter().zip(above.iter_mut().skip(1)) {
            let replaced = before + usize::from(here != *other);
            before = *cell;
            last = replaced.min(*cell + 1).min(last + 1);
            *cell = last;
        }
        if let Some(first) = above.first_mut() {
            *first = row + 1;
        }
    }
    above.last().copied().unwrap_or(0)
}

/// The tag that a time names: `tag:NAME`, `tag=NAME` or `@tag=NAME`.
pub fn named(time: &str) -> Option<&str> {
    let time = time.trim();
    let text = time.strip_prefix('@').unwrap_or(time);
    text.strip_prefix("tag:").or_else(|| text.strip_prefix("tag="))
}

/// The tag that a name in the root of a mount stands for.
pub fn of_view_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(PREFIX.as_bytes())
}

/// The event that gives a name, or takes it back.
pub fn event(name: &str, at: Seq, remove: bool) -> Event {
    Event::Tag { name: name.as_bytes().to_vec(), at, remove }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn record(seq: u64, name: &str, remove: bool) -> Record {
        let ts = Timestamp(seq as i64);
        Record { seq: Seq(seq), ts, wall: ts, event: event(name, Seq(seq - 1), remove) }
    }

    #[test]
    fn any_suffix_replayed_onto_the_end_gives_the_end() {
        let all = [record(2, "a", false), record(3, "b", false), record(4, "a", true), record(5, "a", false)];
        let mut end = Tags::default();
        all.iter().for_each(|record| end.fold(record));
        assert_eq!(end.get(b"a").unwrap().at, Seq(4));
        for from in 0..=all.len() {
            let mut again = Tags::of(&end.states());
            all[from..].iter().for_each(|record| again.fold(record));
            assert_eq!(again.states(), end.states());
        }
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "rm", "a/b", "a\nb", "nul\0", " a", "a\t", &"x".repeat(TAG_MAX + 1)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["before-migration", "v1.2 final", "ä", ".", &"x".repeat(TAG_MAX)] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_stranger_is_told_its_neighbours() {
        let mut tags = Tags::default();
        assert!(tags.find("x").unwrap_err().message.contains("no tags yet"));
        for (seq, name) in [(2, "before-migration"), (3, "after-migration"), (4, "zzz")] {
            tags.fold(&record(seq, name, false));
        }
        let told = tags.find("before-migratoin").unwrap_err().message;
        assert!(told.contains("\"before-migration\"") && !told.contains("zzz"), "{told}");
        assert!(tags.find("qqqqqqqq").unwrap_err().message.contains("weft tags"));
        assert!(tags.check_free("zzz").unwrap_err().message.contains("exists already"));
        assert!(tags.check_free("new").is_ok());
    }

    #[test]
    fn distances() {
        for (left, right, expected) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left, right), expected);
            assert_eq!(distance(right, left), expected);
        }
    }

    #[test]
    fn times_may_name_a_tag() {
        for text in ["tag:a=b", "@tag=a=b", " tag=a=b "] {
            assert_eq!(named(text), Some("a=b"));
        }
        assert_eq!(named("2026-11-23T10:00:00Z"), None);
        assert_eq!(of_view_name(b"@tag=x"), Some(&b"x"[..]));
    }
}
