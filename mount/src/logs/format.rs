//! From the bytes of a log to statements. Each format is fed lines, and gives back what is whole.

use super::when;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft::lineage::ddl::Dialect;
use weft::types::Timestamp;

/// Bytes of one statement at most; the rest of a longer one is left out.
const STATEMENT_MAX: usize = 1 << 20;

/// How a log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// PostgreSQL, `log_destination = csvlog`.
    PgCsv,
    /// PostgreSQL 15 and later, `jsonlog`.
    PgJson,
    /// PostgreSQL, `stderr`, whatever `log_line_prefix`.
    PgStderr,
    /// MariaDB, `general_log`.
    #[serde(rename = "mariadb-general")]
    MariaGeneral,
    /// MariaDB, `slow_query_log`.
    #[serde(rename = "mariadb-slow")]
    MariaSlow,
}

impl Format {
    /// Whose statements are in it.
    pub fn dialect(self) -> Dialect {
        match self {
            Format::PgCsv | Format::PgJson | Format::PgStderr => Dialect::Postgres,
            Format::MariaGeneral | Format::MariaSlow => Dialect::Mariadb,
        }
    }
}

/// A statement, and the database that it was sent to and when, where the log says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    pub database: Option<String>,
    pub at: Option<Timestamp>,
    pub text: String,
}

/// What came of a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    pub statements: Vec<Statement>,
    /// Records that are none of this format.
    pub skipped: u64,
    /// Messages of PostgreSQL's for its log that tell of no statement, or not in English.
    pub other: u64,
}

/// Puts lines together to statements.
pub struct Parser {
    format: Format,
    /// A record that goes on, and whether it has an odd number of quotes so far.
    open: Vec<u8>,
    in_quotes: bool,
    /// That record is too long: of the rest of it only the quotes count, which tell where it ends.
    too_long: bool,
    /// Of MariaDB: the database of the connection whose statements follow.
    database: Option<String>,
    /// When the statement that is open was said, or the last one; of MariaDB's slow ones, when it ended.
    at: Option<Timestamp>,
    /// How long the one took that follows.
    took_us: i64,
    /// What abbreviations of zones are read by.
    here: TimeZone,
    statement: Option<String>,
    /// What is open began with the last line.
    fresh: bool,
}

/// Where the record begins that a parser has not seen the end of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// There is none: what comes next can be read without what was before.
    Nothing,
    /// With the last line.
    LastLine,
    /// With an earlier line.
    Earlier,
}

impl Parser {
    pub fn new(format: Format) -> Parser {
        Parser {
            format,
            open: Vec::new(),
            in_quotes: false,
            too_long: false,
            database: None,
            at: None,
            took_us: 0,
            here: TimeZone::system(),
            statement: None,
            fresh: false,
        }
    }

    /// Takes a line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Parsed {
        self.fresh = false;
        match self.format {
            Format::PgCsv => self.csv(line),
            Format::PgJson => self.json(line),
            Format::PgStderr => self.stderr(line),
            Format::MariaGeneral => self.general(line),
            Format::MariaSlow => self.slow(line),
        }
    }

    /// Takes the beginning of a line that is too long to be kept; how many more records are skipped by that.
    pub fn begin_long(&mut self, bytes: &[u8]) -> u64 {
        self.fresh = false;
        if self.format != Format::PgCsv {
            return 1;
        }
        self.begin_csv_line(bytes);
        self.count_quotes(bytes);
        self.open = Vec::new();
        u64::from(!std::mem::replace(&mut self.too_long, true))
    }

    /// Takes more of that line.
    pub fn more_of_long(&mut self, bytes: &[u8]) {
        if self.too_long {
            self.count_quotes(bytes);
        }
    }

    /// That line ends.
    pub fn end_long(&mut self) {
        self.too_long &= self.in_quotes;
    }

    /// Nothing more came for a while: what is open is whole.
    pub fn idle(&mut self) -> Parsed {
        Parsed { statements: self.close().into_iter().collect(), ..Parsed::default() }
    }

    /// What is not whole yet.
    pub fn open(&self) -> Open {
        match (self.statement.is_some() || !self.open.is_empty() || self.too_long, self.fresh) {
            (false, _) => Open::Nothing,
            (true, true) => Open::LastLine,
            (true, false) => Open::Earlier,
        }
    }

    fn begin(&mut self, statement: Option<String>) {
        self.fresh = statement.is_some();
        self.statement = statement;
    }

    fn close(&mut self) -> Option<Statement> {
        let text = self.statement.take()?;
        self.open.clear();
        Some(Statement { database: self.database.clone(), at: self.at, text })
    }

    fn extend(&mut self, more: &str) {
        if let Some(text) = &mut self.statement
            && text.len() + more.len() < STATEMENT_MAX
        {
            text.push('\n');
            text.push_str(more);
        }
    }

    /// A record of csvlog: it may have line ends in quotes (<https://www.postgresql.org/docs/current/runtime-config-logging.html>).
    fn csv(&mut self, line: &[u8]) -> Parsed {
        let mut parsed = Parsed::default();
        self.begin_csv_line(line);
        self.count_quotes(line);
        if self.too_long {
            self.end_long();
            return parsed;
        }
        if !self.fresh {
            self.open.push(b'\n');
        }
        self.open.extend_from_slice(line);
        if self.in_quotes {
            if self.open.len() >= STATEMENT_MAX {
                (self.open, self.too_long, parsed.skipped) = (Vec::new(), true, 1);
            }
            return parsed;
        }
        let record = std::mem::take(&mut self.open);
        let fields = csv_fields(&record);
        // log_time, user, database, pid, from, session, line, tag, start, vxid, xid, severity, state, message
        match (fields.get(11).map(String::as_str), fields.get(13)) {
            (Some("LOG"), Some(message)) => {
                let database = fields.get(2).filter(|name| !name.is_empty()).cloned();
                let at = fields.first().and_then(|time| when::postgres(time, &self.here));
                match logged(message) {
                    Some(text) => parsed.statements.push(Statement { database, at, text }),
                    None => parsed.other = 1,
                }
            }
            (Some(_), Some(_)) if fields.len() >= 22 => {}
            _ => parsed.skipped = 1,
        }
        parsed
    }

    /// A record that was torn has no end: after so much, a line that begins like a record is one.
    fn begin_csv_line(&mut self, line: &[u8]) {
        if self.too_long && begins_csv_record(line) {
            (self.too_long, self.in_quotes) = (false, false);
        }
        self.fresh = self.open.is_empty() && !self.too_long;
    }

    fn count_quotes(&mut self, bytes: &[u8]) {
        self.in_quotes ^= bytes.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
    }

    fn json(&self, line: &[u8]) -> Parsed {
        let mut parsed = Parsed::default();
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(record)) => {
                let text = |key: &str| record.get(key).and_then(Value::as_str);
                let is_logged = text("error_severity") == Some("LOG");
                match text("message").filter(|_| is_logged).map(logged) {
                    Some(Some(statement)) => {
                        let database = text("dbname").map(str::to_owned);
                        let at = text("timestamp").and_then(|time| when::postgres(time, &self.here));
                        parsed.statements.push(Statement { database, at, text: statement });
                    }
                    Some(None) => parsed.other = 1,
                    None => {}
                }
            }
            _ if line.is_empty() => {}
            _ => parsed.skipped = 1,
        }
        parsed
    }

    /// A line of stderr begins with any prefix, and goes on in lines that begin with a tab.
    fn stderr(&mut self, line: &[u8]) -> Parsed {
        let line = String::from_utf8_lossy(line);
        let mut parsed = Parsed::default();
        if let Some(more) = line.strip_prefix('\t') {
            self.extend(more);
            return parsed;
        }
        parsed.statements.extend(self.close());
        const LEVELS: [&str; 9] =
            ["LOG:", "ERROR:", "STATEMENT:", "WARNING:", "FATAL:", "PANIC:", "DETAIL:", "HINT:", "NOTICE:"];
        match line.split_once("LOG:  ") {
            Some((prefix, message)) => {
                // As `log_line_prefix` is by default.
                self.at = when::postgres(prefix, &self.here);
                let statement = logged(message);
                parsed.other = u64::from(statement.is_none());
                self.begin(statement);
            }
            None if LEVELS.iter().any(|level| line.contains(level)) || line.contains("CONTEXT:") => {}
            None if line.is_empty() => {}
            None => parsed.skipped = 1,
        }
        parsed
    }

    /// `[time] <tab> id command <tab> argument`; lines that are not so belong to the statement before.
    fn general(&mut self, line: &[u8]) -> Parsed {
        let line = String::from_utf8_lossy(line);
        let mut parsed = Parsed::default();
        match general_record(&line) {
            Some((time, command, argument)) => {
                parsed.statements.extend(self.close());
                // Told once a second.
                self.at = if time.is_empty() { self.at } else { when::mariadb(time) };
                match command {
                    "Query" | "Execute" => self.begin(Some(argument.to_owned())),
                    // Whose statements follow is told by number only: with several connections it is not known which.
                    "Init DB" => self.database = None,
                    _ => {}
                }
            }
            None if self.statement.is_some() => self.extend(&line),
            None if is_header(&line) => {}
            None => parsed.skipped = 1,
        }
        parsed
    }

    /// Blocks of `# ` lines, then `use db;`, `SET timestamp=...;`, and the statement to the next block.
    fn slow(&mut self, line: &[u8]) -> Parsed {
        let line = String::from_utf8_lossy(line);
        let mut parsed = Parsed::default();
        if let Some(rest) = line.strip_prefix("# ") {
            parsed.statements.extend(self.close());
            if let Some((_, schema)) = rest.split_once("Schema: ") {
                let schema = schema.split_whitespace().next().unwrap_or("");
                self.database = Some(schema.to_owned()).filter(|name| !name.is_empty() && name != "QC_hit:");
            }
            if let Some((_, secs)) = rest.split_once("Query_time: ") {
                let secs = secs.split_whitespace().next().and_then(|secs| secs.parse::<f64>().ok());
                self.took_us = (secs.unwrap_or(0.0) * 1e6) as i64;
            }
            if self.open.is_empty() {
                (self.open, self.fresh) = (b"block".to_vec(), true);
            }
        } else if let Some(database) = line.strip_prefix("use ").filter(|_| self.statement.is_none()) {
            self.database = Some(database.trim_end_matches(';').trim_matches('`').to_owned());
        } else if let Some(secs) = line.strip_prefix("SET timestamp=").filter(|_| self.statement.is_none()) {
            self.at = when::unix(secs).map(|at| Timestamp(at.0.saturating_add(self.took_us)));
        } else if line.starts_with("SET timestamp=") || is_header(&line) {
        } else if self.open.is_empty() {
            parsed.skipped = 1;
        } else if self.statement.is_some() {
            self.extend(&line);
        } else {
            self.statement = Some(line.into_owned());
        }
        parsed
    }
}

/// The statement in a message of PostgreSQL's: `statement: ...`, `execute <name>: ...`, also behind a duration.
fn logged(message: &str) -> Option<String> {
    let message = match message.strip_prefix("duration: ") {
        Some(rest) => rest.split_once("  ").map_or("", |(_, rest)| rest),
        None => message,
    };
    let text = message.strip_prefix("statement: ").or_else(|| {
        let rest = message.strip_prefix("execute ")?;
        rest.split_once(": ").map(|(_, text)| text)
    })?;
    Some(text.to_owned())
}

/// By its first field, the time in milliseconds with a zone.
fn begins_csv_record(line: &[u8]) -> bool {
    const TIME: &[u8] = b"0000-00-00 00:00:00.000 ";
    let fits = |(form, byte): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { form == byte };
    line.len() > TIME.len() && TIME.iter().zip(line).all(fits)
}

fn csv_fields(record: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(record);
    let mut fields = Vec::new();
    let (mut field, mut quoted) = (String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// The time, which may be empty, the command and argument of a line of the general log, if it begins a record.
fn general_record(line: &str) -> Option<(&str, &'static str, &str)> {
    const COMMANDS: [&str; 14] = [
        "Query",
        "Execute",
        "Init DB",
        "Connect",
        "Quit",
        "Prepare",
        "Close stmt",
        "Field List",
        "Statistics",
        "Ping",
        "Reset stmt",
        "Shutdown",
        "Change user",
        "Reset connection",
    ];
    // YYMMDD hh:mm:ss, or one ISO time, or tabs alone within the same second; then the number right-justified.
    let (time, rest) = match line.strip_prefix("\t\t") {
        Some(rest) => ("", rest),
        None => line.split_once('\t').filter(|(time, _)| is_time(time))?,
    };
    let rest = rest.trim_start_matches(' ');
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let command = rest.get(digits..).filter(|_| digits > 0)?.strip_prefix(' ')?;
    let found = COMMANDS.into_iter().find(|known| command.starts_with(known))?;
    let argument = command.get(found.len()..)?;
    Some((time, found, argument.strip_prefix('\t').unwrap_or(argument)))
}

fn is_time(text: &str) -> bool {
    text.len() >= 13
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_digit() || " :-TZ.+".contains(c))
}

/// What a server of MariaDB's writes at the head of a log.
fn is_header(line: &str) -> bool {
    line.is_empty()
        || line.contains("started with:")
        || line.starts_with("Tcp port:")
        || line.starts_with("Time\t")
        || line.starts_with("Time ")
}

#[cfg(test)]
mod tests;
