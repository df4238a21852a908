//! Models that were found to be worse than the baselines. Each is doubted until it is as good again, through restarts and
//! whichever was used meanwhile: what is believed untried would be believed again by a remount.

use crate::error::Result;
use crate::forecast::ledger::Belief;
use crate::meta::store::{Store, Table};
use crate::types::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By model.
const DOUBTS: Table<String, Doubt> = Table::new("doubts", 1);
/// Models that are remembered: the ones that were doubted last.
const MOST: usize = 64;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Doubt {
    /// Since when, µs UTC.
    at_us: i64,
    why: String,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Doubts {
    by_model: BTreeMap<String, Doubt>,
    /// The table does not have it so yet.
    is_new: bool,
}

impl Doubts {
    /// Takes up what was stored, beside what is known by now.
    ///
    /// # Errors
    /// What is known stays.
    pub fn load(&mut self, store: &Store) -> Result<()> {
        for (model, doubt) in store.read(|tx| tx.range(&DOUBTS, ..))? {
            self.by_model.entry(model).or_insert(doubt);
        }
        Ok(())
    }

    /// What is believed of a model before it is judged.
    pub fn of(&self, model: &str) -> Belief {
        let doubt = self.by_model.get(model);
        doubt.map_or(Belief::Untried, |doubt| Belief::Doubted { why: doubt.why.clone() })
    }

    /// A model was judged.
    pub fn note(&mut self, model: &str, belief: &Belief, now: Timestamp) {
        match (belief, self.by_model.contains_key(model)) {
            (Belief::Doubted { why }, false) => {
                let doubt = Doubt { at_us: now.0, why: why.clone() };
                self.by_model.insert(model.to_owned(), doubt);
                self.forget_oldest();
            }
            (Belief::Believed | Belief::Untried, true) => {
                self.by_model.remove(model);
            }
            _ => return,
        }
        self.is_new = true;
    }

    fn forget_oldest(&mut self) {
        let oldest =
            self.by_model.iter().min_by_key(|(_, doubt)| doubt.at_us).map(|(model, _)| model.clone());
        if let Some(model) = oldest.filter(|_| self.by_model.len() > MOST) {
            self.by_model.remove(&model);
        }
    }

    /// Stores what is new.
    ///
    /// # Errors
    /// It is tried again with the next call.
    pub fn save(&mut self, store: &Store) -> Result<()> {
        if !self.is_new {
            return Ok(());
        }
        store.write(|tx| {
            for (model, _) in tx.range(&DOUBTS, ..)? {
                tx.remove(&DOUBTS, &model)?;
            }
            self.by_model.iter().try_for_each(|(model, doubt)| tx.put(&DOUBTS, model, doubt))
        })?;
        self.is_new = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_models_that_were_doubted_last_are_remembered() {
        let mut doubts = Doubts::default();
        let doubted = Belief::Doubted { why: "worse".into() };
        for n in 0..MOST as i64 + 3 {
            doubts.note(&format!("m{n}"), &doubted, Timestamp(n));
        }
        assert_eq!(doubts.by_model.len(), MOST);
        assert!(doubts.of("m2").holds() && !doubts.of("m3").holds());
        doubts.note("m3", &Belief::Believed, Timestamp(99));
        assert!(doubts.of("m3").holds());
    }
}
