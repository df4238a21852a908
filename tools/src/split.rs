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
/// Bytes of a block of PostgreSQL's, as `ctid` counts them.
const BLOCK: u64 = 8_192;

/// Tell Weft that a partition is about to split; see also `weft splits`
#[derive(clap::Subcommand)]
pub enum Command {
    /// Declare one child of a partition that splits, so that its past is made ready before; once for each child
    Declare(Declare),
    /// Say which files a child of a split has
    Confirm(Confirm),
}

#[derive(clap::Args)]
pub struct Declare {
    /// The partition, by its name or any of its files (base/5/16397, shop/orders#P#p0); with --pg also as SCHEMA.TABLE
    partition: String,
    /// The mount, or a path inside it; by default the mount around the current directory
    data: Option<PathBuf>,
    /// The blocks of the partition that hold the child's rows: A-B, the last included, as ctid counts them
    #[arg(long, value_name = "A-B", conflicts_with = "predicate", value_parser = blocks)]
    pages: Option<(u64, u64)>,
    /// Ask PostgreSQL: "host=/run/postgresql dbname=shop"
    #[arg(long, value_name = "CONNINFO")]
    pg: Option<String>,
    /// Which rows the child will have: "created_at >= '2026-11-01'"
    #[arg(long = "where", value_name = "PREDICATE", requires = "pg")]
    predicate: Option<String>,
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
    if let Some((first, last)) = args.pages {
        let mut pages = PageSet::default();
        pages.write(first * BLOCK, (last + 1) * BLOCK);
        ask.pages = Some(splits::hex(&pages.to_bytes()));
    }
    if let Some(conninfo) = &args.pg {
        let (mut client, relation) = catalogue::relation(conninfo, &args.partition)?;
        ask.partition = relation.path.clone();
        if let Some(predicate) = &args.predicate {
            let found = catalogue::pages_where(&mut client, &relation, predicate)?;
            ask.rows = Some(found.rows);
            ask.pages = Some(splits::hex(&found.pages.to_bytes()));
        }
    }
    let mut split = control::ask(&store, &control::Ask::SplitDeclare(ask))?;
    if args.wait {
        split = wait(&store, &split)?;
    }
    match args.json {
        true => output::print_json(&split),
        false => output::print(&table(&Value::Array(vec![split]), false)),
    }
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
}
