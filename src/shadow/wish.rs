//! What is wanted of shadows, by whom, and why.

use crate::types::{Name, PageSet, Seq};
use std::fmt;

/// A partition: the unit that a database splits, as it is called in its root (`base/5/16397`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// Name of the root; empty for DATA.
    pub root: Name,
    /// Below it: names with `/` between.
    pub partition: Vec<u8>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.root.is_empty() {
            write!(f, "{}:", String::from_utf8_lossy(&self.root))?;
        }
        f.write_str(&String::from_utf8_lossy(&self.partition))
    }
}

/// Who asks for a shadow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A person: it stays until it is taken back.
    Asked,
    /// The standard rule: enough has changed, or enough time has passed.
    Rule,
    /// The forecast finds it worth its cost.
    Forecast,
    /// A split that was declared, or seen coming in DDL.
    Split,
}

impl Reason {
    const ALL: [(Reason, &'static str); 4] = [
        (Reason::Asked, "asked"),
        (Reason::Rule, "rule"),
        (Reason::Forecast, "forecast"),
        (Reason::Split, "split"),
    ];

    pub fn name(self) -> &'static str {
        Reason::ALL.iter().find(|(reason, _)| *reason == self).map_or("rule", |(_, name)| name)
    }

    /// The reason of a name; one that is not known counts as the rule's.
    pub fn of(name: &[u8]) -> Reason {
        Reason::ALL
            .iter()
            .find(|(_, known)| known.as_bytes() == name)
            .map_or(Reason::Rule, |(reason, _)| *reason)
    }
}

/// A shadow that someone would have. Wishes are granted within the budget: urgent ones first, then by benefit.
#[derive(Clone, PartialEq, Debug)]
pub struct Wish {
    pub subject: Subject,
    /// The pages of its main file, its segments one behind the other; all of everything without.
    pub pages: Option<PageSet>,
    /// At a Seq that stays; without it at the present, and kept up to date.
    pub at: Option<Seq>,
    /// Restore cost saved times its likelihood, less what baking costs: seconds, as the policy counts them.
    pub benefit: f64,
    pub reason: Reason,
    /// Before everything else, and whatever else has to go for it.
    pub urgent: bool,
}

impl Wish {
    /// Whether another is for the same: whoever wishes it, and however much.
    pub fn is_for_the_same_as(&self, other: &Wish) -> bool {
        (&self.subject, &self.pages, self.at) == (&other.subject, &other.pages, other.at)
    }
}
