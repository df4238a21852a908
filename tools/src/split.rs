use crate::resolve::field;
use crate::splits::table;
use crate::{Outcome, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft::types::PageSet;
use weft_mount::control::AskSplit;
use weft_mount::{catalogue, control, place, splits};

/// How long `--wait` waits.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Seconds that PostgreSQL may take for each thing it is asked for, unless told otherwise.
const TIMEOUT_SECS: u64 = 300;

/// Tell Weft that a partition is about to split; see also `weft splits`
#[derive(clap::Subcommand)]
pub enum Command {
    /// Declare one child of a partition that splits, so that its past is made ready before; once for each child
    Declare(Declare),
    /// Say which files a child of a split has
    Confirm(Confirm),
    /// Say that a child did not come out of its parent: a guess or a declaration was wrong. `weft log` and `weft restore` do not
    /// go on into that parent then; `weft split confirm` takes it back
    Forget(Forget),
}

#[derive(clap::Args)]
pub struct Forget {
    /// The number of the split, as `weft splits` shows it: 3, or 3.1 for its first child alone
    #[arg(value_parser = number)]
    split: (u64, Option<usize>),
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// A split, or one of its children, counted from 1.
fn number(text: &str) -> Result<(u64, Option<usize>), String> {
    let wrong =
        || format!("{text} is no split: write 3, or 3.1 for its first child, as `weft splits` shows them");
    let (split, child) = match text.split_once('.') {
        Some((split, child)) => (split, Some(child)),
        None => (text, None),
    };
    let child = child
        .map(|child| child.parse::<usize>().ok().and_then(|child| child.checked_sub(1)).ok_or_else(wrong));
    Ok((split.parse().map_err(|_| wrong())?, child.transpose()?))
}

#[derive(clap::Args)]
pub struct Declare {
    /// The partition, by its name or any of its files (base/5/16397, shop/orders#P#p0); with --pg also as SCHEMA.TABLE
    partition: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
    /// The blocks of the partition that hold the child's rows: A-B, the last included, as ctid counts them. Without --pg, run
    /// CHECKPOINT after you looked for them, and change none of the rows in between
    #[arg(long, value_name = "A-B", conflicts_with = "predicate", value_parser = blocks)]
    pages: Option<(u64, u64)>,
    /// Ask PostgreSQL: "host=/run/postgresql dbname=shop"
    #[arg(long, value_name = "CONNINFO")]
    pg: Option<String>,
    /// Which rows the child will have: "created_at >= '2026-11-01'"
    #[arg(long = "where", value_name = "PREDICATE", requires = "pg")]
    predicate: Option<String>,
    /// How long PostgreSQL may take for each thing it is asked for: a large table is read whole for --where
    #[arg(long, value_name = "SECS", default_value_t = TIMEOUT_SECS, requires = "pg")]
    timeout: u64,
    /// What the child will be called: a table, or the path of its files
    #[arg(long, value_name = "NAME")]
    child: Option<String>,
    /// Return when the child's shadow is there
    #[arg(long)]
    wait: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Confirm {
    /// The number of the split, as `weft splits` shows it
    split: u64,
    /// Which of its children, counted from 1
    child: usize,
    /// The partition that it became, by its name or any of its files
    partition: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
}

/// `A-B`, or one block.
fn blocks(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last && last < u64::from(u32::MAX) => Ok((first, last)),
        (Some(first), Some(last)) if first > last => {
            Err(format!("{first} is behind {last}: write the smaller first"))
        }
        _ => Err("write it as A-B, two block numbers such as 0-1279".into()),
    }
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::Declare(args) => declare(args, store),
        Command::Confirm(args) => {
            let store = place::find_store(args.data.as_deref(), store)?;
            let child = args.child.checked_sub(1).ok_or("children are counted from 1")?;
            let (split, partition) = (args.split, args.partition.clone());
            let ask = control::Ask::SplitConfirm { split, child, partition, catalogue: false };
            let told = control::ask(&store, &ask)?;
            output::print(&format!(
                "child {} of split {split} is {}\n",
                args.child,
                field(&told, "partition")
            ))
        }
        Command::Forget(args) => {
            let store = place::find_store(args.data.as_deref(), store)?;
            let (split, child) = args.split;
            let told = control::ask(&store, &control::Ask::SplitForget { split, child })?;
            if args.json {
                return output::print_json(&told);
            }
            output::print(&table(&Value::Array(vec![told]), false))
        }
    }
}

fn declare(args: &Declare, store: Option<&Path>) -> Outcome {
    let store = place::find_store(args.data.as_deref(), store)?;
    let mut ask = AskSplit {
        partition: args.partition.clone(),
        child: args.child.clone(),
        predicate: args.predicate.clone(),
        ..AskSplit::default()
    };
    let (pages, note) = match &args.pg {
        Some(conninfo) => looked_for(args, conninfo, &store, &mut ask)?,
        None => (args.pages.map(|range| pages_of(range, catalogue::DEFAULT_BLOCK)), None),
    };
    ask.pages = pages.map(|pages| splits::hex(&pages.to_bytes()));
    let mut split = control::ask(&store, &control::Ask::SplitDeclare(ask))?;
    if args.wait {
        split = wait(&store, &split)?;
    }
    if args.json {
        split["note"] = note.into();
        return output::print_json(&split);
    }
    let note = note.map(|note| format!("{note}\n")).unwrap_or_default();
    output::print(&format!("{}{note}", table(&Value::Array(vec![split]), false)))
}

/// Asks PostgreSQL for the partition and the pages of the child; none, and a word why, where they would not be enough to find
/// its past again: rows that have moved since must stand on a page that history has seen to change.
fn looked_for(
    args: &Declare,
    conninfo: &str,
    store: &Path,
    ask: &mut AskSplit,
) -> Result<(Option<PageSet>, Option<String>), String> {
    let limit = Duration::from_secs(args.timeout);
    let (mut client, relation) = catalogue::relation(conninfo, &args.partition, limit)?;
    ask.partition = relation.path.clone();
    ask.since = control::ask(store, &control::Ask::Status)?["seq"].as_u64();
    let mut pages = args.pages.map(|range| pages_of(range, relation.block_bytes));
    if pages.is_none() && args.predicate.is_none() {
        return Ok((None, None));
    }
    let quiet = catalogue::wait_for_writers(&mut client, &relation, limit);
    if let Some(predicate) = &args.predicate {
        let found = catalogue::pages_where(&mut client, &relation, predicate)?;
        ask.rows = Some(found.rows);
        pages = Some(found.pages);
    }
    let written = quiet.and_then(|()| catalogue::write_back(&mut client, &relation));
    let fits = written.and_then(|()| match pages.as_ref().map_or(0, |pages| pages.to_bytes().len()) {
        0..=splits::PAGES_MAX => Ok(()),
        _ => Err("its pages are too many and too scattered to be worth it".into()),
    });
    Ok(match fits {
        Ok(()) => (pages, None),
        Err(cause) => {
            (None, Some(format!("all of the partition is made ready, not the child's pages alone: {cause}")))
        }
    })
}

/// Pages of a range of blocks.
fn pages_of((first, last): (u64, u64), block_bytes: u64) -> PageSet {
    let mut pages = PageSet::default();
    pages.write(first * block_bytes, (last + 1) * block_bytes);
    pages
}

/// Waits until the shadows of all children of a split are there.
fn wait(store: &Path, split: &Value) -> Result<Value, String> {
    let begun = Instant::now();
    loop {
        let all = control::ask(store, &control::Ask::Splits)?;
        let same = |other: &&Value| other["split"] == split["split"];
        let now = all.as_array().into_iter().flatten().find(same).cloned().unwrap_or_default();
        let ready = |child: &Value| child["ready"] == true;
        if now["children"].as_array().is_some_and(|children| children.iter().all(ready)) {
            return Ok(now);
        }
        let why = |child: &Value| field(child, "not_made");
        let missing = now["children"].as_array().into_iter().flatten().map(why).find(|why| !why.is_empty());
        if let Some(why) = missing {
            return Err(format!("the split is declared, but a child's shadow is not made: {why}"));
        }
        if begun.elapsed() > PATIENCE {
            return Err(
                "the split is declared, but its shadow is not there yet: `weft status` says why".into()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_range() {
        assert_eq!(blocks("0-1279"), Ok((0, 1279)));
        assert_eq!(blocks("7"), Ok((7, 7)));
        assert!(blocks("9-3").unwrap_err().contains("smaller"));
        for bad in ["", "-", "a-b", "1-", "-5", "1-99999999999999999999"] {
            assert!(blocks(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_split_or_one_of_its_children_has_a_number() {
        assert_eq!((number("3"), number("3.1")), (Ok((3, None)), Ok((3, Some(0)))));
        for bad in ["", "3.", "3.0", "a", ".1", "3.1.1", "-1"] {
            assert!(number(bad).unwrap_err().contains("as `weft splits` shows them"), "{bad}");
        }
    }

    #[test]
    fn a_block_is_as_large_as_the_server_has_it() {
        let runs = |block_bytes| pages_of((1, 2), block_bytes).runs().collect::<Vec<_>>();
        assert_eq!(runs(catalogue::DEFAULT_BLOCK), [(2, 6)]);
        assert_eq!(runs(32_768), [(8, 24)]);
        assert_eq!(runs(2_048), [(0, 2)], "half of a page, and of the next");
    }
}
