//! MariaDB's and MySQL's catalogue: tables and partitions, and the names of their files.

use super::{CONNECT, Called, Names, STATEMENT};
use crate::Outcome;
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};
use std::fmt::Write;

/// One line with what the server said.
fn told(doing: &str) -> impl Fn(mysql::Error) -> String + '_ {
    move |cause| match cause {
        mysql::Error::MySqlError(error) => format!("MariaDB, {doing}: {}", error.message),
        other => format!("MariaDB, {doing}: {other}"),
    }
}

const QUERY: &str = "
    SELECT p.TABLE_SCHEMA, p.TABLE_NAME, p.PARTITION_NAME, p.SUBPARTITION_NAME, p.PARTITION_METHOD,
           p.PARTITION_DESCRIPTION
      FROM information_schema.PARTITIONS p JOIN information_schema.TABLES t
        ON t.TABLE_SCHEMA = p.TABLE_SCHEMA AND t.TABLE_NAME = p.TABLE_NAME AND t.TABLE_TYPE = 'BASE TABLE'";

type Row = (String, String, Option<String>, Option<String>, Option<String>, Option<String>);

pub(super) fn names(url: &str) -> Outcome<Names> {
    let opts = Opts::from_url(url).map_err(|cause| {
        format!(
            "{url:?} is no URL of a server ({cause}): write it as \
             \"mysql://USER:PASSWORD@HOST/\", or \"mysql://USER@localhost/?socket=/run/mysqld/mysqld.sock\""
        )
    })?;
    let opts = OptsBuilder::from_opts(opts)
        .tcp_connect_timeout(Some(CONNECT))
        .read_timeout(Some(STATEMENT))
        .write_timeout(Some(STATEMENT));
    let mut conn = Conn::new(opts).map_err(told("connecting"))?;
    let rows: Vec<Row> = conn.query(QUERY).map_err(told("listing the tables"))?;
    let mut names = Names::default();
    for row in rows {
        put(&mut names, row);
    }
    Ok(names)
}

fn put(names: &mut Names, (schema, table, partition, sub, method, description): Row) {
    let path = format!("{}/{}", file_name(&schema), file_name(&table));
    let whole = format!("{schema}.{table}");
    let Some(partition) = partition else {
        names.put(&path, Called { name: whole, parent: None, bound: None });
        return;
    };
    let bound = description.map(|text| match method.as_deref() {
        Some(method) if method.starts_with("RANGE") => format!("VALUES LESS THAN ({text})"),
        Some(method) if method.starts_with("LIST") => format!("VALUES IN ({text})"),
        _ => text,
    });
    let (mut name, mut ending) = (format!("{whole} {partition}"), [file_name(&partition), String::new()]);
    if let Some(sub) = sub {
        let _ = write!(name, " {sub}");
        ending[1] = file_name(&sub);
    }
    // MariaDB's letters, and MySQL 8's.
    for (mark, sub_mark) in [("#P#", "#SP#"), ("#p#", "#sp#")] {
        let [partition, sub] = &ending;
        let tail = if sub.is_empty() { String::new() } else { format!("{sub_mark}{sub}") };
        let called = Called { name: name.clone(), parent: Some(whole.clone()), bound: bound.clone() };
        names.put(&format!("{path}{mark}{partition}{tail}"), called);
    }
}

/// How a name is spelt as a file: letters, digits and `_` as they are, others as `@` and four digits
/// (`strings/ctype-utf8.c`, `my_wc_mb_filename`). Some accented letters have shorter codes: their tables stay nameless here.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            file.push(c);
        } else {
            let _ = write!(file, "@{:04x}", c as u32);
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_as_files() {
        assert_eq!(file_name("orders_1"), "orders_1");
        assert_eq!(file_name("my-table #2"), "my@002dtable@0020@00232");
    }

    #[test]
    fn partitions_have_their_table_and_bound() {
        let mut names = Names::default();
        let text = |text: &str| Some(text.to_owned());
        put(&mut names, ("shop".into(), "t".into(), None, None, None, None));
        put(&mut names, ("shop".into(), "o".into(), text("p0"), None, text("RANGE COLUMNS"), text("'2026'")));
        put(&mut names, ("shop".into(), "s".into(), text("p0"), text("x"), text("HASH"), None));
        assert_eq!(names.of("shop/t").unwrap().name, "shop.t");
        let called = names.of("shop/o#P#p0").unwrap();
        assert_eq!(
            (called.name.as_str(), called.bound.as_deref()),
            ("shop.o p0", Some("VALUES LESS THAN ('2026')"))
        );
        assert_eq!(called.parent.as_deref(), Some("shop.o"));
        assert_eq!(names.of("shop/s#p#p0#sp#x").unwrap().name, "shop.s p0 x");
    }
}
