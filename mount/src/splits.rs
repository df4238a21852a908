//! What a daemon answers about splits.

use crate::Outcome;
use crate::control::AskSplit;
use crate::forecasts::{ActedOn, foreseen};
use crate::offline::told;
use crate::profile::Profile;
use crate::running::Running;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weft::engine::{ChildShadow, Partition};
use weft::lineage::splits::{Child, How, Split, Tie};
use weft::past::when::canonical;
use weft::types::{PageSet, Timestamp};

impl Running {
    /// A person says that a partition splits.
    pub(crate) fn declare_split(&self, ask: &AskSplit) -> Outcome<Value> {
        let partition = self.partition(&ask.partition)?;
        let pages = ask.pages.as_deref().map(unhex).transpose()?;
        if pages.is_some() && self.profile() == Profile::Mariadb {
            return Err("pages are for heaps, and InnoDB's rows move within their file: declare the split without them, \
                        and all of the partition is made ready"
                .into());
        }
        if pages.as_deref().is_some_and(|bytes| PageSet::from_bytes(bytes).is_none()) {
            return Err("the page set is damaged: is `weft` of the same version?".into());
        }
        let child = Child {
            name: ask.child.clone(),
            pages,
            looked: ask.since.map(|since| (since, since)),
            rows: ask.rows,
            predicate: ask.predicate.clone(),
            ..Child::default()
        };
        let split = self.split_of(&partition, How::Declared, child)?;
        let acted = self.common.engine.acted_on(|of| of == split.parent);
        self.split_json(&split, &acted)
    }

    /// Notes a split, and has its child made ready.
    pub(crate) fn split_of(&self, parent: &Partition, how: How, child: Child) -> Outcome<Split> {
        let engine = &self.common.engine;
        engine.declare_split(self.layout(), parent, how, child).map_err(told)
    }

    /// Notes one that ran long ago, as nobody was there.
    pub(crate) fn past_split_of(
        &self,
        parent: &Partition,
        how: (How, Timestamp),
        child: Child,
    ) -> Outcome<Split> {
        self.common.engine.note_split(self.layout(), parent, how, child).map_err(told)
    }

    pub(crate) fn splits(&self) -> Outcome<Value> {
        let splits = self.common.engine.splits(self.layout()).map_err(told)?;
        let parents: BTreeSet<&str> = splits.iter().map(|split| split.parent.as_str()).collect();
        let acted = self.common.engine.acted_on(|of| parents.contains(of));
        Ok(Value::Array(splits.iter().map(|split| self.split_json(split, &acted)).collect::<Outcome<_>>()?))
    }

    pub(crate) fn confirm_child(&self, child: (u64, usize), text: &str, catalogue: bool) -> Outcome<Value> {
        let partition = self.partition(text)?;
        let tie = if catalogue { Tie::Catalogue } else { Tie::Declared };
        let engine = &self.common.engine;
        engine.confirm_child(self.layout(), child, &partition, tie).map_err(told)?;
        Ok(json!({ "partition": partition.to_string() }))
    }

    pub(crate) fn forget_split(&self, split: u64, child: Option<usize>) -> Outcome<Value> {
        let split = self.common.engine.forget_split(split, child).map_err(told)?;
        let acted = self.common.engine.acted_on(|of| of == split.parent);
        self.split_json(&split, &acted)
    }

    fn split_json(&self, split: &Split, acted: &ActedOn) -> Outcome<Value> {
        let parent = self.partition(&split.parent)?;
        let layout = self.layout();
        let engine = &self.common.engine;
        let come = engine.come(split).map_err(told)?;
        let children = (0..).zip(&split.children).map(|(number, child)| {
            let pages = child.page_set();
            let shadow = engine.child_shadow(layout, &parent, pages.as_ref(), come.get(&number).copied());
            let (ready, missing) = match &shadow {
                ChildShadow::Ready { bytes, reason } => (Some((bytes, reason)), None),
                ChildShadow::Waits => (None, None),
                ChildShadow::Missing(why) => (None, Some(why)),
            };
            json!({
                "name": child.name,
                "pages": pages.map(|pages| pages.count()),
                "rows": child.rows,
                "predicate": child.predicate,
                "partition": child.partition,
                "tie": child.tie,
                "forgotten": child.forgotten,
                "over": child.tie.is_none() && split.is_over(engine.now().0),
                "ready": ready.is_some(),
                "shadow_bytes": ready.map(|(bytes, _)| bytes),
                "shadow_for": ready.map(|(_, reason)| reason),
                "not_made": missing,
            })
        });
        Ok(json!({
            "split": split.id,
            "parent": split.parent,
            "how": split.how,
            "seq": split.seq,
            "declared": canonical(Timestamp(split.at_us)),
            "foreseen": foreseen(acted, &split.parent, Timestamp(split.at_us)),
            "children": children.collect::<Vec<_>>(),
        }))
    }
}

/// Bytes of a page set that a question has room for, twice over in digits.
pub const PAGES_MAX: usize = 16 << 20;

/// Bytes of hexadecimal digits.
fn unhex(text: &str) -> Outcome<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pair = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    bytes.ok_or_else(|| "the page set is damaged: is `weft` of the same version?".into())
}

/// The inverse of what the daemon reads.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sets_travel_as_text() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Ok(bytes));
        assert!(unhex("0").is_err() && unhex("zz").is_err());
    }
}
