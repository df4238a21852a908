//! What statements read and write, by the table that they name: gathered for the length of a tick, then told to the forecast
//! at once, so that a busy log does not fill its queue. Bounded: what finds no room is counted with what is not known.

use super::format::Statement;
use super::tables::Named;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use weft::lineage::ddl::{Dialect, Use, uses};

/// Tables of one tick at most.
const TABLES_MAX: usize = 4_096;

/// A table as statements of a log named it, and how often it was read and written.
pub(super) struct Asked {
    /// The number of the log.
    pub log: usize,
    database: Option<String>,
    table: Use,
    pub reads: u32,
    pub writes: u32,
}

impl Asked {
    pub fn named(&self) -> Named<'_> {
        let Use { table, part, .. } = &self.table;
        Named { database: self.database.as_deref(), table, part: part.as_ref() }
    }
}

/// See the head of this file.
pub(super) struct Queries {
    /// Length of a tick; none where nobody forecasts.
    every: Option<Duration>,
    begun: Instant,
    /// By number of the log, database and table; of those `writes` is false.
    by: HashMap<(usize, Option<String>, Use), [u32; 2]>,
}

impl Queries {
    pub fn new(every: Option<Duration>) -> Queries {
        Queries { every, begun: Instant::now(), by: HashMap::new() }
    }

    /// Takes in a statement of the log of this number and dialect; how many tables found no room.
    pub fn add(&mut self, (log, dialect): (usize, Dialect), statement: &Statement) -> u64 {
        if self.every.is_none() {
            return 0;
        }
        let mut lost = 0;
        for found in uses(dialect, statement.text.as_bytes()) {
            let writes = found.writes;
            let key = (log, statement.database.clone(), Use { writes: false, ..found });
            if self.by.len() >= TABLES_MAX && !self.by.contains_key(&key) {
                lost += 1;
                continue;
            }
            let [read, written] = self.by.entry(key).or_default();
            let count = if writes { written } else { read };
            *count = count.saturating_add(1);
        }
        lost
    }

    /// What was gathered, once a tick has passed since the last time.
    pub fn due(&mut self) -> Vec<Asked> {
        if self.every.is_none_or(|every| self.begun.elapsed() < every) {
            return Vec::new();
        }
        self.rest()
    }

    /// What was gathered, told early: nothing comes any more.
    pub fn rest(&mut self) -> Vec<Asked> {
        self.begun = Instant::now();
        let all = std::mem::take(&mut self.by).into_iter();
        all.map(|((log, database, table), [reads, writes])| Asked { log, database, table, reads, writes })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Statement {
        Statement { database: Some("shop".into()), at: None, text: text.into() }
    }

    #[test]
    fn statements_are_added_up_by_table() {
        let mut queries = Queries::new(Some(Duration::ZERO));
        for text in ["SELECT * FROM a", "UPDATE a SET x = 1", "INSERT INTO a SELECT * FROM b", "BEGIN"] {
            assert_eq!(queries.add((1, Dialect::Postgres), &said(text)), 0);
        }
        let mut all = queries.due();
        all.sort_by(|a, b| a.table.cmp(&b.table));
        let told = all.iter().map(|one| (one.named().table.name.as_str(), one.reads, one.writes));
        assert_eq!(told.collect::<Vec<_>>(), [("a", 1, 2), ("b", 1, 0)]);
        assert!(all.iter().all(|one| one.log == 1 && one.named().database == Some("shop")));
        assert!(queries.due().is_empty(), "told once");
    }

    #[test]
    fn there_is_room_for_so_many_and_nothing_is_kept_for_nobody() {
        let mut queries = Queries::new(Some(Duration::from_secs(3_600)));
        let lost: u64 = (0..5_000)
            .map(|n| queries.add((0, Dialect::Postgres), &said(&format!("SELECT * FROM t{n}"))))
            .sum();
        assert_eq!((lost, queries.by.len()), (5_000 - TABLES_MAX as u64, TABLES_MAX));
        assert_eq!(
            queries.add((0, Dialect::Postgres), &said("SELECT * FROM t1")),
            0,
            "what is there is counted on"
        );
        assert!(queries.due().is_empty(), "the tick has not passed");
        let mut nobody = Queries::new(None);
        nobody.add((0, Dialect::Postgres), &said("SELECT * FROM a"));
        assert!(nobody.by.is_empty());
    }
}
