use crate::resolve::field;
use crate::{Outcome, output};
use serde_json::Value;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weft_mount::journal::{Met, Part, damage_json, stat, walk};
use weft_mount::{events, offline, place};

/// Look into the journal of a STORE, mounted or not; nothing is changed
#[derive(clap::Subcommand)]
pub enum Command {
    /// Print events, one a line
    Dump(Dump),
    /// Sums by kind and file, rates, the state of the end, damage
    Stat(Stat),
}

#[derive(clap::Args)]
struct Which {
    /// The mount, or a path inside it; by default the mount around the current directory
    path: Option<PathBuf>,
    /// Begin at an event's number or a TIME
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// End at an event's number or a TIME
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only events of this file: its number, or its path from the root of DATA
    #[arg(long, value_name = "ID|PATH")]
    file: Option<String>,
    /// Read every written byte too, and compare checksums; `stat` also those of what was there before
    #[arg(long)]
    check: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub struct Dump {
    #[command(flatten)]
    which: Which,
    /// Events at most
    #[arg(long)]
    limit: Option<u64>,
}

#[derive(clap::Args)]
pub struct Stat {
    #[command(flatten)]
    which: Which,
    /// Files shown
    #[arg(long, default_value_t = 10)]
    top: usize,
}

pub fn run(command: &Command, store: Option<&Path>) -> Outcome {
    match command {
        Command::Dump(args) => dump(args, store),
        Command::Stat(args) => sums(args, store),
    }
}

fn open(which: &Which, store: Option<&Path>) -> weft_mount::Outcome<(offline::Store, Part)> {
    let store = offline::open(&place::find_store(which.path.as_deref(), store)?)?;
    let (from, to, file) = (which.from.clone(), which.to.clone(), which.file.clone());
    Ok((store, Part { from, to, file, check: which.check }))
}

/// Damage is one line among the others, and makes the command fail at its end.
fn dump(args: &Dump, store: Option<&Path>) -> Outcome {
    let (store, part) = open(&args.which, store)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut closed = false;
    let ended = walk(&store, &part, |met| {
        if left == 0 {
            return Ok(false);
        }
        let line = match (&met, args.which.json) {
            (Met::Event(record, (segment, offset)), true) => {
                let mut json = events::json(record);
                json["segment"] = segment.0.into();
                json["group"] = (*offset).into();
                json.to_string()
            }
            (Met::Event(record, _), false) => events::line(record),
            (Met::Damage(damage), true) => damage_json(damage).to_string(),
            (Met::Damage(damage), false) => {
                format!("DAMAGE at byte {} of segment {}: {}", damage.offset, damage.segment.0, damage.what)
            }
        };
        left -= u64::from(matches!(met, Met::Event(..)));
        match writeln!(out, "{line}") {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {
                closed = true;
                Ok(false)
            }
            Err(cause) => Err(format!("cannot write: {cause}")),
        }
    })?;
    match out.flush() {
        Err(cause) if !closed && cause.kind() != ErrorKind::BrokenPipe => {
            return Err(format!("cannot write: {cause}"));
        }
        _ => {}
    }
    match ended.damaged {
        0 => Ok(ExitCode::SUCCESS),
        count => Err(format!(
            "the journal is damaged in {count} places; restore those files from a copy of the store"
        )),
    }
}

fn sums(args: &Stat, store: Option<&Path>) -> Outcome {
    let (store, part) = open(&args.which, store)?;
    let sums = stat(&store, &part, args.top)?;
    let is_empty = |key: &str| sums.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let healthy = is_empty("damage") && is_empty("base_damage");
    match args.which.json {
        true => output::print_json(&sums)?,
        false => output::print(&table(&sums))?,
    };
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(sums: &Value) -> String {
    let at = |key: &str| sums.get(key).unwrap_or(&Value::Null);
    let rate = |key: &str| at(key).as_f64().unwrap_or(0.0);
    let edge = |key: &str| match at(key) {
        Value::Null => "none".into(),
        edge => format!("{} (seq {})", field(edge, "time"), field(edge, "seq")),
    };
    let end = match at("end") {
        Value::Null => "not reached".into(),
        end => format!(
            "byte {} of segment {}{}",
            field(end, "offset"),
            field(end, "segment"),
            if end.get("torn") == Some(&Value::Bool(true)) {
                "; something torn stands behind it: a crash, or a daemon that writes right now"
            } else {
                ""
            }
        ),
    };
    let mut text = format!(
        "segments   {} ({} bytes of groups)\nevents     {}, {} bytes written\nfirst      {}\nlast       {}\n\
         rate       {:.1} events/s, {:.0} bytes/s; most in one second {} events, {} bytes\nend        {end}\n",
        field(sums, "segments"),
        field(sums, "group_bytes"),
        field(sums, "events"),
        field(sums, "written_bytes"),
        edge("first"),
        edge("last"),
        rate("events_per_sec"),
        rate("written_bytes_per_sec"),
        field(sums, "peak_events_per_sec"),
        field(sums, "peak_written_bytes_per_sec"),
    );
    for damage in at("damage").as_array().into_iter().flatten() {
        text.push_str(&format!(
            "DAMAGE     byte {} of segment {}, event {}: {}\n",
            field(damage, "offset"),
            field(damage, "segment"),
            field(damage, "seq"),
            field(damage, "damage")
        ));
    }
    for damage in at("base_damage").as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("DAMAGE     {damage}\n"));
    }
    let kinds: Vec<[String; 3]> = at("kinds")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, sum)| [kind.clone(), field(sum, "events"), field(sum, "written_bytes")])
        .collect();
    text.push_str(&format!("\n{}", output::columns(&["KIND", "EVENTS", "BYTES"], &kinds)));
    let files: Vec<[String; 4]> = at("files")
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| {
            [
                format!("f{}", field(file, "file")),
                field(file, "events"),
                field(file, "written_bytes"),
                field(file, "path"),
            ]
        })
        .collect();
    text.push_str(&format!("\n{}", output::columns(&["FILE", "EVENTS", "BYTES", "PATH"], &files)));
    text
}
