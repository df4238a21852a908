//! The text of a trace (CSV, RFC 4180):
//!
//! ```text
//! #weft-trace 1 tick_us=10000000 source=live
//! end_us,partition,what,span_us,writes,bytes,appends,overwrites,pages,growth,size,reads,read_bytes,fsyncs,touched
//! 1764064800000000,base/5/16397,tick,10000000,12,98304,0,12,3,0,81920,4,32768,1,8000000000000001
//! 1764064810000000,base/5/16397,split,,,,,,,,,,,,0.5
//! 1764064820000000,base/5/16397,query,,3,,,,,,,120
//! 1764064820000000,base/5/16397,ddl,,,,,,,,,,,,detach
//! 1764064820000000,base/5/16397,gone
//! ```
//!
//! `end_us`: µs since 1970, UTC, of the end of the stretch; lines ascend by it. `touched`: 16 hex digits, or of a split
//! its point, or what a statement does. Of `query`, `writes` and `reads` are statements of a log that name it. Names with a comma, quote or line break stand in double quotes. Missing fields at a line's end are empty.

use super::{Line, Trace, What};
use crate::error::{Error, Result};
use crate::forecast::signal::{Ddl, Key};
use crate::forecast::tick::Tick;
use crate::types::Timestamp;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::BufRead;

const MAGIC: &str = "#weft-trace 1";
const HEAD: &str = "end_us,partition,what,span_us,writes,bytes,appends,overwrites,pages,growth,size,reads,read_bytes,\
                    fsyncs,touched";
/// Longest line read.
const LINE_MAX: u64 = 64 << 10;

/// The first two lines.
pub fn head(tick_us: i64, source: &str) -> String {
    let source: String = source.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
    format!("{MAGIC} tick_us={tick_us} source={source}\n{HEAD}\n")
}

/// One line, with its end.
pub fn line(name: &str, what: &What) -> String {
    let mut text = String::new();
    let name = quoted(name);
    // Writing to a string does not fail.
    let _ = match what {
        What::Tick(t) => writeln!(
            text,
            "{},{name},tick,{},{},{},{},{},{},{},{},{},{},{},{:016x}",
            t.end.0,
            t.span_us,
            t.writes,
            t.bytes,
            t.appends,
            t.overwrites,
            t.pages,
            t.growth,
            t.size,
            t.reads,
            t.read_bytes,
            t.fsyncs,
            t.touched
        ),
        What::Split { at, point } => {
            let point = point.map_or_else(String::new, |point| point.to_string());
            writeln!(text, "{},{name},split,,,,,,,,,,,,{point}", at.0)
        }
        What::Gone { at } => writeln!(text, "{},{name},gone", at.0),
        What::Query { at, reads, writes } => writeln!(text, "{},{name},query,,{writes},,,,,,,{reads}", at.0),
        What::Ddl { at, what } => {
            let word = Ddl::NAMED.iter().find(|(ddl, _)| ddl == what).map_or("other", |(_, word)| word);
            writeln!(text, "{},{name},ddl,,,,,,,,,,,,{word}", at.0)
        }
    };
    text
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// All of a trace as text.
pub fn write(trace: &Trace) -> String {
    let mut text = head(trace.tick_us, &trace.source);
    for one in &trace.lines {
        let name = usize::try_from(one.partition).ok().and_then(|index| trace.names.get(index));
        text.push_str(&line(name.map_or("", |name| name), &one.what));
    }
    text
}

/// Fields of a CSV line without its end; `None`: a quote that does not end, or stands in the middle.
pub fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut tail = quoted;
            loop {
                let (part, behind) = tail.split_once('"')?;
                field.push_str(part);
                match behind.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        tail = more;
                    }
                    None => {
                        rest = behind;
                        break;
                    }
                }
            }
            fields.push(field);
            if rest.is_empty() {
                return Some(fields);
            }
            rest = rest.strip_prefix(',')?;
        } else {
            match rest.split_once(',') {
                Some((field, more)) => {
                    fields.push(field.to_owned());
                    rest = more;
                }
                None => {
                    fields.push(rest.to_owned());
                    return Some(fields);
                }
            }
        }
    }
}

/// Reads lines of bounded length, numbered from 1. A line that is no UTF-8, or too long, is an error.
pub struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Lines<R> {
        Lines { input, number: 0 }
    }

    /// The number of the line read last.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line, without its end; `None` at the end.
    ///
    /// # Errors
    /// With the line's number.
    pub fn next_line(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut limited = std::io::Read::take(&mut self.input, LINE_MAX);
        let got = limited.read_until(b'\n', &mut bytes).map_err(|cause| self.bad(&cause.to_string()))?;
        if got == 0 {
            return Ok(None);
        }
        self.number += 1;
        if bytes.last() != Some(&b'\n') && got as u64 == LINE_MAX {
            return Err(self.bad(&format!("longer than {LINE_MAX} bytes")));
        }
        let mut line = String::from_utf8(bytes).map_err(|_| self.bad("not text (UTF-8)"))?;
        line.truncate(line.trim_end_matches(['\n', '\r']).len());
        Ok(Some(line))
    }

    /// An error at this line.
    pub fn bad(&self, what: &str) -> Error {
        Error::invalid("trace.read", format!("line {}: {what}", self.number))
    }
}

/// Reads a trace.
///
/// # Errors
/// `Invalid`, with the number of the line.
pub fn read(input: impl BufRead) -> Result<Trace> {
    let mut lines = Lines::new(input);
    let first = lines.next_line()?.unwrap_or_default();
    let settings = first.strip_prefix(MAGIC).ok_or_else(|| {
        lines.bad("not a weft trace (its first line begins with `#weft-trace 1`); other formats: `weft trace import`")
    })?;
    let mut trace = Trace { tick_us: 10_000_000, ..Trace::default() };
    for setting in settings.split_whitespace() {
        match setting.split_once('=') {
            Some(("tick_us", value)) => {
                let value = value.parse().ok().filter(|value| *value > 0);
                trace.tick_us = value.ok_or_else(|| lines.bad("tick_us is no length of time"))?;
            }
            Some(("source", value)) => trace.source = value.to_owned(),
            // Later writers may say more.
            _ => {}
        }
    }
    if lines.next_line()?.as_deref() != Some(HEAD) {
        return Err(lines.bad("the names of the columns are not those of version 1"));
    }
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut before = Timestamp(i64::MIN);
    while let Some(line) = lines.next_line()? {
        if line.is_empty() {
            continue;
        }
        let fields = fields(&line).ok_or_else(|| lines.bad("a quote without its other"))?;
        let what = what(&fields).map_err(|what| lines.bad(&what))?;
        let name = fields.get(1).map_or("", String::as_str);
        let partition = match numbers.get(name) {
            Some(number) => *number,
            None => {
                let number =
                    u32::try_from(trace.names.len()).map_err(|_| lines.bad("too many partitions"))?;
                trace.names.push(Key::from(name));
                numbers.insert(name.to_owned(), number);
                number
            }
        };
        let line = Line { partition, what };
        if line.at() < before {
            return Err(lines.bad("earlier than the line before it: sort the trace by its first column"));
        }
        before = line.at();
        trace.lines.push(line);
    }
    Ok(trace)
}

fn what(fields: &[String]) -> std::result::Result<What, String> {
    let field = |index: usize| fields.get(index).map_or("", String::as_str);
    let number =
        |index: usize, name: &str| field(index).parse::<u64>().map_err(|_| format!("{name} is no count"));
    let at = field(0).parse().map(Timestamp).map_err(|_| "end_us is no time in µs".to_owned())?;
    match field(2) {
        "split" => {
            let point = field(14).parse().ok().filter(|point: &f32| (0.0..=1.0).contains(point));
            Ok(What::Split { at, point })
        }
        "gone" => Ok(What::Gone { at }),
        "query" => {
            let count = |index, name| number(index, name).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            Ok(What::Query { at, reads: count(11, "reads")?, writes: count(4, "writes")? })
        }
        "ddl" => {
            // Later writers may know more kinds.
            let known = Ddl::NAMED.iter().find(|(_, word)| *word == field(14));
            Ok(What::Ddl { at, what: known.map_or(Ddl::Other, |(what, _)| *what) })
        }
        "tick" => Ok(What::Tick(Tick {
            end: at,
            span_us: field(3).parse().ok().filter(|span| *span > 0).ok_or("span_us is no length of time")?,
            writes: number(4, "writes")?,
            bytes: number(5, "bytes")?,
            appends: number(6, "appends")?,
            overwrites: number(7, "overwrites")?,
            pages: number(8, "pages")?,
            growth: field(9).parse().map_err(|_| "growth is no number of bytes")?,
            size: number(10, "size")?,
            reads: number(11, "reads")?,
            read_bytes: number(12, "read_bytes")?,
            fsyncs: number(13, "fsyncs")?,
            touched: u64::from_str_radix(field(14), 16).map_err(|_| "touched is no hexadecimal number")?,
        })),
        other => Err(format!("`{other}` is not tick, split, gone, query or ddl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            names in prop::collection::hash_set("[a-z,\" /#.0-9é]{0,12}", 1..5),
            ticks in prop::collection::vec((0i64..1_000, 0usize..5, any::<u64>(), any::<i64>(), 0u8..6), 0..30),
        ) {
            let names: Vec<Key> = names.into_iter().map(Key::from).collect();
            let mut trace = Trace { source: "test".into(), tick_us: 7, names, lines: Vec::new() };
            let mut end = 0;
            for (step, name, count, growth, kind) in ticks {
                end += step;
                let at = Timestamp(end);
                let what = match kind {
                    0 => What::Split { at, point: (count % 2 == 0).then_some(0.25) },
                    1 => What::Gone { at },
                    2 => What::Query { at, reads: count as u32, writes: growth as u32 },
                    3 => What::Ddl { at, what: Ddl::NAMED[name + 3].0 },
                    _ => What::Tick(Tick {
                        end: at, span_us: 7, writes: count, growth, touched: count, size: count, ..Tick::default()
                    }),
                };
                let partition = (name % trace.names.len()) as u32;
                trace.lines.push(Line { partition, what });
            }
            let again = read(write(&trace).as_bytes()).unwrap();
            prop_assert_eq!(again.lines.len(), trace.lines.len());
            for (a, b) in again.lines.iter().zip(&trace.lines) {
                prop_assert_eq!(a.what, b.what);
                prop_assert_eq!(&again.names[a.partition as usize], &trace.names[b.partition as usize]);
            }
            prop_assert_eq!(again.tick_us, 7);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = read(text.as_bytes());
            let _ = read(format!("{}{text}", head(1, "x")).as_bytes());
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let good = head(10_000_000, "a b");
        for (text, want) in [
            ("t,vol,off\n".to_owned(), "line 1: not a weft trace"),
            (format!("{MAGIC} tick_us=0\n"), "line 1: tick_us"),
            (format!("{MAGIC}\nother\n"), "line 2: the names"),
            (format!("{good}x,p,gone\n"), "line 3: end_us"),
            (format!("{good}1,p,jump\n"), "`jump`"),
            (format!("{good}1,p,tick,1,-1\n"), "writes is no count"),
            (format!("{good}2,p,gone\n1,p,gone\n"), "line 4: earlier"),
            (format!("{good}2,\"p,gone\n"), "line 3: a quote"),
            (format!("{good}{}", "x".repeat(70_000)), "line 3: longer"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            assert!(!error.contains('\n'));
        }
        assert_eq!(read(good.as_bytes()).unwrap().source, "a_b");
    }
}
